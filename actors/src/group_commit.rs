//! Group commit: what arrives while one batch is being made durable is the next batch.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{AppendError, Log, RecordBatch};
use orchestrator_kernel::retry::RetrySchedule;
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
    /// How long it took.
    pub took: Duration,
}

/// Collects records into batches, one of which is in flight at a time: that is what keeps them in order.
pub(crate) struct GroupCommit<W> {
    log: Arc<dyn Log>,
    epoch: Epoch,
    limits: BatchLimits,
    /// How often and when a batch with an unknown outcome is sent again.
    resend: RetrySchedule,
    batches: std::collections::VecDeque<(RecordBatch, Vec<W>)>,
    next: Seq,
    in_flight: bool,
}

impl<W: Send + 'static> GroupCommit<W> {
    /// Continues a log after `tail`.
    pub(crate) const fn new(
        log: Arc<dyn Log>,
        epoch: Epoch,
        tail: Seq,
        limits: BatchLimits,
        resend: RetrySchedule,
    ) -> Self {
        let batches = std::collections::VecDeque::new();
        Self { log, epoch, limits, resend, batches, next: tail.next(), in_flight: false }
    }

    /// The sequence that the next pushed record gets.
    pub(crate) const fn next(&self) -> Seq {
        self.next
    }

    /// Whether every pushed record has landed.
    pub(crate) fn is_idle(&self) -> bool {
        !self.in_flight && self.batches.is_empty()
    }

    /// Adds a record; it gets the sequence [`next`](Self::next).
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
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
    pub(crate) fn wait(&mut self, waiter: W) -> Option<W> {
        match self.batches.back_mut() {
            Some((_, waiters)) => {
                waiters.push(waiter);
                None
            }
            None => Some(waiter),
        }
    }

    /// Lets `waiter` wait for the batch in flight, although nothing was pushed behind it.
    pub(crate) fn wait_behind(&mut self, waiter: W) {
        self.batches.push_back((RecordBatch::starting_at(self.next), vec![waiter]));
    }

    /// Sends the oldest batch unless one is in flight. The future must be run to its end; its result goes to
    /// [`landed`](Self::landed).
    pub(crate) fn begin(&mut self) -> Option<impl Future<Output = Landed<W>> + Send + use<W>> {
        if self.in_flight {
            return None;
        }
        let (batch, waiters) = self.batches.pop_front()?;
        self.in_flight = true;
        let (log, epoch, resend) = (Arc::clone(&self.log), self.epoch, self.resend);
        Some(async move {
            let since = Instant::now();
            let batch = Arc::new(batch);
            let result = append_until_known(log.as_ref(), epoch, &batch, &resend).await;
            Landed { batch, waiters, result, took: since.elapsed() }
        })
    }

    /// The batch in flight has landed. After a failure everything behind it is given up too, because it cannot follow;
    /// those who wait for that are returned, and the next record continues after `tail`.
    pub(crate) fn landed(&mut self, succeeded: bool, tail: Seq) -> Vec<W> {
        self.in_flight = false;
        if succeeded {
            return Vec::new();
        }
        self.next = tail.next();
        self.batches.drain(..).flat_map(|(_, waiters)| waiters).collect()
    }
}

/// Sends the same batch until its outcome is known: a lost reply is the normal case, not a corner.
async fn append_until_known(
    log: &dyn Log,
    epoch: Epoch,
    batch: &RecordBatch,
    resend: &RetrySchedule,
) -> Result<(), AppendError> {
    let mut attempts = 1;
    loop {
        match log.append(epoch, batch).await {
            Err(AppendError::Unknown { source }) => match resend.delay_after(attempts) {
                Some(delay) => {
                    tracing::warn!(first = %batch.first(), attempts, error = %source, "append not answered, sending it again");
                    tokio::time::sleep(delay).await;
                    attempts += 1;
                }
                None => return Err(AppendError::Unknown { source }),
            },
            known => return known,
        }
    }
}
