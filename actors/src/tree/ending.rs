//! Why a tree ended: damage, or what another writer did.

use std::time::Duration;

use orchestrator_engine_plane::run_log::messages::Committed;
use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::log::{AppendError, Log, RecordBatch};
use orchestrator_runtime::fatal::{Fatal, FatalKind};
use tokio::time::{Instant, sleep, timeout_at};

/// How long the run log may be asked whose it is.
pub(super) const ASK_MAX: Duration = Duration::from_secs(3);
/// How long after an attempt without an answer it is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// `first`, unless it looks like damage and a later writer has taken over: that one trims records which it needs no
/// more, under whoever still reads them (LOG-3). A run log that does not answer before `until` leaves it standing.
pub(super) async fn fenced_rather_than_corrupt(
    first: Fatal,
    runs: &dyn Log,
    committed: &Committed,
    until: Instant,
) -> Fatal {
    match first.kind {
        FatalKind::Corrupt => {}
        FatalKind::Fenced | FatalKind::Storage | FatalKind::Away | FatalKind::Internal => return first,
    }
    match probe_for_successor(runs, committed, until).await {
        Some(refusal) => {
            Fatal::new(FatalKind::Fenced, format!("{refusal}; before this was known: {}", first.what))
        }
        None => first,
    }
}

/// How the run log refuses this writer, if a later one has taken it over. It is asked by an append of nothing.
async fn probe_for_successor(runs: &dyn Log, committed: &Committed, until: Instant) -> Option<AppendError> {
    if committed.epoch == Epoch::default() {
        // The log was never this process's, so nobody took it from it.
        return None;
    }
    let nothing = RecordBatch::starting_at(committed.tail.next().into());
    while Instant::now() < until {
        match timeout_at(until, runs.append(committed.epoch, &nothing)).await {
            Ok(Err(fenced @ AppendError::Fenced { .. })) => return Some(fenced),
            Ok(Err(AppendError::Unknown { source })) => {
                tracing::debug!(error = %source, "the run log does not say whose it is, asking again");
                sleep(AGAIN_AFTER).await;
            }
            Ok(Ok(()) | Err(_)) | Err(_) => break,
        }
    }
    None
}
