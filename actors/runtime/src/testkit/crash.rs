//! A process that ends between two effects.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError, MemoryCheckpoints, SaveError};
use tokio::sync::Notify;

/// Checkpoints that are saved, or not, before the process ends.
#[derive(Debug)]
pub struct CrashingCheckpoints {
    /// Where they are saved.
    pub inner: Arc<MemoryCheckpoints>,
    /// When the process ends.
    pub crash: CrashPoint,
}

#[async_trait]
impl CheckpointStore for CrashingCheckpoints {
    async fn load(&self, name: &str) -> Result<Option<Bytes>, LoadError> {
        self.inner.load(name).await
    }

    async fn save(&self, name: &str, epoch: Epoch, value: Bytes) -> Result<(), SaveError> {
        self.crash.step().await;
        self.inner.save(name, epoch, value).await
    }
}

#[derive(Debug)]
struct Inner {
    left: AtomicI64,
    /// Whether ports hang afterwards; otherwise they go on, as the tasks of a killed tree do.
    hangs: bool,
    crashed: AtomicBool,
    fired: Notify,
}

/// Counts the steps of all ports; after the last one no port does or answers anything, as in a process that is gone.
#[derive(Clone, Debug)]
pub struct CrashPoint(Arc<Inner>);

impl CrashPoint {
    /// Crashes at this step, counted from 0.
    #[must_use]
    pub fn after(steps: i64) -> Self {
        Self::new(steps, true)
    }

    /// Only tells of this step: the test kills the tree there, and what its tasks had begun goes on.
    #[must_use]
    pub fn told_at(steps: i64) -> Self {
        Self::new(steps, false)
    }

    fn new(steps: i64, hangs: bool) -> Self {
        Self(Arc::new(Inner {
            left: AtomicI64::new(steps),
            hangs,
            crashed: AtomicBool::new(false),
            fired: Notify::new(),
        }))
    }

    /// Never crashes.
    #[must_use]
    pub fn never() -> Self {
        Self::after(i64::MAX)
    }

    /// One step of a port: returns unless the process has ended here or before.
    pub async fn step(&self) {
        if self.0.left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            self.0.crashed.store(true, Ordering::Relaxed);
            self.0.fired.notify_one();
        }
        if self.0.hangs && self.0.crashed.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Steps made since a [`never`](Self::never) was created.
    #[must_use]
    pub fn steps_made(&self) -> i64 {
        i64::MAX - self.0.left.load(Ordering::Relaxed)
    }

    /// Waits for the crash.
    pub async fn crashed(&self) {
        self.0.fired.notified().await;
    }
}
