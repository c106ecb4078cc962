//! A wall clock that a test steps under the running service, by libfaketime; monotonic time goes on as it is.

#![allow(dead_code, reason = "two test binaries share this file, and each uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The clock that the service and its producers see, in milliseconds ahead of the true one.
pub(crate) struct SteppedClock {
    file: PathBuf,
    ahead_ms: AtomicI64,
}

impl SteppedClock {
    /// The true time, until it is stepped.
    pub(crate) fn new(dir: &Path) -> Arc<Self> {
        let clock = Self { file: dir.join("ahead"), ahead_ms: AtomicI64::new(0) };
        clock.step(0);
        Arc::new(clock)
    }

    /// Steps it to so many seconds ahead of the true time.
    pub(crate) fn step(&self, ahead: i64) {
        self.step_ms(ahead * 1000);
    }

    /// Steps it to this moment, from which it goes on.
    pub(crate) fn jump_to(&self, moment_ms: i64) {
        self.step_ms(moment_ms - true_now_ms());
    }

    /// Steps it so far ahead of where it is.
    pub(crate) fn jump_ahead(&self, by_ms: i64) {
        self.step_ms(self.ahead_ms.load(Ordering::Relaxed) + by_ms);
    }

    fn step_ms(&self, ahead_ms: i64) {
        // Replaced as a whole: the library reads it at any moment.
        let fresh = self.file.with_extension("fresh");
        let sign = if ahead_ms < 0 { '-' } else { '+' };
        let (seconds, rest) = (ahead_ms.abs() / 1000, ahead_ms.abs() % 1000);
        std::fs::write(&fresh, format!("{sign}{seconds}.{rest:03}\n")).unwrap();
        std::fs::rename(fresh, &self.file).unwrap();
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }

    pub(crate) fn now_ms(&self) -> i64 {
        true_now_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }

    /// The service under this clock.
    pub(crate) fn command(&self, config: &Path) -> Command {
        let mut command = Command::new("env");
        command
            .arg(format!("LD_PRELOAD={}", library().display()))
            .arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.file.display()))
            .args(["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"])
            .arg(env!("CARGO_BIN_EXE_orchestrator"))
            .args(["run", "--config"])
            .arg(config);
        command
    }
}

fn true_now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Where the package `libfaketime` puts the library for programs with threads.
fn library() -> PathBuf {
    let machines = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let mut found = machines.map(|machine| machine.path().join("faketime/libfaketimeMT.so.1"));
    found.find(|path| path.exists()).expect("libfaketime must be installed: ops/test does that")
}
