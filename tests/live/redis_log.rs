//! The log on Redis: its port's suite, answers that get lost, two writers, and a server that lost something.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orchestrator::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions as EmbeddedOptions};
use orchestrator::adapters::redis::{RedisLogOptions, RedisOptions, RedisStore};
use orchestrator::adapters::tiered::{TieredLog, TieredOptions};
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{
    AcquireError, AppendError, Log, ReadError, ReadLimit, RecordBatch, TrimError,
};
use orchestrator_kernel::ports::log_conformance::{self, LogProvider, sample_batch};

use crate::support::process::eventually;
use crate::support::redis_server::RedisServer;
use crate::support::redis_store::{Rig, check_content, refusal};

struct OnRedis {
    store: RedisStore,
    made: AtomicU64,
}

impl OnRedis {
    async fn open(&self, number: u64) -> Arc<dyn Log> {
        Arc::new(self.store.open_log(&format!("log-{number}"), RedisLogOptions::default()).await.unwrap())
    }
}

#[async_trait]
impl LogProvider for OnRedis {
    async fn fresh(&self) -> Arc<dyn Log> {
        self.open(self.made.fetch_add(1, Ordering::Relaxed) + 1).await
    }

    async fn reopen(&self, log: Arc<dyn Log>) -> Arc<dyn Log> {
        drop(log);
        self.open(self.made.load(Ordering::Relaxed)).await
    }
}

/// Logs on Redis with an archive in files, which moves most of what is appended.
struct WithArchive {
    hot: OnRedis,
    dir: tempfile::TempDir,
}

impl WithArchive {
    async fn on(&self, hot: Arc<dyn Log>) -> Arc<dyn Log> {
        let dir = self.dir.path().join(self.hot.made.load(Ordering::Relaxed).to_string());
        // The archiver of the handle before lets go of the directory as soon as its task has ended.
        let deadline = Instant::now() + Duration::from_secs(10);
        let cold = loop {
            match EmbeddedLog::open(&dir, EmbeddedOptions::new("archive")) {
                Ok(cold) => break cold,
                Err(AcquireError::Held { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("{error}"),
            }
        };
        Arc::new(TieredLog::new(hot, Arc::new(cold), TieredOptions::new("raw", 4096, 512)))
    }
}

#[async_trait]
impl LogProvider for WithArchive {
    async fn fresh(&self) -> Arc<dyn Log> {
        let hot = self.hot.fresh().await;
        self.on(hot).await
    }

    async fn reopen(&self, log: Arc<dyn Log>) -> Arc<dyn Log> {
        drop(log);
        let hot = self.hot.open(self.hot.made.load(Ordering::Relaxed)).await;
        self.on(hot).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn log_with_an_archive_keeps_every_promise_of_its_port() {
    let rig = Rig::start();
    let patient = RedisOptions { response_timeout: Duration::from_secs(10), ..rig.options() };
    let store = RedisStore::connect(patient).await.unwrap();
    let hot = OnRedis { store, made: AtomicU64::new(0) };

    log_conformance::run(&WithArchive { hot, dir: tempfile::tempdir().unwrap() }).await;
}

#[tokio::test]
async fn log_keeps_every_promise_of_its_port() {
    let rig = Rig::start();
    let mut options = rig.options();
    options.response_timeout = Duration::from_secs(10);
    let store = RedisStore::connect(options).await.unwrap();

    log_conformance::run(&OnRedis { store, made: AtomicU64::new(0) }).await;
}

/// Method: the answer to the very first batch is lost, so it is sent again and found there; then the server loses all.
#[tokio::test]
async fn batch_acknowledged_as_a_duplicate_is_known_to_this_host() {
    let rig = Rig::start();
    let log = rig.log().await;
    let epoch = log.acquire().await.unwrap().epoch;
    // The server learns the script, which it would ask for again instead of taking the batch.
    log.append(epoch, &sample_batch(1, 0)).await.unwrap();
    rig.redis.pause();
    let unanswered = log.append(epoch, &sample_batch(1, 2)).await;
    rig.redis.resume();
    assert!(matches!(unanswered, Err(AppendError::Unknown { .. })), "{unanswered:?}");
    eventually("the server has it", async || {
        rig.command(&["XLEN", "orch:{test}:raw"]).starts_with(":2\r").then_some(())
    })
    .await;

    log.append(epoch, &sample_batch(1, 2)).await.unwrap();
    rig.command(&["FLUSHALL"]);

    let refused = refusal(&rig.log().await).await;
    assert!(refused.contains("LOG_REGRESSED") && refused.contains("up to 2"), "{refused}");
}

/// Method: freeze the server, so that it has the command and nobody has its answer.
#[tokio::test]
async fn append_without_an_answer_is_unknown_and_the_same_batch_is_written_once() {
    let rig = Rig::start();
    let (log, epoch) = rig.filled(3).await;

    rig.redis.pause();
    let started = Instant::now();
    let unanswered = log.append(epoch, &sample_batch(4, 2)).await;
    let unreachable = log.append(epoch, &sample_batch(4, 2)).await;
    let took = started.elapsed();
    rig.redis.resume();

    for unknown in [&unanswered, &unreachable] {
        let Err(AppendError::Unknown { source }) = unknown else { panic!("{unknown:?}") };
        assert_eq!(source.kind(), std::io::ErrorKind::TimedOut);
    }
    assert!(took < Duration::from_secs(3), "{took:?}");
    log.append(epoch, &sample_batch(4, 2)).await.unwrap();
    log.append(epoch, &sample_batch(6, 1)).await.unwrap();
    check_content(&log, 6).await;
}

/// Method: a restart while nothing is written. The next batch finds a closed connection, and the outage long over.
#[tokio::test]
async fn log_that_was_idle_during_an_outage_takes_the_next_batch_at_once() {
    let mut rig = Rig::start();
    let (log, epoch) = rig.filled(3).await;

    rig.redis.shut_down();
    rig.redis.start_again();
    // As long as a log has to be idle until its connection is asked first.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let appended = log.append(epoch, &sample_batch(4, 1)).await;

    assert!(appended.is_ok(), "{appended:?}");
    check_content(&log, 4).await;
}

#[tokio::test]
async fn log_goes_on_after_the_server_was_killed_and_forgot_the_scripts() {
    let mut rig = Rig::start();
    let (log, epoch) = rig.filled(3).await;

    rig.redis.kill();
    let down = log.append(epoch, &sample_batch(4, 1)).await;
    rig.redis.start_again();

    assert!(matches!(&down, Err(AppendError::Unknown { .. })), "{down:?}");
    check_content(&log, 3).await;
    log.append(epoch, &sample_batch(4, 1)).await.unwrap();
    rig.command(&["SCRIPT", "FLUSH"]);
    log.append(epoch, &sample_batch(5, 1)).await.unwrap();
    check_content(&log, 5).await;
}

#[tokio::test]
async fn hung_server_ends_a_read_with_an_error_in_time() {
    let rig = Rig::start();
    let (log, _) = rig.filled(3).await;

    rig.redis.pause();
    let started = Instant::now();
    let read = log.read(Seq(1), ReadLimit::default()).await;
    let took = started.elapsed();
    rig.redis.resume();

    assert!(matches!(&read, Err(ReadError::Io(_))), "{read:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    check_content(&log, 3).await;
}

#[tokio::test]
async fn writer_that_was_overtaken_while_it_slept_writes_nothing() {
    let rig = Rig::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let (sleeper, old) = rig.filled(3).await;

    let successor = rig.log_of_another_host(elsewhere.path()).await;
    let acquired = successor.acquire().await.unwrap();
    let woken = sleeper.append(old, &sample_batch(4, 1)).await;
    let probe = sleeper.append(old, &RecordBatch::starting_at(Seq(4))).await;

    assert_eq!(acquired.tail, Seq(3));
    for fenced in [woken, probe] {
        let is_fenced = matches!(&fenced, Err(AppendError::Fenced { mine, current })
            if *mine == old && *current == acquired.epoch);
        assert!(is_fenced, "{fenced:?}");
    }
    successor.append(acquired.epoch, &sample_batch(4, 1)).await.unwrap();
    check_content(&sleeper, 4).await;
}

/// An asynchronous fail-over loses the newest epoch; the next writer is then given the same one again.
#[tokio::test]
async fn writer_with_the_same_epoch_as_another_is_fenced() {
    let rig = Rig::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let (first, epoch) = rig.filled(3).await;

    rig.command(&["HINCRBY", "orch:{test}:raw:meta", "epoch", "-1"]);
    let regressed = first.append(epoch, &sample_batch(4, 1)).await;
    let second = rig.log_of_another_host(elsewhere.path()).await;
    let again = second.acquire().await.unwrap().epoch;
    let overtaken = first.append(epoch, &sample_batch(4, 1)).await;

    assert!(matches!(&regressed, Err(AppendError::Gap { .. })), "{regressed:?}");
    assert_eq!(again, epoch, "that is what makes it dangerous");
    assert!(matches!(&overtaken, Err(AppendError::Fenced { .. })), "{overtaken:?}");
    check_content(&second, 3).await;
}

#[tokio::test]
async fn flushed_log_is_never_appended_to_and_never_taken_over() {
    let rig = Rig::start();
    let (log, epoch) = rig.filled(15).await;
    let id = log_id(&rig);

    rig.command(&["FLUSHALL"]);
    let next = log.append(epoch, &sample_batch(16, 1)).await;
    let repeated = log.append(epoch, &sample_batch(15, 1)).await;
    let probe = log.append(epoch, &RecordBatch::starting_at(Seq(16))).await;
    let read = log.read(Seq(1), ReadLimit::default()).await;

    for lost in [next, repeated, probe] {
        assert!(matches!(&lost, Err(AppendError::Gap { tail: Seq(0), .. })), "{lost:?}");
    }
    assert!(matches!(&read, Err(ReadError::Corrupt { at: Seq(1), .. })), "{read:?}");
    let text = refusal(&log).await;
    assert!(text.starts_with("LOG_REGRESSED: it holds no log up to 0, this host knows"), "{text}");
    assert!(text.contains(&id) && text.contains("up to 15") && text.contains("test.raw.mark"), "{text}");
    assert!(rig.command(&["EXISTS", "orch:{test}:raw:meta"]).starts_with(":0"), "it was not touched");
}

#[tokio::test]
async fn flushed_log_is_refused_by_the_next_process_and_after_a_restart_of_the_server() {
    let mut rig = Rig::start();
    drop(rig.filled(15).await);

    rig.command(&["FLUSHALL"]);
    rig.redis.shut_down();
    rig.redis.start_again();

    assert!(refusal(&rig.log().await).await.starts_with("LOG_REGRESSED"));
    std::fs::remove_file(rig.state.path().join("test.raw.mark")).unwrap();
    let log = rig.log().await;
    assert_eq!(log.acquire().await.unwrap().tail, Seq(0), "moving the mark away accepts the loss");
}

#[tokio::test]
async fn exchanged_data_set_is_refused_even_when_it_is_longer() {
    let rig = Rig::start();
    let elsewhere = tempfile::tempdir().unwrap();
    let (log, epoch) = rig.filled(3).await;
    let mine = log_id(&rig);

    rig.command(&["FLUSHALL"]);
    let other = rig.log_of_another_host(elsewhere.path()).await;
    let other_epoch = other.acquire().await.unwrap().epoch;
    other.append(other_epoch, &sample_batch(1, 9)).await.unwrap();

    assert_eq!(other_epoch, epoch, "nothing but the id tells them apart");
    let appended = log.append(epoch, &sample_batch(4, 1)).await;
    assert!(matches!(&appended, Err(AppendError::Gap { .. })), "{appended:?}");
    let read = log.read(Seq(1), ReadLimit::default()).await;
    assert!(matches!(&read, Err(ReadError::Corrupt { at: Seq(1), .. })), "{read:?}");
    let text = refusal(&log).await;
    assert!(
        text.starts_with("LOG_REGRESSED") && text.contains(&mine) && text.contains(&log_id(&rig)),
        "{text}"
    );
    assert!(!text.contains("another record"), "{text}");
    check_content(&other, 9).await;
}

#[tokio::test]
async fn old_backup_of_the_same_log_is_refused_although_others_wrote_on() {
    let mut rig = Rig::start();
    let (log, epoch) = rig.filled(3).await;
    let backup = tempfile::tempdir().unwrap();
    rig.redis.shut_down();
    copy_dir(&rig.redis.aof_dir(), backup.path());
    rig.redis.start_again();
    append_until_answered(&log, epoch, &sample_batch(4, 2)).await.unwrap();

    rig.redis.shut_down();
    std::fs::remove_dir_all(rig.redis.aof_dir()).unwrap();
    copy_dir(backup.path(), &rig.redis.aof_dir());
    rig.redis.start_again();

    let text = refusal(&log).await;
    assert!(
        text.starts_with("LOG_REGRESSED") && text.contains("up to 3") && text.contains("up to 5"),
        "{text}"
    );
    assert!(!text.contains("another record"), "{text}");
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = rig.log_of_another_host(elsewhere.path()).await;
    let epoch = stranger.acquire().await.unwrap().epoch;
    let mut other = RecordBatch::starting_at(Seq(4));
    other.push(b"another record at 4");
    other.push(b"and at 5");
    stranger.append(epoch, &other).await.unwrap();
    let text = refusal(&log).await;
    assert!(text.starts_with("LOG_REGRESSED") && text.contains("another record"), "{text}");
}

#[tokio::test]
async fn key_deleted_by_hand_or_evicted_is_found_out() {
    for key in ["orch:{test}:raw", "orch:{test}:raw:meta"] {
        let rig = Rig::start();
        let (log, epoch) = rig.filled(5).await;

        rig.command(&["DEL", key]);
        let next = log.append(epoch, &sample_batch(6, 1)).await;
        let elsewhere = tempfile::tempdir().unwrap();
        let stranger = rig.log_of_another_host(elsewhere.path()).await.acquire().await;

        assert!(matches!(&next, Err(AppendError::Gap { .. })), "{key}: {next:?}");
        assert!(matches!(&stranger, Err(AcquireError::Corrupt { .. })), "{key}: {stranger:?}");
    }
}

#[tokio::test]
async fn entry_deleted_by_hand_is_a_hole_and_nothing_is_appended_behind_it() {
    let rig = Rig::start();
    let (log, epoch) = rig.filled(5).await;

    rig.command(&["XDEL", "orch:{test}:raw", "3-0"]);

    // Up to the hole, as when trimming overtakes a read; the next read begins there and tells what it is.
    assert_eq!(log.read(Seq(1), ReadLimit::default()).await.unwrap().len(), 2);
    let read = log.read(Seq(3), ReadLimit::default()).await;
    assert!(
        matches!(&read, Err(ReadError::Corrupt { at: Seq(3), detail }) if detail.contains("missing")),
        "{read:?}"
    );
    let next = log.append(epoch, &sample_batch(6, 1)).await;
    assert!(matches!(&next, Err(AppendError::Gap { .. })), "{next:?}");
}

/// Method: flip one bit of a payload in the append-only file, which has no checksum of its own.
#[tokio::test]
async fn flipped_bit_in_a_stored_payload_is_found_when_it_is_read() {
    let mut rig = Rig::start();
    let log = rig.log().await;
    let epoch = log.acquire().await.unwrap().epoch;
    let mut batch = sample_batch(1, 4);
    batch.push(b"a payload to be damaged");
    log.append(epoch, &batch).await.unwrap();
    rig.redis.shut_down();
    let file = incremental_file(&rig);
    let mut content = std::fs::read(&file).unwrap();
    let at = content.windows(12).position(|window| window == b"to be damage").unwrap();
    content[at] ^= 4;
    std::fs::write(&file, content).unwrap();
    rig.redis.start_again();

    let read = log.read(Seq(1), ReadLimit::default()).await;

    assert!(matches!(&read, Err(ReadError::Corrupt { at: Seq(5), .. })), "{read:?}");
    let read = log.read(Seq(5), ReadLimit::default()).await;
    assert!(matches!(&read, Err(ReadError::Corrupt { at: Seq(5), .. })), "{read:?}");
    assert_eq!(log.read(Seq(1), ReadLimit { records: 4, ..ReadLimit::default() }).await.unwrap().len(), 4);
}

#[tokio::test]
async fn capacity_stops_appends_before_anything_is_written_and_trimming_makes_room() {
    let rig = Rig::start();
    let store = rig.store().await;
    let log = store.open_log("raw", RedisLogOptions { capacity_bytes: Some(1000) }).await.unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let batch = |first: u64| {
        let mut batch = RecordBatch::starting_at(Seq(first));
        batch.push(&[7; 395]);
        batch
    };

    log.append(epoch, &batch(1)).await.unwrap();
    log.append(epoch, &batch(2)).await.unwrap();
    let full = log.append(epoch, &batch(3)).await;
    let repeated = log.append(epoch, &batch(2)).await;

    assert!(matches!(&full, Err(AppendError::Full { detail }) if detail.contains("1000")), "{full:?}");
    assert!(repeated.is_ok(), "it adds nothing: {repeated:?}");
    assert_eq!((log.stat().tail, log.stat().bytes), (Seq(2), 800));
    assert_eq!(log.trim(epoch, Seq(2)).await.unwrap(), Seq(2));
    log.append(epoch, &batch(3)).await.unwrap();
    assert_eq!((log.stat().start, log.stat().tail, log.stat().bytes), (Seq(2), Seq(3), 800));
}

#[tokio::test]
async fn reader_of_another_process_learns_what_was_appended_and_trimmed() {
    let rig = Rig::start();
    let (early, late) = (rig.log().await, rig.log().await);
    assert!(early.read(Seq(1), ReadLimit::default()).await.unwrap().is_empty());

    let (log, epoch) = rig.filled(9).await;
    check_content(&early, 9).await;
    log.trim(epoch, Seq(4)).await.unwrap();

    for reader in [&early, &late] {
        let read = reader.read(Seq(2), ReadLimit::default()).await;
        assert!(matches!(&read, Err(ReadError::Trimmed { wanted: Seq(2), start: Seq(4) })), "{read:?}");
        assert_eq!(reader.read(Seq(4), ReadLimit::default()).await.unwrap().len(), 6);
    }
}

/// A process that was frozen between asking whether the log is its own and trimming it.
#[tokio::test]
async fn superseded_writer_trims_nothing() {
    let rig = Rig::start();
    let (log, epoch) = rig.filled(8).await;
    let other_state = tempfile::tempdir().unwrap();
    let successor = rig.log_of_another_host(other_state.path()).await;
    let later = successor.acquire().await.unwrap().epoch;

    let refused = log.trim(epoch, Seq(5)).await;
    let is_fenced = matches!(&refused, Err(TrimError::Fenced { mine, current })
        if *mine == epoch && *current == later);
    assert!(is_fenced, "{refused:?}");
    let stolen = log.trim(later, Seq(5)).await;
    assert!(matches!(stolen, Err(TrimError::Fenced { .. })), "an epoch is not enough: {stolen:?}");

    check_content(&successor, 8).await;
    assert_eq!(successor.trim(later, Seq(5)).await.unwrap(), Seq(5));
}

/// Method: payloads whose size changes by a factor of a thousand in the middle; many trimming steps.
#[tokio::test]
async fn large_log_is_read_in_pages_and_trimmed_in_steps() {
    let rig = Rig::start();
    let (log, epoch) = rig.filled(0).await;
    for first in (1..=4000).step_by(1000) {
        log.append(epoch, &sample_batch(first, 1000)).await.unwrap();
    }
    let mut large = RecordBatch::starting_at(Seq(4001));
    (0..200).for_each(|_| large.push(&[1; 64 << 10]));
    log.append(epoch, &large).await.unwrap();

    let mut next = 1;
    while next <= 4200 {
        let page = log.read(Seq(next), ReadLimit { records: 4096, bytes: 1 << 20 }).await.unwrap();
        assert!(!page.is_empty() && page.payload_bytes() <= 1 << 20);
        next += page.len() as u64;
    }

    assert_eq!(log.trim(epoch, Seq(4101)).await.unwrap(), Seq(4101));
    assert_eq!(log.stat().bytes, 100 * ((64 << 10) + 5));
    assert!(rig.command(&["XLEN", "orch:{test}:raw"]).starts_with(":100\r"));
    assert_eq!(log.trim(epoch, Seq(u64::MAX)).await.unwrap(), Seq(4201), "never beyond the end");
    assert_eq!((log.stat().start, log.stat().tail, log.stat().bytes), (Seq(4201), Seq(4200), 0));
    log.append(epoch, &sample_batch(4201, 1)).await.unwrap();
}

/// Method: each writer takes over, writes some batches, and is overtaken by the other in the middle of them, while a
/// third party cuts all connections again and again. Every acknowledged batch is remembered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_and_cut_connections_leave_one_sequence_without_conflict() {
    const ROUNDS: u64 = 30;
    let rig = Arc::new(Rig::start());
    // Each is on the operator's word: neither host has a mark of what the other one has written.
    let hosts = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [one, other] = &hosts;
    let logs = [rig.log_of_another_host(one.path()).await, rig.log_of_another_host(other.path()).await];
    let is_over = Arc::new(AtomicU64::new(0));
    let killer = {
        let (rig, is_over) = (Arc::clone(&rig), Arc::clone(&is_over));
        std::thread::spawn(move || {
            while is_over.load(Ordering::Acquire) == 0 {
                rig.redis.command(&["CLIENT", "KILL", "TYPE", "normal"]);
                std::thread::sleep(Duration::from_millis(3));
            }
        })
    };

    let [first, second] = logs;
    let (first, second) = (write_rounds(&first, 1, ROUNDS), write_rounds(&second, 2, ROUNDS));
    let (first, second) = tokio::join!(first, second);
    is_over.store(1, Ordering::Release);
    killer.join().unwrap();

    let log = rig.log().await;
    let tail = log.stat().tail;
    let mut stored = Vec::new();
    while (stored.len() as u64) < tail.0 {
        let page = log.read(Seq(stored.len() as u64 + 1), ReadLimit::default()).await.unwrap();
        stored.extend(page.iter().map(|(_, payload)| payload.to_vec()));
    }
    assert_eq!(stored.len() as u64, tail.0);
    for (seq, payload) in first.acknowledged.iter().chain(&second.acknowledged) {
        assert_eq!(stored[usize::try_from(seq.0).unwrap() - 1], *payload, "acknowledged record {seq}");
    }
    let unknown = first.unknown + second.unknown;
    let fenced = first.fenced + second.fenced;
    println!("{tail} records, {fenced} fencings, {unknown} unknown answers");
    assert!(fenced > 0 && unknown > 0, "the faults did happen: {fenced} {unknown}");
}

#[derive(Default)]
struct Written {
    acknowledged: Vec<(Seq, Vec<u8>)>,
    fenced: u64,
    unknown: u64,
}

async fn write_rounds(log: &dyn Log, writer: u8, rounds: u64) -> Written {
    let mut written = Written::default();
    for round in 0..rounds {
        let acquired = until_done(async || match log.acquire().await {
            Ok(acquired) => Some(acquired),
            Err(AcquireError::Io { .. }) => None,
            Err(error) => panic!("{error}"),
        });
        let acquired = acquired.await;
        let mut next = acquired.tail.next();
        for _ in 0..10 {
            let mut batch = RecordBatch::starting_at(next);
            (0..3).for_each(|at: u8| batch.push(&[writer, at, u8::try_from(round).unwrap()]));
            let appended = until_done(async || match log.append(acquired.epoch, &batch).await {
                Err(AppendError::Unknown { .. }) => {
                    written.unknown += 1;
                    None
                }
                answer => Some(answer),
            });
            match appended.await {
                Ok(()) => {
                    let records = batch.iter().map(|(seq, payload)| (seq, payload.to_vec()));
                    written.acknowledged.extend(records);
                    next = batch.last_seq().next();
                }
                Err(AppendError::Fenced { .. }) => {
                    written.fenced += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    written
}

/// As the actors do it: what was not answered is sent again.
async fn append_until_answered(log: &dyn Log, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
    until_done(async || match log.append(epoch, batch).await {
        Err(AppendError::Unknown { .. }) => None,
        answer => Some(answer),
    })
    .await
}

async fn until_done<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        assert!(Instant::now() < deadline, "no answer in time");
    }
}

/// Method: cut the append-only file at every byte of its last two appends, and start a server that takes a cut file.
#[tokio::test]
async fn cut_append_only_file_is_refused_or_has_all_that_was_acknowledged() {
    let mut rig = Rig::on(RedisServer::with(&["--aof-load-truncated", "yes"]));
    let (log, epoch) = rig.filled(3).await;
    let file = incremental_file(&rig);
    let before = std::fs::metadata(&file).unwrap().len();
    log.append(epoch, &sample_batch(4, 1)).await.unwrap();
    log.append(epoch, &sample_batch(5, 1)).await.unwrap();
    drop(log);
    rig.redis.kill();
    let whole = std::fs::read(&file).unwrap();
    let mark = rig.state.path().join("test.raw.mark");
    let marked = std::fs::read(&mark).unwrap();

    let mut outcomes = [0; 3];
    for length in usize::try_from(before).unwrap()..=whole.len() {
        std::fs::write(&file, &whole[..length]).unwrap();
        std::fs::write(&mark, &marked).unwrap();
        if rig.redis.try_start().is_err() {
            outcomes[0] += 1;
            continue;
        }
        let patient = RedisOptions { response_timeout: Duration::from_secs(10), ..rig.options() };
        let store = RedisStore::connect(patient).await.unwrap();
        let log = store.open_log("raw", RedisLogOptions::default()).await.unwrap();
        match log.acquire().await {
            Err(AcquireError::Corrupt { detail, .. }) if detail.starts_with("LOG_REGRESSED") => {
                outcomes[1] += 1
            }
            Err(error) => panic!("cut at {length}: {error}"),
            Ok(acquired) => {
                assert_eq!(acquired.tail, Seq(5), "cut at {length}");
                check_content(&log, 5).await;
                outcomes[2] += 1;
            }
        }
        rig.redis.kill();
    }

    println!("refused by redis, by us, taken: {outcomes:?}");
    assert!(outcomes[1] > 50 && 0 < outcomes[2], "{outcomes:?}");
}

fn incremental_file(rig: &Rig) -> std::path::PathBuf {
    let mut files = std::fs::read_dir(rig.redis.aof_dir()).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.to_string_lossy().ends_with(".incr.aof")).unwrap()
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn log_id(rig: &Rig) -> String {
    rig.command(&["HGET", "orch:{test}:raw:meta", "log_id"]).lines().nth(1).unwrap().to_owned()
}
