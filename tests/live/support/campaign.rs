//! A deployment under load whose broker has faults: under way before each, healed after each, judged at the end.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use super::deployment::Deployment;
use super::load::Load;
use super::oracle::{Logs, check, healed};
use super::process::{Service, eventually};
use super::redis_server::RedisServer;
use super::subscriber::Subscriber;

/// How soon after the end of a fault everything must be published (RELIABILITY §6).
pub(crate) const HEALED_MAX: Duration = Duration::from_secs(30);

/// What a campaign needs besides the broker.
#[derive(Clone, Copy, Default)]
pub(crate) struct Setup<'a> {
    /// Where the service reaches the broker, when that is not where producer and subscriber do.
    pub(crate) service_amqp_url: Option<&'a str>,
    /// The service declares exchanges and queues itself, as its shipped user may not.
    pub(crate) declares: bool,
    /// Further sections of the configuration.
    pub(crate) config: &'a str,
    /// Further arguments of the service.
    pub(crate) args: &'a [&'a str],
}

/// Service, producer and subscriber while the broker is at the mercy of the test.
pub(crate) struct Campaign {
    amqp_url: String,
    redis: RedisServer,
    deployment: Deployment,
    pub(crate) service: Service,
    pub(crate) load: Load,
    pub(crate) subscriber: Subscriber,
    heals: Vec<(String, Duration)>,
}

/// What a campaign came to.
pub(crate) struct Figures {
    confirmed: usize,
    stored: usize,
    twice: usize,
    outputs: usize,
    outputs_twice: usize,
    heals: Vec<(String, Duration)>,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { confirmed, stored, twice, outputs, outputs_twice, heals } = self;
        write!(
            f,
            "{confirmed} receipts confirmed, {stored} stored ({twice} twice), {outputs} outputs ({outputs_twice} came again); healed:"
        )?;
        for (fault, after) in heals {
            write!(f, " {fault} {after:.1?}")?;
        }
        Ok(())
    }
}

impl Campaign {
    /// Everything is under way when it returns.
    pub(crate) async fn start(amqp_url: &str, setup: Setup<'_>) -> Self {
        let redis = RedisServer::start();
        let service_url = setup.service_amqp_url.unwrap_or(amqp_url);
        let deployment = if setup.declares { Deployment::declaring } else { Deployment::new };
        let deployment = deployment(&redis.url(), service_url).with(setup.config);
        let subscriber = Subscriber::start(amqp_url, "everything").await;
        let service = Service::start(&deployment.config(), setup.args).await;
        let campaign = Self {
            amqp_url: amqp_url.to_owned(),
            redis,
            deployment,
            service,
            load: Load::start(amqp_url),
            subscriber,
            heals: Vec::new(),
        };
        campaign.busy().await;
        campaign
    }

    /// Waits until receipts are confirmed and stored and outputs come: whatever happens next, happens under load.
    pub(crate) async fn busy(&self) {
        let (confirmed, outputs) = (self.load.confirmed(), self.subscriber.distinct());
        self.stores(100).await;
        eventually("receipts are confirmed", async || {
            (confirmed + 100 <= self.load.confirmed()).then_some(())
        })
        .await;
        eventually("outputs come", async || (outputs < self.subscriber.distinct()).then_some(())).await;
    }

    /// Waits until the service has stored so many receipts more.
    pub(crate) async fn stores(&self, count: u64) {
        let stored = async || self.service.metric("orch_buffer_records").await;
        let enough = stored().await + count as f64;
        eventually("more receipts are stored", async || (enough <= stored().await).then_some(())).await;
    }

    /// After the end of a fault: receipts are stored again, new outputs are confirmed by the broker, none waits, and
    /// the service is ready, all that soon enough.
    pub(crate) async fn heals(&mut self, fault: &str) {
        let since = Instant::now();
        let published = async || self.service.metric("orch_publish_outputs_total").await;
        let before = published().await;
        self.stores(1).await;
        eventually("outputs are published", async || (before < published().await).then_some(())).await;
        healed(&self.service).await;
        let after = since.elapsed();
        println!("healed of {fault} after {after:.1?}");
        assert!(after <= HEALED_MAX, "{fault}: healed only after {after:?}");
        self.heals.push((fault.to_owned(), after));
    }

    /// The conditions of which the service says that they make it unready.
    pub(crate) async fn reasons(&self) -> BTreeSet<String> {
        let (code, body) = self.service.get("/readyz").await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let reasons = body["reasons"].as_array().unwrap();
        assert_eq!(code == 200, reasons.is_empty(), "{body}");
        reasons.iter().map(|reason| reason["condition"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until it is not ready for this reason; how long that took.
    pub(crate) async fn unready(&self, reason: &str) -> Duration {
        let since = Instant::now();
        eventually(reason, async || self.reasons().await.contains(reason).then_some(())).await;
        since.elapsed()
    }

    /// Outputs that wait.
    pub(crate) async fn backlog(&self) -> u64 {
        let (_, health) = self.service.get("/health").await;
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        health["outputs"]["backlog"].as_u64().unwrap()
    }

    /// How often it logged that publishing failed.
    pub(crate) fn failures(&self) -> usize {
        self.service.log().matches("publishing failed").count()
    }

    /// Ends the producer and starts another one; what the first one got confirmed, in that order.
    pub(crate) async fn change_producer(&mut self) -> Vec<Vec<u8>> {
        let next = Load::start(&self.amqp_url);
        std::mem::replace(&mut self.load, next).stop().await
    }

    /// Waits until the log has every one of these receipts.
    pub(crate) async fn all_stored(&self, confirmed: &[Vec<u8>]) {
        all_stored(&self.redis, confirmed).await;
    }

    /// The events in the receipt log.
    pub(crate) async fn stored(&self) -> BTreeSet<Vec<u8>> {
        Logs::read(&self.redis.url()).await.events().into_iter().collect()
    }

    /// Ends everything in order and asks the oracle, which counts the receipts of `further` producers too.
    pub(crate) async fn finish(mut self, further: Vec<Vec<u8>>) -> Figures {
        self.heals("the end").await;
        let Self { redis, deployment: _its_directory, service, load, subscriber, heals, .. } = self;
        let mut confirmed = load.stop().await;
        confirmed.extend(further);
        all_stored(&redis, &confirmed).await;
        healed(&service).await;
        service.stop().await;
        let logs = check(&redis.url(), &confirmed, &subscriber).await;
        let distinct = logs.events().into_iter().collect::<BTreeSet<_>>().len();
        let outputs = logs.outputs().values().map(Vec::len).sum();
        Figures {
            confirmed: confirmed.len(),
            stored: logs.receipts.len(),
            twice: logs.receipts.len() - distinct,
            outputs,
            outputs_twice: subscriber.messages().len() - outputs,
            heals,
        }
    }
}

/// Waits until the log has every one of these receipts.
async fn all_stored(redis: &RedisServer, confirmed: &[Vec<u8>]) {
    eventually("every confirmed receipt is stored", async || {
        let stored: BTreeSet<Vec<u8>> = Logs::read(&redis.url()).await.events().into_iter().collect();
        let missing = confirmed.iter().filter(|event| !stored.contains(*event)).count();
        if missing > 0 {
            println!("{missing} of {} confirmed receipts are not stored yet", confirmed.len());
        }
        (missing == 0).then_some(())
    })
    .await;
}
