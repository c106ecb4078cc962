//! Stores on a private server, with short times.

use std::path::{Path, PathBuf};
use std::time::Duration;

use orchestrator::adapters::redis::{RedisLog, RedisLogOptions, RedisOptions, RedisStore};
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::log::{AcquireError, Log as _, ReadLimit};
use orchestrator_kernel::ports::log_conformance::{read_to_tail, sample_batch, sample_payload};

use super::redis_server::RedisServer;
use super::secrets::Secrets;

/// A private server and what one host keeps beside it.
pub(crate) struct Rig {
    pub(crate) redis: RedisServer,
    pub(crate) state: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::on(RedisServer::start())
    }

    pub(crate) fn on(redis: RedisServer) -> Self {
        Self { redis, state: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn options(&self) -> RedisOptions {
        options(&self.redis, self.state.path().to_owned())
    }

    pub(crate) async fn store(&self) -> RedisStore {
        RedisStore::connect(self.options()).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The log `raw`, opened by a process of this host.
    pub(crate) async fn log(&self) -> RedisLog {
        self.store().await.open_log("raw", RedisLogOptions::default()).await.unwrap()
    }

    /// The log `raw`, opened by a process of another host, which has no mark: on the operator's word.
    pub(crate) async fn log_of_another_host(&self, state: &Path) -> RedisLog {
        let trusting = RedisOptions { trust_server: true, ..options(&self.redis, state.to_owned()) };
        let store = RedisStore::connect(trusting).await.unwrap();
        store.open_log("raw", RedisLogOptions::default()).await.unwrap()
    }

    /// The log `raw`, acquired, with sample records 1 … `tail`.
    pub(crate) async fn filled(&self, tail: u64) -> (RedisLog, Epoch) {
        let log = self.log().await;
        let epoch = log.acquire().await.unwrap().epoch;
        log.append(epoch, &sample_batch(1, tail)).await.unwrap();
        (log, epoch)
    }

    /// What a command answers, as text; for faults that an operator or a stranger makes.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        self.redis.command(words).unwrap()
    }
}

pub(crate) fn options(redis: &RedisServer, state_dir: PathBuf) -> RedisOptions {
    RedisOptions {
        response_timeout: Duration::from_millis(300),
        check_interval: Duration::from_millis(50),
        ..RedisOptions::new(&Secrets::shared().as_service(&redis.url()), "test", state_dir)
    }
}

/// The log holds exactly the sample records 1 … `tail`.
pub(crate) async fn check_content(log: &RedisLog, tail: u64) {
    let expected: Vec<_> = (1..=tail).map(sample_payload).collect();
    assert_eq!(read_to_tail(log, Seq(1), ReadLimit::default()).await, expected);
}

/// The text of an acquisition that was refused because the log cannot be trusted.
pub(crate) async fn refusal(log: &RedisLog) -> String {
    match log.acquire().await {
        Err(AcquireError::Corrupt { place, detail, .. }) => format!("{detail} [{place}]"),
        other => panic!("it must be refused: {other:?}"),
    }
}
