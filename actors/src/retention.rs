//! Retention: lets the oldest records of the logs go, as far as they are needed no more. Failure domain: its own.
//!
//! ```text
//! look at the logs ─▶ advance the base ─▶ save the base ─▶ copy to the archive, if there is one ─▶ trim
//! ```
//!
//! Each arrow is behind the one before it: a crash between any two leaves a base that fits the logs, and the next check
//! goes on from there. A failure stops nothing but the retention itself. What may go is the kernel's decision.

mod copy;
mod error;
mod reading;
mod round;

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::log::Log;
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::retention::{Base, Held, Holders, Later, Scheduled};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::address::Address;
use crate::buffer::BufferMsg;
use crate::fatal::{Chain, Fatal};
use crate::recovery;
use crate::run_log::Committed;
use crate::scheduler::Universe;
use crate::status::{Condition, StatusBoard};

pub use copy::copy;
pub use error::RetentionError;
pub use reading::Readable;
pub use round::{Done, Gone, Kept, Limits, Plan, Writable, carry_out, note_later, plan};

/// What the retention can be told.
pub enum RetentionMsg {
    /// Let go what may go. Sent by itself.
    Check,
}

/// How retention is done.
#[derive(Clone, Copy, Debug)]
pub struct RetentionSettings {
    /// What is kept.
    pub limits: Limits,
    /// Time between two checks.
    pub check_every: Duration,
    /// Receipts, and run records, by which the base is advanced at a time.
    pub step: u64,
}

/// Where records are copied to before they are let go.
#[derive(Clone)]
pub struct Archives {
    /// Receipts.
    pub receipts: Arc<dyn Log>,
    /// Run records.
    pub runs: Arc<dyn Log>,
    /// Quarantined items.
    pub quarantine: Arc<dyn Log>,
}

/// What the retention needs; cloned for each start.
#[derive(Clone)]
pub struct RetentionArgs {
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
    /// How it is done.
    pub settings: RetentionSettings,
    /// Which symbols are run.
    pub universe: Universe,
    /// Says how old records are.
    pub clock: Arc<dyn Clock>,
    /// Asked for the epochs of its logs.
    pub buffer: Address<BufferMsg>,
    /// Knows the epoch of the run log.
    pub committed: watch::Receiver<Committed>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

/// What the retention remembers between messages. Rebuilt from the saved base by `pre_start`.
pub struct RetentionState {
    args: RetentionArgs,
    base: Base,
    later: Later,
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
        let base = recovery::base(args.checkpoints.as_ref()).await?;
        me.send_after(args.settings.check_every, || RetentionMsg::Check);
        Ok(RetentionState {
            later: Later::than(&base),
            scheduled: scheduled(&args.universe),
            args,
            base,
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
                let checked = state.check().await;
                state.note(checked);
                me.send_after(state.args.settings.check_every, || RetentionMsg::Check);
            }
        }
        Ok(())
    }
}

impl RetentionState {
    /// Lets go, step by step, until no more may go.
    async fn check(&mut self) -> Result<(), RetentionError> {
        let kept = self.kept().await?;
        note_later(&kept.runs, &mut self.later).await?;
        loop {
            let RetentionSettings { limits, step, .. } = self.args.settings;
            let holders = Holders { scheduled: &self.scheduled, later: &self.later };
            let plan = plan(&kept, &self.base, limits, self.args.clock.now(), step, holders).await?;
            let done = carry_out(&kept, &self.base, &plan).await;
            self.observe(&done.trimmed, &plan.held);
            let advanced = plan.base != self.base;
            if done.is_base_saved {
                self.base = plan.base;
            }
            done.result?;
            if !advanced {
                return Ok(());
            }
        }
    }

    /// The logs, as their writers have them.
    async fn kept(&mut self) -> Result<Kept, RetentionError> {
        let args = &self.args;
        let (receipts, quarantine) = args.buffer.call(BufferMsg::Epochs).await?;
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
        Ok(Kept {
            receipts: writable("receipts", &args.receipts, receipts, to_receipts),
            runs: writable("runs", &args.runs, runs, to_runs),
            quarantine: writable("quarantine", &args.quarantine, quarantine, to_quarantine),
            checkpoints: Arc::clone(&args.checkpoints),
        })
    }

    fn observe(&self, gone: &[Gone], held: &Held) {
        for Gone { log, records, start } in gone.iter().filter(|gone| gone.records > 0) {
            self.args.observer.observe(&Observation::LogTrimmed { log, records: *records });
            tracing::info!(log, records, %start, ?held, "let the oldest records go");
        }
    }

    fn note(&mut self, checked: Result<(), RetentionError>) {
        let board = &self.args.board;
        match checked {
            Ok(()) => {
                self.failures = 0;
                if board.clear(&Condition::RetentionFailing) {
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
                    board.raise(Condition::RetentionFailing, detail);
                }
            }
        }
    }
}

/// Which symbols are run, for the kernel.
#[must_use]
pub fn scheduled(universe: &Universe) -> Scheduled {
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
pub async fn saved_base(checkpoints: &dyn CheckpointStore) -> Result<Base, Fatal> {
    recovery::base(checkpoints).await
}
