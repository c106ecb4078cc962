//! Trimming the journal of a stopped service by hand, as far as nobody needs it.

use std::path::Path;
use std::sync::Arc;

use orchestrator_kernel::engine::retention::Policy;
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::{AcquireError, Log, LogName};
use orchestrator_kernel::trading::event::EventCursor;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::retention::JournalBlocker;
use orchestrator_runtime::checkpoint::load_saved;
use orchestrator_runtime::fatal::Chain;
use orchestrator_trading_plane::outbox::EVENT_CURSOR;
use orchestrator_trading_plane::retention::{
    JournalRetentionError, JournalRoundRequest, JournalTrimPlan, KeptJournal, load_fitting_base,
    plan_journal_round, save_base, trim_below,
};
use orchestrator_trading_plane::saved::JournalFold;

use super::history::open_history;
use super::journal::{EmbeddedJournal, embedded_journal, journal_archive};
use super::retention::OfflineError;
use super::{WiringError, retention};
use crate::adapters::files::data_dir::DataDir;
use crate::config::Config;
use crate::config::trading::HistoryPlace;
use crate::process::time::wall_now;

/// How much of the journal is to go.
#[derive(Clone, Copy, Debug, Default)]
pub struct JournalAsked {
    /// What is kept.
    pub policy: Policy,
    /// Records before this one are to go, whatever the policy.
    pub below: Option<JournalSeq>,
}

/// Holder of records that were to be trimmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalHeld {
    /// Nobody.
    No,
    /// Work that is open, from its first record on.
    Work(JournalSeq, JournalBlocker),
    /// The history, from this record on.
    History(JournalSeq),
    /// The outbox of events, from this record on.
    Events(JournalSeq),
    /// Perhaps the history, which cannot be asked, and why.
    HistoryAway(String),
}

impl JournalHeld {
    /// The first record that this reader needs; all of them when that is not known.
    const fn first_needed(&self) -> JournalSeq {
        match self {
            Self::No => JournalSeq(u64::MAX),
            Self::Work(first, _) | Self::History(first) | Self::Events(first) => *first,
            Self::HistoryAway(_) => JournalSeq(0),
        }
    }

    /// This reader, or the outbox where that needs an earlier record.
    fn or_earlier(self, unpublished: Option<JournalSeq>) -> Self {
        match unpublished.filter(|first| *first < self.first_needed()) {
            Some(first) => Self::Events(first),
            None => self,
        }
    }
}

impl std::fmt::Display for JournalHeld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::No => f.write_str("the last record always stays"),
            Self::Work(first, JournalBlocker::Cycle(id)) => {
                write!(f, "cycle {id} stays whole, which begins with {first}")
            }
            Self::Work(first, JournalBlocker::Command(id)) => {
                write!(f, "command {id} stays with its result, which begins with {first}")
            }
            Self::History(first) => write!(f, "the history has not taken in {first} and what follows"),
            Self::Events(first) => write!(f, "the events of {first} and what follows are not published"),
            Self::HistoryAway(why) => write!(f, "the history may need them, and cannot be asked: {why}"),
        }
    }
}

/// Outcome of a trim of the journal, or of a dry run of it.
#[derive(Clone, Debug)]
pub struct TrimmedJournal {
    /// The first record before.
    pub before: Seq,
    /// The first record now.
    pub after: Seq,
    /// The first record that has to stay.
    pub below: Seq,
    /// Who holds records that were to go.
    pub held: JournalHeld,
}

/// A trim of the journal that is decided and not done yet.
pub(super) struct JournalTrim {
    kept: KeptJournal,
    base: JournalFold,
    below: Seq,
    held: JournalHeld,
}

/// Decides what of the journal of `data_dir` goes; nothing where there is no journal.
///
/// # Errors
///
/// [`OfflineError`]; [`OfflineError::JournalNeeded`] when a record is named beyond what may go.
pub(super) async fn plan_journal_trim(
    config: &Config,
    (dir, data_dir): (&Path, &DataDir),
    checkpoints: &Arc<dyn CheckpointStore>,
    asked: JournalAsked,
    dry_run: bool,
) -> Result<Option<JournalTrim>, OfflineError> {
    let io = |source| WiringError::from(AcquireError::Io { log: LogName::Journal.to_string(), source });
    if !data_dir.has_journal().map_err(io)? {
        return Ok(None);
    }
    let kept = open_to_trim(config, data_dir, checkpoints, dry_run).await?;
    let base = load_fitting_base(kept.log.as_ref(), kept.checkpoints.as_ref()).await?;
    let reader = match history_need(config, dir).await? {
        HistoryNeed::Nothing => JournalHeld::No,
        HistoryNeed::From(first) => JournalHeld::History(first),
        HistoryNeed::Unknown(why) => JournalHeld::HistoryAway(why),
    };
    let reader = reader.or_earlier(unpublished_from(kept.checkpoints.as_ref()).await?);
    let needed_from = reader.first_needed();
    let JournalAsked { policy, below } = asked;
    let asked = JournalRoundRequest { policy, below, now: Some(wall_now()), needed_from, step: u64::MAX };
    let JournalTrimPlan { base: advanced, below, held } =
        plan_journal_round(kept.log.as_ref(), &base, asked).await?;
    let held = match (held, reader) {
        (_, away @ JournalHeld::HistoryAway(_)) => away,
        (Some((first, blocker)), _) => JournalHeld::Work(first, blocker),
        (None, reader) if Seq::from(needed_from) == below && below < kept.log.stat().tail => reader,
        (None, _) => JournalHeld::No,
    };
    if let Some(named) = asked.below.filter(|named| JournalSeq::from(below) < *named) {
        let floor = below.max(kept.log.stat().start);
        return Err(OfflineError::JournalNeeded { floor, why: format!("{held}; {named} was named") });
    }
    Ok(Some(JournalTrim { base: advanced.unwrap_or(base), kept, below, held }))
}

impl JournalTrim {
    /// Trims, unless it is a dry run.
    pub(super) async fn carry_out(self, dry_run: bool) -> Result<TrimmedJournal, JournalRetentionError> {
        let Self { kept, base, below, held } = self;
        let before = kept.log.stat().start;
        if !dry_run && before < below {
            save_base(&kept, &base).await?;
            trim_below(&kept, below).await?;
        }
        Ok(TrimmedJournal { before, after: kept.log.stat().start, below, held })
    }
}

/// The journal with this process as its writer; only looked at in a dry run.
async fn open_to_trim(
    config: &Config,
    data_dir: &DataDir,
    checkpoints: &Arc<dyn CheckpointStore>,
    dry_run: bool,
) -> Result<KeptJournal, OfflineError> {
    let EmbeddedJournal { log, archive } = embedded_journal(config, data_dir).map_err(WiringError::from)?;
    let log: Arc<dyn Log> = log;
    let epoch = if dry_run { Epoch(0) } else { retention::acquire_log(&log).await? };
    let is_archived = data_dir.archive_dir().join(LogName::Journal.as_str()).is_dir();
    let archive = match archive {
        _ if dry_run => None,
        Some(archive) => Some(archive),
        // What went to an archive so far goes there from now on, or that archive would have a hole.
        None if is_archived => {
            Some(journal_archive(config, data_dir, log.stat().start, true).map_err(WiringError::from)?)
        }
        None => None,
    };
    let archive = match archive {
        None => None,
        Some(archive) => {
            let archive: Arc<dyn Log> = archive;
            let epoch = retention::acquire_log(&archive).await?;
            Some((archive, epoch))
        }
    };
    Ok(KeptJournal { log, epoch, archive, checkpoints: Arc::clone(checkpoints) })
}

/// Records that the history has not taken in yet.
enum HistoryNeed {
    /// None is kept.
    Nothing,
    /// From this one on.
    From(JournalSeq),
    /// It cannot be asked, and why.
    Unknown(String),
}

/// Asks the history of the data directory `dir`. A file of SQLite that is not there is no history: a service that keeps
/// one makes it at its start.
async fn history_need(config: &Config, dir: &Path) -> Result<HistoryNeed, WiringError> {
    if let Some(HistoryPlace::Sqlite(file)) = config.trading.history.place()
        && !dir.join(file).exists()
    {
        return Ok(HistoryNeed::Nothing);
    }
    let mut config = config.clone();
    config.service.data_dir = dir.to_owned();
    let Some(store) = open_history(&config)? else { return Ok(HistoryNeed::Nothing) };
    Ok(match store.load_resume().await {
        Ok(None) => HistoryNeed::From(JournalSeq(1)),
        Ok(Some(resume)) => HistoryNeed::From(resume.mark.open_from.min(resume.mark.position)),
        Err(error) => HistoryNeed::Unknown(Chain(&error).to_string()),
    })
}

/// The first record whose events are not published, where any ever were. Whoever publishes none any more removes the
/// checkpoint.
async fn unpublished_from(checkpoints: &dyn CheckpointStore) -> Result<Option<JournalSeq>, OfflineError> {
    let decode = |bytes: &[u8]| EventCursor::decode(bytes).ok();
    let saved = load_saved(checkpoints, EVENT_CURSOR, decode).await;
    let saved = saved.map_err(JournalRetentionError::CursorUnusable)?;
    Ok(saved.map(|cursor| cursor.position().next()))
}

/// How far an opened journal could be trimmed now, whatever the history needs: the first record to stay, and the work
/// that holds it.
///
/// # Errors
///
/// [`OfflineError`].
pub async fn journal_floor(
    log: &dyn Log,
    checkpoints: &dyn CheckpointStore,
) -> Result<(Seq, JournalHeld), OfflineError> {
    let base = load_fitting_base(log, checkpoints).await?;
    let all = JournalSeq(u64::MAX);
    let asked = JournalRoundRequest {
        policy: Policy::default(),
        below: Some(all),
        now: None,
        needed_from: all,
        step: u64::MAX,
    };
    let JournalTrimPlan { below, held, .. } = plan_journal_round(log, &base, asked).await?;
    let held = held.map_or(JournalHeld::No, |(first, blocker)| JournalHeld::Work(first, blocker));
    Ok((below, held))
}
