//! A deployment under load to which something happens: how soon it says so, how soon it works again, and at the end the
//! oracle.

use std::collections::BTreeSet;
use std::fmt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::deployment::Deployment;
use super::load::Load;
use super::oracle::{Logs, check, healed};
use super::process::{PATIENCE, Service, eventually, root};
use super::rabbit_server::RabbitServer;
use super::redis_server::RedisServer;
use super::subscriber::Subscriber;

/// How soon the service must say that it lost something that it needs (RELIABILITY §6).
pub(crate) const NOTICED_MAX: Duration = Duration::from_secs(2);
/// How soon after the end of a fault everything must be stored and published.
pub(crate) const HEALED_MAX: Duration = Duration::from_secs(30);

/// A service on a private Redis and a virtual host of the shared broker, a producer and a subscriber.
pub(crate) struct Scene {
    pub(crate) redis: RedisServer,
    pub(crate) deployment: Deployment,
    pub(crate) service: Service,
    pub(crate) load: Load,
    pub(crate) subscriber: Subscriber,
}

/// What a scene came to.
pub(crate) struct Figures {
    confirmed: usize,
    stored: usize,
    /// Receipts that the log has more than once.
    pub(crate) repeated: usize,
    outputs: usize,
    drained: Duration,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { confirmed, stored, repeated, outputs, drained } = self;
        write!(
            f,
            "{confirmed} receipts confirmed, {stored} stored, {repeated} twice, {outputs} outputs, drained in {drained:.1?}"
        )
    }
}

impl Scene {
    pub(crate) async fn start() -> Self {
        let redis = RedisServer::start();
        let url = redis.url();
        Self::on(redis, &url, &[]).await
    }

    /// As [`start`](Self::start), with Redis reached by `url`, and further arguments for the service.
    pub(crate) async fn on(redis: RedisServer, url: &str, args: &[&str]) -> Self {
        Self::of(redis, url, args, Deployment::new).await
    }

    /// As [`on`](Self::on), with a service that declares its queues itself: `args` want other ones than the shipped.
    pub(crate) async fn declaring(redis: RedisServer, url: &str, args: &[&str]) -> Self {
        Self::of(redis, url, args, Deployment::declaring).await
    }

    async fn of(
        redis: RedisServer,
        url: &str,
        args: &[&str],
        deployment: impl Fn(&str, &str) -> Deployment,
    ) -> Self {
        let rabbit = RabbitServer::shared();
        let amqp = rabbit.url(&rabbit.vhost());
        let deployment = deployment(url, &amqp);
        let subscriber = Subscriber::start(&amqp, "everything").await;
        let service = Service::start(&deployment.config(), args).await;
        let load = Load::start(&amqp);
        let scene = Self { redis, deployment, service, load, subscriber };
        scene.stores(200).await;
        scene
    }

    /// Waits until the service has stored so many receipts more; how long that took.
    pub(crate) async fn stores(&self, count: u64) -> Duration {
        stores(&self.service, count).await
    }

    /// As the function of this name.
    pub(crate) async fn unready_within(&self, limit: Duration) -> (Duration, String) {
        unready_within(&self.service, limit).await
    }

    /// As the function of this name.
    pub(crate) async fn stays_unready(&self, time: Duration) {
        stays_unready(&self.service, time).await;
    }

    /// Waits until the service says that it is ready.
    pub(crate) async fn ready(&self) {
        ready(&self.service).await;
    }

    /// Waits until the service is ready, stores receipts and has published everything, which must be soon; how long
    /// that took.
    pub(crate) async fn heals(&self) -> Duration {
        let since = Instant::now();
        self.stores(50).await;
        healed(&self.service).await;
        let after = since.elapsed();
        assert!(after <= HEALED_MAX, "healed only after {after:?}");
        after
    }

    /// The end of the receipt log as the server has it.
    pub(crate) fn tail(&self) -> u64 {
        let answer = self.redis.command(&["HGET", "orch:{default}:receipts:meta", "tail"]).unwrap();
        answer.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or(0)
    }

    /// Ends the load, lets everything drain, stops the service in order, and asks the oracle.
    pub(crate) async fn finish(self) -> Figures {
        let Self { redis, service, load, subscriber, .. } = self;
        let since = Instant::now();
        let confirmed = load.stop().await;
        all_stored(&redis, &service, &confirmed).await;
        healed(&service).await;
        let drained = since.elapsed();
        assert!(drained <= HEALED_MAX, "drained only after {drained:?}");
        service.stop().await;
        let logs = check(&redis.url(), &confirmed, &subscriber).await;
        figures(confirmed.len(), &logs, drained)
    }
}

fn figures(confirmed: usize, logs: &Logs, drained: Duration) -> Figures {
    let distinct = logs.events().into_iter().collect::<BTreeSet<_>>().len();
    let stored = logs.receipts.len();
    let outputs = logs.outputs().values().map(Vec::len).sum();
    Figures { confirmed, stored, repeated: stored - distinct, outputs, drained }
}

/// Waits until `service` has stored so many receipts more; how long that took.
pub(crate) async fn stores(service: &Service, count: u64) -> Duration {
    // Counted since this process started, unlike the size of the log.
    let stored = async || service.metric("orch_ingest_receipts_appended_total").await;
    let (since, enough) = (Instant::now(), stored().await + count as f64);
    eventually("more receipts are stored", async || (enough <= stored().await).then_some(())).await;
    since.elapsed()
}

/// Waits until the service says that it is ready.
pub(crate) async fn ready(service: &Service) {
    eventually("it is ready", async || (service.get("/readyz").await.0 == 200).then_some(())).await;
}

/// Waits until the service says that it is not ready, which must be soon; how long that took, and what it said.
pub(crate) async fn unready_within(service: &Service, limit: Duration) -> (Duration, String) {
    let since = Instant::now();
    let said = eventually("it is not ready", async || {
        let (code, said) = service.get("/readyz").await;
        (code == 503).then_some(said)
    })
    .await;
    let after = since.elapsed();
    assert!(after <= limit, "not ready only after {after:?}: {said}");
    (after, said)
}

/// The service says for this time without a break that it is not ready.
pub(crate) async fn stays_unready(service: &Service, time: Duration) {
    let since = Instant::now();
    while since.elapsed() < time {
        let (code, said) = service.get("/readyz").await;
        assert_eq!(code, 503, "ready after {:?} although nothing was mended: {said}", since.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until the log has everything that the broker has confirmed.
async fn all_stored(redis: &RedisServer, service: &Service, confirmed: &[Vec<u8>]) {
    let enough = confirmed.len() as f64;
    eventually("as many receipts are stored as were confirmed", async || {
        (enough <= service.metric("orch_buffer_records").await).then_some(())
    })
    .await;
    // What came twice was counted twice.
    eventually("every confirmed receipt is stored", async || {
        let stored: BTreeSet<Vec<u8>> = Logs::read(&redis.url()).await.events().into_iter().collect();
        confirmed.iter().all(|event| stored.contains(event)).then_some(())
    })
    .await;
}

/// Starts the service although it must refuse to; its exit code, and what it said.
pub(crate) async fn refused(deployment: &Deployment, args: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_orchestrator"));
    command
        .arg("run")
        .arg("--config")
        .arg(deployment.config())
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap_or_else(|| panic!("it was killed: {said}")), said)
}
