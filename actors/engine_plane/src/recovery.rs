//! Rebuilding derived state from the logs: from a checkpoint if there is one, and the records after it.
//!
//! ```text
//!  base (what trimmed logs go on from) ─▶ checkpoint, if it reaches the base ─▶ records behind it ─▶ state
//!    start of the log ≤ base, or it is refused     tail of the log ≥ what is known, or LOG_REGRESSED
//! ```

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::cut::{BookCheckpoint, CutBook};
use orchestrator_kernel::engine::retention::{BASE, RetentionBase};
use orchestrator_kernel::engine::run::RunIndex;
use orchestrator_kernel::ids::{IngestSeq, Seq, Symbol, TsMs};
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError};
use orchestrator_kernel::ports::log::LogName;
use orchestrator_runtime::checkpoint::CheckpointReader;
use orchestrator_runtime::fatal::{Fatal, FatalKind, NoAnswer};
use orchestrator_runtime::patient_log::PatientLog;
use ractor::ActorProcessingErr;
use serde::Serialize;

use crate::run_log::messages::Overview;

/// Name of the run log's checkpoint.
pub(crate) const RUNS_CHECKPOINT: &str = "runs";
/// Name of the buffer's checkpoint.
pub(crate) const RECEIPTS_CHECKPOINT: &str = "receipts";

/// A log shorter than what was derived from it has lost records: appending would reuse their numbers.
fn check_not_regressed(log: LogName, tail: Seq, known: Seq) -> Result<(), Fatal> {
    if known <= tail {
        return Ok(());
    }
    let what = format!(
        "the log of {log} ends at {tail}, but record {known} was there: LOG_REGRESSED; restore the log"
    );
    Err(Fatal::new(FatalKind::Corrupt, what))
}

/// What the logs continue from; the default one when nothing was ever trimmed.
pub(crate) async fn load_base(store: &dyn CheckpointStore) -> Result<RetentionBase, Fatal> {
    let base = stored_base(store).await?;
    base.map_err(|away| away.to_fatal())
}

/// As [`base`], for an actor that is started again: a storage that does not answer is no reason to end the process.
pub(crate) async fn base_or_again(store: &dyn CheckpointStore) -> Result<RetentionBase, ActorProcessingErr> {
    Ok(stored_base(store).await??)
}

async fn stored_base(store: &dyn CheckpointStore) -> Result<Result<RetentionBase, NoAnswer>, Fatal> {
    let (what, source): (_, Box<dyn std::error::Error + Send + Sync>) = match store.load(BASE).await {
        Ok(None) => return Ok(Ok(RetentionBase::default())),
        Ok(Some(bytes)) => match RetentionBase::decode(&bytes) {
            Ok(base) => return Ok(Ok(base)),
            Err(error) => ("cannot use the base of the logs", Box::new(error)),
        },
        // Nobody can tell what was trimmed, so it is not taken for "nothing was trimmed".
        Err(error @ LoadError::Damaged { .. }) => {
            let what = "the base, from which trimmed logs go on, is damaged; restore the checkpoint \"base\"";
            (what, Box::new(error))
        }
        Err(LoadError::Io(source)) => {
            return Ok(Err(NoAnswer { what: "cannot read the base of the logs", source }));
        }
    };
    Err(Fatal { kind: FatalKind::Corrupt, what: what.to_owned(), source: Some(source) })
}

/// What was trimmed away must be in the base.
fn check_base_reaches(log: LogName, start: Seq, needed: Seq) -> Result<(), Fatal> {
    if start <= needed {
        return Ok(());
    }
    let what = format!(
        "the log of {log} starts at {start}, but the base, from which a trimmed log goes on, ends before {needed}: \
         it is lost or too old; restore the checkpoint \"{BASE}\", or the log's beginning from the archive"
    );
    Err(Fatal::new(FatalKind::Corrupt, what))
}

/// The index of the run log.
pub(crate) async fn run_index(
    log: &PatientLog,
    saved: CheckpointReader<'_>,
    tail: Seq,
) -> Result<RunIndex, Fatal> {
    let base = load_base(saved.store).await?;
    check_base_reaches(LogName::Runs, log.start_seq(), base.runs_from().into())?;
    let saved: Option<RunIndex> = saved.load_checkpoint(RUNS_CHECKPOINT).await;
    let saved = saved.filter(|saved| base.run_index().tail() <= saved.tail());
    let mut index = saved.unwrap_or_else(|| base.run_index().clone());
    index.resume_after(base.run_index());
    check_not_regressed(LogName::Runs, tail, index.tail().into())?;
    log.scan_records(index.tail().next().into(), tail, |seq, payload| {
        let record = RunRecord::decode(payload)
            .map_err(|error| Fatal::undecodable_record(LogName::Runs, seq.0, error))?;
        index.admit_record(&record).map_err(|error| Fatal::undecodable_record(LogName::Runs, seq.0, error))
    })
    .await?;
    Ok(index)
}

/// Checkpoint of the buffer: the book, and the last quarantined item that it knows.
#[derive(Serialize, serde::Deserialize)]
pub(crate) struct BufferCheckpoint {
    pub(crate) book: BookCheckpoint,
    pub(crate) quarantine_tail: Seq,
}

/// Last records of the logs that the buffer writes.
#[derive(Clone, Copy)]
pub(crate) struct BufferTails {
    pub(crate) receipts: Seq,
    pub(crate) quarantine: Seq,
}

/// The buffer's book, continued where the run log says that the symbols' last cuts ended; and when the last receipt
/// came that was trimmed.
///
/// ```text
///                  base           last cut of A     checkpoint                 tail
///  ─── trimmed ─────┼────────────────────┼──────────────┼───────────────────────┤
///  what it held is  │                    └─ backfill: A ┘                       │  A's next cut starts behind its last
///  in the base      └─ backfill: N, which never ran ────┘                       │  N's first cut starts at the base
///                                                       └─ observe: everybody ──┘  nobody has seen these
/// ```
pub(crate) async fn cut_book(
    log: &PatientLog,
    quarantine: &PatientLog,
    saved: CheckpointReader<'_>,
    tails: BufferTails,
    runs: &Overview,
) -> Result<(CutBook, Option<TsMs>), Fatal> {
    let BufferTails { receipts: tail, quarantine: quarantine_tail } = tails;
    let base = load_base(saved.store).await?;
    check_base_reaches(LogName::Receipts, log.start_seq(), base.receipts_from().into())?;
    check_base_reaches(LogName::Quarantine, quarantine.start_seq(), base.quarantine_from())?;
    let BookStart { mut book, quarantined } = saved_book(saved, &base).await;
    // The runs too are derived from receipts: a cut that ended behind the log's end tells of records that it has lost.
    let last_cut_end = runs.symbols.iter().map(|(_, end, _)| *end).max().unwrap_or_default();
    check_not_regressed(LogName::Receipts, tail, book.tail().into())?;
    check_not_regressed(LogName::Quarantine, quarantine_tail, quarantined)?;
    check_not_regressed(LogName::Receipts, tail, last_cut_end.into())?;

    let missing = continue_cuts(&mut book, &base, runs);
    read_receipts(log, &mut book, &missing, tail).await?;
    read_quarantine(quarantine, &mut book, quarantined.next(), quarantine_tail).await?;
    Ok((book, base.cut_book().last_ts()))
}

/// Book that a start goes on from, and the last quarantined item that it knows.
struct BookStart {
    book: CutBook,
    quarantined: Seq,
}

/// The checkpoint's book; that of the base where there is no checkpoint, or none that reaches it.
async fn saved_book(saved: CheckpointReader<'_>, base: &RetentionBase) -> BookStart {
    let saved: Option<BufferCheckpoint> = saved.load_checkpoint(RECEIPTS_CHECKPOINT).await;
    // One that ends before the base needs receipts that are trimmed: what follows it can be read no more.
    let saved = saved.filter(|saved| base.receipts_from() <= saved.book.tail().next());
    let (mut book, quarantined) = match saved {
        Some(saved) => (saved.book.into_book(), saved.quarantine_tail),
        None => (base.cut_book(), Seq(0)),
    };
    // Quarantined items can be trimmed that came after the checkpoint. Only the base still counts them, and a producer
    // that sends one of them again must not leave a gap (LOG-1).
    book.know_positions(base.cut_book().positions());
    let quarantined = quarantined.max(Seq(base.quarantine_from().0 - 1));
    BookStart { book, quarantined }
}

/// Lets each symbol's next cut start where it has to. Returns the symbols whose receipts before the book's tail have to
/// be read again, from where on.
fn continue_cuts(book: &mut CutBook, base: &RetentionBase, runs: &Overview) -> BTreeMap<Symbol, IngestSeq> {
    let ran: BTreeSet<&Symbol> = runs.symbols.iter().map(|(symbol, ..)| symbol).collect();
    // A symbol that never ran is cut from its first receipt on. Where that is trimmed, from the base on, as a replay of
    // the trimmed logs does (REP-1).
    let forgotten = book.forget_before(base.receipts_from(), |symbol| ran.contains(symbol));
    let mut missing: BTreeMap<Symbol, IngestSeq> =
        forgotten.into_iter().map(|symbol| (symbol, base.receipts_from())).collect();
    // The run log is the authority on where a cut ended (CUT-1): the checkpoint may be older than the last run, or may
    // have been taken after a seal whose runs were never recorded.
    for (symbol, end, floor) in &runs.symbols {
        if book.track_symbol(symbol, end.next(), Some(*floor)) {
            missing.insert(symbol.clone(), end.next());
        }
    }
    missing
}

/// Reads what the book does not know: everything behind its tail, and before it only what is `missing` of a symbol.
async fn read_receipts(
    log: &PatientLog,
    book: &mut CutBook,
    missing: &BTreeMap<Symbol, IngestSeq>,
    tail: Seq,
) -> Result<(), Fatal> {
    let known = book.tail();
    let from = missing.values().min().copied().unwrap_or(known.next());
    log.scan_records(from.into(), tail, |seq, payload| {
        let record = ReceiptRecord::decode(payload)
            .map_err(|error| Fatal::undecodable_record(LogName::Receipts, seq.0, error))?;
        // Once each: what the book knows is in its positions and counts already.
        if known < record.ingest_seq {
            book.observe_receipt(&record);
        } else if missing.contains_key(record.symbol) {
            book.backfill_receipt(&record);
        }
        Ok(())
    })
    .await
}

async fn read_quarantine(
    quarantine: &PatientLog,
    book: &mut CutBook,
    from: Seq,
    tail: Seq,
) -> Result<(), Fatal> {
    quarantine
        .scan_records(from, tail, |seq, payload| {
            let record = QuarantineRecord::decode(payload)
                .map_err(|error| Fatal::undecodable_record(LogName::Quarantine, seq.0, error))?;
            book.note_quarantined(&record.origin, record.position);
            Ok(())
        })
        .await
}
