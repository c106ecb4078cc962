//! A market under way: a plain producer that publishes with confirms and remembers what the broker took.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::task::JoinHandle;

use super::deployment::SYMBOLS;
use super::secrets::Secrets;

/// How long the producer waits before it connects again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How long it waits for the confirms of a batch before it gives them up: unknown, and not counted.
const CONFIRM_MAX: Duration = Duration::from_secs(2);
/// Receipts published together, besides snapshots.
const BATCH: u64 = 20;

/// The producer while it runs. It goes on over every loss of its connection.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<Sent>,
    task: JoinHandle<()>,
}

/// Receipts that were sent, byte for byte.
#[derive(Default)]
struct Sent {
    confirmed: Mutex<Vec<Vec<u8>>>,
    /// Those of batches of which not all were confirmed: the broker may have them or not.
    unknown: Mutex<Vec<Vec<u8>>>,
}

impl Load {
    /// Publishes to `market.raw` of this broker: some 1000 trades a second, and a snapshot of each symbol right after
    /// each full second. It logs in as the shipped user who feeds receipts in. The queue must be bound before: start
    /// the service first.
    pub(crate) fn start(amqp_url: &str) -> Self {
        let (stop, sent) = (Arc::<AtomicBool>::default(), Arc::<Sent>::default());
        let producer = Producer {
            url: Secrets::shared().as_producer(amqp_url),
            stop: Arc::clone(&stop),
            sent: Arc::clone(&sent),
            market: Market::of("live"),
        };
        Self { stop, sent, task: tokio::spawn(producer.run()) }
    }

    /// How many receipts the broker has confirmed.
    pub(crate) fn confirmed(&self) -> usize {
        self.sent.confirmed.lock().unwrap().len()
    }

    /// Ends it; returns every receipt that the broker has confirmed, byte for byte.
    pub(crate) async fn stop(self) -> Vec<Vec<u8>> {
        self.stop_and_tell_all().await.0
    }

    /// As [`stop`](Self::stop), and the receipts of which nobody knows whether the broker took them.
    pub(crate) async fn stop_and_tell_all(self) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let take = |receipts: &Mutex<Vec<Vec<u8>>>| std::mem::take(&mut *receipts.lock().unwrap());
        (take(&self.sent.confirmed), take(&self.sent.unknown))
    }
}

struct Producer {
    url: String,
    stop: Arc<AtomicBool>,
    sent: Arc<Sent>,
    market: Market,
}

impl Producer {
    async fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            if self.connected().await.is_err() {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }

    async fn connected(&mut self) -> lapin::Result<()> {
        let opening = Connection::connect(&self.url, ConnectionProperties::default());
        let connection = within(opening).await?;
        let channel = within(connection.create_channel()).await?;
        within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        while !self.stop.load(Ordering::Relaxed) {
            let batch = self.market.batch();
            let published = self.publish(&channel, &batch).await;
            let all_taken = matches!(published, Ok(true));
            let fate = if all_taken { &self.sent.confirmed } else { &self.sent.unknown };
            fate.lock().unwrap().extend(batch);
            published?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Says whether the broker took every one of them.
    async fn publish(&self, channel: &Channel, batch: &[Vec<u8>]) -> lapin::Result<bool> {
        let mut waiting = Vec::new();
        for body in batch {
            let properties = BasicProperties::default().with_delivery_mode(2);
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let sent = channel.basic_publish("market.raw".into(), "raw".into(), options, body, properties);
            waiting.push(within(sent).await?);
        }
        // The library hands a returned message over with the confirm of any other one, so with one of them none counts.
        let mut all_taken = true;
        for confirm in waiting {
            all_taken &= within(confirm).await? == Confirmation::Ack(None);
        }
        Ok(all_taken)
    }
}

/// Receipts as one venue makes them: trades, and a snapshot of each symbol right after each full second.
pub(crate) struct Market {
    source: &'static str,
    next: u64,
    second: u64,
}

impl Market {
    /// Receipts of this `source_id`; those of two markets are never equal.
    pub(crate) const fn of(source: &'static str) -> Self {
        Self { source, next: 0, second: 0 }
    }

    /// Twenty trades, with the snapshots before them when a second has begun.
    pub(crate) fn batch(&mut self) -> Vec<Vec<u8>> {
        let now = now_ms();
        let mut batch: Vec<Vec<u8>> = Vec::new();
        if now / 1000 != self.second {
            self.second = now / 1000;
            let at = self.second * 1000;
            batch.extend(SYMBOLS.iter().map(|symbol| snapshot(self.source, symbol, now, at)));
        }
        for _ in 0..BATCH {
            self.next += 1;
            let symbol = SYMBOLS[usize::try_from(self.next).unwrap() % SYMBOLS.len()];
            batch.push(trade(self.source, symbol, now, self.next));
        }
        batch
    }
}

async fn within<T>(work: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    let late = |_| lapin::Error::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    tokio::time::timeout(CONFIRM_MAX, work).await.map_err(late)?
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn trade(source: &str, symbol: &str, now: u64, number: u64) -> Vec<u8> {
    format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"TradeTick","source_id":"{source}","symbol":"{symbol}","exchange_ts_ms":{now},"recv_ts_ms":{now},"raw_payload":"trade {number}","normalized":{{"price":100.5,"quantity":{number},"side":"buy"}}}}"#
    )
    .into_bytes()
}

fn snapshot(source: &str, symbol: &str, now: u64, timestamp: u64) -> Vec<u8> {
    format!(
        r#"{{"schema":"raw_market_event","schema_version":"1","event_type":"SnapshotInputs","source_id":"{source}","symbol":"{symbol}","exchange_ts_ms":null,"recv_ts_ms":{now},"raw_payload":"","normalized":{{"timestamp_ms":{timestamp},"market":{{"price":100.5,"vwap":100.0}}}}}}"#
    )
    .into_bytes()
}
