//! The reading side of a log: pages of a bounded size, each entry checked for its place and its checksum.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{LogStat, ReadError, ReadLimit, RecordBatch};
use redis::Value;

use super::connect::RedisLink;
use super::entry::{self, LogId};
use super::log::{MetaLookup, RedisLogState};

/// Entries in one answer at most: more do not make a scan faster (measured), and hold up other clients.
const PAGE_ENTRIES_MAX: usize = 1000;
/// Bytes that one answer should have at most, going by the size of the entries before it.
const PAGE_BYTES: usize = 4 << 20;
/// The largest single record; the answer that holds it gets the time that it takes.
const RECORD_BYTES_MAX: usize = 64 << 20;

/// Reads a log, on a connection of its own.
pub(super) struct Reader {
    shared: Arc<RedisLogState>,
    link: RedisLink,
    /// About how many bytes an entry has, from what was read last.
    entry_bytes: AtomicUsize,
}

/// An entry as it came: its position, or its odd id, and its bytes.
struct Stored {
    seq: Result<Seq, String>,
    bytes: Vec<u8>,
}

impl Reader {
    pub(super) fn new(shared: Arc<RedisLogState>, link: RedisLink) -> Self {
        let LogStat { start, tail, bytes } = shared.last_known().stat;
        let entries = (tail.0 + 1).saturating_sub(start.0);
        let average = bytes.checked_div(entries).and_then(|bytes| usize::try_from(bytes).ok());
        Self { shared, link, entry_bytes: AtomicUsize::new(average.unwrap_or(PAGE_BYTES / 64)) }
    }

    pub(super) async fn read_batch(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        let known = self.shared.last_known();
        if from < known.stat.start {
            return Err(ReadError::Trimmed { wanted: from, start: known.stat.start });
        }
        let mut batch = RecordBatch::starting_at(from);
        loop {
            let next = Seq(from.0 + batch.len() as u64);
            let count = self.page_entries(&batch, limit);
            let page = self.fetch_page(next, count).await?;
            let is_last = page.len() < count;
            if page.is_empty() {
                if batch.is_empty() && from <= known.stat.tail {
                    return Err(self.missing_error(from, "there is none, nor any after it").await);
                }
                return Ok(batch);
            }
            if !self.take_records(page, &mut batch, limit).await? || is_last {
                return Ok(batch);
            }
        }
    }

    /// Moves the page's records into `batch`; whether there is room for more.
    async fn take_records(
        &self,
        page: Vec<Stored>,
        batch: &mut RecordBatch,
        limit: ReadLimit,
    ) -> Result<bool, ReadError> {
        let mut log = self.shared.last_known().log;
        for stored in page {
            let at = Seq(batch.first_seq().0 + batch.len() as u64);
            match stored.seq {
                Ok(seq) if seq == at => {}
                Ok(seq) if batch.is_empty() => {
                    return Err(self.missing_error(at, &format!("the next one is {seq}")).await);
                }
                // Trimmed between two pages, or missing: the next read begins here and tells which.
                Ok(_) => return Ok(false),
                Err(id) => return Err(corrupt_error(at, format!("an entry {id} stands there"))),
            }
            let log = match log {
                Some(log) => log,
                None => *log.insert(self.log_id(at).await?),
            };
            let payload =
                entry::open_entry(log, at, &stored.bytes).map_err(|detail| corrupt_error(at, detail))?;
            let fits = batch.len() < limit.records && batch.payload_bytes() + payload.len() <= limit.bytes;
            if !batch.is_empty() && !fits {
                return Ok(false);
            }
            batch.push(payload);
        }
        Ok(batch.len() < limit.records && batch.payload_bytes() <= limit.bytes)
    }

    /// How many entries to ask for next.
    fn page_entries(&self, batch: &RecordBatch, limit: ReadLimit) -> usize {
        let records = limit.records.saturating_sub(batch.len()).clamp(1, PAGE_ENTRIES_MAX);
        let bytes = limit.bytes.saturating_sub(batch.payload_bytes()).min(PAGE_BYTES);
        let average = self.entry_bytes.load(Ordering::Relaxed).max(1);
        (bytes / average + 1).min(records)
    }

    async fn fetch_page(&self, from: Seq, count: usize) -> Result<Vec<Stored>, ReadError> {
        let mut command = redis::cmd("XRANGE");
        command.arg(&self.shared.stream).arg(format!("{from}-0")).arg("+").arg("COUNT").arg(count);
        let answer: Value = self
            .link
            .run_again(RECORD_BYTES_MAX, |mut connection| {
                let command = &command;
                async move { command.query_async(&mut connection).await }
            })
            .await?;
        let page = parse_page(answer).ok_or_else(|| io::Error::other("redis gave no stream entries"))?;
        if !page.is_empty() {
            let average = page.iter().map(|stored| stored.bytes.len()).sum::<usize>() / page.len();
            // Up at once, down by halves: an answer that is too small costs less than one that is too large.
            let before = self.entry_bytes.load(Ordering::Relaxed);
            self.entry_bytes.store(average.max(before.midpoint(average)), Ordering::Relaxed);
        }
        Ok(page)
    }

    /// Why the record at `from` is not there although it should be.
    async fn missing_error(&self, from: Seq, detail: &str) -> ReadError {
        match self.link.run_again(0, |connection| self.shared.look_up_meta(connection)).await {
            Ok(MetaLookup::Meta(meta)) if from < meta.known.stat.start => {
                self.shared.learn_stat(meta.known.stat);
                ReadError::Trimmed { wanted: from, start: meta.known.stat.start }
            }
            Ok(MetaLookup::Meta(_)) => corrupt_error(from, format!("it is missing: {detail}")),
            Ok(MetaLookup::Nothing) => corrupt_error(from, "the log is gone".to_owned()),
            Ok(MetaLookup::Else(detail)) => {
                corrupt_error(from, format!("the log's meta key cannot be used: {detail}"))
            }
            Err(error) => error.into(),
        }
    }

    /// The log's id, when another process created it after this one had opened it.
    async fn log_id(&self, at: Seq) -> Result<LogId, ReadError> {
        let known = match self.link.run_again(0, |connection| self.shared.look_up_meta(connection)).await? {
            MetaLookup::Meta(meta) => meta.known,
            MetaLookup::Nothing => return Err(corrupt_error(at, "the log's meta key is gone".to_owned())),
            MetaLookup::Else(detail) => {
                return Err(corrupt_error(at, format!("the log's meta key cannot be used: {detail}")));
            }
        };
        self.shared.replace_known(known);
        known.log.ok_or_else(|| corrupt_error(at, "the log's id is damaged".to_owned()))
    }
}

fn corrupt_error(at: Seq, detail: String) -> ReadError {
    ReadError::Corrupt { at, detail }
}

/// The answer of `XRANGE`; nothing when it is something else.
fn parse_page(answer: Value) -> Option<Vec<Stored>> {
    let Value::Array(entries) = answer else { return None };
    entries.into_iter().map(parse_entry).collect()
}

fn parse_entry(entry: Value) -> Option<Stored> {
    let Value::Array(parts) = entry else { return None };
    let [Value::BulkString(id), Value::Array(fields)] = <[Value; 2]>::try_from(parts).ok()? else {
        return None;
    };
    let id = String::from_utf8(id).ok()?;
    // An entry of another form cannot be ours; its bytes are then none, which fails the check of the version.
    let bytes = match <[Value; 2]>::try_from(fields) {
        Ok([Value::BulkString(name), Value::BulkString(bytes)]) if name == entry::FIELD.as_bytes() => bytes,
        _ => Vec::new(),
    };
    let seq = id.strip_suffix("-0").and_then(|seq| seq.parse().ok()).map(Seq);
    Some(Stored { seq: seq.ok_or(id), bytes })
}
