//! Tests of the demo feed.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_kernel::engine::contracts::raw_market_event::{self, Names, Receipt};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::source::RawItem;
use orchestrator_kernel::ports::source_conformance::{self, Repeats, SourceProvider};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;

const NOON: i64 = 1_700_000_000_000;

/// A wall clock on the runtime's time, so that paused time moves it too.
struct TestClock {
    begin: Instant,
    is_driven: bool,
}

impl TestClock {
    fn wall() -> Arc<dyn Clock> {
        Arc::new(Self { begin: Instant::now(), is_driven: false })
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Option<TsMs> {
        Some(TsMs(NOON).plus_ms(i64::try_from(self.begin.elapsed().as_millis()).unwrap()))
    }
    async fn wait_started(&self) -> TsMs {
        self.now().unwrap()
    }
    async fn sleep_until(&self, _: TsMs) {
        unreachable!("the feed paces itself by the runtime");
    }
    fn armed_deadline(&self) -> Option<TsMs> {
        None
    }
    fn is_driven(&self) -> bool {
        self.is_driven
    }
    async fn advance(&self, _: TsMs) {}
}

/// `steps` steps of 100 ms with `count` events each.
fn generated(options: &DemoFeedOptions, position: u64, steps: i64, count: u64) -> Vec<RawItem> {
    let mut generator = Generator::new(options, position);
    for step in 0..steps {
        generator.make_events(NOON + step * 100, count);
    }
    generator.take_items(usize::MAX)
}

fn decoded(items: &[RawItem]) -> Vec<Receipt> {
    let mut names = Names::default();
    items.iter().filter_map(|item| raw_market_event::decode(item.bytes.clone(), &mut names).ok()).collect()
}

fn normalized(receipt: &Receipt) -> Value {
    serde_json::from_str(raw_market_event::normalized(&receipt.bytes).unwrap()).unwrap()
}

#[test]
fn one_seed_gives_one_sequence_everywhere() {
    let options = DemoFeedOptions::default();
    let items = generated(&options, 0, 300, 20);

    assert_eq!(items, generated(&options, 0, 300, 20));
    assert_ne!(items, generated(&DemoFeedOptions { seed: 2, ..options.clone() }, 0, 300, 20));
    // Pinned: another platform or version that gives other bytes is seen here.
    let hash = items.iter().fold(Sha256::new(), |hash, item| hash.chain_update(&item.bytes)).finalize();
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((items.len(), hash.as_str()), (6_233, "b21079bcae6c191e"));
}

#[test]
fn positions_go_on_where_the_log_is_and_the_events_do_not_repeat() {
    let options = DemoFeedOptions::default();
    let first = generated(&options, 0, 50, 20);
    let resumed = generated(&options, first.len() as u64, 50, 20);

    let positions = first.iter().chain(&resumed).map(|item| item.position);
    assert!(positions.eq((1..).map(Some).take(first.len() + resumed.len())));
    assert_ne!(first[0].bytes, resumed[0].bytes);
}

/// Every type of CONTRACTS §1 with its required keys.
#[test]
fn every_type_of_event_comes_with_its_required_keys() {
    let required: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("TradeTick", &["price", "quantity", "side"][..]),
        ("LiquidationPrint", &["price", "quantity", "side"]),
        ("BookTop", &["best_bid_price", "best_bid_quantity", "best_ask_price", "best_ask_quantity"]),
        ("BookDelta", &["bids", "asks"]),
        ("Candle", &["open", "high", "low", "close", "volume", "interval_ms", "is_final"]),
        ("FundingRate", &["funding_rate"]),
        ("OpenInterest", &["open_interest"]),
        ("MarkPrice", &["mark_price"]),
        ("IndexPrice", &["index_price"]),
        ("SnapshotInputs", &["timestamp_ms"]),
        ("DecodeFailure", &["error_kind", "error_detail"]),
        ("OptionSurface", &[]),
    ]);
    let receipts = decoded(&generated(&DemoFeedOptions::default(), 0, 1_000, 20));

    let seen: BTreeSet<&str> = receipts.iter().map(|receipt| receipt.event_type.as_str()).collect();
    assert_eq!(seen, required.keys().copied().collect());
    for receipt in &receipts {
        let normalized = normalized(receipt);
        for key in required[receipt.event_type.as_str()] {
            assert!(normalized.get(key).is_some(), "{} lacks {key}", receipt.event_type);
        }
    }
}

#[test]
fn the_nuisances_of_real_feeds_come_too_but_rarely() {
    let items = generated(&DemoFeedOptions::default(), 0, 5_000, 4);
    let receipts = decoded(&items);

    let refused = items.len() - receipts.len();
    let duplicates = items.windows(2).filter(|pair| pair[0].bytes == pair[1].bytes).count();
    let behind = receipts.iter().filter(|receipt| receipt.exchange_ts_ms > Some(receipt.recv_ts_ms)).count();
    let without_time = receipts.iter().filter(|receipt| receipt.exchange_ts_ms.is_none()).count();

    for (count, what) in
        [(refused, "refused"), (duplicates, "duplicates"), (behind, "behind"), (without_time, "without time")]
    {
        assert!((10..items.len() / 20).contains(&count), "{count} {what} of {}", items.len());
    }
    let mut a_step: BTreeMap<TsMs, u32> = BTreeMap::new();
    for receipt in &receipts {
        *a_step.entry(receipt.recv_ts_ms).or_default() += 1;
    }
    let bursts = a_step.values().filter(|count| **count > 100).count();
    assert!((2..40).contains(&bursts), "{bursts} bursts in 5000 steps");
}

#[test]
fn snapshots_are_on_their_boundaries_once_a_symbol_and_a_few_are_left_out() {
    let options = DemoFeedOptions::default();
    let (interval, lag) = (i64::from(options.snapshot_interval_ms), i64::from(options.snapshot_lag_ms));
    let receipts = decoded(&generated(&options, 0, 9_000, 1));

    let mut seen = BTreeSet::new();
    for receipt in receipts.iter().filter(|receipt| receipt.event_type.as_str() == "SnapshotInputs") {
        let boundary = receipt.snapshot_ts_ms.unwrap().0;
        assert_eq!(boundary % interval, 0);
        assert!((lag..lag + 100).contains(&(receipt.recv_ts_ms.0 - boundary)), "shortly after its boundary");
        assert!(seen.insert((receipt.symbol.clone(), boundary)), "twice");
    }
    // 300 boundaries of 3 symbols, of which one in 40 is left out.
    assert!((830..=895).contains(&seen.len()), "{} snapshots", seen.len());
}

#[test]
fn snapshot_fields_are_sometimes_missing_and_sometimes_null() {
    let receipts = decoded(&generated(&DemoFeedOptions::default(), 0, 9_000, 1));
    let snapshots: Vec<Value> =
        receipts.iter().filter(|receipt| receipt.snapshot_ts_ms.is_some()).map(normalized).collect();

    let count = |wanted: &dyn Fn(&Value) -> bool| snapshots.iter().filter(|value| wanted(value)).count();
    let few = 3..snapshots.len() / 4;
    assert!(few.contains(&count(&|value| value.get("context").is_none())));
    assert!(
        few.contains(&count(&|value| value.get("market").is_some_and(|market| market.get("atr").is_none())))
    );
    assert!(few.contains(&count(
        &|value| value.pointer("/derivatives/liquidation_intensity") == Some(&Value::Null)
    )));
    assert!(few.contains(&count(&|value| value.pointer("/context/btc_regime") == Some(&Value::Null))));
    // No value that a worker could not read, and no two snapshots alike.
    let texts: BTreeSet<String> = snapshots.iter().map(Value::to_string).collect();
    assert_eq!(texts.len(), snapshots.len());
}

/// Method: step over jumps of the wall clock in both directions.
#[test]
fn a_jump_of_the_clock_makes_neither_a_second_snapshot_nor_a_flood() {
    const NONE: [i64; 0] = [];
    let mut generator =
        Generator::new(&DemoFeedOptions { rate_per_second: 0, ..DemoFeedOptions::default() }, 0);
    let mut at = |ms: i64| {
        generator.make_events(NOON / 3_000 * 3_000 + ms, 0);
        let boundaries: BTreeSet<i64> = decoded(&generator.take_items(usize::MAX))
            .iter()
            .map(|receipt| receipt.snapshot_ts_ms.unwrap().0 - NOON / 3_000 * 3_000)
            .collect();
        boundaries.into_iter().collect::<Vec<_>>()
    };

    assert_eq!(at(100), NONE, "a boundary that passed before the start has none");
    assert_eq!(at(3_049), NONE);
    assert_eq!(at(3_050), [3_000]);
    assert_eq!(at(3_060), NONE);
    assert_eq!(at(86_400_050), [86_400_000], "a day forward: one boundary");
    assert_eq!(at(6_050), NONE, "and back: none twice");
    assert_eq!(at(86_403_050), [86_403_000]);
}

async fn open(options: DemoFeedOptions) -> Result<Box<dyn Source>, SourceError> {
    DemoFeedFactory::new(options, TestClock::wall()).open_source(ResumeAt::default()).await
}

fn durable() -> Settlement {
    Settlement::Durable(Vec::new())
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_and_the_feed_ends_after_its_duration() {
    for rate in [7_u32, 1_000, 20_000] {
        let options = DemoFeedOptions {
            rate_per_second: rate,
            snapshot_interval_ms: 1_000_000,
            duration: Some(Duration::from_secs(2)),
            ..DemoFeedOptions::default()
        };
        let mut feed = open(options).await.unwrap();
        let (began, mut count) = (Instant::now(), 0);
        while let Some(batch) = feed.next_batch().await.unwrap() {
            assert!((1..=BATCH_ITEMS_MAX).contains(&batch.items.len()));
            count += batch.items.len();
            feed.settle_batch(batch.id, durable()).await.unwrap();
        }

        let expected = rate as usize * 2;
        let bursts_and_duplicates = expected / 100 + 3 * BURST_ALLOWANCE;
        assert!((expected..=expected + bursts_and_duplicates).contains(&count), "{count} at {rate}/s");
        assert!((1_980..=2_020).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        assert!(feed.next_batch().await.unwrap().is_none());
    }
}

/// Events of one burst at most.
const BURST_ALLOWANCE: usize = 400;

#[tokio::test(start_paused = true)]
async fn a_feed_that_was_not_taken_goes_on_from_now() {
    let options = DemoFeedOptions { rate_per_second: 1_000, ..DemoFeedOptions::default() };
    let mut feed = open(options).await.unwrap();
    let batch = feed.next_batch().await.unwrap().unwrap();
    feed.settle_batch(batch.id, durable()).await.unwrap();

    tokio::time::sleep(Duration::from_secs(60)).await;
    let (resumed, mut count) = (Instant::now(), 0);
    while resumed.elapsed() < Duration::from_secs(1) {
        let batch = feed.next_batch().await.unwrap().unwrap();
        count += batch.items.len();
        feed.settle_batch(batch.id, durable()).await.unwrap();
    }

    assert!(
        (990..1_100 + BURST_ALLOWANCE).contains(&count),
        "{count} events in a second after a pause of 60"
    );
}

#[tokio::test(start_paused = true)]
async fn refused_items_come_again_first_and_unsettled_batches_are_bounded() {
    let mut feed = open(DemoFeedOptions::default()).await.unwrap();
    let first = feed.next_batch().await.unwrap().unwrap();
    feed.settle_batch(first.id, Settlement::Refused { reason: String::new(), retry_after_ms: 500 })
        .await
        .unwrap();

    let again = feed.next_batch().await.unwrap().unwrap();

    assert_eq!(again.items, first.items);
    for _ in 1..UNSETTLED_BATCHES_MAX {
        feed.next_batch().await.unwrap().unwrap();
    }
    let waited = tokio::time::timeout(Duration::from_secs(60), feed.next_batch()).await;
    assert!(waited.is_err(), "more batches in flight than allowed");
    feed.settle_batch(again.id, durable()).await.unwrap();
    assert!(feed.next_batch().await.unwrap().is_some());
}

/// A quick feed by the wall clock.
struct Feeds;

#[async_trait]
impl SourceProvider for Feeds {
    async fn fresh(&self) -> Arc<dyn SourceFactory> {
        let options = DemoFeedOptions { rate_per_second: 1_000, ..DemoFeedOptions::default() };
        Arc::new(DemoFeedFactory::new(options, TestClock::wall()))
    }

    fn repeats(&self) -> Repeats {
        Repeats::Source
    }
}

#[tokio::test]
async fn demo_feed_conforms() {
    source_conformance::run(&Feeds).await;
}

#[tokio::test(start_paused = true)]
async fn the_end_waits_until_a_refused_batch_is_durable() {
    let options = DemoFeedOptions { duration: Some(Duration::from_millis(20)), ..DemoFeedOptions::default() };
    let mut feed = open(options).await.unwrap();
    let mut last = feed.next_batch().await.unwrap().unwrap();
    while let Ok(batch) = tokio::time::timeout(Duration::from_secs(1), feed.next_batch()).await {
        feed.settle_batch(last.id, durable()).await.unwrap();
        last = batch.unwrap().expect("ended with a batch in flight");
    }

    feed.settle_batch(last.id, Settlement::Refused { reason: String::new(), retry_after_ms: 0 })
        .await
        .unwrap();
    let again = feed.next_batch().await.unwrap().unwrap();
    feed.settle_batch(again.id, durable()).await.unwrap();

    assert_eq!(again.items, last.items);
    assert!(feed.next_batch().await.unwrap().is_none());
}

/// Method: drop `next` after every poll.
#[tokio::test(start_paused = true)]
async fn next_is_cancel_safe() {
    let options = DemoFeedOptions { duration: Some(Duration::from_secs(20)), ..DemoFeedOptions::default() };
    let mut feed = open(options).await.unwrap();
    let mut position = 0;
    loop {
        match tokio::time::timeout(Duration::from_millis(3), feed.next_batch()).await {
            Err(_) => {}
            Ok(batch) => {
                let Some(batch) = batch.unwrap() else { break };
                for item in &batch.items {
                    position += 1;
                    assert_eq!(item.position, Some(position));
                }
                feed.settle_batch(batch.id, durable()).await.unwrap();
            }
        }
    }
    assert!(position > 3_900, "{position} items");
}

#[tokio::test]
async fn options_out_of_range_and_a_driven_clock_are_refused() {
    let good = DemoFeedOptions::default;
    let cases = [
        (DemoFeedOptions { symbols: Vec::new(), ..good() }, "symbols"),
        (DemoFeedOptions { symbols: vec!["a\n".to_owned()], ..good() }, "symbol \"a\\n\""),
        (DemoFeedOptions { rate_per_second: RATE_PER_SECOND_MAX + 1, ..good() }, "rate_per_second"),
        (DemoFeedOptions { snapshot_interval_ms: 0, ..good() }, "snapshot_interval_ms"),
    ];
    for (options, word) in cases {
        let error = open(options).await.err().expect("was opened");
        assert!(error.to_string().contains(word), "{error}");
    }
    let clock = Arc::new(TestClock { begin: Instant::now(), is_driven: true });
    let factory = DemoFeedFactory::new(good(), clock);
    assert!(matches!(factory.open_source(ResumeAt::default()).await, Err(SourceError::Fatal { .. })));
    assert_eq!(factory.name(), "demo");
}
