//! Tests of the HTTP intake.

use bytes::Bytes;
use orchestrator_kernel::ports::source::ItemFate;
use orchestrator_kernel::ports::source_conformance::{self, ITEMS, Repeats, SourceProvider, sample_item};
use tokio::time::timeout;

use super::*;

const SHORT: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);

fn items(text: &str) -> Vec<RawItem> {
    vec![RawItem {
        position: None,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        oversized: None,
        topic: None,
    }]
}

fn intake(queue_batches_max: usize) -> (HttpIntake, HttpSourceFactory) {
    HttpIntake::new("http", HttpIntakeOptions { queue_batches_max, ..HttpIntakeOptions::default() })
}

fn submit(intake: &HttpIntake, text: &str) -> Result<Submitted, TurnedAway> {
    intake.submit_batch(intake.origin_of_producer(None), items(text))
}

async fn open(factory: &HttpSourceFactory) -> Box<dyn Source> {
    factory.open_source(ResumeAt::default()).await.unwrap()
}

async fn next(source: &mut Box<dyn Source>) -> SourceBatch {
    timeout(PATIENCE, source.next_batch()).await.expect("stuck").unwrap().expect("the source has ended")
}

async fn answer(submitted: Submitted) -> Settlement {
    timeout(PATIENCE, submitted).await.expect("no answer")
}

fn durable() -> Settlement {
    Settlement::Durable(vec![ItemFate::Appended])
}

fn is_refused(settlement: &Settlement) -> bool {
    matches!(settlement, Settlement::Refused { retry_after_ms: 1_000, .. })
}

struct Posts;

#[async_trait]
impl SourceProvider for Posts {
    async fn fresh(&self) -> Arc<dyn SourceFactory> {
        let (intake, factory) = intake(ITEMS);
        for index in 0..ITEMS {
            let item = RawItem { position: None, bytes: sample_item(index), oversized: None, topic: None };
            let submitted = intake.submit_batch(intake.origin_of_producer(None), vec![item]).unwrap();
            // A client that leaves would take its batch with it.
            tokio::spawn(submitted);
        }
        Arc::new(factory)
    }

    fn repeats(&self) -> Repeats {
        Repeats::Client
    }
}

#[tokio::test]
async fn http_source_conforms() {
    source_conformance::run(&Posts).await;
}

#[tokio::test]
async fn every_settlement_reaches_the_client_that_waits_for_it() {
    let (intake, factory) = intake(8);
    let mut source = open(&factory).await;
    let settlements = [
        durable(),
        Settlement::Gap { expected: 7 },
        Settlement::Refused { reason: "log is full".to_owned(), retry_after_ms: 50 },
    ];
    let waiting: Vec<Submitted> = ["a", "b", "c"]
        .map(|producer| {
            intake.submit_batch(intake.origin_of_producer(Some(producer)), items(producer)).unwrap()
        })
        .into();

    let mut batches = Vec::new();
    for producer in ["a", "b", "c"] {
        let batch = next(&mut source).await;
        assert_eq!(batch.origin.as_str(), format!("http:{producer}"));
        assert_eq!(batch.items, items(producer));
        batches.push(batch.id);
    }
    for (id, settlement) in batches.into_iter().zip(&settlements) {
        source.settle_batch(id, settlement.clone()).await.unwrap();
    }

    for (submitted, settlement) in waiting.into_iter().zip(settlements) {
        assert_eq!(answer(submitted).await, settlement);
    }
    assert!(timeout(SHORT, source.next_batch()).await.is_err(), "a refused batch was offered again");
    assert_eq!((factory.name(), intake.origin_of_producer(None).as_str()), ("http", "http"));
}

#[tokio::test]
async fn a_full_queue_turns_away_at_once_and_takes_again_when_there_is_room() {
    let (intake, factory) = intake(2);
    let first = submit(&intake, "1").unwrap();
    let _second = submit(&intake, "2").unwrap();

    let busy = TurnedAway::Busy { retry_after: Duration::from_secs(1) };
    assert_eq!(submit(&intake, "3").unwrap_err(), busy);

    let mut source = open(&factory).await;
    let batch = next(&mut source).await;
    source.settle_batch(batch.id, durable()).await.unwrap();
    assert_eq!(answer(first).await, durable());
    let _third = submit(&intake, "3").unwrap();
    assert_eq!(submit(&intake, "4").unwrap_err(), busy);
}

#[tokio::test]
async fn waiting_bytes_are_bounded_but_a_single_large_batch_is_taken() {
    let options = HttpIntakeOptions { queue_bytes_max: 10, ..HttpIntakeOptions::default() };
    let (intake, factory) = HttpIntake::new("http", options);
    let _large = submit(&intake, "eleven bytes").unwrap();
    assert!(submit(&intake, "").is_err());

    let mut source = open(&factory).await;
    next(&mut source).await;
    let _half = submit(&intake, "12345").unwrap();
    let _other_half = submit(&intake, "12345").unwrap();
    assert!(submit(&intake, "1").is_err());
}

#[tokio::test]
async fn a_batch_whose_client_left_is_not_handed_over_and_gives_its_room_back() {
    let (intake, factory) = intake(2);
    let _first = submit(&intake, "1").unwrap();
    let gone = submit(&intake, "2").unwrap();
    drop(gone);
    let _third = submit(&intake, "3").unwrap();
    let also_gone = submit(&intake, "4");
    assert!(also_gone.is_err());

    let mut source = open(&factory).await;

    assert_eq!(next(&mut source).await.items, items("1"));
    assert_eq!(next(&mut source).await.items, items("3"));
    let gone = submit(&intake, "5").unwrap();
    drop(gone);
    let _sixth = submit(&intake, "6").unwrap();
    assert_eq!(next(&mut source).await.items, items("6"));
}

/// Method: drop the source with one batch in flight and one queued, as a restart of ingest does.
#[tokio::test]
async fn a_restart_refuses_what_is_in_flight_and_keeps_the_queue() {
    let (intake, factory) = intake(8);
    let in_flight = submit(&intake, "1").unwrap();
    let queued = submit(&intake, "2").unwrap();
    let mut source = open(&factory).await;
    next(&mut source).await;

    drop(source);

    assert!(is_refused(&answer(in_flight).await));
    let mut source = open(&factory).await;
    let batch = next(&mut source).await;
    assert_eq!(batch.items, items("2"));
    source.settle_batch(batch.id, durable()).await.unwrap();
    assert_eq!(answer(queued).await, durable());
}

#[tokio::test]
async fn a_waiting_source_is_woken_by_a_batch_and_losing_its_wait_loses_nothing() {
    let (intake, factory) = intake(8);
    let mut source = open(&factory).await;
    assert!(timeout(SHORT, source.next_batch()).await.is_err());

    let waiter = tokio::spawn(async move { next(&mut source).await });
    tokio::task::yield_now().await;
    let _submitted = submit(&intake, "1").unwrap();

    assert_eq!(waiter.await.unwrap().items, items("1"));
}

#[tokio::test]
async fn a_client_that_left_after_the_hand_over_disturbs_nobody() {
    let (intake, factory) = intake(8);
    let mut source = open(&factory).await;
    let gone = submit(&intake, "1").unwrap();
    let stays = submit(&intake, "2").unwrap();
    let (first, second) = (next(&mut source).await, next(&mut source).await);

    drop(gone);
    source.settle_batch(first.id, durable()).await.unwrap();
    source.settle_batch(second.id, durable()).await.unwrap();

    assert_eq!(answer(stays).await, durable());
}

#[tokio::test]
async fn unsettled_batches_are_bounded_and_settled_in_order() {
    let options = HttpIntakeOptions { unsettled_batches_max: 2, ..HttpIntakeOptions::default() };
    let (intake, factory) = HttpIntake::new("http", options);
    let mut source = open(&factory).await;
    let _waiting: Vec<_> = ["1", "2", "3"].map(|text| submit(&intake, text).unwrap()).into();
    let (first, second) = (next(&mut source).await, next(&mut source).await);

    assert!(timeout(SHORT, source.next_batch()).await.is_err());
    assert!(source.settle_batch(second.id, durable()).await.is_err());
    source.settle_batch(first.id, durable()).await.unwrap();

    assert_eq!(next(&mut source).await.items, items("3"));
}

#[tokio::test]
async fn a_closed_intake_refuses_the_queue_and_ends_after_what_is_in_flight() {
    let (intake, factory) = intake(8);
    let mut source = open(&factory).await;
    let in_flight = submit(&intake, "1").unwrap();
    let queued = submit(&intake, "2").unwrap();
    let batch = next(&mut source).await;

    intake.close_intake();

    assert!(is_refused(&answer(queued).await));
    assert!(matches!(submit(&intake, "3"), Err(TurnedAway::Closed { .. })));
    assert!(timeout(SHORT, source.next_batch()).await.is_err(), "ended with a batch in flight");
    source.settle_batch(batch.id, durable()).await.unwrap();
    assert_eq!(answer(in_flight).await, durable());
    assert!(timeout(PATIENCE, source.next_batch()).await.unwrap().unwrap().is_none());
}

/// Method: many clients against a small queue and a source that restarts; each client repeats until it is durable.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_every_client_gets_its_own_answer() {
    let (intake, factory) = intake(4);
    let clients: Vec<_> = (0..16_u64)
        .map(|client| {
            let intake = intake.clone();
            tokio::spawn(async move {
                for n in 1..=50_u64 {
                    loop {
                        let mut item = items(&format!("{client}"));
                        item[0].position = Some(n);
                        match intake.submit_batch(intake.origin_of_producer(Some("p")), item) {
                            Ok(submitted) => match submitted.await {
                                Settlement::Gap { expected } => {
                                    assert_eq!(expected, client * 1_000 + n, "another client's answer");
                                    break;
                                }
                                Settlement::Refused { .. } | Settlement::Denied { .. } => {}
                                Settlement::Durable(_) => panic!("nobody said so"),
                            },
                            Err(_) => tokio::task::yield_now().await,
                        }
                    }
                }
            })
        })
        .collect();
    let ingest = tokio::spawn(async move {
        for batches in (1..).map(|n| n % 13) {
            let mut source = open(&factory).await;
            for _ in 0..batches {
                let batch = source.next_batch().await.unwrap().unwrap();
                let client: u64 = std::str::from_utf8(&batch.items[0].bytes).unwrap().parse().unwrap();
                let expected = client * 1_000 + batch.items[0].position.unwrap();
                source.settle_batch(batch.id, Settlement::Gap { expected }).await.unwrap();
            }
            // One more is in flight when the source is dropped.
            assert!(source.next_batch().await.unwrap().is_some());
        }
    });

    let all = async {
        for client in clients {
            client.await.unwrap();
        }
    };
    timeout(Duration::from_secs(30), all).await.expect("a client never got an answer");
    ingest.abort();
}
