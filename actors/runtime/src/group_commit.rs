//! Group commit: what arrives while one batch is being made durable is the next batch.
//!
//! ```text
//!  push ─▶ │ batch │ batch │ ─▶ one in flight ─▶ log
//!            wait here          its outcome decides about all behind it
//! ```
//!
//! One and not two: after "no room" everything behind is given up and numbered again, and after an answer that was lost
//! the same batch is sent again. With a second one on its way neither would be known of that one. The embedded log
//! groups too, what several callers queue; of one caller it gets one batch at a time.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::log::{Acquired, AppendError, BatchSize, Log, RecordBatch};
use tokio::time::Instant;

/// Bounds of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Records at most.
    pub records: usize,
    /// Payload bytes at most, but for a single larger record.
    pub bytes: usize,
}

/// A batch on its way to the log, with those who wait for it.
#[derive(Debug)]
pub struct Landed<W> {
    /// The records.
    pub batch: Arc<RecordBatch>,
    /// Who waits, in order.
    pub waiters: Vec<W>,
    /// What the log said.
    pub result: Result<(), AppendError>,
    /// The size for which room was to be proved; `None`: the batch was to be appended.
    pub proved: Option<BatchSize>,
    /// How long it took.
    pub took: Duration,
}

/// What is told of an attempt that was not answered.
pub type Unanswered = Arc<dyn Fn(&std::io::Error) + Send + Sync>;

/// Collects records into batches, one of which is in flight at a time: that is what keeps them in order.
pub struct GroupCommit<W> {
    log: Arc<dyn Log>,
    epoch: Epoch,
    limits: BatchLimits,
    /// How long after an unanswered attempt a batch is sent again.
    resend_after: Duration,
    /// Told of each attempt that was not answered.
    unanswered: Unanswered,
    /// Size of the largest batch that found no room, until a batch or a proof of that size succeeds.
    wanted: Option<BatchSize>,
    batches: std::collections::VecDeque<(RecordBatch, Vec<W>)>,
    next: Seq,
    in_flight: bool,
}

impl<W> Landed<W> {
    /// The size of what was appended, or for which room was proved.
    pub fn batch_size(&self) -> BatchSize {
        self.proved.unwrap_or_else(|| BatchSize::of_batch(&self.batch))
    }
}

impl<W: Send + 'static> GroupCommit<W> {
    /// Continues a log after its tail.
    pub fn new(
        log: Arc<dyn Log>,
        acquired: Acquired,
        limits: BatchLimits,
        resend_after: Duration,
        unanswered: Unanswered,
    ) -> Self {
        let Acquired { epoch, tail } = acquired;
        let batches = std::collections::VecDeque::new();
        Self {
            log,
            epoch,
            limits,
            resend_after,
            unanswered,
            wanted: None,
            batches,
            next: tail.next(),
            in_flight: false,
        }
    }

    /// The epoch of this writer.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether the log is known to have room: nothing was refused for the want of it that was not proved since.
    pub const fn has_room(&self) -> bool {
        self.wanted.is_none()
    }

    /// Asks the log whether it is still there and still ours, by an append of nothing; after a refusal for want of
    /// room, whether what was refused would find it now. A busy log tells the former anyway.
    pub fn queue_probe(&mut self) {
        if self.is_idle() {
            self.batches.push_back((RecordBatch::starting_at(self.next), Vec::new()));
        }
    }

    /// The sequence that the next pushed record gets.
    pub const fn next_seq(&self) -> Seq {
        self.next
    }

    /// Whether every pushed record has landed.
    pub fn is_idle(&self) -> bool {
        !self.in_flight && self.batches.is_empty()
    }

    /// Adds a record; it gets the sequence [`next_seq`](Self::next_seq).
    pub fn push_record(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let next = self.next;
        let limits = self.limits;
        let full =
            |batch: &RecordBatch| limits.records <= batch.len() || limits.bytes <= batch.payload_bytes();
        if self.batches.back().is_none_or(|(batch, _)| full(batch)) {
            self.batches.push_back((RecordBatch::starting_at(next), Vec::new()));
        }
        if let Some((batch, _)) = self.batches.back_mut() {
            batch.push_with(write);
            self.next = next.next();
        }
    }

    /// Lets `waiter` wait for everything pushed so far. Gives it back when there is nothing to wait for.
    pub fn wait_for_pushed(&mut self, waiter: W) -> Option<W> {
        match self.batches.back_mut() {
            Some((_, waiters)) => {
                waiters.push(waiter);
                None
            }
            None => Some(waiter),
        }
    }

    /// Lets `waiter` wait for the batch in flight, although nothing was pushed behind it.
    pub fn wait_behind(&mut self, waiter: W) {
        self.batches.push_back((RecordBatch::starting_at(self.next), vec![waiter]));
    }

    /// Sends the oldest batch unless one is in flight. The future must be run to its end; its result goes to
    /// [`finish_append`](Self::finish_append).
    pub fn begin_append(&mut self) -> Option<impl Future<Output = Landed<W>> + Send + use<W>> {
        if self.in_flight {
            return None;
        }
        let (batch, waiters) = self.batches.pop_front()?;
        self.in_flight = true;
        let (log, epoch, resend_after) = (Arc::clone(&self.log), self.epoch, self.resend_after);
        let unanswered = Arc::clone(&self.unanswered);
        // What nobody waits for is a probe.
        let proof = self.wanted.filter(|_| batch.is_empty() && waiters.is_empty());
        Some(async move {
            let since = Instant::now();
            let batch = Arc::new(batch);
            let result = match proof {
                None => append_until_known(log.as_ref(), epoch, &batch, resend_after, &unanswered).await,
                Some(size) => prove_until_known(log.as_ref(), epoch, size, resend_after, &unanswered).await,
            };
            Landed { batch, waiters, result, proved: proof, took: since.elapsed() }
        })
    }

    /// The proof in flight failed. What waits behind it is smaller or not, and is tried all the same: the proof took no
    /// positions.
    pub const fn not_proved(&mut self) {
        self.in_flight = false;
    }

    /// The batch in flight has landed. After a failure everything behind it is given up too, because it cannot follow;
    /// those who wait for that are returned, and the next record continues after `tail`.
    pub fn finish_append(&mut self, succeeded: bool, tail: Seq, size: BatchSize) -> Vec<W> {
        self.in_flight = false;
        if succeeded {
            self.wanted = self.wanted.filter(|wanted| !size.covers_size(*wanted));
            return Vec::new();
        }
        self.wanted = Some(self.wanted.map_or(size, |wanted| wanted.max(size)));
        self.next = tail.next();
        self.batches.drain(..).flat_map(|(_, waiters)| waiters).collect()
    }
}

/// Sends the same batch until its outcome is known, however long that takes: a lost reply is the normal case, not a
/// corner, and to give up would mean not to know what the log holds. What waits meanwhile is bounded by credits.
///
/// "No room" speaks of one attempt only: a server says it before it looks whether an earlier, unanswered one was done.
async fn append_until_known(
    log: &dyn Log,
    epoch: Epoch,
    batch: &RecordBatch,
    resend_after: Duration,
    unanswered: &Unanswered,
) -> Result<(), AppendError> {
    let mut attempts = 0_u32;
    let mut in_doubt = false;
    loop {
        attempts = attempts.saturating_add(1);
        let source = match log.append(epoch, batch).await {
            Err(AppendError::Unknown { source }) => source,
            Err(AppendError::Full { detail }) if in_doubt && !mutant!(NoRoomIsBelievedInDoubt) => {
                std::io::Error::new(std::io::ErrorKind::StorageFull, detail)
            }
            known => return known,
        };
        in_doubt = true;
        tracing::warn!(first = %batch.first_seq(), attempts, error = %source, "outcome of an append not known, sending it again");
        unanswered(&source);
        tokio::time::sleep(resend_after).await;
    }
}

/// Asks for room until the answer is known. Nothing is in doubt: a proof that was not answered changed nothing.
async fn prove_until_known(
    log: &dyn Log,
    epoch: Epoch,
    size: BatchSize,
    resend_after: Duration,
    unanswered: &Unanswered,
) -> Result<(), AppendError> {
    loop {
        let source = match log.prove_room(epoch, size).await {
            Err(AppendError::Unknown { source }) => source,
            known => return known,
        };
        unanswered(&source);
        tokio::time::sleep(resend_after).await;
    }
}
