//! The two tiers against the log's suite, a model, failing storage, and archives that do not fit.

use std::collections::VecDeque;

use orchestrator_kernel::ports::log_conformance::{
    self, LogProvider, read_to_tail, sample_batch, sample_payload,
};
use orchestrator_kernel::ports::log_memory::MemoryLog;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::archiver::{ArchiveError, ArchiveStep};
use super::*;

/// What a log does instead of what it should, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The append is not done and not answered.
    AppendLost,
    /// The append is done and not answered.
    AnswerLost,
    Full,
    /// The log is not the one that was taken over.
    Lost,
    Poisoned,
    Trim,
    Read,
}

/// A memory log that fails as it is told.
#[derive(Default)]
struct Faulty {
    log: MemoryLog,
    faults: Mutex<VecDeque<Fault>>,
    /// What `stat` says of the start, as a provider that asks its server only now and then.
    stale_start: Mutex<Option<Seq>>,
    /// What the writer before trims while it is being taken over.
    trims_last: Mutex<Option<Seq>>,
}

impl Faulty {
    fn fail(&self, fault: Fault) {
        self.faults.lock().unwrap().push_back(fault);
    }

    /// Whether the next fault is one of these; it is over then.
    fn meets(&self, any: &[Fault]) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        let found = faults.front().copied().filter(|fault| any.contains(fault));
        if found.is_some() {
            faults.pop_front();
        }
        found
    }
}

#[async_trait]
impl Log for Faulty {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        let last = self.trims_last.lock().unwrap().take();
        if let Some(below) = last {
            let writer_before = self.log.acquire().await.unwrap().epoch;
            self.log.trim(writer_before, below).await.unwrap();
        }
        self.log.acquire().await
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        let lost = || io::Error::other("injected");
        match self.meets(&[Fault::AppendLost, Fault::AnswerLost, Fault::Full, Fault::Lost, Fault::Poisoned]) {
            Some(Fault::AppendLost) => Err(AppendError::Unknown { source: lost() }),
            Some(Fault::AnswerLost) => {
                self.log.append(epoch, batch).await?;
                Err(AppendError::Unknown { source: lost() })
            }
            Some(Fault::Full) => Err(AppendError::Full { detail: "injected".to_owned() }),
            Some(Fault::Lost) => {
                Err(AppendError::Gap { first: batch.first_seq(), tail: self.log.stat().tail })
            }
            Some(Fault::Poisoned) => Err(AppendError::Poisoned { source: lost() }),
            Some(Fault::Trim | Fault::Read) | None => self.log.append(epoch, batch).await,
        }
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        match self.meets(&[Fault::Full]) {
            Some(_) => Err(AppendError::Full { detail: "injected".to_owned() }),
            None => self.log.prove_room(epoch, size).await,
        }
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        match self.meets(&[Fault::Read]) {
            Some(_) => Err(ReadError::Io(io::Error::other("injected"))),
            None => self.log.read(from, limit).await,
        }
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        match self.meets(&[Fault::Trim]) {
            Some(_) => Err(TrimError::Io(io::Error::other("injected"))),
            None => self.log.trim(epoch, below).await,
        }
    }

    fn stat(&self) -> LogStat {
        let stat = self.log.stat();
        LogStat { start: self.stale_start.lock().unwrap().unwrap_or(stat.start), ..stat }
    }
}

/// The two logs as they outlive a process.
#[derive(Clone, Default)]
struct Media {
    hot: Arc<Faulty>,
    cold: Arc<Faulty>,
}

impl Media {
    fn open(&self, options: TieredOptions) -> TieredLog {
        TieredLog::new(Arc::clone(&self.hot) as Arc<dyn Log>, Arc::clone(&self.cold) as Arc<dyn Log>, options)
    }

    /// Both logs hold 1 … `tail`, of which 1 … `archived` is in the archive, and from there on in the hot log.
    async fn with(tail: u64, archived: u64) -> Self {
        let media = Self::default();
        let log = media.open(options(10));
        let (acquired, archiver) = log.take_over().await.unwrap();
        for first in (1..=archived).step_by(10) {
            log.append(acquired.epoch, &sample_batch(first, 10.min(archived + 1 - first))).await.unwrap();
        }
        while archiver.do_next_step().await.unwrap() != ArchiveStep::Idle {}
        for first in archived + 1..=tail {
            log.append(acquired.epoch, &sample_batch(first, 1)).await.unwrap();
        }
        assert_eq!((media.cold.stat().tail, media.hot.stat().tail), (Seq(archived), Seq(tail)));
        media
    }
}

/// Archives above 400 bytes, down to 200, so many records at a time.
fn options(records: usize) -> TieredOptions {
    let step = ReadLimit { records, bytes: 1 << 20 };
    TieredOptions { step, ..TieredOptions::new("test", 400, 200) }
}

/// Never archives by itself.
fn idle() -> TieredOptions {
    TieredOptions::new("test", u64::MAX, u64::MAX)
}

async fn check_content(log: &dyn Log, tail: u64) {
    let expected: Vec<_> = (1..=tail).map(sample_payload).collect();
    assert_eq!(read_to_tail(log, Seq(1), ReadLimit::default()).await, expected);
    assert_eq!((log.stat().start, log.stat().tail), (Seq(1), Seq(tail)));
}

/// The log with everything that can be archived archived after each append, so that the suite meets both tiers.
struct Stepped {
    log: TieredLog,
    archiver: tokio::sync::Mutex<Option<Archiver>>,
}

impl Stepped {
    fn around(log: TieredLog) -> Arc<dyn Log> {
        Arc::new(Self { log, archiver: tokio::sync::Mutex::default() })
    }
}

#[async_trait]
impl Log for Stepped {
    async fn acquire(&self) -> Result<Acquired, AcquireError> {
        let (acquired, archiver) = self.log.take_over().await?;
        *self.archiver.lock().await = Some(archiver);
        Ok(acquired)
    }

    async fn append(&self, epoch: Epoch, batch: &RecordBatch) -> Result<(), AppendError> {
        let appended = self.log.append(epoch, batch).await;
        if let Some(archiver) = &*self.archiver.lock().await {
            archiver.archive_down_to_keep().await.unwrap();
        }
        appended
    }

    async fn prove_room(&self, epoch: Epoch, size: BatchSize) -> Result<(), AppendError> {
        self.log.prove_room(epoch, size).await
    }

    async fn read(&self, from: Seq, limit: ReadLimit) -> Result<RecordBatch, ReadError> {
        self.log.read(from, limit).await
    }

    async fn trim(&self, epoch: Epoch, below: Seq) -> Result<Seq, TrimError> {
        self.log.trim(epoch, below).await
    }

    fn stat(&self) -> LogStat {
        self.log.stat()
    }
}

/// Logs in memory, each reopened on the media that it had last.
struct InMemory {
    options: TieredOptions,
    is_stepped: bool,
    media: Mutex<Media>,
}

impl InMemory {
    fn open(&self) -> Arc<dyn Log> {
        let log = self.media.lock().unwrap().open(self.options.clone());
        if self.is_stepped { Stepped::around(log) } else { Arc::new(log) }
    }
}

#[async_trait]
impl LogProvider for InMemory {
    async fn fresh(&self) -> Arc<dyn Log> {
        *self.media.lock().unwrap() = Media::default();
        self.open()
    }

    async fn reopen(&self, log: Arc<dyn Log>) -> Arc<dyn Log> {
        drop(log);
        self.open()
    }
}

#[tokio::test]
async fn tiered_log_conforms() {
    for (options, is_stepped) in [
        (idle(), false),
        (TieredOptions::new("test", 1 << 20, 1 << 19), true),
        (TieredOptions::new("test", 400, 200), true),
        (TieredOptions::new("test", 1, 0), true),
    ] {
        log_conformance::run(&InMemory { options, is_stepped, media: Mutex::default() }).await;
    }
}

#[tokio::test]
async fn archiving_keeps_the_hot_log_within_its_limit_and_every_record_in_reach() {
    let media = Media::default();
    let log = media.open(options(10));
    let (acquired, archiver) = log.take_over().await.unwrap();

    for first in (1..=1000).step_by(5) {
        log.append(acquired.epoch, &sample_batch(first, 5)).await.unwrap();
        archiver.archive_down_to_keep().await.unwrap();
        assert!(media.hot.stat().bytes <= 400);
    }

    check_content(&log, 1000).await;
    let (hot, cold) = (media.hot.stat(), media.cold.stat());
    assert_eq!(hot.start, cold.tail, "one record is in both");
    assert_eq!(log.stat().bytes, hot.bytes + cold.bytes);
}

/// Method: the background task, a writer that is never told to wait, and a reader from the first record on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_finds_every_record_while_the_archiver_moves_them() {
    const RECORDS: u64 = 20_000;
    let media = Media::default();
    let log = Arc::new(media.open(options(64)));
    let epoch = log.acquire().await.unwrap().epoch;

    let writer = Arc::clone(&log);
    let write = tokio::spawn(async move {
        for first in (1..RECORDS).step_by(10) {
            writer.append(epoch, &sample_batch(first, 10)).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..3 {
        let mut next = Seq(1);
        while next <= Seq(RECORDS) {
            let page = log.read(next, ReadLimit { records: 100, bytes: 1 << 20 }).await.unwrap();
            assert_eq!(page.first_seq(), next);
            page.iter().for_each(|(seq, payload)| assert_eq!(payload, sample_payload(seq.0)));
            next = page.last_seq().next();
            tokio::task::yield_now().await;
        }
    }
    write.await.unwrap();

    eventually(|| media.hot.stat().bytes <= 400).await;
    log.stop_archiving().await;
    check_content(&*log, RECORDS).await;
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to hold");
        sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_read_that_meets_a_trim_goes_to_the_archive() {
    let media = Media::with(100, 80).await;
    let log = media.open(idle());

    *media.hot.stale_start.lock().unwrap() = Some(Seq(1));

    check_content(&log, 100).await;
}

#[tokio::test]
async fn a_record_that_neither_holds_is_corrupt_and_not_the_tail() {
    let media = Media::with(100, 80).await;
    let epoch = media.hot.log.acquire().await.unwrap().epoch;
    media.hot.log.trim(epoch, Seq(90)).await.unwrap();
    let log = media.open(idle());

    let read = log.read(Seq(85), ReadLimit::default()).await;

    assert!(matches!(read, Err(ReadError::Corrupt { at: Seq(85), .. })), "{read:?}");
}

#[tokio::test]
async fn an_archive_that_does_not_fit_is_refused_and_nobody_is_fenced() {
    let refused = async |media: &Media, why: &str| {
        let writer = media.hot.acquire().await.unwrap();
        let error = media.open(idle()).acquire().await.unwrap_err();
        assert!(matches!(&error, AcquireError::Corrupt { detail, .. } if detail.contains(why)), "{error}");
        let nothing = RecordBatch::starting_at(writer.tail.next());
        media.hot.append(writer.epoch, &nothing).await.unwrap();
    };
    let archive = async |tail: u64, more: &[u8]| {
        let cold = Faulty::default();
        let epoch = cold.acquire().await.unwrap().epoch;
        cold.append(epoch, &sample_batch(1, tail)).await.unwrap();
        let mut last = RecordBatch::starting_at(Seq(tail + 1));
        last.push(more);
        cold.append(epoch, &last).await.unwrap();
        Arc::new(cold)
    };

    let media = Media::with(100, 80).await;
    let missing = Media { cold: Arc::default(), ..media.clone() };
    refused(&missing, "the archive ends at 0 but the hot log starts at 80").await;
    let old = Media { cold: archive(59, &sample_payload(60)).await, ..media.clone() };
    refused(&old, "the archive ends at 60 but the hot log starts at 80").await;
    let foreign = Media { cold: archive(79, b"of another log").await, ..media.clone() };
    refused(&foreign, "record 80 is not the same").await;
    let flushed = Media { hot: Arc::default(), ..media.clone() };
    refused(&flushed, "the hot log ends before it").await;

    *media.hot.trims_last.lock().unwrap() = Some(Seq(90));
    let late = media.open(idle()).acquire().await.unwrap_err();
    assert!(late.to_string().contains("the archive ends at 80 but the hot log starts at 90"), "{late}");

    let media = Media::with(100, 80).await;
    let joined = Media { cold: archive(78, &sample_payload(79)).await, ..media };
    joined.open(idle()).acquire().await.unwrap();
}

#[tokio::test]
async fn a_copy_without_its_trim_is_recognised_by_the_next_process() {
    let media = Media::with(100, 80).await;
    let log = media.open(options(10));
    let (_, archiver) = log.take_over().await.unwrap();
    assert_eq!(archiver.do_next_step().await.unwrap(), ArchiveStep::Copied(10));
    assert_eq!((media.hot.stat().start, media.cold.stat().tail), (Seq(80), Seq(90)));
    drop((log, archiver));

    let log = media.open(options(10));
    let (_, archiver) = log.take_over().await.unwrap();
    check_content(&log, 100).await;

    assert_eq!(archiver.do_next_step().await.unwrap(), ArchiveStep::Trimmed);
    assert_eq!(media.hot.stat().start, Seq(90));
    assert_eq!(archiver.do_next_step().await.unwrap(), ArchiveStep::Copied(10));
    assert_eq!(archiver.do_next_step().await.unwrap(), ArchiveStep::Trimmed);
    assert_eq!(archiver.do_next_step().await.unwrap(), ArchiveStep::Idle, "one record stays");
    check_content(&log, 100).await;
}

/// An archiver that slept while another process took over, with an archive of its own.
#[tokio::test]
async fn a_superseded_archiver_removes_nothing() {
    let media = Media::with(100, 80).await;
    let log = media.open(options(10));
    let (_, archiver) = log.take_over().await.unwrap();
    assert_eq!(archiver.do_next_step().await.unwrap(), ArchiveStep::Copied(10));

    media.hot.acquire().await.unwrap();

    assert!(matches!(archiver.do_next_step().await, Err(ArchiveError::Superseded)));
    assert_eq!(media.hot.stat().start, Seq(80));
    let second = media.open(options(10));
    second.take_over().await.unwrap();
    assert!(
        matches!(archiver.copy_next_records().await, Err(ArchiveError::Superseded)),
        "the archive has an epoch too"
    );
}

/// Scarce memory refuses every append, and moving records away is what mends it.
#[tokio::test]
async fn a_hot_log_without_room_is_trimmed_all_the_same() {
    let media = Media::with(100, 80).await;
    let log = media.open(options(10));
    let (_, archiver) = log.take_over().await.unwrap();
    assert_eq!(archiver.do_next_step().await.unwrap(), ArchiveStep::Copied(10));

    media.hot.fail(Fault::Full);

    assert_eq!(archiver.do_next_step().await.unwrap(), ArchiveStep::Trimmed);
    assert_eq!(media.hot.stat().start, Seq(90));
}

/// A hot log that is lost answers so to an append of nothing too, and the archive cannot take that back.
#[tokio::test]
async fn a_probe_that_finds_the_hot_log_lost_is_not_answered_from_the_archive() {
    let media = Media::with(100, 80).await;
    let log = media.open(idle());
    let epoch = log.acquire().await.unwrap().epoch;

    media.hot.fail(Fault::Lost);

    let probed = log.append(epoch, &RecordBatch::starting_at(Seq(101))).await;
    assert!(matches!(probed, Err(AppendError::Gap { .. })), "{probed:?}");
}

#[tokio::test]
async fn a_batch_sent_again_after_it_was_archived_is_compared_with_the_archive() {
    let media = Media::with(100, 80).await;
    let log = media.open(idle());
    let epoch = log.acquire().await.unwrap().epoch;

    for (first, count) in [(1, 80), (61, 10), (75, 20), (1, 100)] {
        log.append(epoch, &sample_batch(first, count)).await.unwrap();
    }
    let mut other = sample_batch(70, 15);
    other.push(b"somebody else's");
    let conflict = log.append(epoch, &other).await;
    assert!(matches!(conflict, Err(AppendError::Conflict { at: Seq(85) })), "{conflict:?}");
    let beyond = log.append(epoch, &sample_batch(70, 40)).await;
    assert!(matches!(beyond, Err(AppendError::Gap { .. })), "{beyond:?}");

    log.trim(epoch, Seq(50)).await.unwrap();
    let trimmed = log.append(epoch, &sample_batch(40, 20)).await;
    assert!(matches!(trimmed, Err(AppendError::Gap { .. })), "{trimmed:?}");
    media.cold.fail(Fault::Read);
    let unread = log.append(epoch, &sample_batch(60, 5)).await;
    assert!(matches!(unread, Err(AppendError::Unknown { .. })), "{unread:?}");
}

#[tokio::test]
async fn retention_takes_from_the_archive_only() {
    let media = Media::with(100, 80).await;
    let log = media.open(idle());
    let epoch = log.acquire().await.unwrap().epoch;

    assert_eq!(log.trim(epoch, Seq(50)).await.unwrap(), Seq(50));
    assert_eq!(log.trim(epoch, Seq(1000)).await.unwrap(), Seq(80));

    assert_eq!((media.hot.stat().start, log.stat().start), (Seq(80), Seq(80)));
    let gone = log.read(Seq(79), ReadLimit::default()).await;
    assert!(matches!(gone, Err(ReadError::Trimmed { start: Seq(80), .. })), "{gone:?}");
    assert_eq!(log.acquire().await.unwrap().tail, Seq(100), "the seam is still there");
}

/// Method: stopped time. Every kind of failure that passes, then one that does not.
#[tokio::test(start_paused = true)]
async fn failures_delay_archiving_longer_and_longer_and_are_told_when_the_hot_log_is_full() {
    let media = Media::with(100, 10).await;
    media.cold.fail(Fault::Full);
    media.cold.fail(Fault::AppendLost);
    media.cold.fail(Fault::AnswerLost);
    media.hot.fail(Fault::Trim);
    let log = media.open(options(10));

    let since = Instant::now();
    let epoch = log.acquire().await.unwrap().epoch;
    sleep(Duration::from_millis(50)).await;
    media.hot.fail(Fault::Full);
    media.hot.faults.lock().unwrap().rotate_right(1);
    let full = log.append(epoch, &sample_batch(101, 1)).await.unwrap_err();
    assert!(
        full.to_string().contains("cannot be archived: cannot write the archive: log storage is full"),
        "{full}"
    );
    eventually(|| media.hot.stat().bytes <= 200).await;

    let pauses = Duration::from_millis(100 + 200 + 400 + 800);
    assert!(since.elapsed() >= pauses && since.elapsed() < pauses * 2, "{:?}", since.elapsed());
    check_content(&log, 100).await;
    eventually(|| log.tiers.archive_trouble().is_none()).await;

    media.cold.fail(Fault::Poisoned);
    log.append(epoch, &sample_batch(101, 50)).await.unwrap();
    eventually(|| {
        log.tiers.archive_trouble().is_some_and(|trouble| trouble.contains("restart after repair"))
    })
    .await;
    let before = media.cold.stat();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(media.cold.stat(), before, "only a restart goes on");
}

#[tokio::test]
async fn dropping_the_log_lets_go_of_both() {
    let media = Media::with(100, 10).await;
    let (hot, cold) = (Arc::downgrade(&media.hot), Arc::downgrade(&media.cold));
    let log = media.open(options(10));
    drop(media);
    log.acquire().await.unwrap();
    log.acquire().await.unwrap();

    log.stop_archiving().await;
    assert_eq!((hot.strong_count(), cold.strong_count()), (1, 1));
    log.acquire().await.unwrap();
    drop(log);

    eventually(|| hot.strong_count() == 0 && cold.strong_count() == 0).await;
}

/// One thing that happens to the log.
#[derive(Clone, Debug)]
enum Event {
    Append(u8),
    /// A range that is there, sent again: where it starts and how long it is, as parts of 255.
    Again(u8, u8),
    Step,
    Archive,
    /// A new process.
    Crash,
    FailCold(Fault),
    FailHot(Fault),
    /// Retention up to this part of 255.
    Trim(u8),
    Read(u8, u8),
}

fn event() -> impl Strategy<Value = Event> {
    let cold = prop::sample::select(vec![Fault::AppendLost, Fault::AnswerLost, Fault::Full, Fault::Read]);
    let hot = prop::sample::select(vec![Fault::Trim, Fault::Read]);
    prop_oneof![
        4 => (1..30_u8).prop_map(Event::Append),
        1 => any::<(u8, u8)>().prop_map(|(from, count)| Event::Again(from, count)),
        6 => Just(Event::Step),
        2 => Just(Event::Archive),
        2 => Just(Event::Crash),
        1 => cold.prop_map(Event::FailCold),
        1 => hot.prop_map(Event::FailHot),
        1 => any::<u8>().prop_map(Event::Trim),
        2 => any::<(u8, u8)>().prop_map(|(from, records)| Event::Read(from, records)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Method: a Vec and a start as the model; after each event the whole log is read and compared.
    #[test]
    fn whatever_happens_the_two_tiers_are_one_log(events in prop::collection::vec(event(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(follow(events));
    }
}

async fn follow(events: Vec<Event>) {
    let media = Media::default();
    let (mut start, mut tail) = (1_u64, 0_u64);
    let mut log = media.open(options(7));
    let (mut acquired, mut archiver) = log.take_over().await.unwrap();
    let part = |of: u64, part: u8| of * u64::from(part) / 255;
    for event in events {
        match event {
            Event::Append(count) => {
                log.append(acquired.epoch, &sample_batch(tail + 1, count.into())).await.unwrap();
                tail += u64::from(count);
            }
            Event::Again(from, count) => {
                let from = start + part(tail + 1 - start, from);
                let count = part(tail + 1 - from.min(tail + 1), count);
                // Only its reading of the archive can fail, and then it says so.
                let sent = log.append(acquired.epoch, &sample_batch(from, count)).await;
                assert!(matches!(sent, Ok(()) | Err(AppendError::Unknown { .. })), "{sent:?}");
            }
            Event::Step => drop(archiver.do_next_step().await),
            Event::Archive => drop(archiver.archive_down_to_keep().await),
            Event::Crash => {
                media.hot.faults.lock().unwrap().clear();
                media.cold.faults.lock().unwrap().clear();
                log = media.open(options(7));
                (acquired, archiver) = log.take_over().await.unwrap();
                assert_eq!(acquired.tail, Seq(tail));
            }
            Event::FailCold(fault) => media.cold.fail(fault),
            Event::FailHot(fault) => media.hot.fail(fault),
            Event::Trim(below) => {
                let (hot, below) = (media.hot.stat().start.0, part(tail, below));
                media.hot.faults.lock().unwrap().retain(|fault| *fault != Fault::Trim);
                let now = log.trim(acquired.epoch, Seq(below)).await.unwrap().0;
                assert!(start <= now && now <= below.max(start) && now <= hot.max(start));
                assert_eq!(media.hot.stat().start.0, hot, "what is hot stays");
                start = now;
            }
            Event::Read(from, records) => {
                let from = start + part(tail + 1 - start, from);
                let limit = ReadLimit { records: records.into(), bytes: 1 << 20 };
                if let Ok(page) = log.read(Seq(from), limit).await {
                    assert_eq!(page.is_empty(), from == tail + 1);
                    page.iter().for_each(|(seq, payload)| assert_eq!(payload, sample_payload(seq.0)));
                }
            }
        }
        media.hot.faults.lock().unwrap().retain(|fault| *fault != Fault::Read);
        media.cold.faults.lock().unwrap().retain(|fault| *fault != Fault::Read);
        let expected: Vec<_> = (start..=tail).map(sample_payload).collect();
        assert_eq!(read_to_tail(&log, Seq(start), ReadLimit::default()).await, expected);
        assert_eq!((log.stat().start, log.stat().tail), (Seq(start), Seq(tail)));
        let (hot, cold) = (media.hot.stat(), media.cold.stat());
        assert!(hot.start <= cold.tail.next(), "no hole");
        assert!(cold.tail == Seq(0) || hot.start <= cold.tail, "a seam");
    }
}
