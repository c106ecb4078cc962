//! What stops trading by everything that was accepted, also while that is not durable yet.
//!
//! Gates look at what is durable. Between their look and their record somebody may stop trading: their record would
//! come behind the stop and allow what was stopped, and an order could follow an answered stop.

use std::collections::BTreeMap;

use orchestrator_kernel::mutant;
use orchestrator_kernel::trading::agent::AgentStatus;
use orchestrator_kernel::trading::ids::StrategyName;
use orchestrator_kernel::trading::journal::{JournalFact, JournalIndex};
use orchestrator_kernel::trading::strategy::{StrategyChanged, StrategyStatus};

/// State of whatever stops trading by a record, by the records that were accepted.
#[derive(Clone, Debug)]
pub(super) struct AcceptedStops {
    /// Why trading is latched as stopped, if it is.
    latched: Option<String>,
    agent: AgentStatus,
    /// An audit failed and the agent has not gone to `error` for it.
    owes_audit: bool,
    strategies: BTreeMap<StrategyName, StrategyStatus>,
}

impl AcceptedStops {
    /// The stops that durable records add up to.
    pub(super) fn of_index(index: &JournalIndex) -> Self {
        let strategies = index.strategies().iter();
        Self {
            latched: index.latched().map(str::to_owned),
            agent: index.agent().status,
            owes_audit: index.audit_debt().is_some(),
            strategies: strategies.map(|(name, known)| (name.clone(), known.status)).collect(),
        }
    }

    /// Whether trading is latched as stopped.
    pub(super) const fn is_latched(&self) -> bool {
        self.latched.is_some()
    }

    /// Takes a record that was accepted.
    pub(super) fn take_fact(&mut self, fact: &JournalFact) {
        match fact {
            JournalFact::KillLatched(latch) => self.latched = latch.latched.then(|| latch.reason.clone()),
            JournalFact::AgentChanged(changed) => {
                self.agent = changed.state.status;
                self.owes_audit &= self.agent != AgentStatus::Error;
            }
            JournalFact::CycleEnded(ended) => {
                self.owes_audit |= ended.audit_failed && self.agent != AgentStatus::Error;
            }
            JournalFact::StrategyChanged(changed) => match changed {
                StrategyChanged::Defined { definition, status } => {
                    self.strategies.insert(definition.name.clone(), *status);
                }
                StrategyChanged::Moved { name, to, .. } => drop(self.strategies.insert(name.clone(), *to)),
                StrategyChanged::Removed { name } => drop(self.strategies.remove(name)),
            },
            JournalFact::CommandReceived(_)
            | JournalFact::CommandEnded(_)
            | JournalFact::ScheduleFired(_)
            | JournalFact::ScheduleSkipped(_)
            | JournalFact::CycleStarted(_)
            | JournalFact::GateDecided(_)
            | JournalFact::StageEnded(_)
            | JournalFact::OrderIntended(_)
            | JournalFact::AlertRaised(_)
            | JournalFact::AlertCleared(_)
            | JournalFact::ConfigurationSnapshot(_) => {}
        }
    }

    /// What has stopped trading since these gates looked, if the record is of gates that allow: they saw it run.
    pub(super) fn find_flip(&self, fact: &JournalFact) -> Option<String> {
        let JournalFact::GateDecided(decided) = fact else { return None };
        let readings = decided.readings.as_ref().filter(|_| decided.first_denial().is_none())?;
        if mutant!(FlipNotSeen) {
            return None;
        }
        if let Some(why) = self.latched.as_ref().filter(|_| readings.kill.permits_effect()) {
            return Some(format!("latched: {why}"));
        }
        if readings.agent.status == AgentStatus::Running {
            if self.owes_audit {
                return Some("an audit has failed".to_owned());
            }
            if self.agent != AgentStatus::Running {
                return Some(format!("the agent is {}", self.agent.as_str()));
            }
        }
        let seen_active = readings.strategies.iter().filter(|(_, seen)| *seen == StrategyStatus::Active);
        let mut stopped =
            seen_active.filter(|(name, _)| self.strategy_status(name) != StrategyStatus::Active);
        stopped.next().map(|(name, _)| format!("strategy {name} is {}", self.strategy_status(name).as_str()))
    }

    fn strategy_status(&self, name: &StrategyName) -> StrategyStatus {
        self.strategies.get(name).copied().unwrap_or(StrategyStatus::Stopped)
    }
}
