//! One round of retention: what may go by the limits and the kernel's floor, and letting it go.

use std::sync::Arc;

use bytes::Bytes;
use orchestrator_kernel::contracts::DecodeError;
use orchestrator_kernel::contracts::engine_run::RunRecord;
use orchestrator_kernel::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{Epoch, IngestSeq, RunSeq, Seq, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError, SaveError};
use orchestrator_kernel::ports::log::{
    AcquireError, AppendError, Log, ReadError, ReadLimit, TrimError, read_one,
};
use orchestrator_kernel::retention::{Advance, Asked, BASE, Base, FirstYoung, Held, Holders, Later, Policy};
use orchestrator_kernel::run::RunViolation;

use crate::address::Down;
use crate::fatal::Fatal;
use crate::publisher;

/// Why a round was not done, or not to its end. Whatever it was: the base that is saved fits the logs.
#[derive(Debug, thiserror::Error)]
pub enum RetentionError {
    /// An actor that has to be asked is down.
    #[error(transparent)]
    Down(#[from] Down),
    /// A log cannot be read.
    #[error("cannot read the log of {log}")]
    Read {
        /// Which log.
        log: &'static str,
        /// Why.
        #[source]
        source: ReadError,
    },
    /// A stored record is none.
    #[error("record {seq} of the log of {log} cannot be used")]
    Record {
        /// Which log.
        log: &'static str,
        /// Which record.
        seq: u64,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The run log contradicts itself.
    #[error(transparent)]
    Runs(#[from] RunViolation),
    /// The publish cursor is not known, so no run may go.
    #[error("cannot read the publish cursor")]
    Cursor(#[source] LoadError),
    /// The base is not saved, so nothing may go.
    #[error("cannot save the base")]
    Base(#[source] SaveError),
    /// The archive cannot be opened.
    #[error("cannot take over an archive")]
    Archive(#[source] AcquireError),
    /// The archive does not take the records, so they may not go.
    #[error("cannot write the archive of {log}")]
    Copy {
        /// Which log.
        log: &'static str,
        /// Why.
        #[source]
        source: AppendError,
    },
    /// Between the archive and the log records are missing: they were let go while nothing was archived.
    #[error(
        "the archive of {log} ends at {archived}, the log starts at {start}; move that archive away to begin a new one"
    )]
    Hole {
        /// Which log.
        log: &'static str,
        /// The last archived record.
        archived: Seq,
        /// The first record in the log.
        start: Seq,
    },
    /// The log is not trimmed.
    #[error("cannot trim the log of {log}")]
    Trim {
        /// Which log.
        log: &'static str,
        /// Why.
        #[source]
        source: TrimError,
    },
    /// What the logs are continued from.
    #[error(transparent)]
    Standing(#[from] Fatal),
}

/// A log as its writer has it.
#[derive(Clone)]
pub struct Writable {
    /// Its name.
    pub name: &'static str,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// Where its records are copied to before they go, and this writer's epoch there.
    pub archive: Option<(Arc<dyn Log>, Epoch)>,
}

/// What a retention works on.
#[derive(Clone)]
pub struct Kept {
    /// The receipt log.
    pub receipts: Writable,
    /// The run log.
    pub runs: Writable,
    /// The quarantine.
    pub quarantine: Writable,
    /// Where the base is, and the publish cursor.
    pub checkpoints: Arc<dyn CheckpointStore>,
}

/// What is kept of each log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of the receipts.
    pub receipts: Policy,
    /// Of the runs.
    pub runs: Policy,
    /// Of the quarantine.
    pub quarantine: Policy,
    /// Receipts before this one are to go, whatever their policy.
    pub receipts_below: Option<Seq>,
}

/// What a round is going to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The next base.
    pub base: Base,
    /// What keeps receipts that were to go.
    pub held: Held,
    /// The first receipt that the limits want to keep.
    pub receipts_wanted: Seq,
    /// The first receipt, run record and quarantined item to stay.
    pub below: [Seq; 3],
}

/// What went from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone {
    /// Which log.
    pub log: &'static str,
    /// How many records.
    pub records: u64,
    /// The first record still there.
    pub start: Seq,
}

/// How far a round came.
#[derive(Debug)]
pub struct Done {
    /// Whether the plan's base is the saved one.
    pub is_base_saved: bool,
    /// What went.
    pub trimmed: Vec<Gone>,
    /// Why not all of it.
    pub result: Result<(), RetentionError>,
}

/// Decides what goes next: at most `step` receipts and `step` run records beyond `base`. Changes nothing.
///
/// # Errors
///
/// [`RetentionError`].
pub async fn plan(
    kept: &Kept,
    base: &Base,
    limits: Limits,
    now: Option<TsMs>,
    step: u64,
    holders: Holders<'_>,
) -> Result<Plan, RetentionError> {
    let wanted = receipts_wanted(&kept.receipts, base, limits, now).await?;
    let receipts_below = wanted.min(Seq(base.receipts_from().0.saturating_add(step)));
    let runs_from = Seq::from(base.runs_from());
    let published = publisher::published(kept.checkpoints.as_ref()).await.map_err(RetentionError::Cursor)?;
    let asked = Asked {
        receipts_below: receipts_below.into(),
        runs_below: limits.runs.below(kept.runs.log.stat()).into(),
        runs_older_than: now.and_then(|now| limits.runs.older_than(now)),
        published: published.min(RunSeq(runs_from.0.saturating_add(step).saturating_sub(1))),
    };
    let quarantine_below = quarantine_wanted(&kept.quarantine, base, limits.quarantine, now).await?;
    let mut advance = Advance::new(base.clone(), asked, holders);
    advance_runs(&kept.runs, &mut advance).await?;
    let held = advance_receipts(&kept.receipts, &mut advance).await?;
    count_quarantined(&kept.quarantine, &mut advance, quarantine_below).await?;
    let next = advance.finish();
    // Where a policy does not want a log trimmed, its part of the base stays where it is, and so do the records.
    let receipts = if wanted == Seq(0) { Seq(0) } else { next.receipts_from().into() };
    let below = [receipts, next.runs_from().into(), quarantine_below];
    Ok(Plan { base: next, held, receipts_wanted: wanted, below })
}

/// Takes what came to the run log since.
///
/// # Errors
///
/// [`RetentionError`].
pub async fn note_later(runs: &Writable, later: &mut Later) -> Result<(), RetentionError> {
    loop {
        let batch = read(runs, later.next().into()).await?;
        if batch.is_empty() {
            return Ok(());
        }
        for (seq, payload) in batch.iter() {
            let record = RunRecord::decode(payload).map_err(|source| RetentionError::Record {
                log: runs.name,
                seq: seq.0,
                source,
            })?;
            later.note(&record);
        }
    }
}

/// Saves the plan's base, copies what goes to the archives, and trims.
pub async fn carry_out(kept: &Kept, base: &Base, plan: &Plan) -> Done {
    let mut done = Done { is_base_saved: false, trimmed: Vec::new(), result: Ok(()) };
    done.result = async {
        if plan.base != *base && !mutant!(TrimsBeforeBase) {
            save_base(kept, &plan.base).await?;
        }
        done.is_base_saved = true;
        for (log, below) in [&kept.receipts, &kept.runs, &kept.quarantine].into_iter().zip(plan.below) {
            let before = log.log.stat().start;
            if before < below {
                copy(log, below).await?;
                let trimmed = log.log.trim(log.epoch, below).await;
                let start =
                    trimmed.map_err(|source| RetentionError::Trim { log: log.name, source })?.max(before);
                done.trimmed.push(Gone { log: log.name, records: start.0 - before.0, start });
            }
        }
        if mutant!(TrimsBeforeBase) {
            save_base(kept, &plan.base).await?;
        }
        Ok(())
    }
    .await;
    done
}

async fn save_base(kept: &Kept, base: &Base) -> Result<(), RetentionError> {
    let value = Bytes::from(base.encode());
    kept.checkpoints.save(BASE, kept.runs.epoch, value).await.map_err(RetentionError::Base)
}

/// Takes an archive over.
pub(super) async fn acquire_archive(log: &Arc<dyn Log>) -> Result<Epoch, RetentionError> {
    Ok(log.acquire().await.map_err(RetentionError::Archive)?.epoch)
}

/// The first receipt that the limits want to keep; 0 when they want all. The last receipt always stays: its time is
/// what the next one continues (LOG-5).
async fn receipts_wanted(
    receipts: &Writable,
    base: &Base,
    limits: Limits,
    now: Option<TsMs>,
) -> Result<Seq, RetentionError> {
    if limits.receipts.keeps_all() && limits.receipts_below.is_none() {
        return Ok(Seq(0));
    }
    let stat = receipts.log.stat();
    let mut below = limits.receipts.below(stat).max(limits.receipts_below.unwrap_or_default());
    if let Some(time) = now.and_then(|now| limits.receipts.older_than(now)) {
        let from = stat.start.max(base.receipts_from().into());
        let time_of = |payload: &[u8]| Ok(ReceiptRecord::decode(payload)?.ingest_ts_ms);
        below = below.max(first_young(receipts, from, stat.tail, time, time_of).await?);
    }
    Ok(below.min(stat.tail))
}

async fn quarantine_wanted(
    quarantine: &Writable,
    base: &Base,
    policy: Policy,
    now: Option<TsMs>,
) -> Result<Seq, RetentionError> {
    if policy.keeps_all() {
        return Ok(Seq(0));
    }
    let stat = quarantine.log.stat();
    let mut below = policy.below(stat);
    if let Some(time) = now.and_then(|now| policy.older_than(now)) {
        // Counted in the base and still there is possible: only whole units go.
        let from = stat.start.max(base.quarantine_from()).min(stat.tail.next());
        let time_of = |payload: &[u8]| Ok(QuarantineRecord::decode(payload)?.at_ms);
        below = below.max(first_young(quarantine, from, stat.tail, time, time_of).await?);
    }
    Ok(below)
}

async fn first_young(
    from_log: &Writable,
    from: Seq,
    tail: Seq,
    time: TsMs,
    time_of: impl Fn(&[u8]) -> Result<TsMs, DecodeError>,
) -> Result<Seq, RetentionError> {
    let mut search = FirstYoung::new(from, tail);
    while let Some(at) = search.asks() {
        let stored = read_one(from_log.log.as_ref(), at).await;
        let stored = stored.map_err(|source| RetentionError::Read { log: from_log.name, source })?;
        let found = time_of(&stored.unwrap_or_default());
        let found =
            found.map_err(|source| RetentionError::Record { log: from_log.name, seq: at.0, source })?;
        search.tell(at, found < time);
    }
    Ok(search.found())
}

async fn advance_runs(runs: &Writable, advance: &mut Advance<'_>) -> Result<(), RetentionError> {
    loop {
        let batch = read(runs, advance.next_run().into()).await?;
        for (seq, payload) in batch.iter() {
            let record = RunRecord::decode(payload).map_err(|source| RetentionError::Record {
                log: runs.name,
                seq: seq.0,
                source,
            })?;
            if !advance.run(&record)? {
                return Ok(());
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
    }
}

async fn advance_receipts(receipts: &Writable, advance: &mut Advance<'_>) -> Result<Held, RetentionError> {
    let (limit, held) = advance.limit();
    while advance.next_receipt() < limit {
        let batch = read(receipts, advance.next_receipt().into()).await?;
        for (seq, payload) in batch.iter().take_while(|(seq, _)| IngestSeq::from(*seq) < limit) {
            let record = ReceiptRecord::decode(payload).map_err(|source| RetentionError::Record {
                log: receipts.name,
                seq: seq.0,
                source,
            })?;
            match advance.receipt(&record) {
                Held::No => {}
                held => return Ok(held),
            }
        }
        if batch.is_empty() {
            break;
        }
    }
    Ok(held)
}

async fn count_quarantined(
    quarantine: &Writable,
    advance: &mut Advance<'_>,
    below: Seq,
) -> Result<(), RetentionError> {
    while advance.next_quarantined() < below {
        let batch = read(quarantine, advance.next_quarantined()).await?;
        for (seq, payload) in batch.iter().take_while(|(seq, _)| *seq < below) {
            let record = QuarantineRecord::decode(payload).map_err(|source| RetentionError::Record {
                log: quarantine.name,
                seq: seq.0,
                source,
            })?;
            advance.quarantined(&record);
        }
        if batch.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Makes what is below `below` durable in the archive; at least that.
async fn copy(from: &Writable, below: Seq) -> Result<(), RetentionError> {
    let Some((archive, epoch)) = &from.archive else { return Ok(()) };
    loop {
        let (archived, start) = (archive.stat().tail, from.log.stat().start);
        if below <= archived.next() {
            return Ok(());
        }
        if archived.next() < start {
            return Err(RetentionError::Hole { log: from.name, archived, start });
        }
        let page = read(from, archived.next()).await?;
        archive
            .append(*epoch, &page)
            .await
            .map_err(|source| RetentionError::Copy { log: from.name, source })?;
    }
}

async fn read(
    log: &Writable,
    from: Seq,
) -> Result<orchestrator_kernel::ports::log::RecordBatch, RetentionError> {
    let read = log.log.read(from, ReadLimit::default()).await;
    read.map_err(|source| RetentionError::Read { log: log.name, source })
}
