//! The audit of the journal: it reads record by record and names the first one that breaks a rule.
//!
//! It is written apart from the state machines whose records it reads, so that a defect of theirs is not also its own.
//! What it keeps is bounded: cycles that are open, fires that wait, the last ended cycles and commands by their ids.
//! Its state at a position is what a trimmed journal continues from ([`JournalAudit::encode_to`]).

mod cycles;
mod fires;
mod limits;
mod rule;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::chain::{ChainBreak, ChainHash, SealedEntry};
use super::recent_ids::RecentIds;
use super::{
    COMMANDS_REMEMBERED_MAX, CommandEnded, CommandReceived, ConfigHash, CycleCause, CycleStarted,
    JournalEntry, JournalFact,
};
use crate::engine::contracts::{self, DecodeError};
use crate::trading::agent::{AgentCause, AgentChanged, AgentCommand, AgentStatus};
use crate::trading::ids::{CommandId, CycleId, JournalSeq, ScheduleName, StrategyName};
use crate::trading::strategy::{StrategyChanged, move_strategy};

use cycles::{AuditedCycle, CycleSurroundings};
use fires::FireAccount;
use limits::{AuditedStrategy, RecordedLimits};
pub use rule::{BrokenRule, JournalRule};

const VERSION: u8 = 1;

/// An audit in progress, and the base that a trimmed journal continues from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalAudit {
    tail: JournalSeq,
    head: ChainHash,
    agent: AgentStatus,
    strategies: BTreeMap<StrategyName, AuditedStrategy>,
    schedules: BTreeMap<ScheduleName, FireAccount>,
    /// Commands without a result, with whether a cycle began for them.
    commands: BTreeMap<CommandId, bool>,
    /// Exactly those whose answers are remembered: a key that is used again later is a new command to both.
    ended_commands: RecentIds<CommandId, COMMANDS_REMEMBERED_MAX>,
    cycles: BTreeMap<CycleId, AuditedCycle>,
    ended_cycles: RecentIds<CycleId>,
    alerts: BTreeSet<String>,
    config: Option<ConfigHash>,
    /// Nothing while no configuration on record says them.
    limits: Option<RecordedLimits>,
    latched: bool,
}

/// Work that has begun and not ended at the end of the records: a running service or a crash leaves it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JournalUnfinished {
    /// Cycles that have not ended.
    pub cycles: Vec<CycleId>,
    /// Fires without a cycle, by schedule and number.
    pub fires: Vec<(ScheduleName, u64)>,
    /// Commands without a result.
    pub commands: Vec<CommandId>,
}

impl Default for JournalAudit {
    fn default() -> Self {
        Self {
            tail: JournalSeq(0),
            head: ChainHash::START,
            agent: AgentStatus::Stopped,
            strategies: BTreeMap::new(),
            schedules: BTreeMap::new(),
            commands: BTreeMap::new(),
            ended_commands: RecentIds::new(),
            cycles: BTreeMap::new(),
            ended_cycles: RecentIds::new(),
            alerts: BTreeSet::new(),
            config: None,
            limits: None,
            latched: false,
        }
    }
}

impl JournalAudit {
    /// The last record seen.
    #[must_use]
    pub const fn tail(&self) -> JournalSeq {
        self.tail
    }

    /// The hash that the next record continues.
    #[must_use]
    pub const fn head_hash(&self) -> ChainHash {
        self.head
    }

    /// Appends the stored form, the base of a journal that is trimmed up to here, to `out`.
    pub fn encode_to(&self, out: &mut Vec<u8>) {
        contracts::encode_to(VERSION, self, out);
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: another version, or bytes that are no base.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        contracts::decode_versioned(VERSION, bytes)
    }

    /// Takes the next stored record, which the log counts as `seq`.
    ///
    /// # Errors
    ///
    /// [`BrokenRule`]: the first rule that it breaks. It is not taken in, so that another record may have its place;
    /// but of what follows nothing is said any more that can be relied upon.
    pub fn take_record(&mut self, seq: JournalSeq, bytes: &[u8]) -> Result<JournalEntry, BrokenRule> {
        let broken = |rule, detail: String| BrokenRule { seq, rule, detail };
        if seq != self.tail.next() {
            return Err(broken(JournalRule::Numbering, format!("record {} is missing", self.tail.next())));
        }
        let sealed = SealedEntry::decode_after(self.head, bytes).map_err(|error| match &error {
            ChainBreak::Hash { .. } => broken(JournalRule::Chain, error.to_string()),
            ChainBreak::Undecodable(_) => broken(JournalRule::Decodable, error.to_string()),
        })?;
        self.check_fact(&sealed.entry.fact).map_err(|(rule, detail)| broken(rule, detail))?;
        self.tail = seq;
        self.head = sealed.hash;
        Ok(sealed.entry)
    }

    /// What has begun and not ended.
    #[must_use]
    pub fn unfinished_work(&self) -> JournalUnfinished {
        let fires = self.schedules.iter();
        JournalUnfinished {
            cycles: self.cycles.keys().copied().collect(),
            fires: fires
                .flat_map(|(name, account)| account.open_fires().map(|fire| (name.clone(), fire)))
                .collect(),
            commands: self.commands.keys().copied().collect(),
        }
    }

    fn check_fact(&mut self, fact: &JournalFact) -> Result<(), (JournalRule, String)> {
        match fact {
            JournalFact::CommandReceived(received) => self.command_received(received),
            JournalFact::CommandEnded(ended) => self.command_ended(ended),
            JournalFact::AgentChanged(changed) => self.agent_changed(changed),
            JournalFact::StrategyChanged(changed) => self.strategy_changed(changed),
            JournalFact::ScheduleFired(fired) => {
                let is_known = self.ended_cycles.contains(&fired.cycle_id);
                require_rule(
                    !is_known && !self.cycles.contains_key(&fired.cycle_id),
                    JournalRule::FiredTwice,
                    || format!("cycle {} has begun before", fired.cycle_id),
                )?;
                self.schedules.entry(fired.schedule.clone()).or_default().take_fired(fired)
            }
            JournalFact::ScheduleSkipped(skipped) => {
                self.schedules.entry(skipped.schedule.clone()).or_default().take_skipped(skipped)
            }
            JournalFact::CycleStarted(started) => self.cycle_started(started),
            JournalFact::GateDecided(_)
            | JournalFact::StageEnded(_)
            | JournalFact::OrderIntended(_)
            | JournalFact::CycleEnded(_) => self.cycle_fact(fact),
            JournalFact::AlertRaised(raised) => {
                let is_new = self.alerts.insert(raised.alert.clone());
                require_rule(is_new, JournalRule::AlertOrder, || format!("{} is raised twice", raised.alert))
            }
            JournalFact::AlertCleared(cleared) => {
                let was_raised = self.alerts.remove(&cleared.alert);
                require_rule(was_raised, JournalRule::AlertOrder, || {
                    format!("{} was not raised", cleared.alert)
                })
            }
            JournalFact::ConfigurationSnapshot(snapshot) => {
                self.config = Some(snapshot.config_hash());
                self.limits = RecordedLimits::of_settings(&snapshot.settings);
                Ok(())
            }
            JournalFact::KillLatched(latch) => {
                self.latched = latch.latched;
                Ok(())
            }
        }
    }

    fn command_received(&mut self, received: &CommandReceived) -> Result<(), (JournalRule, String)> {
        let id = received.command_id;
        let is_new = !self.ended_commands.contains(&id) && self.commands.insert(id, false).is_none();
        require_rule(is_new, JournalRule::CommandOrder, || format!("command {id} is received twice"))
    }

    fn command_ended(&mut self, ended: &CommandEnded) -> Result<(), (JournalRule, String)> {
        let id = ended.command_id;
        let was_open = self.commands.remove(&id).is_some();
        self.ended_commands.push_id(id);
        require_rule(was_open, JournalRule::CommandOrder, || format!("command {id} was not open"))
    }

    fn agent_changed(&mut self, changed: &AgentChanged) -> Result<(), (JournalRule, String)> {
        let (from, to) = (changed.from, changed.state.status);
        let follows = from == self.agent && is_agent_move(from, to, &changed.cause);
        self.agent = to;
        require_rule(follows, JournalRule::AgentOrder, || {
            format!("{} to {} by {:?}", from.as_str(), to.as_str(), changed.cause)
        })
    }

    fn strategy_changed(&mut self, changed: &StrategyChanged) -> Result<(), (JournalRule, String)> {
        match changed {
            StrategyChanged::Defined { definition, status } => {
                let symbols = definition.symbols.iter().cloned().collect();
                let defined = AuditedStrategy { status: *status, symbols };
                let known = self.strategies.insert(definition.name.clone(), defined);
                let stays = known.is_none_or(|known| known.status == *status);
                require_rule(stays, JournalRule::StrategyOrder, || {
                    format!("{} is defined anew with another status", definition.name)
                })
            }
            StrategyChanged::Moved { name, from, to, command } => {
                let known =
                    self.strategies.get_mut(name).map(|known| std::mem::replace(&mut known.status, *to));
                let follows = known == Some(*from) && move_strategy(*from, *command) == Ok(*to);
                require_rule(follows, JournalRule::StrategyOrder, || {
                    format!("{name}: {} to {}", from.as_str(), to.as_str())
                })
            }
            StrategyChanged::Removed { name } => {
                let was_known = self.strategies.remove(name).is_some();
                require_rule(was_known, JournalRule::StrategyOrder, || format!("{name} does not exist"))
            }
        }
    }

    fn cycle_started(&mut self, started: &CycleStarted) -> Result<(), (JournalRule, String)> {
        let id = started.cycle_id;
        let is_new = !self.cycles.contains_key(&id) && !self.ended_cycles.contains(&id);
        require_rule(is_new, JournalRule::CycleTwice, || format!("cycle {id} has started before"))?;
        let has_cause = match &started.cause {
            CycleCause::Fire { schedule, fire } => {
                let account = self.schedules.entry(schedule.clone()).or_default();
                account.starts_cycle(*fire, id)?
            }
            CycleCause::Command(command) => {
                let used = self.commands.get_mut(command);
                used.is_some_and(|used| !std::mem::replace(used, true)) && id == CycleId::of_command(*command)
            }
        };
        require_rule(has_cause, JournalRule::CycleWithoutCause, || {
            format!("cycle {id} has no open fire or command")
        })?;
        let is_current = self.config == Some(started.config);
        require_rule(is_current, JournalRule::Configuration, || {
            format!("cycle {id} does not work with the configuration on record")
        })?;
        self.cycles.insert(id, AuditedCycle::new(started));
        Ok(())
    }

    fn cycle_fact(&mut self, fact: &JournalFact) -> Result<(), (JournalRule, String)> {
        let Some(id) = fact.cycle_id() else { return Ok(()) };
        let Some(cycle) = self.cycles.get_mut(&id) else {
            return Err(match (fact, self.ended_cycles.contains(&id)) {
                (JournalFact::CycleEnded(_), true) => {
                    (JournalRule::CycleEndsTwice, format!("cycle {id} has ended before"))
                }
                (_, true) => {
                    (JournalRule::RecordAfterEnd, format!("cycle {id} has ended: {}", fact.kind_word()))
                }
                (_, false) => {
                    (JournalRule::CycleUnknown, format!("cycle {id} has not started: {}", fact.kind_word()))
                }
            });
        };
        let around = CycleSurroundings {
            latched: self.latched,
            limits: self.limits.as_ref(),
            strategies: &self.strategies,
        };
        if cycle.take_record(fact, around)? {
            self.cycles.remove(&id);
            self.ended_cycles.push_id(id);
        }
        Ok(())
    }
}

fn require_rule(
    holds: bool,
    rule: JournalRule,
    detail: impl FnOnce() -> String,
) -> Result<(), (JournalRule, String)> {
    if holds { Ok(()) } else { Err((rule, detail())) }
}

/// The moves of an agent, written down apart from what makes them.
fn is_agent_move(from: AgentStatus, to: AgentStatus, cause: &AgentCause) -> bool {
    use AgentStatus::{Error, Paused, Running, Stopped};
    match cause {
        AgentCause::Command(AgentCommand::Start { .. }) => matches!((from, to), (Stopped | Error, Running)),
        AgentCause::Command(AgentCommand::Stop { .. }) => {
            matches!((from, to), (Running | Paused | Error, Stopped))
        }
        AgentCause::Command(AgentCommand::Pause { .. }) | AgentCause::ErrorOccurred(_) => {
            matches!((from, to), (Running, Paused))
        }
        AgentCause::Command(AgentCommand::Resume) | AgentCause::PauseEnded => {
            matches!((from, to), (Paused, Running))
        }
        AgentCause::AuditFailed(_) => from != Error && to == Error,
    }
}

#[cfg(test)]
mod tests;
