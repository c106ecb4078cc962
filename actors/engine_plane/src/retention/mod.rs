//! Retention: lets the oldest records of the logs go, as far as they are needed no more. Failure domain: its own.
//!
//! ```text
//! look at the logs ─▶ advance the base ─▶ save the base ─▶ copy to the archive, if there is one ─▶ trim
//! ```
//!
//! Each arrow is behind the one before it: a crash between any two leaves a base that fits the logs, and the next check
//! goes on from there. A failure stops nothing but the retention itself. What may be trimmed is the kernel's decision.
//!
//! ```text
//!                start of the log         base         trim point wanted by the limits      tail
//!  archive ──────────┤                      │                       │                         │
//!  trimmed           │ may go: in the base, │ held: a cut to come,  │   kept by the limits    │
//!                    │ copied, published    │ a run not published   │                         │
//!                    └── trim moves it ────▶└── a step moves it ───▶│
//! ```
//!
//! The start never passes the base, and the base never passes what is still needed: whatever is missing in a log is in
//! its base.

mod copy;
mod error;
pub mod messages;
mod reading;
mod round;

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::engine::retention::{
    RetainedFor, RetentionBase, RunsAfterBase, Scheduled, TrimBlocker,
};
use orchestrator_kernel::ids::{Epoch, RunSeq};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::log::{Log, LogName};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_runtime::address::Address;
use orchestrator_runtime::fatal::{Chain, Fatal};
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::buffer::messages::{BufferMsg, Durable};
use crate::publisher::messages::PublishedUpTo;
use crate::recovery;
use crate::run_log::messages::Committed;
use crate::scheduler::messages::Universe;

pub use copy::copy_to_archive;
pub use error::RetentionError;
use messages::RetentionMsg;
pub use reading::Readable;

use round::{DurableTails, Save};
pub use round::{
    Limits, LogStarts, RetentionLogs, RoundRequest, TrimOutcome, TrimPlan, TrimmedLog, Writable, carry_out,
    note_later, plan_round,
};

/// Settings of retention.
#[derive(Clone, Copy, Debug)]
pub struct RetentionSettings {
    /// What is kept.
    pub limits: Limits,
    /// Time between two checks.
    pub check_every: Duration,
    /// Receipts, and run records, by which the base is advanced at a time.
    pub step: u64,
}

/// Logs that records are copied to before they are trimmed.
#[derive(Clone)]
pub struct Archives {
    /// Receipts.
    pub receipts: Arc<dyn Log>,
    /// Run records.
    pub runs: Arc<dyn Log>,
    /// Quarantined items.
    pub quarantine: Arc<dyn Log>,
}

/// Settings and ports of the retention; cloned for each start.
#[derive(Clone)]
pub struct RetentionArgs {
    /// How it is done.
    pub settings: RetentionSettings,
    /// Which symbols are run.
    pub universe: Universe,
    /// The receipt log.
    pub receipts: Arc<dyn Log>,
    /// The run log.
    pub runs: Arc<dyn Log>,
    /// The quarantine.
    pub quarantine: Arc<dyn Log>,
    /// Where records are copied to, if they are.
    pub archives: Option<Archives>,
    /// Where the base is saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Says how old records are.
    pub clock: Arc<dyn Clock>,
    /// Asked for what is durable in its logs.
    pub buffer: Address<BufferMsg>,
    /// Knows the epoch of the run log.
    pub committed: watch::Receiver<Committed>,
    /// How far the publisher has come in this process.
    pub reached: PublishedUpTo,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

/// Retention state between two messages, rebuilt from the saved base by `pre_start`.
pub struct RetentionState {
    args: RetentionArgs,
    base: RetentionBase,
    /// The base was saved by this process: from then on one that was overtaken cannot set it back.
    is_ours: bool,
    later: RunsAfterBase,
    scheduled: Scheduled,
    archive_epochs: Option<[Epoch; 3]>,
    failures: u32,
}

/// The actor.
pub struct Retention;

/// Checks that fail in a row before people are told: one may meet a server that starts again.
const FAILURES_MAX: u32 = 3;

impl Actor for Retention {
    type Msg = RetentionMsg;
    type State = RetentionState;
    type Arguments = RetentionArgs;

    async fn pre_start(
        &self,
        me: ActorRef<RetentionMsg>,
        args: RetentionArgs,
    ) -> Result<RetentionState, ActorProcessingErr> {
        let base = recovery::base_or_again(args.checkpoints.as_ref()).await?;
        me.send_after(args.settings.check_every, || RetentionMsg::Check);
        Ok(RetentionState {
            later: RunsAfterBase::after_base(&base),
            scheduled: scheduled_symbols(&args.universe),
            args,
            base,
            is_ours: false,
            archive_epochs: None,
            failures: 0,
        })
    }

    async fn handle(
        &self,
        me: ActorRef<RetentionMsg>,
        message: RetentionMsg,
        state: &mut RetentionState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RetentionMsg::Check => {
                let checked = state.trim_in_steps().await;
                state.note_outcome(checked);
                me.send_after(state.args.settings.check_every, || RetentionMsg::Check);
            }
        }
        Ok(())
    }
}

impl RetentionState {
    /// Trims, step by step, until no more may be trimmed.
    async fn trim_in_steps(&mut self) -> Result<(), RetentionError> {
        let (kept, durable) = self.retention_logs().await?;
        note_later(&kept.runs, &mut self.later).await?;
        loop {
            let RetentionSettings { limits, step, .. } = self.args.settings;
            let holders = RetainedFor { scheduled: &self.scheduled, later: &self.later };
            let known = DurableTails {
                published: self.last_published(&kept).await?,
                receipts: durable.receipts.1,
                quarantine: durable.quarantine.1,
            };
            let now = self.args.clock.now();
            let asked = RoundRequest { base: &self.base, limits, now, step, holders };
            let plan = round::plan_known(&kept, asked, known).await?;
            let save = match (plan.base == self.base, self.is_ours) {
                (false, _) => Save::Always,
                (true, false) => Save::BeforeTrims,
                (true, true) => Save::Never,
            };
            let done = round::carry_out_saving(&kept, &plan, save).await;
            self.observe_trims(&done.trimmed, &plan.held);
            let advanced = plan.base != self.base;
            if done.is_base_saved {
                // What was trimmed, was trimmed after the base was saved.
                self.is_ours |= save == Save::Always || !done.trimmed.is_empty();
                self.base = plan.base;
                if !mutant!(RetentionLosesItsPlace) {
                    self.later.skip_to(&self.base);
                }
            }
            done.result?;
            if !advanced {
                return Ok(());
            }
        }
    }

    /// The last run record that is published, as far as this process knows and every later one will know. The saved
    /// cursor alone may be that of a process which was overtaken: our publisher still reads what that one published.
    async fn last_published(&self, kept: &RetentionLogs) -> Result<RunSeq, RetentionError> {
        let saved = round::load_published(kept).await?;
        let ours = if mutant!(TrimsBeforeItPublished) { saved } else { self.args.reached.run_seq() };
        Ok(saved.min(ours))
    }

    /// The logs, as their writers have them.
    async fn retention_logs(&mut self) -> Result<(RetentionLogs, Durable), RetentionError> {
        let args = &self.args;
        let durable = args.buffer.call(BufferMsg::Durable).await?;
        let runs = args.committed.borrow().epoch;
        let archives = match &args.archives {
            None => [None, None, None],
            Some(to) => {
                let logs = [&to.receipts, &to.runs, &to.quarantine];
                let epochs = match self.archive_epochs {
                    Some(epochs) => epochs,
                    None => [
                        copy::acquire_archive(logs[0]).await?,
                        copy::acquire_archive(logs[1]).await?,
                        copy::acquire_archive(logs[2]).await?,
                    ],
                };
                self.archive_epochs = Some(epochs);
                let [receipts, runs, quarantine] = epochs;
                [
                    Some((Arc::clone(&to.receipts), receipts)),
                    Some((Arc::clone(&to.runs), runs)),
                    Some((Arc::clone(&to.quarantine), quarantine)),
                ]
            }
        };
        let [to_receipts, to_runs, to_quarantine] = archives;
        let writable = |name, log: &Arc<dyn Log>, epoch, archive| Writable {
            name,
            log: Arc::clone(log),
            epoch,
            archive,
        };
        let kept = RetentionLogs {
            receipts: writable(LogName::Receipts, &args.receipts, durable.receipts.0, to_receipts),
            runs: writable(LogName::Runs, &args.runs, runs, to_runs),
            quarantine: writable(LogName::Quarantine, &args.quarantine, durable.quarantine.0, to_quarantine),
            checkpoints: Arc::clone(&args.checkpoints),
        };
        Ok((kept, durable))
    }

    fn observe_trims(&self, gone: &[TrimmedLog], held: &TrimBlocker) {
        for TrimmedLog { log, records, start } in gone.iter().filter(|gone| gone.records > 0) {
            self.args.observer.observe(&Observation::LogTrimmed { log: *log, records: *records });
            tracing::info!(log = log.as_str(), records, %start, ?held, "let the oldest records go");
        }
    }

    fn note_outcome(&mut self, checked: Result<(), RetentionError>) {
        let board = &self.args.board;
        match checked {
            Ok(()) => {
                self.failures = 0;
                if board.clear_condition(&Condition::RetentionFailing) {
                    tracing::info!("retention works again");
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let detail = Chain(&error).to_string();
                self.args.observer.observe(&Observation::RetentionFailed);
                tracing::warn!(
                    error = detail,
                    failures = self.failures,
                    "retention failed; nothing is lost by it"
                );
                if FAILURES_MAX <= self.failures {
                    board.raise_condition(Condition::RetentionFailing, detail);
                }
            }
        }
    }
}

/// Which symbols are run, for the kernel.
#[must_use]
pub fn scheduled_symbols(universe: &Universe) -> Scheduled {
    match universe {
        Universe::Listed(symbols) => Scheduled::Listed(symbols.iter().cloned().collect()),
        Universe::Discover { limit } => Scheduled::Discovered { limit: *limit },
    }
}

/// The base of logs that no service uses.
///
/// # Errors
///
/// [`Fatal`]: it cannot be read, or is of another version.
pub async fn saved_base(checkpoints: &dyn CheckpointStore) -> Result<RetentionBase, Fatal> {
    recovery::load_base(checkpoints).await
}
