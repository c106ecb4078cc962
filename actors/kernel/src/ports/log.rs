//! The port of an append-only log. The receipt log, the run log and the quarantine are three logs of this kind.
//!
//! ```text
//!      trim point (start)                       tail                      next
//!           │                                     │                         │
//!  trimmed  │◀───────────── durable ─────────────▶│◀─ in flight ─▶│◀ batch ▶│
//!  1 … 4711 │ 4712 …                        90000 │ 90001 … 90064 │   90070 │
//!           │  read, never changed                │  assigned: numbered by the writer, not yet confirmed
//! ```
//!
//! A position is assigned once and means the same record for ever. `trim` moves the start, `append` the tail, and
//! neither goes back. An append that is not answered leaves the tail in doubt: the same batch is sent again, at the
//! same positions, until the log says that it is there.

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::{Epoch, LogIdentity, Seq};

macro_rules! log_names {
    ($($(#[$doc:meta])* $name:ident = $word:literal),+ $(,)?) => {
        /// Name of a log: its folder and its key, and its word in metrics and in messages.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum LogName {
            $($(#[$doc])* $name),+
        }

        impl LogName {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word that stands on disk, on the wire and in messages. Never changes.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word),+
                }
            }
        }
    };
}

log_names! {
    /// Receipts in the order in which they were numbered.
    Receipts = "receipts",
    /// Records of runs: what was decided, and what the engine answered.
    Runs = "runs",
    /// Items that are no receipts.
    Quarantine = "quarantine",
    /// Programs and configurations that wrote the other logs, and what operators did.
    Manifests = "manifests",
    /// The trading plane's decisions. There only while trading is on.
    Journal = "journal",
}

impl LogName {
    /// The logs that every service has.
    pub const OF_EVERY_SERVICE: [Self; 4] = [Self::Receipts, Self::Runs, Self::Quarantine, Self::Manifests];

    /// The logs of a service whose trading plane is on, or off.
    #[must_use]
    pub const fn of_service(is_trading: bool) -> &'static [Self] {
        if is_trading { Self::ALL } else { &Self::OF_EVERY_SERVICE }
    }
}

impl std::fmt::Display for LogName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Consecutive records in one piece of memory: record `i` has sequence `first + i`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RecordBatch {
    first: Seq,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl RecordBatch {
    /// An empty batch whose first record will be `first`.
    #[must_use]
    pub const fn starting_at(first: Seq) -> Self {
        Self { first, bytes: Vec::new(), ends: Vec::new() }
    }

    /// As [`starting_at`](Self::starting_at), with room for `records` records of `bytes` bytes together.
    #[must_use]
    pub fn with_capacity(first: Seq, records: usize, bytes: usize) -> Self {
        Self { first, bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(records) }
    }

    /// Adds a record that `write` appends to the buffer. `write` must only append.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Adds a record.
    pub fn push(&mut self, payload: &[u8]) {
        self.push_with(|bytes| bytes.extend_from_slice(payload));
    }

    /// The sequence of the first record, also when the batch is empty.
    #[must_use]
    pub const fn first_seq(&self) -> Seq {
        self.first
    }

    /// The sequence of the last record; `first - 1` when the batch is empty.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        Seq((self.first.0 + self.ends.len() as u64).saturating_sub(1))
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all payloads together.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The payload of record `index`, counted from 0.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = if index == 0 { 0 } else { *self.ends.get(index - 1)? };
        self.bytes.get(start..end)
    }

    /// The records in order, each with its sequence.
    pub fn iter(&self) -> impl Iterator<Item = (Seq, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(self.ends.iter().copied())
            .zip(self.first.0..)
            .map(|((start, end), seq)| (Seq(seq), self.bytes.get(start..end).unwrap_or_default()))
    }
}

/// Size of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSize {
    /// Records.
    pub records: usize,
    /// Bytes of their payloads together.
    pub bytes: usize,
}

impl BatchSize {
    /// The size of `batch`.
    #[must_use]
    pub fn of_batch(batch: &RecordBatch) -> Self {
        Self { records: batch.len(), bytes: batch.payload_bytes() }
    }

    /// The larger of both, each measure by itself.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { records: self.records.max(other.records), bytes: self.bytes.max(other.bytes) }
    }

    /// Whether a batch of `other` fits wherever one of this size fits.
    #[must_use]
    pub const fn covers_size(self, other: Self) -> bool {
        other.records <= self.records && other.bytes <= self.bytes
    }
}

/// Largest size of one read's answer. A read returns at least one record when there is one.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Records at most.
    pub records: usize,
    /// Payload bytes at most, but for the first record.
    pub bytes: usize,
}

impl Default for ReadLimit {
    fn default() -> Self {
        Self { records: 4096, bytes: 4 << 20 }
    }
}

/// Epoch and tail that a writer learns when it takes a log over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// The writer's generation, to be given with each append.
    pub epoch: Epoch,
    /// The last durable record; 0 when the log is empty.
    pub tail: Seq,
}

/// Reason for which a log could not be taken over.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// Another process holds it.
    #[error("log {log} is held by another writer ({holder}); stop it first")]
    Held {
        /// Which log.
        log: String,
        /// Who holds it, as far as it is known.
        holder: String,
    },
    /// The log cannot be trusted. Never appended to.
    #[error("log {log} is corrupt at {place}: {detail}; restore it or move it away")]
    Corrupt {
        /// Which log.
        log: String,
        /// File and byte, or entry.
        place: String,
        /// What is wrong there.
        detail: String,
    },
    /// The log was written by a newer version.
    #[error("log {log} has format version {found}, this binary knows up to {known}; upgrade the binary")]
    UnknownVersion {
        /// Which log.
        log: String,
        /// The version found.
        found: u32,
        /// The newest version known.
        known: u32,
    },
    /// The storage failed.
    #[error("cannot open log {log}")]
    Io {
        /// Which log.
        log: String,
        /// What the storage said.
        #[source]
        source: std::io::Error,
    },
}

/// Failure of an append. Only [`AppendError::Unknown`] may be followed by the same batch again.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A later writer took over. Stop, never retry (LOG-3).
    #[error("a later writer (epoch {current}) took over; this one ({mine}) must stop")]
    Fenced {
        /// The epoch of this writer.
        mine: Epoch,
        /// The epoch that holds the log now.
        current: Epoch,
    },
    /// Other records stand at these positions. Halt.
    #[error("log already holds a different record at {at}")]
    Conflict {
        /// The first position that differs.
        at: Seq,
    },
    /// The batch does not continue the log: it regressed, or somebody else wrote. Halt.
    #[error("log ends at {tail}, an append at {first} would leave a gap")]
    Gap {
        /// The batch's first position.
        first: Seq,
        /// The log's last position.
        tail: Seq,
    },
    /// There is no room. Nothing was written; the same batch may succeed once there is room.
    #[error("log storage is full ({detail}); free space or raise the limit")]
    Full {
        /// Which limit was met.
        detail: String,
    },
    /// It may or may not have been written. Send the same batch again.
    #[error("append was not answered")]
    Unknown {
        /// What was seen.
        #[source]
        source: std::io::Error,
    },
    /// The storage broke a promise (write or sync failed). Nothing more is written by this process.
    #[error("log storage failed; restart after repair")]
    Poisoned {
        /// What the storage said.
        #[source]
        source: std::io::Error,
    },
}

/// Failure of a read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A stored record fails its checksum or its form.
    #[error("record {at} is corrupt: {detail}")]
    Corrupt {
        /// The first unreadable position.
        at: Seq,
        /// What is wrong.
        detail: String,
    },
    /// The position was trimmed away.
    #[error("record {wanted} was trimmed, the log starts at {start}")]
    Trimmed {
        /// The position asked for.
        wanted: Seq,
        /// The first position still there.
        start: Seq,
    },
    /// The storage failed.
    #[error("cannot read the log")]
    Io(#[from] std::io::Error),
}

/// Reason for which a log was not trimmed, or not as far as asked.
#[derive(Debug, thiserror::Error)]
pub enum TrimError {
    /// A later writer took over, or this one never acquired the log: what is still needed is not its to say (LOG-3).
    #[error("the log is held by another writer (epoch {current}); this one ({mine}) must not trim it")]
    Fenced {
        /// The epoch of this writer.
        mine: Epoch,
        /// The epoch that holds the log now; 0 when nobody acquired it yet.
        current: Epoch,
    },
    /// The storage failed. What was removed stays removed, always from the beginning on; trim again later.
    #[error("cannot trim the log")]
    Io(#[from] std::io::Error),
}

/// Extent of a log, for operators and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStat {
    /// First position still there; 1 when nothing was trimmed.
    pub start: Seq,
    /// Last durable position.
    pub tail: Seq,
    /// Bytes on the medium.
    pub bytes: u64,
}

/// An append-only log with one writer. Records are opaque bytes.
///
/// Every provider passes the conformance suite beside this file unchanged.
#[async_trait]
pub trait Log: Send + Sync {
    /// Becomes the writer: fences every earlier one and reports where the log ends.
    ///
    /// # Errors
    ///
    /// [`AcquireError`]; the log is then not touched.
    async fn acquire(&self) -> Result<Acquired, AcquireError>;

    /// Makes `batch` durable as a whole or not at all. `Ok` means that it survives a crash.
    ///
    /// Sending a batch again that is already there, equal, is `Ok` and changes nothing. An empty batch is `Ok`.
    ///
    /// # Errors
    ///
    /// [`AppendError`] says what the caller may do next.
    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError>;

    /// Proves that a batch of `size` finds room now, and adds no record. What can be reserved for it is reserved.
    ///
    /// After [`AppendError::Full`] only this or an append that succeeds says that there is room again: neither time nor
    /// an answer to something smaller does.
    ///
    /// # Errors
    ///
    /// [`AppendError`] as [`append`](Self::append) of such a batch would give it.
    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError>;

    /// Reads durable records from `from` on; an empty batch at the tail.
    ///
    /// # Errors
    ///
    /// [`ReadError`]; a corrupt record is never skipped.
    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError>;

    /// Removes whole units below `below`, as far as the provider can; returns the first position still there.
    ///
    /// Nothing at or above `below` goes. The numbering and the tail stay, also when no record is left.
    ///
    /// # Errors
    ///
    /// [`TrimError`]: a superseded writer removes nothing.
    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError>;

    /// What the log holds now.
    fn stat(&self) -> LogStat;

    /// Which log it is, so that a position that was given out can be told from one of another log. `None` when it has
    /// no identity, or none before its first writer.
    fn identity(&self) -> Option<LogIdentity> {
        None
    }
}

/// Reads one record's payload, or nothing past the tail.
///
/// # Errors
///
/// As [`Log::read`].
pub async fn read_one(log: &dyn Log, at: Seq) -> Result<Option<Bytes>, ReadError> {
    let batch = log.read(at, ReadLimit { records: 1, bytes: 0 }).await?;
    Ok(batch.get(0).map(Bytes::copy_from_slice))
}
