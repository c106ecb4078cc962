//! A kill switch that fails as it is told.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use orchestrator_kernel::kill_switch::{KillSwitchReadError, Stored};
use orchestrator_kernel::ports::kill_switch::{KillSwitchRead, MemoryKillSwitch};

/// What reads do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadMood {
    /// They answer.
    #[default]
    Works,
    /// They never answer.
    Hangs,
    /// They panic.
    Panics,
}

/// A value in memory, behind reads with a mood.
#[derive(Debug, Default)]
pub struct TestKillSwitch {
    /// The value.
    pub memory: MemoryKillSwitch,
    mood: Mutex<ReadMood>,
    reads: AtomicU64,
}

impl TestKillSwitch {
    /// One that allows trading.
    #[must_use]
    pub fn trading() -> Self {
        let this = Self::default();
        this.memory.put_value(Some(b"off"));
        this
    }

    /// Lets reads from now on do this.
    pub fn set(&self, mood: ReadMood) {
        *self.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
    }

    /// Reads that were begun.
    #[must_use]
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl KillSwitchRead for TestKillSwitch {
    fn place_text(&self) -> String {
        "test".to_owned()
    }

    async fn read_value(&self) -> Result<Stored, KillSwitchReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        match mood {
            ReadMood::Works => self.memory.read_value().await,
            ReadMood::Hangs => std::future::pending().await,
            ReadMood::Panics => panic!("the read panics, as told"),
        }
    }

    async fn wait_changed(&self) {
        self.memory.wait_changed().await;
    }
}
