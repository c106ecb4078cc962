//! What stops trading by everything that was accepted, also while that is not durable yet.
//!
//! Gates look at what is durable. Between their look and their record, and between that and the order which they
//! permit, somebody may stop trading: the record would come behind the stop, and an order follow an answered stop.

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

    /// What has stopped trading since this was decided: gates that saw it run and allow, or an order that such gates
    /// permitted.
    pub(super) fn find_flip(&self, fact: &JournalFact) -> Option<String> {
        if mutant!(FlipNotSeen) {
            return None;
        }
        match fact {
            JournalFact::GateDecided(decided) => {
                let readings = decided.readings.as_ref().filter(|_| decided.first_denial().is_none())?;
                let mut seen = readings.strategies.iter().filter(|(_, seen)| *seen == StrategyStatus::Active);
                self.latch_reason()
                    .filter(|_| readings.kill.permits_effect())
                    .or_else(|| self.agent_reason().filter(|_| readings.agent.status == AgentStatus::Running))
                    .or_else(|| seen.find_map(|(name, _)| self.strategy_reason(name)))
            }
            JournalFact::OrderIntended(intent) => self
                .latch_reason()
                .or_else(|| self.agent_reason())
                .or_else(|| self.strategy_reason(&intent.strategy)),
            _ => None,
        }
    }

    fn latch_reason(&self) -> Option<String> {
        self.latched.as_ref().map(|why| format!("latched: {why}"))
    }

    fn agent_reason(&self) -> Option<String> {
        if self.owes_audit {
            return Some("an audit has failed".to_owned());
        }
        (self.agent != AgentStatus::Running).then(|| format!("the agent is {}", self.agent.as_str()))
    }

    fn strategy_reason(&self, name: &StrategyName) -> Option<String> {
        let status = self.strategy_status(name);
        (status != StrategyStatus::Active).then(|| format!("strategy {name} is {}", status.as_str()))
    }

    fn strategy_status(&self, name: &StrategyName) -> StrategyStatus {
        self.strategies.get(name).copied().unwrap_or(StrategyStatus::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ids::Symbol;
    use orchestrator_kernel::trading::agent::{AgentCause, AgentChanged, AgentCommand, AgentState};
    use orchestrator_kernel::trading::ids::{CommandId, CycleId, DecisionId, IntentId};
    use orchestrator_kernel::trading::journal::{IntentEnd, IntentSide, KillLatched, OrderIntended};
    use orchestrator_kernel::trading::strategy::StrategyCommand;
    use rust_decimal::Decimal;

    use super::*;

    fn strategy() -> StrategyName {
        StrategyName::new("a").unwrap()
    }

    /// An order whose gates have allowed it.
    fn permitted_order() -> JournalFact {
        let cycle_id = CycleId::of_command(CommandId::derive("run"));
        let decision_id = DecisionId::new("d-a").unwrap();
        JournalFact::OrderIntended(Box::new(OrderIntended {
            intent_id: IntentId::derive(cycle_id, &decision_id),
            cycle_id,
            decision_id,
            strategy: strategy(),
            symbol: Symbol::from("AAPL"),
            side: IntentSide::Buy,
            quantity: Decimal::ONE,
            price: Decimal::ONE_HUNDRED,
            end: IntentEnd::DryRun,
        }))
    }

    fn agent_stops() -> JournalFact {
        let command = AgentCommand::Stop { reason: None, cancel_open_orders: false };
        JournalFact::AgentChanged(AgentChanged {
            from: AgentStatus::Running,
            cause: AgentCause::Command(command),
            state: AgentState::default(),
        })
    }

    fn strategy_pauses() -> JournalFact {
        JournalFact::StrategyChanged(StrategyChanged::Moved {
            name: strategy(),
            from: StrategyStatus::Active,
            to: StrategyStatus::Paused,
            command: StrategyCommand::Pause,
        })
    }

    /// AGT-1. Found by seed 10860 of the simulation.
    #[test]
    fn an_order_does_not_follow_a_stop_that_came_behind_its_permit() {
        let running = AcceptedStops {
            latched: None,
            agent: AgentStatus::Running,
            owes_audit: false,
            strategies: BTreeMap::from([(strategy(), StrategyStatus::Active)]),
        };
        assert_eq!(running.find_flip(&permitted_order()), None);
        let latch = KillLatched { latched: true, reason: "as told".to_owned() };
        for (stop, why) in [
            (agent_stops(), "the agent is stopped"),
            (strategy_pauses(), "strategy a is paused"),
            (JournalFact::KillLatched(latch), "latched: as told"),
        ] {
            let mut stopped = running.clone();
            stopped.take_fact(&stop);
            assert_eq!(stopped.find_flip(&permitted_order()).as_deref(), Some(why));
        }
    }
}
