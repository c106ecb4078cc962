//! Everything in flight is bounded, and what cannot go on waits upstream (MEM-1, ISO-2).

use std::time::Duration;

use orchestrator_actors::testkit::{Act, OnAppend, TestSource, eventually, settings, trade};

use crate::common::{boundary, manual, outputs, second_and_tick, stop_and_check, two_symbols};

#[tokio::test(start_paused = true)]
async fn a_hanging_log_bounds_what_is_in_flight_and_everything_goes_on_afterwards() {
    let mut settings = settings(&["A", "B"]);
    settings.engine_plane.ingest.in_flight_receipts_max = 20;
    settings.engine_plane.ingest.batches_in_flight_max = 1000;
    let (mut rig, _clock) = manual(settings);
    rig.sources.push(TestSource::named("other"));
    let tree = rig.start().await;
    rig.receipts.always(OnAppend::Hang);

    for source in &rig.sources {
        (0..100).for_each(|_| source.push(vec![trade("A", boundary(1).0); 5]));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;

    // Each source may hold one more batch, for which it waits for credit.
    let offered: usize = rig.sources.iter().map(|source| source.offered_max()).sum();
    assert!((20..=30).contains(&offered), "{offered} receipts were taken from upstream");
    assert_eq!(rig.receipts.hanging(), 1, "one append at a time");

    rig.receipts.always(OnAppend::Work);
    eventually("all is durable", || rig.sources.iter().all(|source| source.settled() == 500)).await;
    assert_eq!(rig.receipts.records().await.len(), 1000);
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn the_window_of_a_source_bounds_its_batches() {
    let mut settings = settings(&["A"]);
    settings.engine_plane.ingest.in_flight_receipts_max = 1000;
    settings.engine_plane.ingest.batches_in_flight_max = 3;
    let (rig, _clock) = manual(settings);
    let tree = rig.start().await;
    rig.receipts.always(OnAppend::Hang);

    (0..10).for_each(|_| rig.feed().push([trade("A", boundary(1).0)]));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.feed().offered_max(), 3);

    rig.receipts.always(OnAppend::Work);
    eventually("all is durable", || rig.feed().settled() == 10).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_larger_than_the_bound_passes_alone() {
    let mut settings = settings(&["A"]);
    settings.engine_plane.ingest.in_flight_receipts_max = 4;
    settings.engine_plane.ingest.in_flight_bytes_max = 100;
    let (rig, _clock) = manual(settings);
    let tree = rig.start().await;

    rig.feed().push(vec![trade("A", boundary(1).0); 50]);
    rig.feed().push(vec![trade("A", boundary(1).0); 2]);
    eventually("all is durable", || rig.feed().settled() == 52).await;
    stop_and_check(&rig, tree).await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_engine_does_not_hold_up_ingestion() {
    let (rig, clock) = two_symbols();
    let tree = rig.start().await;
    rig.engine.next("A", [Act::Hang]);
    second_and_tick(&rig, &clock, 1, &["A", "B"]).await;
    eventually("A is in its call", || rig.engine.calls_of("A") == 1).await;
    let begin = tokio::time::Instant::now();

    (0..100).for_each(|_| rig.feed().push([trade("A", boundary(1).0)]));
    eventually("they are durable", || rig.feed().settled() == 104).await;

    assert!(begin.elapsed() < Duration::from_millis(50));
    outputs(&rig, 4).await;
    stop_and_check(&rig, tree).await;
}
