//! One round of retention: what may be trimmed by the limits and the kernel's floor, and trimming it.

use std::sync::Arc;

use bytes::Bytes;
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::retention::{
    BASE, BaseAdvance, Policy, RetainedFor, RetentionBase, RunsAfterBase, TrimBlocker, TrimRequest,
};
use orchestrator_kernel::ids::{Epoch, IngestSeq, RunSeq, Seq, TsMs};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::log::{Log, LogName};

use super::copy::copy_to_archive;
use super::error::RetentionError;
use super::reading::Readable;
use crate::publisher::messages::load_released;

/// A log as its writer has it.
#[derive(Clone)]
pub struct Writable {
    /// Its name.
    pub name: LogName,
    /// The log.
    pub log: Arc<dyn Log>,
    /// The writer's epoch.
    pub epoch: Epoch,
    /// Where its records are copied to before they go, and this writer's epoch there.
    pub archive: Option<(Arc<dyn Log>, Epoch)>,
}

impl Writable {
    /// The log, to be read.
    #[must_use]
    pub fn to_readable(&self) -> Readable<'_> {
        Readable { name: self.name, log: self.log.as_ref() }
    }
}

/// Logs and checkpoints that a retention works on.
#[derive(Clone)]
pub struct RetentionLogs {
    /// The receipt log.
    pub receipts: Writable,
    /// The run log.
    pub runs: Writable,
    /// The quarantine.
    pub quarantine: Writable,
    /// Where the base is, and the publish cursor.
    pub checkpoints: Arc<dyn CheckpointStore>,
}

impl RetentionLogs {
    /// Where the logs start now.
    #[must_use]
    pub fn log_starts(&self) -> LogStarts {
        let [receipts, runs, quarantine] =
            [&self.receipts, &self.runs, &self.quarantine].map(|log| log.log.stat().start);
        LogStarts { receipts, runs, quarantine }
    }
}

/// Limits up to which each log is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Of the receipts.
    pub receipts: Policy,
    /// Of the runs.
    pub runs: Policy,
    /// Of the quarantine.
    pub quarantine: Policy,
    /// Receipts before this one are to be trimmed, whatever their policy.
    pub receipts_below: Option<Seq>,
}

/// Decision of a round: the next base, and the trim point of each log.
#[derive(Clone, Debug)]
pub struct TrimPlan {
    /// The next base.
    pub base: RetentionBase,
    /// What keeps receipts that were to be trimmed.
    pub held: TrimBlocker,
    /// The first receipt that the limits want to keep.
    pub receipts_wanted: Seq,
    /// The first records to stay.
    pub below: LogStarts,
}

/// First record of each log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStarts {
    /// Of the receipts.
    pub receipts: Seq,
    /// Of the run records.
    pub runs: Seq,
    /// Of the quarantined items.
    pub quarantine: Seq,
}

/// Records that were trimmed from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrimmedLog {
    /// Which log.
    pub log: LogName,
    /// How many records.
    pub records: u64,
    /// The first record still there.
    pub start: Seq,
}

/// Outcome of a round.
#[derive(Debug)]
pub struct TrimOutcome {
    /// Whether the plan's base is the saved one.
    pub is_base_saved: bool,
    /// What was trimmed.
    pub trimmed: Vec<TrimmedLog>,
    /// Why not all of it.
    pub result: Result<(), RetentionError>,
}

/// Request to a round: what is to be trimmed, and for whom records stay.
#[derive(Clone, Copy)]
pub struct RoundRequest<'a> {
    /// What the logs go on from now.
    pub base: &'a RetentionBase,
    /// What is kept.
    pub limits: Limits,
    /// Says how old records are; `None`: limits of age count nothing.
    pub now: Option<TsMs>,
    /// Receipts, and run records, by which the base is advanced at most.
    pub step: u64,
    /// Who needs receipts.
    pub holders: RetainedFor<'a>,
}

/// Decides what is trimmed next: at most `step` receipts and `step` run records beyond the base. Changes nothing.
///
/// # Errors
///
/// [`RetentionError`].
pub async fn plan_round(kept: &RetentionLogs, asked: RoundRequest<'_>) -> Result<TrimPlan, RetentionError> {
    let [receipts, quarantine] = [&kept.receipts, &kept.quarantine].map(|log| log.log.stat().tail);
    let known = DurableTails { published: load_published(kept).await?, receipts, quarantine };
    plan_known(kept, asked, known).await
}

/// Positions up to which the logs are known to be durable and published. Nothing behind them is trimmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct DurableTails {
    /// The last run record whose outputs are all published.
    pub(super) published: RunSeq,
    /// The last receipt that is durable.
    pub(super) receipts: Seq,
    /// The last quarantined item that is durable.
    pub(super) quarantine: Seq,
}

/// The last run record that publishing needs no more, as it was saved: the outputs up to it are all published.
pub(super) async fn load_published(kept: &RetentionLogs) -> Result<RunSeq, RetentionError> {
    load_released(kept.checkpoints.as_ref()).await.map_err(RetentionError::Cursor)
}

/// As [`plan_round`], of logs that grow: their writers say how far they know them.
pub(super) async fn plan_known(
    kept: &RetentionLogs,
    asked: RoundRequest<'_>,
    known: DurableTails,
) -> Result<TrimPlan, RetentionError> {
    let RoundRequest { base, limits, now, step, holders } = asked;
    let [receipts, runs, quarantine] =
        [&kept.receipts, &kept.runs, &kept.quarantine].map(Writable::to_readable);
    let wanted = receipts_wanted(receipts, base, limits, now).await?.min(known.receipts);
    let runs_from = Seq::from(base.runs_from());
    let stop = IngestSeq(base.receipts_from().0.saturating_add(step));
    let receipts_below = IngestSeq::from(wanted);
    let asked = TrimRequest {
        receipts_below: if mutant!(StepHoldsRuns) { receipts_below.min(stop) } else { receipts_below },
        receipts_stop: Some(stop),
        runs_below: limits.runs.trim_point(runs.log.stat()).into(),
        runs_older_than: now.and_then(|now| limits.runs.older_than(now)),
        published: known.published.min(RunSeq(runs_from.0.saturating_add(step).saturating_sub(1))),
    };
    let quarantine_below = quarantine_wanted(quarantine, base, limits.quarantine, now).await?;
    let quarantine_below = match mutant!(TrimsWhatIsInDoubt) {
        true => quarantine_below,
        false => quarantine_below.min(known.quarantine.next()),
    };
    let mut advance = BaseAdvance::new(base.clone(), asked, holders);
    advance_runs(runs, &mut advance).await?;
    let held = advance_receipts(receipts, &mut advance).await?;
    count_quarantined(quarantine, &mut advance, quarantine_below).await?;
    let next = advance.into_base();
    // Where a policy does not want a log trimmed, its part of the base stays where it is, and so do the records.
    let receipts = if wanted == Seq(0) { Seq(0) } else { next.receipts_from().into() };
    let below = LogStarts { receipts, runs: next.runs_from().into(), quarantine: quarantine_below };
    Ok(TrimPlan { base: next, held, receipts_wanted: wanted, below })
}

/// Takes what came to the run log since.
///
/// # Errors
///
/// [`RetentionError`].
pub async fn note_later(runs: &Writable, later: &mut RunsAfterBase) -> Result<(), RetentionError> {
    let runs = runs.to_readable();
    loop {
        let batch = runs.read_page(later.next_record().into()).await?;
        if batch.is_empty() {
            return Ok(());
        }
        for (seq, payload) in batch.iter() {
            let record = runs.decoded_record(seq, RunRecord::decode(payload))?;
            later.note_record(&record);
        }
    }
}

/// Saves the plan's base, copies what goes to the archives, and trims.
pub async fn carry_out(kept: &RetentionLogs, base: &RetentionBase, plan: &TrimPlan) -> TrimOutcome {
    let save = if plan.base == *base { Save::Never } else { Save::Always };
    carry_out_saving(kept, plan, save).await
}

/// Rule for saving the base although it may be the saved one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Save {
    Never,
    /// When anything is trimmed.
    BeforeTrims,
    Always,
}

/// As [`carry_out`], for a plan whose base may have to be saved again.
pub(super) async fn carry_out_saving(kept: &RetentionLogs, plan: &TrimPlan, save: Save) -> TrimOutcome {
    let LogStarts { receipts, runs, quarantine } = plan.below;
    let logs =
        || [(&kept.receipts, receipts), (&kept.runs, runs), (&kept.quarantine, quarantine)].into_iter();
    let trims = logs().any(|(log, below)| log.log.stat().start < below);
    let save = save == Save::Always || (save == Save::BeforeTrims && trims);
    let mut done = TrimOutcome { is_base_saved: false, trimmed: Vec::new(), result: Ok(()) };
    done.result = async {
        if save {
            save_base(kept, &plan.base).await?;
        }
        done.is_base_saved = true;
        for (log, below) in logs() {
            let before = log.log.stat().start;
            if before < below {
                if let Some((archive, epoch)) = log.archive.as_ref().filter(|_| !mutant!(TrimsBeforeArchived))
                {
                    copy_to_archive(log.to_readable(), archive.as_ref(), *epoch, below).await?;
                }
                let trimmed = log.log.trim(log.epoch, below).await;
                let start =
                    trimmed.map_err(|source| RetentionError::Trim { log: log.name, source })?.max(before);
                done.trimmed.push(TrimmedLog { log: log.name, records: start.0 - before.0, start });
            }
        }
        Ok(())
    }
    .await;
    done
}

async fn save_base(kept: &RetentionLogs, base: &RetentionBase) -> Result<(), RetentionError> {
    let value = Bytes::from(base.encode());
    kept.checkpoints.save(BASE, kept.runs.epoch, value).await.map_err(RetentionError::Base)
}

/// The first receipt that the limits want to keep; 0 when they want all. The last receipt always stays: its time is
/// what the next one continues (LOG-5).
async fn receipts_wanted(
    receipts: Readable<'_>,
    base: &RetentionBase,
    limits: Limits,
    now: Option<TsMs>,
) -> Result<Seq, RetentionError> {
    if limits.receipts.keeps_all() && limits.receipts_below.is_none() {
        return Ok(Seq(0));
    }
    let stat = receipts.log.stat();
    let mut below = limits.receipts.trim_point(stat).max(limits.receipts_below.unwrap_or_default());
    if let Some(time) = now.and_then(|now| limits.receipts.older_than(now)) {
        let from = stat.start.max(base.receipts_from().into());
        let time_of = |payload: &[u8]| Ok(ReceiptRecord::decode(payload)?.ingest_ts_ms);
        below = below.max(receipts.first_young(from, stat.tail, time, time_of).await?);
    }
    Ok(below.min(stat.tail))
}

async fn quarantine_wanted(
    quarantine: Readable<'_>,
    base: &RetentionBase,
    policy: Policy,
    now: Option<TsMs>,
) -> Result<Seq, RetentionError> {
    if policy.keeps_all() {
        return Ok(Seq(0));
    }
    let stat = quarantine.log.stat();
    let mut below = policy.trim_point(stat);
    if let Some(time) = now.and_then(|now| policy.older_than(now)) {
        // Counted in the base and still there is possible: only whole units go.
        let from = stat.start.max(base.quarantine_from()).min(stat.tail.next());
        let time_of = |payload: &[u8]| Ok(QuarantineRecord::decode(payload)?.at_ms);
        below = below.max(quarantine.first_young(from, stat.tail, time, time_of).await?);
    }
    Ok(below)
}

async fn advance_runs(runs: Readable<'_>, advance: &mut BaseAdvance<'_>) -> Result<(), RetentionError> {
    loop {
        let batch = runs.read_page(advance.next_run().into()).await?;
        for (seq, payload) in batch.iter() {
            let record = runs.decoded_record(seq, RunRecord::decode(payload))?;
            if !advance.take_run_record(&record)? {
                return Ok(());
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
    }
}

async fn advance_receipts(
    receipts: Readable<'_>,
    advance: &mut BaseAdvance<'_>,
) -> Result<TrimBlocker, RetentionError> {
    let (limit, held) = advance.receipt_limit();
    while advance.next_receipt() < limit {
        let batch = receipts.read_page(advance.next_receipt().into()).await?;
        for (seq, payload) in batch.iter().take_while(|(seq, _)| IngestSeq::from(*seq) < limit) {
            let record = receipts.decoded_record(seq, ReceiptRecord::decode(payload))?;
            match advance.take_receipt(&record) {
                TrimBlocker::No => {}
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
    quarantine: Readable<'_>,
    advance: &mut BaseAdvance<'_>,
    below: Seq,
) -> Result<(), RetentionError> {
    while advance.next_quarantined() < below {
        let batch = quarantine.read_page(advance.next_quarantined()).await?;
        for (seq, payload) in batch.iter().take_while(|(seq, _)| *seq < below) {
            let record = quarantine.decoded_record(seq, QuarantineRecord::decode(payload))?;
            advance.count_quarantined(&record);
        }
        if batch.is_empty() {
            break;
        }
    }
    Ok(())
}
