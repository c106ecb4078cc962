//! The audit of one schedule's fires: each is a cycle or a skip (CYC-2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{JournalRule, require_rule};
use crate::ids::{RunSeq, TsMs};
use crate::trading::ids::CycleId;
use crate::trading::journal::{FireDisposition, FireTrigger, ScheduleFired, ScheduleSkipped};
use crate::trading::schedule::FireRange;

/// A fire without a cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct OpenFire {
    cycle_id: CycleId,
    waits: bool,
}

/// The account of a schedule's fires.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FireAccount {
    /// Number of the last fire.
    last: u64,
    /// What it was planned for, among those that are planned.
    last_planned: Option<TsMs>,
    /// The last output that fired.
    last_output: Option<RunSeq>,
    /// Fires without a cycle: one that is about to begin, or one that waits.
    open: BTreeMap<u64, OpenFire>,
}

impl FireAccount {
    /// Numbers of fires without a cycle.
    pub(super) fn open_fires(&self) -> impl Iterator<Item = u64> {
        self.open.keys().copied()
    }

    pub(super) fn take_fired(&mut self, fired: &ScheduleFired) -> Result<(), (JournalRule, String)> {
        self.check_accounted(true)?;
        let planned = FireRange { first: fired.planned_ts_ms, last: fired.planned_ts_ms, count: 1 };
        self.advance_fires(fired.fire, planned, &fired.trigger)?;
        let waits = fired.disposition == FireDisposition::Queue;
        self.open.insert(fired.fire, OpenFire { cycle_id: fired.cycle_id, waits });
        Ok(())
    }

    pub(super) fn take_skipped(&mut self, skipped: &ScheduleSkipped) -> Result<(), (JournalRule, String)> {
        if skipped.fires == 1 && self.open.remove(&skipped.first_fire).is_some() {
            return Ok(());
        }
        self.check_accounted(false)?;
        let planned = FireRange {
            first: skipped.first_planned_ts_ms,
            last: skipped.last_planned_ts_ms,
            count: skipped.fires,
        };
        self.advance_fires(skipped.first_fire, planned, &skipped.trigger)
    }

    /// Whether this fire is open and has this cycle; it is not open any more.
    pub(super) fn starts_cycle(
        &mut self,
        fire: u64,
        cycle_id: CycleId,
    ) -> Result<bool, (JournalRule, String)> {
        if let Some(older) = self.open.keys().find(|older| **older < fire) {
            return Err((
                JournalRule::FireUnaccounted,
                format!("fire {older} is neither a cycle nor a skip"),
            ));
        }
        Ok(self.open.remove(&fire).is_some_and(|open| open.cycle_id == cycle_id))
    }

    /// A new fire comes behind one that waits only to be skipped, and never behind one that is about to begin.
    fn check_accounted(&self, leads_to_cycle: bool) -> Result<(), (JournalRule, String)> {
        let lost = self.open.iter().find(|(_, open)| leads_to_cycle || !open.waits);
        require_rule(lost.is_none(), JournalRule::FireUnaccounted, || {
            let fire = lost.map_or(0, |(fire, _)| *fire);
            format!("fire {fire} is neither a cycle nor a skip")
        })
    }

    fn advance_fires(
        &mut self,
        first: u64,
        planned: FireRange,
        trigger: &FireTrigger,
    ) -> Result<(), (JournalRule, String)> {
        let next = self.last.saturating_add(1);
        require_rule(next <= first, JournalRule::FiredTwice, || {
            format!("fire {first} comes after fire {}", self.last)
        })?;
        require_rule(first == next && 1 <= planned.count, JournalRule::FireLost, || {
            format!("fire {first} comes, {next} is due")
        })?;
        if trigger.is_planned() {
            let is_later =
                self.last_planned.is_none_or(|last| last < planned.first) && planned.first <= planned.last;
            require_rule(is_later, JournalRule::FiredTwice, || {
                format!(
                    "fire {first} is planned for {}, the last one for {:?}",
                    planned.first, self.last_planned
                )
            })?;
            self.last_planned = Some(planned.last);
        }
        if let FireTrigger::Output { run_seq } = trigger {
            let is_later = self.last_output.is_none_or(|last| last < *run_seq);
            require_rule(is_later, JournalRule::FiredTwice, || format!("output {run_seq} has fired before"))?;
            self.last_output = Some(*run_seq);
        }
        self.last = self.last.saturating_add(planned.count);
        Ok(())
    }
}
