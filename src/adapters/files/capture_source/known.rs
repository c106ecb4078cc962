//! What the logs hold of a file, so that another file under its name is told from it.
//!
//! A position in a file is the number of a line, and a name can be given to another file. Both logs keep a line's bytes
//! as they came (LOG-4), so the lines that a restart skips are compared with what is stored of them. See the decision
//! record
//! `0019-positions-and-names-have-an-identity`.

use std::collections::BTreeMap;
use std::sync::Arc;

use orchestrator_kernel::engine::contracts::quarantine::QuarantineRecord;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::foreign_format::BYTE_ORDER_MARK;
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit, RecordBatch};
use orchestrator_kernel::ports::log_backwards::Backwards;
use orchestrator_kernel::ports::source::SourceError;

use super::lines::CaptureLine;
use super::{fatal_error, lost_error};

/// Lines before the resume position that are compared: a shorter stretch might repeat itself.
const LAST_LINES: usize = 64;
/// Records from the beginning of a log among which the first line is looked for.
const FIRST_READ: ReadLimit = ReadLimit { records: 4096, bytes: 4 << 20 };

/// Logs in which a source's lines are stored.
#[derive(Clone)]
pub struct StoredLines {
    /// Lines that are receipts.
    pub receipts: Arc<dyn Log>,
    /// Lines that are none.
    pub quarantine: Arc<dyn Log>,
}

/// A line as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stored {
    /// Its bytes, or its beginning.
    bytes: Vec<u8>,
    /// How many bytes it had.
    size: u64,
    is_quarantined: bool,
}

/// Relation of a line of the file to the stored one at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// The same, or nothing is known of this position.
    Same,
    /// It goes on behind what was stored: the file ended in its middle when it was read, so it was no receipt.
    Longer,
    /// Another line.
    Other,
}

/// Stored lines by their positions: the first one, and the last ones before the resume position.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownLines(BTreeMap<u64, Stored>);

impl KnownLines {
    /// Reads what is stored of `origin` up to position `resume`.
    ///
    /// The newest records are looked at first, until the one at `resume` is found: at once for a source that was read
    /// lately, and at worst, for one that was not, after the whole log.
    ///
    /// # Errors
    ///
    /// A log cannot be read.
    pub(super) async fn recall_lines(
        stored: &StoredLines,
        origin: &str,
        resume: u64,
    ) -> Result<Self, SourceError> {
        let mut known = Self::default();
        if resume == 0 {
            return Ok(known);
        }
        let search = Search { origin, resume };
        let found = async {
            let mut receipts = Backwards::from_tail(stored.receipts.as_ref());
            let mut quarantine = Backwards::from_tail(stored.quarantine.as_ref());
            let (mut in_receipts, mut in_quarantine) = (true, true);
            // By turns: the position is in one of them, and either may be much longer.
            while (in_receipts || in_quarantine) && !known.0.contains_key(&resume) {
                if in_receipts {
                    in_receipts =
                        known.take_stretch(receipts.next_stretch().await?, &search, stored_receipt)?;
                }
                if in_quarantine {
                    in_quarantine =
                        known.take_stretch(quarantine.next_stretch().await?, &search, stored_quarantined)?;
                }
            }
            let read = stored.receipts.read(first_of(&*stored.receipts), FIRST_READ).await?;
            known.take_first(&read, &search, stored_receipt)?;
            let read = stored.quarantine.read(first_of(&*stored.quarantine), FIRST_READ).await?;
            known.take_first(&read, &search, stored_quarantined)
        };
        match found.await {
            // What is trimmed meanwhile is not known any more.
            Ok(()) | Err(ReadError::Trimmed { .. }) => Ok(known),
            Err(ReadError::Io(error)) => {
                Err(lost_error(format!("cannot read what is stored of {origin}: {error}")))
            }
            Err(error @ ReadError::Corrupt { .. }) => {
                Err(fatal_error(format!("cannot read what is stored of {origin}: {error}")))
            }
        }
    }

    /// Takes the last lines of a stretch; returns whether an earlier stretch may have the one at the resume position.
    fn take_stretch(
        &mut self,
        stretch: Option<Vec<RecordBatch>>,
        search: &Search<'_>,
        decode: Decode,
    ) -> Result<bool, ReadError> {
        let Some(stretch) = stretch else { return Ok(false) };
        let mut is_before = false;
        for (at, payload) in stretch.iter().flat_map(RecordBatch::iter) {
            if let Some((position, stored)) = decode(at, payload, search)? {
                is_before |= position < search.resume;
                self.0.insert(position, stored);
                if LAST_LINES < self.0.len() {
                    self.0.pop_first();
                }
            }
        }
        // Positions increase along a log: what stands before a smaller one is smaller still.
        Ok(!is_before)
    }

    fn take_first(
        &mut self,
        read: &RecordBatch,
        search: &Search<'_>,
        decode: Decode,
    ) -> Result<(), ReadError> {
        for (at, payload) in read.iter() {
            if let Some((position @ 1, stored)) = decode(at, payload, search)? {
                self.0.insert(position, stored);
                break;
            }
        }
        Ok(())
    }

    /// Compares the line of the file at `position` with the stored one.
    pub(super) fn compare_line(&self, position: u64, line: &CaptureLine<'_>) -> Likeness {
        let Some(stored) = self.0.get(&position) else { return Likeness::Same };
        // Versions before kept a byte order mark, and so quarantined the first line.
        let kept = stored.bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&stored.bytes);
        let kept_size = stored.size - (stored.bytes.len() - kept.len()) as u64;
        let size = line.oversized.unwrap_or(line.bytes.len() as u64);
        let common = line.bytes.len().min(kept.len());
        if line.bytes.get(..common) != kept.get(..common) {
            return Likeness::Other;
        }
        match size.cmp(&kept_size) {
            std::cmp::Ordering::Equal => Likeness::Same,
            std::cmp::Ordering::Greater if stored.is_quarantined => Likeness::Longer,
            std::cmp::Ordering::Greater | std::cmp::Ordering::Less => Likeness::Other,
        }
    }

    /// Whether this is known to be the first line that was read.
    pub(super) fn begins_with(&self, line: &CaptureLine<'_>) -> bool {
        self.0.contains_key(&1) && self.compare_line(1, line) == Likeness::Same
    }
}

struct Search<'a> {
    origin: &'a str,
    resume: u64,
}

impl Search<'_> {
    fn wants_line(&self, origin: &str, position: u64) -> bool {
        origin == self.origin && (1..=self.resume).contains(&position)
    }
}

/// Position and bytes of a stored line, if the search wants it.
type Decode = fn(Seq, &[u8], &Search<'_>) -> Result<Option<(u64, Stored)>, ReadError>;

fn stored_receipt(at: Seq, payload: &[u8], search: &Search<'_>) -> Result<Option<(u64, Stored)>, ReadError> {
    let record = ReceiptRecord::decode(payload)
        .map_err(|error| ReadError::Corrupt { at, detail: error.to_string() })?;
    let stored =
        || Stored { bytes: record.event.to_vec(), size: record.event.len() as u64, is_quarantined: false };
    Ok(search.wants_line(record.origin, record.position).then(|| (record.position, stored())))
}

fn stored_quarantined(
    at: Seq,
    payload: &[u8],
    search: &Search<'_>,
) -> Result<Option<(u64, Stored)>, ReadError> {
    let record = QuarantineRecord::decode(payload)
        .map_err(|error| ReadError::Corrupt { at, detail: error.to_string() })?;
    let is_wanted = search.wants_line(&record.origin, record.position);
    let stored = Stored { bytes: record.bytes, size: record.size, is_quarantined: true };
    Ok(is_wanted.then_some((record.position, stored)))
}

fn first_of(log: &dyn Log) -> Seq {
    log.stat().start.max(Seq(1))
}
