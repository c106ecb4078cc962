//! The outbox behind a plane: every event of the journal, in order, at least once; and nothing waits for the bus.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::checkpoint::CheckpointStore;
use orchestrator_kernel::ports::event_bus::EventMessage;
use orchestrator_kernel::ports::event_bus_memory::MemoryEventBus;
use orchestrator_kernel::trading::cycle::CycleStatus;
use orchestrator_kernel::trading::event::{EventCursor, EventStyle, TradingEvent};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_runtime::status::Condition;
use orchestrator_trading_plane::outbox::{EVENT_CURSOR, EventPorts, EventPosition, PublishFrom};
use orchestrator_trading_plane::plane::{TradingPlane, TradingStop};
use orchestrator_trading_plane::testkit::{PlaneRig, event_ports, start_agent, trading_settings};

use crate::common::eventually;
use crate::cycles::{ended, run_cycle};

const GRACE: Duration = Duration::from_secs(30);

fn rig() -> (PlaneRig, Arc<MemoryEventBus>) {
    let bus = Arc::new(MemoryEventBus::default());
    let mut settings = trading_settings();
    settings.schedules.clear();
    let mut rig = PlaneRig::new(settings);
    rig.events = Some(event_ports(bus.clone()));
    (rig, bus)
}

fn style() -> EventStyle {
    EventStyle { source: "orchestrator".to_owned(), ..EventStyle::default() }
}

/// The events that follow from the journal as it is now.
async fn journal_events(rig: &PlaneRig) -> Vec<TradingEvent> {
    let (mut cursor, mut events) = (EventCursor::begin_at(JournalSeq(1)), Vec::new());
    for (bytes, seq) in rig.log.records().await.iter().zip(1..) {
        cursor.take_record(JournalSeq(seq), bytes, &mut events).unwrap();
    }
    events
}

async fn expected(rig: &PlaneRig) -> Vec<EventMessage> {
    journal_events(rig).await.iter().map(|event| event.to_message(&style())).collect()
}

async fn caught_up(plane: &TradingPlane) {
    let handle = plane.handle();
    eventually("everything is published", || {
        let tail = handle.committed.borrow().tail;
        JournalSeq(0) < tail && handle.events_progress.borrow().published == tail
    })
    .await;
}

fn first_arrivals(delivered: Vec<EventMessage>) -> Vec<EventMessage> {
    let mut seen = std::collections::BTreeSet::new();
    delivered.into_iter().filter(|event| seen.insert(event.event_id.clone())).collect()
}

#[tokio::test]
async fn every_event_of_the_journal_is_published_once_in_its_order() {
    let (rig, bus) = rig();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "go", "canonical").await;
    assert_eq!(ended(&plane, cycle).await.status, CycleStatus::Ok);
    caught_up(&plane).await;
    assert_eq!(plane.stop(GRACE).await, TradingStop::Clean);

    // A start behind a clean stop repeats nothing.
    let plane = rig.start().await;
    start_agent(plane.handle(), "again").await.unwrap_err();
    caught_up(&plane).await;
    assert_eq!(plane.stop(GRACE).await, TradingStop::Clean);

    let delivered = bus.delivered("#");
    assert_eq!(delivered, expected(&rig).await);
    let of_cycle: Vec<_> = bus.delivered("orchestrator.cycle.*");
    assert_eq!(of_cycle.len(), 2);
    assert_eq!(of_cycle[0].correlation_id, cycle.to_string());
    assert_eq!(bus.delivered("orchestrator.orders.intent").len(), 2);
}

/// Method: the bus goes away in the middle of what is offered, and comes back.
#[tokio::test]
async fn a_bus_that_is_away_stops_no_cycle_and_gets_what_it_missed_in_order() {
    let (rig, bus) = rig();
    bus.go_away_after(2);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();

    let cycle = run_cycle(&plane, "go", "canonical").await;

    assert_eq!(ended(&plane, cycle).await.status, CycleStatus::Ok);
    eventually("it is said", || rig.board.holds_condition(&Condition::EventsBehind)).await;
    let before = bus.publications();
    eventually("it is tried again", || before + 2 < bus.publications()).await;
    bus.set_away(false);
    eventually("it is over", || !rig.board.holds_condition(&Condition::EventsBehind)).await;
    caught_up(&plane).await;

    assert_eq!(bus.delivered("#"), expected(&rig).await, "what was confirmed is not offered again");
    assert_eq!(plane.stop(GRACE).await, TradingStop::Clean);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_bus_that_is_away_and_the_next_start_goes_on() {
    let (rig, bus) = rig();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    caught_up(&plane).await;
    bus.set_away(true);
    let cycle = run_cycle(&plane, "go", "canonical").await;
    ended(&plane, cycle).await;

    assert_eq!(plane.stop(GRACE).await, TradingStop::Clean);

    bus.set_away(false);
    let plane = rig.start().await;
    caught_up(&plane).await;
    plane.kill().await;
    assert_eq!(first_arrivals(bus.delivered("#")), expected(&rig).await);
}

/// Method: a crash behind each cycle, with whatever cursor was saved.
#[tokio::test]
async fn crashes_lose_no_event_and_repeat_events_under_their_identifiers() {
    let (rig, bus) = rig();
    for number in 0..4 {
        let plane = rig.start().await;
        start_agent(plane.handle(), &format!("start {number}")).await.ok();
        let cycle = run_cycle(&plane, &format!("go {number}"), "canonical").await;
        ended(&plane, cycle).await;
        plane.kill().await;
    }
    let plane = rig.start().await;
    caught_up(&plane).await;
    plane.kill().await;

    assert_eq!(first_arrivals(bus.delivered("#")), expected(&rig).await);
}

/// Method: a cycle before there is a bus; a first start while the bus is away, a crash in it, and the bus comes back.
#[tokio::test]
async fn a_bus_that_is_new_is_told_what_happens_since_or_all_as_configured() {
    let (mut rig, bus) = rig();
    let ports = rig.events.take().unwrap();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let cycle = run_cycle(&plane, "before", "canonical").await;
    ended(&plane, cycle).await;
    assert_eq!(plane.stop(GRACE).await, TradingStop::Clean);
    let old_news = journal_events(&rig).await.len();
    assert!(5 < old_news, "{old_news}");

    bus.set_away(true);
    rig.events = Some(from(&ports, PublishFrom::Latest));
    for number in 0..2 {
        let plane = rig.start().await;
        eventually("it begins", || rig.board.holds_condition(&Condition::EventsBehind)).await;
        let cycle = run_cycle(&plane, &format!("away {number}"), "canonical").await;
        ended(&plane, cycle).await;
        plane.kill().await;
    }
    bus.set_away(false);
    let plane = rig.start().await;
    caught_up(&plane).await;
    assert_eq!(
        bus.delivered("#"),
        expected(&rig).await[old_news..],
        "what happened since the first start with it"
    );
    assert_eq!(plane.stop(GRACE).await, TradingStop::Clean);

    let (_, fresh) = self::rig();
    rig.events = Some(from(&event_ports(fresh.clone()), PublishFrom::Earliest));
    let plane = rig.start().await;
    caught_up(&plane).await;
    plane.kill().await;
    assert!(fresh.delivered("#").is_empty(), "it was published before, whatever the setting says");

    rig.checkpoints = Arc::default();
    let plane = rig.start().await;
    caught_up(&plane).await;
    plane.kill().await;
    assert_eq!(fresh.delivered("#"), expected(&rig).await);
}

fn from(ports: &EventPorts, from: PublishFrom) -> EventPorts {
    let mut ports = ports.clone();
    ports.settings.from = from;
    ports
}

#[tokio::test]
async fn a_damaged_cursor_publishes_everything_again_and_the_same() {
    let (rig, bus) = rig();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    caught_up(&plane).await;
    assert_eq!(plane.stop(GRACE).await, TradingStop::Clean);
    let once = bus.delivered("#");
    rig.checkpoints.damage_value(EVENT_CURSOR);

    let plane = rig.start().await;
    caught_up(&plane).await;
    assert_eq!(plane.stop(GRACE).await, TradingStop::Clean);

    assert_eq!(bus.delivered("#"), [once.clone(), once].concat());
    let saved = rig.checkpoints.load(EVENT_CURSOR).await.unwrap().unwrap();
    assert!(EventCursor::decode(&saved).is_ok(), "it is mended");
}

/// Method: the journal is replaced by a shorter one, then by one that is as long and another.
#[tokio::test]
async fn another_journal_is_told_by_its_hashes_and_published_whole() {
    let (mut rig, bus) = rig();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    caught_up(&plane).await;
    assert_eq!(plane.stop(GRACE).await, TradingStop::Clean);
    let records = rig.log.records().await;

    for (kept, key) in [(records.len() - 1, "one"), (0, "two")] {
        let told = bus.delivered("#").len();
        rig.log = Arc::default();
        rig.checkpoints = {
            // The journal's own checkpoint would not fit; the cursor is what this is about.
            let cursor = rig.checkpoints.load(EVENT_CURSOR).await.unwrap().unwrap();
            let fresh = Arc::new(orchestrator_kernel::ports::checkpoint::MemoryCheckpoints::default());
            fresh.save(EVENT_CURSOR, orchestrator_kernel::ids::Epoch(1), cursor).await.unwrap();
            fresh
        };
        if 0 < kept {
            rig.take_journal(&records[..kept]).await;
        }
        let plane = rig.start().await;
        if kept == 0 {
            start_agent(plane.handle(), key).await.unwrap();
        }
        let cycle = run_cycle(&plane, &format!("run {key}"), "canonical").await;
        ended(&plane, cycle).await;
        caught_up(&plane).await;
        plane.kill().await;
        assert_eq!(bus.delivered("#")[told..], expected(&rig).await, "{key}");
    }
}

#[tokio::test]
async fn a_feed_tells_what_is_durable_from_any_position_and_waits_for_no_bus() {
    let (rig, bus) = rig();
    bus.set_away(true);
    let plane = rig.start().await;
    let mut from_now = plane.handle().subscribe_events(None);
    start_agent(plane.handle(), "start").await.unwrap();

    let (first, event) = from_now.next_events().await.unwrap().remove(0);
    assert_eq!(event.kind.last_words(), "agent.changed");
    let cycle = run_cycle(&plane, "go", "canonical").await;
    ended(&plane, cycle).await;

    let whole = journal_events(&rig).await;
    let mut told = vec![];
    let mut feed = plane.handle().subscribe_events(Some(EventPosition { seq: JournalSeq(0), index: 0 }));
    while told.len() < whole.len() {
        told.extend(feed.next_events().await.unwrap());
    }
    assert_eq!(told.iter().map(|(_, event)| event.clone()).collect::<Vec<_>>(), whole);
    for at in 0..told.len() - 1 {
        let behind = EventPosition { index: told[at].0.index + 1, ..told[at].0 };
        let mut feed = plane.handle().subscribe_events(Some(behind));
        let next = feed.next_events().await.unwrap();
        assert_eq!(next[0].0, told[at + 1].0, "behind {:?}", told[at].0);
        assert_eq!(next[0].1.event_id, told[at + 1].1.event_id);
    }
    assert!(told.iter().any(|(at, _)| *at == first));
    plane.kill().await;
    assert!(feed.next_events().await.is_err(), "it ends with the plane");
}
