//! What is odd about the times of a recording, noted while it is played and told when it has ended.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrator_kernel::engine::cadence::GAP_TICKS_MAX;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::clock::TimeGap;
use orchestrator_kernel::rfc3339::to_rfc3339;
use serde::Serialize;

/// Receipts of a recording that came after the tick of their own time, because time ran backwards in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LateReceipts {
    /// How many.
    pub receipts: u64,
    /// Snapshots among them: the run of each was made without it, or not at all.
    pub snapshots: u64,
    /// Position of the first one in its source: in a file without blank lines the number of its line.
    pub first_position: u64,
    /// Its own time.
    pub first_recv_ts_ms: TsMs,
    /// The time that the recording had reached by then.
    pub first_reached_ts_ms: TsMs,
    /// The farthest that one of them was behind, in milliseconds.
    pub behind_max_ms: u64,
}

/// Gaps of a recording that were too long to run each of their ticks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LongGaps {
    /// How many.
    pub gaps: u64,
    /// Their ticks that were not run.
    pub ticks_skipped: u64,
    /// The receipt before the first one.
    pub first_from_ts_ms: TsMs,
    /// The receipt after it.
    pub first_to_ts_ms: TsMs,
}

/// Notes so far: late receipts and long gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OddTimes {
    /// Time ran backwards.
    pub late: Option<LateReceipts>,
    /// Time stood still for too long.
    pub gaps: Option<LongGaps>,
}

impl OddTimes {
    /// A sentence for each oddity: what was counted, where it began, what it means.
    #[must_use]
    pub fn to_sentences(&self) -> Vec<String> {
        let late = self.late.as_ref().map(|late| {
            format!(
                "time runs backwards in the recording: {} receipts came after the tick of their own time, by up to {} s; {} \
                 of them are snapshots, whose runs were made without them or not at all; the first one is at position {}: \
                 {} when {} was reached; sort the recording by recv_ts_ms",
                late.receipts,
                late.behind_max_ms.div_ceil(1000),
                late.snapshots,
                late.first_position,
                to_rfc3339(late.first_recv_ts_ms),
                to_rfc3339(late.first_reached_ts_ms),
            )
        });
        let gaps = self.gaps.as_ref().map(|gaps| {
            format!(
                "{} gaps of the recording have more than {GAP_TICKS_MAX} ticks each: {} ticks in the middle of them were not \
                 run; the first gap is from {} to {}",
                gaps.gaps,
                gaps.ticks_skipped,
                to_rfc3339(gaps.first_from_ts_ms),
                to_rfc3339(gaps.first_to_ts_ms),
            )
        });
        late.into_iter().chain(gaps).collect()
    }
}

/// The notes of one process. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RecordedTimes(Arc<Mutex<OddTimes>>);

impl RecordedTimes {
    fn lock_notes(&self) -> MutexGuard<'_, OddTimes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was noted so far.
    #[must_use]
    pub fn current_notes(&self) -> OddTimes {
        self.lock_notes().clone()
    }

    /// Notes a receipt of time `at`, come when the recording had `reached` a tick after it; returns whether it is the
    /// first.
    pub(crate) fn note_late(&self, position: u64, is_snapshot: bool, at: TsMs, reached: TsMs) -> bool {
        let mut notes = self.lock_notes();
        let is_first = notes.late.is_none();
        let late = notes.late.get_or_insert_with(|| LateReceipts {
            first_position: position,
            first_recv_ts_ms: at,
            first_reached_ts_ms: reached,
            ..LateReceipts::default()
        });
        late.receipts += 1;
        late.snapshots += u64::from(is_snapshot);
        late.behind_max_ms = late.behind_max_ms.max(reached.0.saturating_sub(at.0).unsigned_abs());
        is_first
    }

    /// Notes a gap between receipts at `from` and `to`, of which `skipped` ticks are not run.
    pub(crate) fn note_gap(&self, gap: TimeGap, skipped: u64) {
        let mut notes = self.lock_notes();
        let gaps = notes.gaps.get_or_insert_with(|| LongGaps {
            first_from_ts_ms: gap.from,
            first_to_ts_ms: gap.to,
            ..LongGaps::default()
        });
        gaps.gaps += 1;
        gaps.ticks_skipped = gaps.ticks_skipped.saturating_add(skipped);
    }
}
