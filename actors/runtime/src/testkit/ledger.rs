//! An observer that counts, and checks the conservation laws that the metrics promise.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use orchestrator_kernel::ports::observer::{Observation, Observer, TickSkipReason};

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field counts the observation of its name")]
pub struct Counts {
    pub received: u64,
    pub refused: u64,
    pub appended: u64,
    pub duplicate: u64,
    pub quarantined: u64,
    pub append_failed: u64,
    /// Records that retention let go.
    pub trimmed: u64,
    /// Checks of the retention that failed.
    pub retention_failed: u64,
    pub ticks: u64,
    pub runs_planned: u64,
    pub skipped: BTreeMap<TickSkipReason, u64>,
    pub started: u64,
    pub completed: u64,
    pub failed: u64,
    pub outputs_made: u64,
    pub published: u64,
    pub outputs_skipped: u64,
    pub outputs_held: u64,
    pub backlog: u64,
    pub exits: BTreeMap<(String, &'static str), u64>,
    pub halted: Vec<String>,
    pub kill_switch_entered: Vec<&'static str>,
    /// Saved values that were damaged.
    pub checkpoints_damaged: Vec<&'static str>,
    pub effects_refused: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// Exits of an actor with this verdict.
    #[must_use]
    pub fn exits_of(&self, actor: &str, verdict: &'static str) -> u64 {
        self.exits.get(&(actor.to_owned(), verdict)).copied().unwrap_or(0)
    }
}

/// What an earlier process left behind in the logs when this one started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Baseline {
    /// Runs without a terminal record.
    pub open_runs: u64,
    /// Outputs behind the saved cursor.
    pub backlog: u64,
}

/// The observer of one process.
#[derive(Debug, Default)]
pub struct Ledger {
    counts: Mutex<Counts>,
    panic_at_ticks: Mutex<u64>,
    panic_at_flushes: Mutex<u64>,
}

impl Ledger {
    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets the scheduler panic at its next ticks: after the cuts were taken, before they are handed over.
    pub fn panic_at_ticks(&self, count: u64) {
        *self.panic_at_ticks.lock().unwrap_or_else(PoisonError::into_inner) = count;
    }

    /// Lets the buffer panic when its next batches have landed.
    pub fn panic_at_flushes(&self, count: u64) {
        *self.panic_at_flushes.lock().unwrap_or_else(PoisonError::into_inner) = count;
    }

    /// Checks the conservation laws at a moment when nothing is in flight.
    ///
    /// # Panics
    ///
    /// A law is broken.
    pub fn check_at_rest(&self, before: Baseline) {
        let counts = self.counts();
        let items = counts.appended + counts.duplicate + counts.quarantined + counts.refused;
        assert_eq!(
            counts.received, items,
            "received = appended + duplicate + quarantined + refused: {counts:?}"
        );
        let runs = before.open_runs + counts.started;
        assert_eq!(runs, counts.completed + counts.failed, "started = completed + failed: {counts:?}");
        let outputs = before.backlog + counts.outputs_made;
        let (gone, waiting) =
            (counts.published + counts.outputs_skipped, counts.outputs_held + counts.backlog);
        assert_eq!(outputs, gone + waiting, "outputs = published + skipped + held + backlog: {counts:?}");
    }
}

fn panic_if_told(left: &Mutex<u64>, what: &str) {
    let told = {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let told = *left > 0;
        *left = left.saturating_sub(1);
        told
    };
    assert!(!told, "{what} panics, as told");
}

impl Observer for Ledger {
    fn observe(&self, observation: &Observation<'_>) {
        match observation {
            Observation::Tick { .. } => panic_if_told(&self.panic_at_ticks, "the scheduler"),
            Observation::ReceiptsFlushed { .. } => panic_if_told(&self.panic_at_flushes, "the buffer"),
            _other => {}
        }
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = &mut *counts;
        match observation {
            Observation::ItemsReceived { count } => counts.received += count,
            Observation::ItemsRefused { count } => counts.refused += count,
            Observation::ReceiptsAppended { count, .. } => counts.appended += count,
            Observation::ItemsDuplicate { count } => counts.duplicate += count,
            Observation::ItemQuarantined { .. } => counts.quarantined += 1,
            Observation::LogTrimmed { records, .. } => counts.trimmed += records,
            Observation::RetentionFailed => counts.retention_failed += 1,
            Observation::CheckpointDamaged { name } => counts.checkpoints_damaged.push(name),
            Observation::AppendFailed { .. } => counts.append_failed += 1,
            Observation::Tick { runs, .. } => {
                counts.ticks += 1;
                counts.runs_planned += runs;
            }
            Observation::TickSkipped { reason, count } => {
                *counts.skipped.entry(*reason).or_default() += count;
            }
            Observation::RunStarted => counts.started += 1,
            Observation::RunEnded { error, outputs, .. } => {
                match error {
                    None => counts.completed += 1,
                    Some(_) => counts.failed += 1,
                }
                counts.outputs_made += outputs;
            }
            Observation::OutputsPublished { count, .. } => counts.published += count,
            Observation::PublishBacklog { outputs } => counts.backlog = *outputs,
            Observation::OutputsSkipped { count } => counts.outputs_skipped += count,
            Observation::OutputsHeld { outputs, .. } => counts.outputs_held = *outputs,
            Observation::ActorExited { actor, verdict } => {
                *counts.exits.entry(((*actor).to_owned(), verdict)).or_default() += 1;
            }
            Observation::KillSwitchEntered { state } => counts.kill_switch_entered.push(state),
            Observation::EffectRefused { reason } => {
                *counts.effects_refused.entry(reason).or_default() += 1;
            }
            Observation::SymbolHalted { symbol } => counts.halted.push(symbol.to_string()),
            Observation::ProducersKnown { .. }
            | Observation::ProducerDenied
            | Observation::ProducerForgotten
            | Observation::SourceOddity { .. }
            | Observation::ReceiptsFlushed { .. }
            | Observation::BufferDepth { .. }
            | Observation::EngineCalled { .. }
            | Observation::PublishLatency { .. }
            | Observation::PublishBlocked { .. }
            | Observation::KillSwitch { .. }
            | Observation::KillSwitchReadFailed
            | Observation::Trading(_)
            | Observation::HistoryLag { .. }
            | Observation::HistoryFailed
            | Observation::HistoryRecordSkipped
            | Observation::EventsPublished { .. }
            | Observation::EventsLag { .. }
            | Observation::EventsFailed
            | Observation::EventTaken { .. }
            | Observation::Failure { .. } => {}
        }
    }
}
