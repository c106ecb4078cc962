//! What must be true of a deployment after anything that happened to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use orchestrator::adapters::redis::{RedisLogOptions, RedisOptions, RedisStore};
use orchestrator_actors::testkit::check_logs;
use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::engine::contracts::orchestrator_event::events;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::ids::{RunSeq, Seq};
use orchestrator_kernel::ports::log::{Log, ReadLimit};

use super::process::{Service, eventually};
use super::subscriber::{Subscriber, without_publish_time};

/// How long nothing may come before what is missing counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The logs as they stand on the server.
pub(crate) struct Logs {
    /// The stored receipt records.
    pub(crate) receipts: Vec<Vec<u8>>,
    /// The run records.
    pub(crate) runs: Vec<RunRecord>,
}

impl Logs {
    /// Reads them as another host would.
    pub(crate) async fn read(redis_url: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let options = RedisOptions::new(redis_url, "default", state.path().to_owned());
        let store = RedisStore::connect(options).await.unwrap();
        let receipts = all(&store.open_log("receipts", RedisLogOptions::default()).await.unwrap()).await;
        let runs = all(&store.open_log("runs", RedisLogOptions::default()).await.unwrap()).await;
        let runs = runs.iter().map(|payload| RunRecord::decode(payload).unwrap()).collect();
        Self { receipts, runs }
    }

    /// The stored events, byte for byte.
    pub(crate) fn events(&self) -> Vec<Vec<u8>> {
        self.receipts.iter().map(|payload| ReceiptRecord::decode(payload).unwrap().event.to_vec()).collect()
    }

    /// Per symbol, the outputs that the run log says, without the time of publication.
    pub(crate) fn outputs(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut streams: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (record, seq) in self.runs.iter().zip(1..) {
            for message in events(RunSeq(seq), record, None).unwrap() {
                let stream = streams.entry(message.symbol.as_str().to_owned()).or_default();
                stream.push(without_publish_time(&message.body));
            }
        }
        streams
    }
}

/// Waits until the subscriber has `count` outputs, as long as more keep coming.
async fn all_arrive(subscriber: &Subscriber, count: usize) {
    let (mut seen, mut since) = (0, Instant::now());
    while seen < count {
        let now = subscriber.distinct();
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        assert!(since.elapsed() < SILENCE_MAX, "only {seen} of {count} outputs came");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn all(log: &dyn Log) -> Vec<Vec<u8>> {
    let mut records: Vec<Vec<u8>> = Vec::new();
    loop {
        let page = log.read(Seq(records.len() as u64 + 1), ReadLimit::default()).await.unwrap();
        if page.is_empty() {
            return records;
        }
        records.extend(page.iter().map(|(_, payload)| payload.to_vec()));
    }
}

/// Waits until the service is ready, everything that `confirmed` counts is in its log and every output is published.
/// Returns how long that took.
pub(crate) async fn healed(service: &Service) -> Duration {
    let since = Instant::now();
    eventually("it is ready again and everything is published", async || {
        let (code, _) = service.get("/readyz").await;
        let (_, health) = service.get("/health").await;
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        (code == 200 && health["outputs"]["backlog"] == 0).then_some(())
    })
    .await;
    since.elapsed()
}

/// After the service has stopped: nothing that the broker confirmed is missing (LOG-2), receipts are numbered without
/// gap (LOG-1), cuts tile and every run ended once (CUT-1, RUN-2), and the subscriber has exactly what the run log
/// says, per symbol in order (OUT-1). That all of it follows from the logs was seen when it was stopped. Returns the
/// logs.
pub(crate) async fn check(redis_url: &str, confirmed: &[Vec<u8>], subscriber: &Subscriber) -> Logs {
    let logs = Logs::read(redis_url).await;
    let stored: BTreeSet<Vec<u8>> = logs.events().into_iter().collect();
    let missing = confirmed.iter().filter(|event| !stored.contains(*event)).count();
    assert_eq!(missing, 0, "of {} confirmed receipts some are missing", confirmed.len());
    check_logs(&logs.receipts, &logs.runs);
    let said = logs.outputs();
    let count: usize = said.values().map(Vec::len).sum();
    all_arrive(subscriber, count).await;
    let got = subscriber.deduplicated();
    for (symbol, outputs) in &said {
        assert_eq!(got.get(symbol), Some(outputs), "outputs of {symbol}");
    }
    logs
}
