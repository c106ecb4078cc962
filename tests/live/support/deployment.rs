//! The engine plane as it is deployed: logs on Redis, receipts from RabbitMQ, outputs to it, the real binary between.

use std::path::PathBuf;
use std::sync::Arc;

use super::process::Service;

/// The symbols of the load.
pub(crate) const SYMBOLS: [&str; 4] = ["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"];

/// Where the servers are, and what the service is configured with. One directory, so a restart is the same instance.
pub(crate) struct Deployment {
    dir: tempfile::TempDir,
    /// Holds the second mark: storage that every host reaches.
    shared: Arc<tempfile::TempDir>,
    redis_url: String,
    amqp_url: String,
    extra: String,
}

impl Deployment {
    /// Short times, so that faults are noticed and healed within a test; everything else is the default.
    pub(crate) fn new(redis_url: &str, amqp_url: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("orch-live-").tempdir().unwrap();
        let shared = Arc::new(tempfile::Builder::new().prefix("orch-shared-").tempdir().unwrap());
        let (redis_url, amqp_url) = (redis_url.to_owned(), amqp_url.to_owned());
        Self { dir, shared, redis_url, amqp_url, extra: String::new() }
    }

    /// Further sections of the configuration file; none of those below.
    pub(crate) fn with(mut self, extra: &str) -> Self {
        self.extra.push_str(extra);
        self
    }

    /// The same servers as another host with a directory of its own would use them.
    pub(crate) fn on_another_host(&self) -> Self {
        let shared = Arc::clone(&self.shared);
        Self { shared, ..Self::new(&self.redis_url, &self.amqp_url).with(&self.extra) }
    }

    /// The file with the second mark.
    pub(crate) fn mark(&self) -> PathBuf {
        self.shared.path().join("marks")
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The Redis server's URL.
    pub(crate) fn redis_url(&self) -> &str {
        &self.redis_url
    }

    /// Writes the configuration file.
    pub(crate) fn config(&self) -> PathBuf {
        let (redis, amqp, extra) = (&self.redis_url, &self.amqp_url, &self.extra);
        let text = format!(
            r#"
            [service]
            data_dir = {data:?}
            grace = "5s"
            [storage]
            kind = "redis"
            [redis]
            url = "{redis}"
            response_timeout = "500ms"
            check_interval = "500ms"
            [redis.mark]
            kind = "file"
            path = {mark:?}
            [sources.market]
            kind = "rabbitmq"
            url = "{amqp}"
            timeout = "2s"
            delivery_limit = 10000
            [ingest.reconnect]
            max = "500ms"
            [schedule]
            interval = "1s"
            delay = "300ms"
            [symbols]
            discover = false
            list = {SYMBOLS:?}
            [publish]
            file = ""
            [publish.rabbitmq]
            url = "{amqp}"
            timeout = "2s"
            confirm_timeout = "3s"
            [publish.retry]
            max = "500ms"
            [http]
            listen = "127.0.0.1:0"
            {extra}
            "#,
            data = self.data(),
            mark = self.mark(),
        );
        let path = self.dir.path().join("service.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Starts the service and waits until it is up.
    pub(crate) async fn start(&self) -> Service {
        Service::start(&self.config(), &[]).await
    }
}
