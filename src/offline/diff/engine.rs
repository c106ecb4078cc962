//! Recorded runs against what an engine says to the same calls today.

use std::sync::Arc;

use async_trait::async_trait;
use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::divergence::{Check, Divergence};
use orchestrator_kernel::error::bounded_detail;
use orchestrator_kernel::ids::{IngestSeq, RunSeq};
use orchestrator_kernel::ports::engine::{Engine, EngineError};

use super::align::{Align, Side};
use super::{DiffVerdict, Differences};
use crate::offline::replay::{Answers, Driver, ReplayError, ReplayPlan, ReplayedRun, Sink};
use crate::service::wiring::reading::Recorded;

/// Replays the runs of `plan` with `engine` and compares what it answers with what was recorded.
///
/// The calls are the recorded ones: the same snapshots at the same times. Runs that failed are as recorded, because how
/// an engine failed is not in the logs. When the logs contradict themselves, the verdict is that nothing can be told.
///
/// # Errors
///
/// [`ReplayError`].
pub async fn against_engine(
    recorded: &Recorded,
    engine: Arc<dyn Engine>,
    plan: ReplayPlan,
    names: (&str, &str),
) -> Result<Differences, ReplayError> {
    let (receipts, runs) = (Arc::clone(&recorded.receipts), Arc::clone(&recorded.runs));
    let driver = Driver::new(receipts, runs, Answers::Engine(engine), plan).await?;
    let mut comparison =
        Comparison { align: Align::new(names.0, names.1), doubts: Vec::new(), doubts_count: 0 };
    driver.replay_logs(&mut comparison).await?;
    comparison.align.end_side(Side::A);
    comparison.align.end_side(Side::B);
    let mut differences = comparison.align.into_differences();
    if 0 < comparison.doubts_count {
        differences.verdict = DiffVerdict::CannotTell;
        differences.doubts_count = comparison.doubts_count;
        differences.doubts = comparison.doubts;
    }
    Ok(differences)
}

/// Contradictions of the logs that are told one by one.
const DOUBTS_MAX: usize = 5;

/// Takes both sides of each run from the replay.
struct Comparison {
    align: Align,
    doubts: Vec<String>,
    doubts_count: u64,
}

#[async_trait]
impl Sink for Comparison {
    async fn take_run(&mut self, run: ReplayedRun) -> bool {
        let ReplayedRun { recorded, replayed, failure, found, included, .. } = run;
        let now = match &failure {
            Some(failure) => failed_record(&recorded, failure),
            None => replayed,
        };
        self.take_divergences(found);
        if included {
            self.align.take_record(Side::A, recorded);
            self.align.take_record(Side::B, now);
        }
        true
    }

    fn take_divergences(&mut self, found: Vec<Divergence>) {
        // That the engine answers otherwise is what is looked for.
        for doubt in found.iter().filter(|found| found.check != Check::Answers) {
            self.doubts_count += 1;
            if self.doubts.len() < DOUBTS_MAX {
                self.doubts.push(doubt.to_string());
            }
        }
    }

    fn note_progress(&mut self, _receipts: IngestSeq, _runs: RunSeq) {}
}

/// The record of a run that the engine failed now.
fn failed_record(recorded: &RunRecord, failure: &EngineError) -> RunRecord {
    let mut record = recorded.clone();
    if let RunStatus::Completed { attempts, answered, completed_ts_ms, .. } = recorded.status {
        let (error_kind, error_detail) = (failure.kind, bounded_detail(&failure.detail));
        record.status = RunStatus::Failed { attempts, answered, completed_ts_ms, error_kind, error_detail };
    }
    record
}
