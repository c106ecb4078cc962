//! Retention of logs that no service uses: copying their old part elsewhere, and trimming them by hand.

use std::path::Path;
use std::sync::Arc;

use orchestrator_engine_plane::retention::{
    Limits, LogStarts, Readable, RetentionError, RetentionLogs, RoundRequest, TrimOutcome, TrimPlan,
    Writable, carry_out, copy_to_archive, note_later, plan_round, saved_base, scheduled_symbols,
};
use orchestrator_kernel::engine::contracts::DecodeError;
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::retention::{RetainedFor, RunsAfterBase, TrimBlocker};
use orchestrator_kernel::ids::{Epoch, Seq, TsMs};
use orchestrator_kernel::ports::checkpoint::LoadError;
use orchestrator_kernel::ports::log::{AcquireError, Log, LogName, ReadError};
use orchestrator_kernel::trading::journal::SealedEntry;
use orchestrator_runtime::log_copy::CopyError;
use orchestrator_trading_plane::retention::JournalRetentionError;

use super::WiringError;
use super::journal_trim::{JournalAsked, TrimmedJournal, plan_journal_trim};
use super::reading::{LogsPlace, Recorded, open_logs};
use super::settings::symbol_universe;
use super::storage::{archive_elsewhere, archive_log, embedded_parts};
use crate::adapters::files::data_dir::DataDir;
use crate::config::Config;
use crate::process::exit::ProcessExit;
use crate::process::exit::exit_of;
use crate::process::time::wall_now;

/// Reason for which nothing, or not everything, was archived or trimmed.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The logs cannot be opened.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// A step failed.
    #[error(transparent)]
    Retention(#[from] RetentionError),
    /// A step on the journal failed.
    #[error(transparent)]
    Journal(#[from] JournalRetentionError),
    /// More of the journal was asked than may be trimmed.
    #[error("journal records from {floor} on are still needed, so nothing was trimmed: {why}")]
    JournalNeeded {
        /// The first record that is needed.
        floor: Seq,
        /// By whom.
        why: String,
    },
    /// More was asked than may be trimmed.
    #[error("receipts from {floor} on are still needed, so nothing was trimmed: {why}")]
    Needed {
        /// The first receipt that is needed.
        floor: Seq,
        /// By whom.
        why: String,
    },
}

impl OfflineError {
    /// How the process ends because of it.
    #[must_use]
    pub fn to_exit(&self) -> ProcessExit {
        match self {
            Self::Wiring(error) => error.to_exit(),
            Self::Retention(RetentionError::Standing(fatal)) => exit_of(fatal.kind),
            Self::Needed { .. } | Self::JournalNeeded { .. } => ProcessExit::Different,
            Self::Journal(
                JournalRetentionError::Read(ReadError::Corrupt { .. } | ReadError::Trimmed { .. })
                | JournalRetentionError::Record { .. }
                | JournalRetentionError::Broken(_)
                | JournalRetentionError::BaseUnusable(LoadError::Damaged { .. })
                | JournalRetentionError::CursorUnusable(LoadError::Damaged { .. })
                | JournalRetentionError::BaseLost { .. }
                | JournalRetentionError::Copy(CopyError::Hole { .. }),
            ) => ProcessExit::Data,
            Self::Journal(
                JournalRetentionError::Read(ReadError::Io(error))
                | JournalRetentionError::BaseUnusable(LoadError::Io(error))
                | JournalRetentionError::CursorUnusable(LoadError::Io(error)),
            ) => ProcessExit::of_storage(error),
            Self::Journal(_) => ProcessExit::Io,
            Self::Retention(
                RetentionError::Read {
                    source: ReadError::Corrupt { .. } | ReadError::Trimmed { .. }, ..
                }
                | RetentionError::Record { .. }
                | RetentionError::Cursor(LoadError::Damaged { .. })
                | RetentionError::Runs(_)
                | RetentionError::Hole { .. },
            ) => ProcessExit::Data,
            Self::Retention(
                RetentionError::Read { source: ReadError::Io(error), .. }
                | RetentionError::Cursor(LoadError::Io(error)),
            ) => ProcessExit::of_storage(error),
            Self::Retention(_) => ProcessExit::Io,
        }
    }
}

/// Outcome of a trim, or of a dry run of it.
#[derive(Debug)]
pub struct Trimmed {
    /// What was decided.
    pub plan: TrimPlan,
    /// Where the logs started before.
    pub before: LogStarts,
    /// Where they start now.
    pub after: LogStarts,
    /// The journal, where there is one.
    pub journal: Option<TrimmedJournal>,
}

/// Trims the logs of the data directory `dir`, whose service is stopped.
///
/// # Errors
///
/// [`OfflineError`]; [`Needed`](OfflineError::Needed) when `limits` name a receipt beyond the floor.
pub async fn trim_logs(
    dir: &Path,
    config: &Config,
    (limits, of_journal): (Limits, JournalAsked),
    dry_run: bool,
) -> Result<Trimmed, OfflineError> {
    let data_dir = DataDir::open(dir).map_err(WiringError::from)?;
    let kept = open_writable(config, &data_dir, dry_run).await?;
    let base = saved_base(kept.checkpoints.as_ref()).await.map_err(WiringError::from)?;
    let mut later = RunsAfterBase::after_base(&base);
    note_later(&kept.runs, &mut later).await?;
    let scheduled = scheduled_symbols(&symbol_universe(&config.symbols));
    let holders = RetainedFor { scheduled: &scheduled, later: &later };
    let asked = RoundRequest { base: &base, limits, now: Some(wall_now()), step: u64::MAX, holders };
    let plan = plan_round(&kept, asked).await?;
    if let Some(asked) = limits.receipts_below.filter(|asked| plan.below.receipts < *asked) {
        let floor = plan.below.receipts.max(kept.receipts.log.stat().start);
        return Err(OfflineError::Needed { floor, why: blocker_text(&plan.held, asked) });
    }
    let checkpoints = &kept.checkpoints;
    let journal = plan_journal_trim(config, (dir, &data_dir), checkpoints, of_journal, dry_run).await?;
    let before = kept.log_starts();
    if !dry_run {
        let TrimOutcome { result, .. } = carry_out(&kept, &base, &plan).await;
        result?;
    }
    let journal = match journal {
        None => None,
        Some(journal) => Some(journal.carry_out(dry_run).await?),
    };
    Ok(Trimmed { plan, before, after: kept.log_starts(), journal })
}

fn blocker_text(held: &TrimBlocker, asked: Seq) -> String {
    match held {
        TrimBlocker::BySymbol(symbol, at) => format!(
            "symbol {symbol} holds {at}, where a cut that is still to be made, replayed or published starts"
        ),
        TrimBlocker::No => format!("the last receipt always stays, and {asked} is beyond it"),
    }
}

/// The logs with this process as their writer; only looked at in a dry run.
async fn open_writable(
    config: &Config,
    data_dir: &DataDir,
    dry_run: bool,
) -> Result<RetentionLogs, OfflineError> {
    let parts = embedded_parts(config, data_dir)?;
    let take = async |name: LogName, log: Arc<dyn Log>| -> Result<Writable, OfflineError> {
        let epoch = if dry_run { Epoch(0) } else { acquire_log(&log).await? };
        let dir = data_dir.archive_dir().join(name.as_str());
        let archive = match dir.is_dir() && !dry_run {
            false => None,
            // What went to an archive so far goes there from now on, or that archive would have a hole.
            true => {
                let archive: Arc<dyn Log> = archive_log(config, name, data_dir, log.stat().start)?;
                let epoch = acquire_log(&archive).await?;
                Some((archive, epoch))
            }
        };
        Ok(Writable { name, log, epoch, archive })
    };
    Ok(RetentionLogs {
        receipts: take(LogName::Receipts, parts.receipts).await?,
        runs: take(LogName::Runs, parts.runs).await?,
        quarantine: take(LogName::Quarantine, parts.quarantine).await?,
        checkpoints: parts.checkpoints,
    })
}

pub(super) async fn acquire_log(log: &Arc<dyn Log>) -> Result<Epoch, WiringError> {
    Ok(log.acquire().await.map_err(|error: AcquireError| WiringError::from(error))?.epoch)
}

/// How far opened logs could be trimmed now: the first receipt that is needed, and by whom.
///
/// # Errors
///
/// [`OfflineError`].
pub async fn trim_floor(logs: &Recorded, config: &Config) -> Result<(Seq, TrimBlocker), OfflineError> {
    let reader =
        |name, log: &Arc<dyn Log>| Writable { name, log: Arc::clone(log), epoch: Epoch(0), archive: None };
    let kept = RetentionLogs {
        receipts: reader(LogName::Receipts, &logs.receipts),
        runs: reader(LogName::Runs, &logs.runs),
        quarantine: reader(LogName::Quarantine, &logs.quarantine),
        checkpoints: Arc::clone(&logs.checkpoints),
    };
    let base = saved_base(kept.checkpoints.as_ref()).await.map_err(WiringError::from)?;
    let mut later = RunsAfterBase::after_base(&base);
    note_later(&kept.runs, &mut later).await?;
    let scheduled = scheduled_symbols(&symbol_universe(&config.symbols));
    let holders = RetainedFor { scheduled: &scheduled, later: &later };
    let limits = Limits { receipts_below: Some(Seq(u64::MAX)), ..Limits::default() };
    let asked = RoundRequest { base: &base, limits, now: None, step: u64::MAX, holders };
    let plan = plan_round(&kept, asked).await?;
    Ok((plan.base.receipts_from().into(), plan.held))
}

/// Records that were copied from one log.
#[derive(Clone, Copy, Debug)]
pub struct Archived {
    /// Which log.
    pub log: LogName,
    /// The first and the last record of the archive now.
    pub first: Seq,
    /// As above.
    pub last: Seq,
    /// Records copied.
    pub copied: u64,
}

/// Copies the logs at `place` into embedded logs under `to`, those records that are older than `before` if it is given.
/// What is there already is not copied again. Nothing is removed.
///
/// # Errors
///
/// [`OfflineError`].
pub async fn archive_logs(
    place: &LogsPlace,
    config: &Config,
    to: &Path,
    before: Option<TsMs>,
) -> Result<Vec<Archived>, OfflineError> {
    let mut logs = open_logs(place).await?;
    let journal = logs.take_journal()?;
    let receipts = |payload: &[u8]| Ok(ReceiptRecord::decode(payload)?.ingest_ts_ms);
    let runs = |payload: &[u8]| Ok(RunRecord::decode(payload)?.facts.planned_ts_ms);
    let quarantine = |payload: &[u8]| Ok(QuarantineRecord::decode(payload)?.at_ms);
    let mut archived = vec![
        copy_log((LogName::Receipts, &logs.receipts), config, to, before, receipts).await?,
        copy_log((LogName::Runs, &logs.runs), config, to, before, runs).await?,
        copy_log((LogName::Quarantine, &logs.quarantine), config, to, before, quarantine).await?,
    ];
    if let Some(journal) = &journal {
        let made = |payload: &[u8]| Ok(SealedEntry::decode(payload)?.entry.at_ms);
        archived.push(copy_log((LogName::Journal, journal), config, to, before, made).await?);
    }
    Ok(archived)
}

async fn copy_log(
    (name, from): (LogName, &Arc<dyn Log>),
    config: &Config,
    to: &Path,
    before: Option<TsMs>,
    time_of: impl Fn(&[u8]) -> Result<TsMs, DecodeError>,
) -> Result<Archived, OfflineError> {
    let stat = from.stat();
    let archive: Arc<dyn Log> = archive_elsewhere(config, name, &to.join(name.as_str()), stat.start)?;
    let epoch = acquire_log(&archive).await?;
    let from = Readable { name, log: from.as_ref() };
    let below = match before {
        None => stat.tail.next(),
        Some(time) => from.first_young(stat.start, stat.tail, time, time_of).await?,
    };
    let copied = copy_to_archive(from, archive.as_ref(), epoch, below).await?;
    let now = archive.stat();
    Ok(Archived { log: name, first: now.start, last: now.tail, copied })
}
