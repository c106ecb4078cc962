//! Retention of the journal: lets its oldest records go, as far as nobody needs them. Failure domain: its own.
//!
//! ```text
//! look at the journal ─▶ advance the base ─▶ save the base ─▶ copy to the archive, if there is one ─▶ trim
//! ```
//!
//! Each arrow is behind the one before it, as in the engine plane's retention: a crash between any two leaves a base
//! that fits the journal. What may go is the kernel's decision ([`orchestrator_kernel::trading::journal::retention`]):
//! nothing that belongs to open work, and nothing that a reader has not taken in. A failure stops nothing but this.

mod error;
pub mod messages;
mod round;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::engine::retention::Policy;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::log::{Log, LogName};
use orchestrator_kernel::ports::observer::{Observation, Observer};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_runtime::fatal::Chain;
use orchestrator_runtime::status::{Condition, StatusBoard};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;

use crate::journal::messages::JournalCommitted;
use crate::saved::JournalFold;

pub use error::JournalRetentionError;
use messages::JournalRetentionMsg;
pub use round::{
    JournalRoundRequest, JournalTrimPlan, KeptJournal, load_fitting_base, plan_journal_round, save_base,
    trim_below,
};

/// How the journal is trimmed.
#[derive(Clone, Copy, Debug)]
pub struct JournalRetentionSettings {
    /// What is kept.
    pub policy: Policy,
    /// Time between two checks.
    pub check_every: Duration,
    /// Records by which the base is advanced at a time.
    pub step: u64,
}

/// Reader of the journal that may lag: what it has not taken in stays.
#[derive(Clone)]
pub struct JournalReader {
    name: &'static str,
    needed_from: Arc<dyn Fn() -> Option<JournalSeq> + Send + Sync>,
}

impl JournalReader {
    /// A reader by its name; `needed_from` tells the first record that it needs, or nothing while that is not known.
    #[must_use]
    pub fn new(
        name: &'static str,
        needed_from: impl Fn() -> Option<JournalSeq> + Send + Sync + 'static,
    ) -> Self {
        Self { name, needed_from: Arc::new(needed_from) }
    }
}

impl fmt::Debug for JournalReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("JournalReader").field(&self.name).finish()
    }
}

/// Retention of the journal, for the plane.
#[derive(Clone)]
pub struct JournalRetentionPorts {
    /// How it is done.
    pub settings: JournalRetentionSettings,
    /// Where records are copied to, if they are.
    pub archive: Option<Arc<dyn Log>>,
    /// Who reads the journal besides the plane's own history.
    pub readers: Vec<JournalReader>,
}

/// Settings and ports of the journal's retention; cloned for each start.
#[derive(Clone)]
pub struct JournalRetentionArgs {
    /// How it is done, and for whom records stay.
    pub ports: JournalRetentionPorts,
    /// The journal's log.
    pub log: Arc<dyn Log>,
    /// Where the base is saved.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// Says how old records are.
    pub clock: Arc<dyn Clock>,
    /// Knows the journal's epoch.
    pub committed: watch::Receiver<JournalCommitted>,
    /// Telemetry.
    pub observer: Arc<dyn Observer>,
    /// Readiness.
    pub board: StatusBoard,
}

/// Retention state between two messages, rebuilt from the saved base.
pub struct JournalRetentionState {
    args: JournalRetentionArgs,
    /// Nothing before the first check: a store that is away keeps no plane from starting.
    base: Option<JournalFold>,
    /// The base was saved by this process: from then on one that was overtaken cannot set it back.
    is_ours: bool,
    archive_epoch: Option<Epoch>,
    failures: u32,
}

/// The actor.
pub struct JournalRetention;

/// Checks that fail in a row before people are told: one may meet a server that starts again.
const FAILURES_MAX: u32 = 3;

impl Actor for JournalRetention {
    type Msg = JournalRetentionMsg;
    type State = JournalRetentionState;
    type Arguments = JournalRetentionArgs;

    async fn pre_start(
        &self,
        me: ActorRef<JournalRetentionMsg>,
        args: JournalRetentionArgs,
    ) -> Result<JournalRetentionState, ActorProcessingErr> {
        me.send_after(args.ports.settings.check_every, || JournalRetentionMsg::Check);
        Ok(JournalRetentionState { args, base: None, is_ours: false, archive_epoch: None, failures: 0 })
    }

    async fn handle(
        &self,
        me: ActorRef<JournalRetentionMsg>,
        message: JournalRetentionMsg,
        state: &mut JournalRetentionState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            JournalRetentionMsg::Check => {
                let checked = state.trim_in_steps().await;
                state.note_outcome(checked);
                me.send_after(state.args.ports.settings.check_every, || JournalRetentionMsg::Check);
            }
        }
        Ok(())
    }
}

impl JournalRetentionState {
    /// Trims, step by step, until no more may be trimmed.
    async fn trim_in_steps(&mut self) -> Result<(), JournalRetentionError> {
        let kept = self.kept_journal().await?;
        let mut base = match self.base.take() {
            Some(base) => base,
            None => load_fitting_base(kept.log.as_ref(), kept.checkpoints.as_ref()).await?,
        };
        while let Some(needed_from) = self.needed_from() {
            let JournalRetentionSettings { policy, step, .. } = self.args.ports.settings;
            let now = self.args.clock.now();
            let asked = JournalRoundRequest { policy, below: None, now, needed_from, step };
            let JournalTrimPlan { base: advanced, held, .. } =
                plan_journal_round(kept.log.as_ref(), &base, asked).await?;
            let is_done = advanced.is_none();
            base = advanced.unwrap_or(base);
            let below = Seq::from(base.tail()).next();
            if !is_done || (!self.is_ours && kept.log.stat().start < below) {
                save_base(&kept, &base).await?;
                self.is_ours = true;
            }
            let records = trim_below(&kept, below).await?;
            if 0 < records {
                self.args.observer.observe(&Observation::LogTrimmed { log: LogName::Journal, records });
                tracing::info!(records, start = %kept.log.stat().start, ?held, "trimmed the journal");
            }
            if is_done {
                break;
            }
        }
        self.base = Some(base);
        Ok(())
    }

    /// The first record that somebody needs; nothing while a reader does not know what it needs.
    fn needed_from(&self) -> Option<JournalSeq> {
        let mut needed = JournalSeq(u64::MAX);
        for reader in &self.args.ports.readers {
            let Some(first) = (reader.needed_from)() else {
                tracing::debug!(reader = reader.name, "nothing is trimmed: what it needs is not known yet");
                return None;
            };
            needed = needed.min(first);
        }
        Some(needed)
    }

    /// The journal, as its writer has it.
    async fn kept_journal(&mut self) -> Result<KeptJournal, JournalRetentionError> {
        let archive = match (&self.args.ports.archive, self.archive_epoch) {
            (None, _) => None,
            (Some(archive), Some(epoch)) => Some((Arc::clone(archive), epoch)),
            (Some(archive), None) => {
                let acquired = archive.acquire().await.map_err(JournalRetentionError::Archive)?;
                self.archive_epoch = Some(acquired.epoch);
                Some((Arc::clone(archive), acquired.epoch))
            }
        };
        Ok(KeptJournal {
            log: Arc::clone(&self.args.log),
            epoch: self.args.committed.borrow().epoch,
            archive,
            checkpoints: Arc::clone(&self.args.checkpoints),
        })
    }

    fn note_outcome(&mut self, checked: Result<(), JournalRetentionError>) {
        let board = &self.args.board;
        match checked {
            Ok(()) => {
                self.failures = 0;
                if board.clear_condition(&Condition::JournalRetentionFailing) {
                    tracing::info!("retention of the journal works again");
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let (detail, failures) = (Chain(&error).to_string(), self.failures);
                self.args.observer.observe(&Observation::RetentionFailed);
                tracing::warn!(
                    error = detail,
                    failures,
                    "retention of the journal failed; nothing is lost by it"
                );
                if FAILURES_MAX <= failures {
                    board.raise_condition(Condition::JournalRetentionFailing, detail);
                }
            }
        }
    }
}
