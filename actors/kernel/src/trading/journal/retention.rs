//! How much of the journal may go: what nobody needs, and no part of what has begun and not ended.
//!
//! ```text
//!   base            what may go            work that is open at T        T        kept by the limits, or needed
//!  ──────┤ 1st record of each cycle ────────┤ first of it ──────────────┤────────────────────────────── tail
//!         └── the base moves here ─────────▶│
//! ```
//!
//! The base is what the records up to it add up to: the head of the chain and the state of the rules (the audit), and
//! the state of the plane (the index). It is durable before anything is trimmed, so a trimmed journal is continued and
//! audited from it. A cycle, a fire or a command that is open where the base would come to stand holds its first record
//! and all behind it: what somebody still waits for can be read from its beginning.

use std::collections::BTreeMap;

use super::{CycleCause, JournalEntry, JournalFact};
use crate::ids::TsMs;
use crate::trading::ids::{CommandId, CycleId, JournalSeq, ScheduleName};

/// Limits of one look at the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// Records before this moment may go.
    pub older_than: Option<TsMs>,
    /// Records below this one may go, however young they are.
    pub below: JournalSeq,
    /// Nothing from here on may go: a reader has not taken it in, or it is the last record.
    pub needed_from: JournalSeq,
}

/// Work that holds records which the limits would let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalBlocker {
    /// A cycle, or a fire whose cycle has not begun.
    Cycle(CycleId),
    /// A command without a result.
    Command(CommandId),
}

/// A search for the next base: it is shown the records behind the present one, in order.
#[derive(Clone, Debug)]
pub struct JournalTrimSearch {
    limits: JournalLimits,
    tail: JournalSeq,
    /// First record of each cycle that is open, from its fire or its command on.
    cycles: BTreeMap<CycleId, JournalSeq>,
    /// Fires whose cycle has not begun.
    fires: BTreeMap<(ScheduleName, u64), CycleId>,
    commands: BTreeMap<CommandId, JournalSeq>,
}

impl JournalTrimSearch {
    /// A search from the base at `base` on.
    #[must_use]
    pub const fn new(base: JournalSeq, limits: JournalLimits) -> Self {
        Self {
            limits,
            tail: base,
            cycles: BTreeMap::new(),
            fires: BTreeMap::new(),
            commands: BTreeMap::new(),
        }
    }

    /// Takes the next record, unless it has to stay: then the search is over.
    pub fn take_entry(&mut self, seq: JournalSeq, entry: &JournalEntry) -> bool {
        let JournalLimits { older_than, below, needed_from } = self.limits;
        let is_beyond_limits = seq < below || older_than.is_some_and(|time| entry.at_ms < time);
        if needed_from <= seq || !is_beyond_limits {
            return false;
        }
        self.tail = seq;
        self.note_fact(seq, &entry.fact);
        true
    }

    fn note_fact(&mut self, seq: JournalSeq, fact: &JournalFact) {
        match fact {
            JournalFact::ScheduleFired(fired) => {
                self.cycles.entry(fired.cycle_id).or_insert(seq);
                self.fires.insert((fired.schedule.clone(), fired.fire), fired.cycle_id);
            }
            JournalFact::ScheduleSkipped(skipped) => {
                if let Some(cycle) = self.fires.remove(&(skipped.schedule.clone(), skipped.first_fire)) {
                    self.cycles.remove(&cycle);
                }
            }
            JournalFact::CycleStarted(started) => {
                let first = match &started.cause {
                    CycleCause::Fire { schedule, fire } => {
                        self.fires.remove(&(schedule.clone(), *fire));
                        seq
                    }
                    CycleCause::Command(command) => self.commands.get(command).copied().unwrap_or(seq),
                };
                self.cycles.entry(started.cycle_id).or_insert(first);
            }
            JournalFact::CycleEnded(ended) => {
                self.cycles.remove(&ended.cycle_id);
            }
            JournalFact::CommandReceived(received) => {
                self.commands.entry(received.command_id).or_insert(seq);
            }
            JournalFact::CommandEnded(ended) => {
                self.commands.remove(&ended.command_id);
            }
            JournalFact::GateDecided(_)
            | JournalFact::StageEnded(_)
            | JournalFact::OrderIntended(_)
            | JournalFact::AgentChanged(_)
            | JournalFact::StrategyChanged(_)
            | JournalFact::AlertRaised(_)
            | JournalFact::AlertCleared(_)
            | JournalFact::ConfigurationSnapshot(_)
            | JournalFact::KillLatched(_) => {}
        }
    }

    /// The last record that was taken.
    #[must_use]
    pub const fn tail(&self) -> JournalSeq {
        self.tail
    }

    /// Up to where the base may come, by the records so far.
    #[must_use]
    pub fn base_at(&self) -> JournalSeq {
        self.first_open().map_or(self.tail, |(first, _)| JournalSeq(first.0.saturating_sub(1)))
    }

    /// What keeps the base from standing at the last record that was taken, and its first record.
    #[must_use]
    pub fn first_open(&self) -> Option<(JournalSeq, JournalBlocker)> {
        let cycles = self.cycles.iter().map(|(id, first)| (*first, JournalBlocker::Cycle(*id)));
        let commands = self.commands.iter().map(|(id, first)| (*first, JournalBlocker::Command(*id)));
        cycles.chain(commands).min_by_key(|(first, _)| *first)
    }
}
