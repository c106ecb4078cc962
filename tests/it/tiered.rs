//! A hot log in memory with its archive in embedded segments: two adapters that only the wiring puts together.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use orchestrator::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use orchestrator::adapters::tiered::{TieredLog, TieredOptions};
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, ReadLimit};
use orchestrator_kernel::ports::log_conformance::{
    self, LogProvider, read_to_tail, sample_batch, sample_payload,
};
use orchestrator_kernel::ports::log_memory::MemoryLog;

use crate::support::{PATIENCE, eventually};

/// Segments so small that retention has something to remove.
const SEGMENT_BYTES: u64 = 4096;

fn archive(dir: &Path) -> Arc<EmbeddedLog> {
    let options = EmbeddedLogOptions { segment_bytes: SEGMENT_BYTES, ..EmbeddedLogOptions::new("archive") };
    Arc::new(EmbeddedLog::open(dir, options).unwrap())
}

/// Logs whose hot part outlives the process, as a server would keep it.
struct Tiered {
    root: tempfile::TempDir,
    made: AtomicU64,
    media: Mutex<(Arc<MemoryLog>, Weak<EmbeddedLog>)>,
}

impl Tiered {
    fn dir(&self) -> PathBuf {
        self.root.path().join(self.made.load(Ordering::SeqCst).to_string())
    }

    fn open(&self, hot: Arc<MemoryLog>) -> Arc<dyn Log> {
        let cold = archive(&self.dir());
        *self.media.lock().unwrap() = (Arc::clone(&hot), Arc::downgrade(&cold));
        Arc::new(TieredLog::new(hot, cold, TieredOptions::new("test", 1 << 30, 1 << 29)))
    }
}

#[async_trait]
impl LogProvider for Tiered {
    async fn fresh(&self) -> Arc<dyn Log> {
        self.made.fetch_add(1, Ordering::SeqCst);
        self.open(Arc::default())
    }

    async fn reopen(&self, log: Arc<dyn Log>) -> Arc<dyn Log> {
        let (hot, cold) = self.media.lock().unwrap().clone();
        drop(log);
        // The archiver lets go a moment after the handle is gone; until then the directory is locked.
        let deadline = Instant::now() + PATIENCE;
        while cold.strong_count() > 0 {
            assert!(Instant::now() < deadline, "the archive is never closed");
            tokio::task::yield_now().await;
        }
        self.open(hot)
    }
}

#[tokio::test]
async fn a_hot_log_with_an_embedded_archive_conforms() {
    let root = tempfile::tempdir().unwrap();
    log_conformance::run(&Tiered { root, made: AtomicU64::new(0), media: Mutex::default() }).await;
}

/// Method: the archiver works in the background while batches come; it is ended at some moment of its work,
/// twenty times, and once the archive goes through retention.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedded_archive_holds_what_the_hot_log_gave_away_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let hot = Arc::new(MemoryLog::default());
    let options = || TieredOptions {
        step: ReadLimit { records: 50, bytes: 4096 },
        ..TieredOptions::new("test", 8192, 4096)
    };
    let (mut tail, mut start) = (0, Seq(1));
    for round in 0..20 {
        let cold = archive(dir.path());
        let log = TieredLog::new(Arc::clone(&hot) as Arc<dyn Log>, cold, options());
        let acquired = log.acquire().await.unwrap();
        assert_eq!(acquired.tail, Seq(tail));
        for _ in 0..20 {
            log.append(acquired.epoch, &sample_batch(tail + 1, 40)).await.unwrap();
            tail += 40;
        }
        tokio::time::sleep(Duration::from_millis(round)).await;

        let expected: Vec<_> = (start.0..=tail).map(sample_payload).collect();
        assert!(read_to_tail(&log, start, ReadLimit::default()).await == expected);
        if round == 10 {
            let half = Seq(tail / 2);
            start = log.trim(acquired.epoch, half).await.unwrap();
            assert!(Seq(1) < start && start <= half);
        }
        if round == 19 {
            eventually("the hot log is within its limit", async || (hot.stat().bytes <= 8192).then_some(()))
                .await;
            assert!(log.stat().bytes > hot.stat().bytes);
        }
        // In the middle of whatever it does; then the last handle of the archive goes here, and its lock with it.
        log.stop_archiving().await;
        drop(log);
    }
}
