//! Rebuilding derived state from the logs: from a checkpoint if there is one, and the records after it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use orchestrator_kernel::contracts::engine_run::RunRecord;
use orchestrator_kernel::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::cut::{BookCheckpoint, CutBook};
use orchestrator_kernel::ids::{Epoch, IngestSeq, Seq, Symbol};
use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::retention::{BASE, Base};
use orchestrator_kernel::run::RunIndex;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::fatal::{Fatal, FatalKind};
use crate::patient_log::PatientLog;
use crate::run_log::Overview;

const VERSION: u8 = 1;

/// The stored form of a checkpoint: a version byte, then postcard.
pub(crate) fn encode_checkpoint<T: Serialize>(state: &T) -> Bytes {
    match postcard::to_extend(state, vec![VERSION]) {
        Ok(bytes) => Bytes::from(bytes),
        // Never for these types; an empty checkpoint is none, and a start is only slower.
        Err(_) => Bytes::new(),
    }
}

pub(crate) fn decode_checkpoint<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).ok(),
        Some(_) | None => None,
    }
}

pub(crate) async fn save_checkpoint(store: &dyn CheckpointStore, name: &str, epoch: Epoch, value: Bytes) {
    if let Err(error) = store.save(name, epoch, value).await {
        tracing::warn!(name, %error, "checkpoint not saved, the next start will take longer");
    }
}

async fn load_checkpoint<T: DeserializeOwned>(store: &dyn CheckpointStore, name: &str) -> Option<T> {
    match store.load(name).await {
        Ok(Some(bytes)) => decode_checkpoint(&bytes),
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(name, %error, "checkpoint not readable, reading the whole log instead");
            None
        }
    }
}

/// A log shorter than what was derived from it has lost records: appending would reuse their numbers.
fn regressed(log: &'static str, tail: Seq, known: Seq) -> Result<(), Fatal> {
    if known <= tail {
        return Ok(());
    }
    let what = format!(
        "the log of {log} ends at {tail}, but record {known} was there: LOG_REGRESSED; restore the log"
    );
    Err(Fatal::new(FatalKind::Corrupt, what))
}

/// What the logs continue from; the default one when nothing was ever let go.
pub(crate) async fn base(store: &dyn CheckpointStore) -> Result<Base, Fatal> {
    let stored = store.load(BASE).await.map_err(|error| Fatal {
        kind: FatalKind::Storage,
        what: "cannot read the base of the logs".to_owned(),
        source: Some(Box::new(error)),
    })?;
    match stored.map(|bytes| Base::decode(&bytes)) {
        None => Ok(Base::default()),
        Some(Ok(base)) => Ok(base),
        Some(Err(error)) => Err(Fatal {
            kind: FatalKind::Corrupt,
            what: "cannot use the base of the logs".to_owned(),
            source: Some(Box::new(error)),
        }),
    }
}

/// What was trimmed away must be in the base.
fn bridged(log: &'static str, start: Seq, needed: Seq) -> Result<(), Fatal> {
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
    store: &dyn CheckpointStore,
    tail: Seq,
) -> Result<RunIndex, Fatal> {
    let base = base(store).await?;
    bridged("runs", log.start(), base.runs_from().into())?;
    let saved: Option<RunIndex> = load_checkpoint(store, crate::run_log::CHECKPOINT).await;
    let saved = saved.filter(|saved| base.runs().tail() <= saved.tail());
    let mut index = saved.unwrap_or_else(|| base.runs().clone());
    index.resume_after(base.runs());
    regressed("runs", tail, index.tail().into())?;
    log.scan(index.tail().next().into(), tail, |seq, payload| {
        let record = RunRecord::decode(payload).map_err(|error| Fatal::undecodable("runs", seq.0, error))?;
        index.admit(&record).map_err(|error| Fatal::undecodable("runs", seq.0, error))
    })
    .await?;
    Ok(index)
}

/// What a checkpoint of the buffer holds: the book, and how far of the quarantine it knows.
#[derive(Serialize, serde::Deserialize)]
pub(crate) struct BufferCheckpoint {
    pub(crate) book: BookCheckpoint,
    pub(crate) quarantine_tail: Seq,
}

/// The buffer's book, continued where the run log says that the symbols' last cuts ended.
pub(crate) async fn cut_book(
    log: &PatientLog,
    quarantine: &PatientLog,
    store: &dyn CheckpointStore,
    (tail, quarantine_tail): (Seq, Seq),
    runs: &Overview,
) -> Result<CutBook, Fatal> {
    let base = base(store).await?;
    bridged("receipts", log.start(), base.receipts_from().into())?;
    bridged("quarantine", quarantine.start(), base.quarantine_from())?;
    let saved: Option<BufferCheckpoint> = load_checkpoint(store, crate::buffer::CHECKPOINT).await;
    let (mut book, quarantine_from) =
        match saved.filter(|saved| base.receipts_from() <= saved.book.tail().next()) {
            Some(saved) => (saved.book.into_book(), saved.quarantine_tail),
            None => (base.book(), Seq(0)),
        };
    book.know_positions(base.book().positions());
    let quarantine_from = quarantine_from.max(Seq(base.quarantine_from().0 - 1));
    regressed("receipts", tail, book.tail().into())?;
    regressed("quarantine", quarantine_tail, quarantine_from)?;
    let last_cut_end = runs.symbols.iter().map(|(_, end, _)| *end).max().unwrap_or_default();
    regressed("receipts", tail, last_cut_end.into())?;

    let ran: BTreeSet<&Symbol> = runs.symbols.iter().map(|(symbol, ..)| symbol).collect();
    let forgotten = book.forget_before(base.receipts_from(), |symbol| ran.contains(symbol));
    let mut missing: BTreeMap<Symbol, IngestSeq> =
        forgotten.into_iter().map(|symbol| (symbol, base.receipts_from())).collect();
    for (symbol, end, floor) in &runs.symbols {
        if book.track(symbol, end.next(), Some(*floor)) {
            missing.insert(symbol.clone(), end.next());
        }
    }
    let saved_tail = book.tail();
    let from = missing.values().min().copied().unwrap_or(saved_tail.next());
    log.scan(from.into(), tail, |seq, payload| {
        let record =
            ReceiptRecord::decode(payload).map_err(|error| Fatal::undecodable("receipts", seq.0, error))?;
        if saved_tail < record.ingest_seq {
            book.observe(&record);
        } else if missing.contains_key(record.symbol) {
            book.backfill(&record);
        }
        Ok(())
    })
    .await?;
    quarantine
        .scan(quarantine_from.next(), quarantine_tail, |seq, payload| {
            let record = QuarantineRecord::decode(payload)
                .map_err(|error| Fatal::undecodable("quarantine", seq.0, error))?;
            book.note_quarantined(&record.origin, record.position);
            Ok(())
        })
        .await?;
    Ok(book)
}
