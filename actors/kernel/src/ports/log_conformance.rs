//! The suite that every provider of the log port passes unchanged: each promise of the port as one check.
//!
//! It needs no runtime: the caller blocks on [`run`] with whatever the provider needs.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;

use super::log::{
    AppendError, BatchSize, Log, LogStat, ReadError, ReadLimit, RecordBatch, TrimError, read_one,
};
use crate::ids::{Epoch, Seq};

/// Makes the logs that the suite works on.
#[async_trait]
pub trait LogProvider: Send + Sync {
    /// A fresh, empty log.
    async fn fresh(&self) -> Arc<dyn Log>;

    /// The same log as a restarted process would find it. `log` is the only handle left.
    async fn reopen(&self, log: Arc<dyn Log>) -> Arc<dyn Log>;
}

/// Runs the whole suite.
///
/// # Panics
///
/// When the provider breaks a promise.
pub async fn run(provider: &dyn LogProvider) {
    sequence_is_gap_free_from_one(provider).await;
    batch_is_kept_as_a_whole(provider).await;
    repeated_batch_changes_nothing(provider).await;
    different_batch_at_taken_positions_is_a_conflict(provider).await;
    batch_that_does_not_continue_the_log_is_a_gap(provider).await;
    later_writer_fences_the_earlier(provider).await;
    empty_batch_is_a_success(provider).await;
    room_is_proved_without_a_record(provider).await;
    read_keeps_its_limits(provider).await;
    read_past_the_tail_is_empty(provider).await;
    concurrent_read_sees_whole_durable_batches(provider).await;
    trim_removes_only_a_beginning(provider).await;
    trim_is_for_the_present_writer_only(provider).await;
    numbering_survives_trimming_everything(provider).await;
    stat_tells_what_is_there(provider).await;
    payloads_of_every_size_come_back(provider).await;
    reopened_log_continues(provider).await;
}

/// A batch of `count` distinct records from `first` on; equal arguments give equal batches.
#[must_use]
pub fn sample_batch(first: u64, count: u64) -> RecordBatch {
    let mut batch = RecordBatch::starting_at(Seq(first));
    for seq in first..first + count {
        batch.push(&sample_payload(seq));
    }
    batch
}

/// The payload of record `seq` in [`sample_batch`]: 0 to 96 bytes, all different where not empty.
#[must_use]
pub fn sample_payload(seq: u64) -> Vec<u8> {
    let length = usize::try_from(seq * 7 % 97).unwrap_or(0);
    seq.to_le_bytes().into_iter().cycle().take(length).collect()
}

/// Reads the log page by page from `from` to its tail.
///
/// # Panics
///
/// When a read fails, is not in sequence, or exceeds `limit`.
pub async fn read_to_tail(log: &dyn Log, from: Seq, limit: ReadLimit) -> Vec<Vec<u8>> {
    let mut records: Vec<Vec<u8>> = Vec::new();
    loop {
        let at = Seq(from.0 + records.len() as u64);
        let page = log.read(at, limit).await.unwrap_or_else(|error| panic!("read at {at}: {error:?}"));
        assert_eq!(page.first_seq(), at, "a read starts where it was asked to");
        if page.is_empty() {
            return records;
        }
        assert!(page.len() <= limit.records.max(1), "at most {} records", limit.records);
        assert!(page.len() == 1 || page.payload_bytes() <= limit.bytes, "at most {} bytes", limit.bytes);
        records.extend(page.iter().map(|(_, payload)| payload.to_vec()));
    }
}

async fn acquired(provider: &dyn LogProvider) -> (Arc<dyn Log>, Epoch) {
    let log = provider.fresh().await;
    let acquired = log.acquire().await.unwrap_or_else(|error| panic!("acquire: {error:?}"));
    assert_eq!(acquired.tail, Seq(0), "a fresh log is empty");
    (log, acquired.epoch)
}

async fn append_ok(log: &dyn Log, epoch: Epoch, batch: &RecordBatch) {
    log.append(epoch, batch)
        .await
        .unwrap_or_else(|error| panic!("append at {}: {error:?}", batch.first_seq()));
}

/// The log holds exactly the sample records 1 … `tail`.
async fn check_content(log: &dyn Log, tail: u64) {
    let expected: Vec<_> = (1..=tail).map(sample_payload).collect();
    assert_eq!(read_to_tail(log, Seq(1), ReadLimit::default()).await, expected);
    assert_eq!(log.stat().tail, Seq(tail));
}

async fn sequence_is_gap_free_from_one(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;

    let mut next = 1;
    for count in [1, 1, 5, 1, 64, 2] {
        append_ok(&*log, epoch, &sample_batch(next, count)).await;
        next += count;
    }

    check_content(&*log, next - 1).await;
}

async fn batch_is_kept_as_a_whole(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;

    append_ok(&*log, epoch, &sample_batch(1, 300)).await;

    check_content(&*log, 300).await;
    for seq in [1, 2, 150, 299, 300] {
        let payload = read_one(&*log, Seq(seq)).await.unwrap_or_else(|error| panic!("read {seq}: {error:?}"));
        assert_eq!(payload.as_deref(), Some(sample_payload(seq).as_slice()), "record {seq} alone");
    }
}

async fn repeated_batch_changes_nothing(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    append_ok(&*log, epoch, &sample_batch(1, 4)).await;
    append_ok(&*log, epoch, &sample_batch(5, 4)).await;
    let before = log.stat();

    append_ok(&*log, epoch, &sample_batch(5, 4)).await;
    append_ok(&*log, epoch, &sample_batch(1, 4)).await;
    append_ok(&*log, epoch, &sample_batch(3, 4)).await;

    assert_eq!(log.stat(), before);
    check_content(&*log, 8).await;
}

async fn different_batch_at_taken_positions_is_a_conflict(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    append_ok(&*log, epoch, &sample_batch(1, 8)).await;

    let mut other = sample_batch(3, 2);
    other.push(b"somebody else's");
    let refused = log.append(epoch, &other).await;

    assert!(matches!(refused, Err(AppendError::Conflict { at: Seq(5) })), "{refused:?}");
    check_content(&*log, 8).await;
}

async fn batch_that_does_not_continue_the_log_is_a_gap(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    append_ok(&*log, epoch, &sample_batch(1, 4)).await;

    let ahead = log.append(epoch, &sample_batch(6, 1)).await;
    let overlapping = log.append(epoch, &sample_batch(4, 2)).await;
    let before_the_first = log.append(epoch, &sample_batch(0, 2)).await;

    assert!(matches!(ahead, Err(AppendError::Gap { first: Seq(6), tail: Seq(4) })), "{ahead:?}");
    assert!(matches!(overlapping, Err(AppendError::Gap { first: Seq(4), tail: Seq(4) })), "{overlapping:?}");
    assert!(matches!(before_the_first, Err(AppendError::Gap { first: Seq(0), .. })), "{before_the_first:?}");
    append_ok(&*log, epoch, &sample_batch(5, 1)).await;
    check_content(&*log, 5).await;
}

/// At most one writer (LOG-3).
async fn later_writer_fences_the_earlier(provider: &dyn LogProvider) {
    let (log, first) = acquired(provider).await;
    append_ok(&*log, first, &sample_batch(1, 2)).await;

    let second = log.acquire().await.unwrap_or_else(|error| panic!("acquire again: {error:?}"));
    let new = log.append(first, &sample_batch(3, 1)).await;
    let known = log.append(first, &sample_batch(1, 2)).await;
    let empty = log.append(first, &sample_batch(3, 0)).await;

    assert!(second.epoch > first, "epochs grow");
    assert_eq!(second.tail, Seq(2));
    for refused in [new, known, empty] {
        let is_fenced = matches!(&refused, Err(AppendError::Fenced { mine, current })
            if *mine == first && *current == second.epoch);
        assert!(is_fenced, "{refused:?}");
    }
    append_ok(&*log, second.epoch, &sample_batch(3, 1)).await;
    check_content(&*log, 3).await;
}

async fn empty_batch_is_a_success(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;

    append_ok(&*log, epoch, &sample_batch(1, 0)).await;
    append_ok(&*log, epoch, &sample_batch(1, 1)).await;
    append_ok(&*log, epoch, &sample_batch(2, 0)).await;

    check_content(&*log, 1).await;
}

async fn room_is_proved_without_a_record(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    let batch = sample_batch(1, 40);
    append_ok(&*log, epoch, &batch).await;

    for size in [BatchSize::default(), BatchSize::of_batch(&batch), BatchSize { records: 1, bytes: 5000 }] {
        log.prove_room(epoch, size).await.unwrap_or_else(|error| panic!("room for {size:?}: {error:?}"));
        check_content(&*log, 40).await;
    }
    append_ok(&*log, epoch, &sample_batch(41, 40)).await;
    let later = log.acquire().await.unwrap_or_else(|error| panic!("acquire: {error:?}")).epoch;

    let stale = log.prove_room(epoch, BatchSize::of_batch(&batch)).await;

    assert!(matches!(stale, Err(AppendError::Fenced { mine, .. }) if mine == epoch), "{stale:?}");
    log.prove_room(later, BatchSize::of_batch(&batch))
        .await
        .unwrap_or_else(|error| panic!("room: {error:?}"));
    check_content(&*log, 80).await;
}

async fn read_keeps_its_limits(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    for batch in 0..20 {
        append_ok(&*log, epoch, &sample_batch(1 + batch * 10, 10)).await;
    }
    let expected: Vec<_> = (1..=200).map(sample_payload).collect();

    let limits = [(1, usize::MAX), (7, usize::MAX), (10, 200), (usize::MAX, 100), (usize::MAX, 0), (0, 0)];
    for (records, bytes) in limits {
        let limit = ReadLimit { records, bytes };
        assert_eq!(read_to_tail(&*log, Seq(1), limit).await, expected, "{limit:?}");
        assert_eq!(read_to_tail(&*log, Seq(95), limit).await, expected[94..], "{limit:?}");
    }
}

async fn read_past_the_tail_is_empty(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    let check_empty = async |at: u64| {
        let page = log.read(Seq(at), ReadLimit::default()).await.unwrap_or_else(|error| panic!("{error:?}"));
        assert!(page.is_empty(), "nothing at {at}");
        assert_eq!(page.first_seq(), Seq(at));
    };

    check_empty(1).await;
    append_ok(&*log, epoch, &sample_batch(1, 3)).await;
    check_empty(4).await;
    check_empty(1000).await;

    let zero = log.read(Seq(0), ReadLimit::default()).await;
    assert!(matches!(zero, Err(ReadError::Trimmed { wanted: Seq(0), start: Seq(1) })), "{zero:?}");
}

/// Method: batches of ten records, read in pages that could hold many of them while they are written.
async fn concurrent_read_sees_whole_durable_batches(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    const BATCHES: u64 = 50;

    let append = async {
        for batch in 0..BATCHES {
            append_ok(&*log, epoch, &sample_batch(1 + batch * 10, 10)).await;
            assert!(log.stat().tail >= Seq((batch + 1) * 10), "acknowledged means visible");
        }
    };
    let read = async {
        let mut next = 1;
        while next <= BATCHES * 10 {
            let tail_before = log.stat().tail;
            let page = log.read(Seq(next), ReadLimit::default()).await;
            let page = page.unwrap_or_else(|error| panic!("read at {next}: {error:?}"));
            assert!(!page.is_empty() || tail_before.0 < next, "a durable record is visible");
            assert_eq!(page.len() % 10, 0, "a batch is seen as a whole");
            for (seq, payload) in page.iter() {
                assert_eq!(payload, sample_payload(seq.0));
            }
            next += page.len() as u64;
            yield_once().await;
        }
    };

    join(append, read).await;
}

async fn trim_removes_only_a_beginning(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    for batch in 0..40 {
        append_ok(&*log, epoch, &sample_batch(1 + batch * 10, 10)).await;
    }
    let trim =
        async |below: u64| log.trim(epoch, Seq(below)).await.unwrap_or_else(|error| panic!("{error:?}"));

    assert_eq!(trim(0).await, Seq(1), "nothing is below the first record");
    let start = trim(201).await;
    assert!(start <= Seq(201), "records from 201 on stay");
    let again = trim(100).await;
    assert!(again >= start, "the start never goes back");
    let start = again;
    assert_eq!(log.stat().start, start);
    if start > Seq(1) {
        let gone = log.read(Seq(start.0 - 1), ReadLimit::default()).await;
        let is_trimmed = matches!(&gone, Err(ReadError::Trimmed { start: now, .. }) if *now == start);
        assert!(is_trimmed, "{gone:?}");
        let repeated = log.append(epoch, &sample_batch(start.0 - 1, 2)).await;
        assert!(
            matches!(repeated, Err(AppendError::Gap { .. })),
            "cannot be compared any more: {repeated:?}"
        );
    }
    let expected: Vec<_> = (start.0..=400).map(sample_payload).collect();
    assert_eq!(read_to_tail(&*log, start, ReadLimit::default()).await, expected);

    let last = trim(9999).await;
    assert!(last <= Seq(401), "the position survives the records");
    append_ok(&*log, epoch, &sample_batch(401, 3)).await;
    let log = provider.reopen(log).await;
    let tail = log.acquire().await.unwrap_or_else(|error| panic!("{error:?}")).tail;
    assert_eq!(tail, Seq(403));
    assert_eq!(log.stat().start, last, "what was trimmed stays trimmed");
}

/// A process that slept while another took over knows nothing of what that one still needs (LOG-3).
async fn trim_is_for_the_present_writer_only(provider: &dyn LogProvider) {
    let log = provider.fresh().await;
    for epoch in [0, 1] {
        let refused = log.trim(Epoch(epoch), Seq(1)).await;
        assert!(matches!(refused, Err(TrimError::Fenced { .. })), "before anybody acquired it: {refused:?}");
    }
    let first = log.acquire().await.unwrap_or_else(|error| panic!("acquire: {error:?}"));
    for batch in 0..20 {
        append_ok(&*log, first.epoch, &sample_batch(1 + batch * 10, 10)).await;
    }
    let second = log.acquire().await.unwrap_or_else(|error| panic!("acquire again: {error:?}"));
    let extent = |stat: LogStat| (stat.start, stat.tail);
    let before = extent(log.stat());

    for below in [0, 101, 9999] {
        let refused = log.trim(first.epoch, Seq(below)).await;
        let is_fenced = matches!(&refused, Err(TrimError::Fenced { mine, current })
            if *mine == first.epoch && *current == second.epoch);
        assert!(is_fenced, "{refused:?}");
    }

    // Not its bytes: a log with an archive may be moving records there meanwhile.
    assert_eq!(extent(log.stat()), before);
    check_content(&*log, 200).await;
    let start = log.trim(second.epoch, Seq(101)).await.unwrap_or_else(|error| panic!("{error:?}"));
    assert!(start <= Seq(101), "nothing from 101 on went");
}

async fn numbering_survives_trimming_everything(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    for batch in 0..40 {
        append_ok(&*log, epoch, &sample_batch(1 + batch * 10, 10)).await;
    }

    let start = log.trim(epoch, Seq(401)).await.unwrap_or_else(|error| panic!("{error:?}"));

    assert!(start <= Seq(401), "one after the tail at most");
    assert_eq!((log.stat().start, log.stat().tail), (start, Seq(400)));
    let log = provider.reopen(log).await;
    let again = log.acquire().await.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!((log.stat().start, again.tail), (start, Seq(400)));
    let mut other = RecordBatch::starting_at(Seq(1));
    other.push(b"somebody else's");
    let reused = log.append(again.epoch, &other).await;
    let is_refused = matches!(reused, Err(AppendError::Gap { .. } | AppendError::Conflict { .. }));
    assert!(is_refused, "no number is given twice: {reused:?}");
    append_ok(&*log, again.epoch, &sample_batch(401, 10)).await;
    let expected: Vec<_> = (start.0..=410).map(sample_payload).collect();
    assert_eq!(read_to_tail(&*log, start, ReadLimit::default()).await, expected);
}

async fn stat_tells_what_is_there(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    let empty = log.stat();

    append_ok(&*log, epoch, &sample_batch(1, 30)).await;
    let filled = log.stat();

    assert_eq!((empty.start, empty.tail), (Seq(1), Seq(0)));
    assert_eq!((filled.start, filled.tail), (Seq(1), Seq(30)));
    let payload_bytes = sample_batch(1, 30).payload_bytes() as u64;
    assert!(filled.bytes >= empty.bytes + payload_bytes, "{filled:?} counts at least the payloads");
}

async fn payloads_of_every_size_come_back(provider: &dyn LogProvider) {
    let (log, epoch) = acquired(provider).await;
    let large: Vec<u8> = (0..1_500_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let payloads = [&[] as &[u8], &[0], &large, &[], &[0xff; 4096], &[0; 70_000], &[]];

    let mut batch = RecordBatch::starting_at(Seq(1));
    payloads.iter().for_each(|payload| batch.push(payload));
    append_ok(&*log, epoch, &batch).await;
    for (seq, payload) in (8..).zip(payloads) {
        let mut single = RecordBatch::starting_at(Seq(seq));
        single.push(payload);
        append_ok(&*log, epoch, &single).await;
        append_ok(&*log, epoch, &single).await;
    }

    let expected: Vec<Vec<u8>> = payloads.iter().chain(&payloads).map(|payload| payload.to_vec()).collect();
    assert!(read_to_tail(&*log, Seq(1), ReadLimit::default()).await == expected);
    assert!(read_to_tail(&*log, Seq(1), ReadLimit { records: 1, bytes: 0 }).await == expected);
}

async fn reopened_log_continues(provider: &dyn LogProvider) {
    let (log, mut epoch) = acquired(provider).await;
    let mut log = log;
    let mut tail = 0;
    for count in [3, 100, 1] {
        append_ok(&*log, epoch, &sample_batch(tail + 1, count)).await;
        tail += count;

        log = provider.reopen(log).await;
        check_content(&*log, tail).await;
        let again = log.acquire().await.unwrap_or_else(|error| panic!("acquire: {error:?}"));

        assert!(again.epoch > epoch, "epochs grow across restarts");
        assert_eq!(again.tail, Seq(tail));
        let zombie = log.append(epoch, &sample_batch(tail + 1, 1)).await;
        assert!(matches!(zombie, Err(AppendError::Fenced { .. })), "{zombie:?}");
        append_ok(&*log, again.epoch, &sample_batch(tail + 1 - count, count)).await;
        epoch = again.epoch;
    }
}

/// Drives both futures to their end, on whatever executor the caller has.
async fn join(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut a_done, mut b_done) = (false, false);
    poll_fn(|context| {
        a_done = a_done || a.as_mut().poll(context).is_ready();
        b_done = b_done || b.as_mut().poll(context).is_ready();
        if a_done && b_done { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Lets the other side of [`join`] go on.
async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
