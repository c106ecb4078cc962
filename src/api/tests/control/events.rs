//! `GET /api/v1/trading/events`.

use super::super::events::Subscriber;
use super::*;

const PATH: &str = "/api/v1/trading/events";

impl Trading {
    async fn follow(&self, query: &str, last_event_id: Option<&str>) -> Subscriber {
        Subscriber::open_at(&self.service, &format!("{PATH}{query}"), last_event_id).await
    }

    /// Runs a cycle by hand and waits for its `cycle.completed`.
    async fn run_cycle(&self, key: &str) {
        let mut told = self.follow("?event_type=orchestrator.cycle.completed", None).await;
        let answer =
            self.post("/api/v1/cycles", key, r#"{"pipeline": "canonical", "strategies": ["a"]}"#).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        told.event().await;
    }
}

/// Method: all events from the beginning; then, behind each, a new subscriber, by header and by parameter.
#[tokio::test]
async fn trading_events_come_from_any_position_and_go_on_right_behind_the_last() {
    let trading = Trading::start().await;
    trading.start_agent().await;
    trading.run_cycle("go").await;

    let mut whole = trading.follow("?from=earliest", None).await;
    let mut all = vec![whole.event().await];
    while all.last().unwrap().event != "orchestrator.cycle.completed" {
        all.push(whole.event().await);
    }

    let names: Vec<_> = all.iter().map(|frame| frame.event.as_str()).collect();
    for name in ["orchestrator.agent.changed", "orchestrator.cycle.started", "orchestrator.orders.intent"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    for frame in &all {
        let envelope: Value = serde_json::from_str(&frame.data).unwrap();
        assert_eq!((&envelope["event_type"], &envelope["source"]), (&json!(frame.event), &json!("")));
        assert_eq!(envelope.as_object().unwrap().len(), 15, "every field of the envelope");
    }
    for (at, frame) in all.iter().enumerate().take(all.len() - 1) {
        let mut by_header = trading.follow("?from=earliest", Some(&frame.id)).await;
        let mut by_parameter = trading.follow(&format!("?from={}", frame.id), None).await;
        assert_eq!(by_header.event().await, all[at + 1], "behind {}", frame.id);
        assert_eq!(by_parameter.event().await.id, all[at + 1].id);
    }
}

#[tokio::test]
async fn a_filter_of_trading_events_is_a_pattern_and_one_that_matches_nothing_is_refused() {
    let trading = Trading::start().await;
    trading.start_agent().await;
    trading.run_cycle("go").await;

    let mut cycles = trading.follow("?from=earliest&event_type=orchestrator.cycle.*", None).await;
    let first = cycles.event().await;
    let second = cycles.event().await;
    assert_eq!(
        (first.event.as_str(), second.event.as_str()),
        ("orchestrator.cycle.started", "orchestrator.cycle.completed")
    );

    let refused = trading.get(&format!("{PATH}?event_type=orchestrator.cycle.begun")).await.refusal(400);
    assert!(refused.as_str().unwrap().contains("orchestrator.cycle.started"), "{refused}");
    let never = trading.get(&format!("{PATH}?event_type=orchestrator.analysis.requested")).await;
    never.refusal(400);
    for query in ["?from=yesterday", "?since=1", "?from=-1"] {
        trading.get(&format!("{PATH}{query}")).await.refusal(400);
    }
}

#[tokio::test]
async fn a_position_of_another_journal_beyond_the_tail_or_gone_is_told() {
    let trading = Trading::start().await;
    trading.start_agent().await;
    let mut whole = trading.follow("?from=earliest", None).await;
    let id = whole.event().await.id;

    let ahead = trading.get(&format!("{PATH}?from=1000000.0")).await.refusal(409);
    assert!(ahead.as_str().unwrap().contains("the log ends at"), "{ahead}");
    if let Some((_, position)) = id.split_once('-') {
        let foreign = format!("{PATH}?from=00000000000000aa-{position}");
        let another = trading.get(&foreign).await.refusal(409);
        assert!(another.as_str().unwrap().contains("another log"), "{another}");
    }
}

/// A subscriber from now on is told what happens next, and of a strategy also what it was before.
#[tokio::test]
async fn from_now_on_only_what_happens_next_is_told_and_the_plane_s_end_ends_the_stream() {
    let mut trading = Trading::start().await;
    trading.start_agent().await;
    let mut latest = trading.follow("", None).await;

    let answer = trading.post("/api/v1/agent/pause", "pause", "{}").await;
    assert_eq!(answer.status, 200, "{}", answer.text);

    let told = latest.event().await;
    let envelope: Value = serde_json::from_str(&told.data).unwrap();
    assert_eq!(told.event, "orchestrator.agent.changed");
    assert_eq!(envelope["payload"]["status"], "paused");
    trading.crash_plane().await;
    while let Some(frame) = latest.frame().await {
        assert!(frame.data.is_empty(), "nothing comes of a plane that has ended: {frame:?}");
    }
    let mut again = trading.follow("?from=latest", Some(&told.id)).await;
    trading.post("/api/v1/agent/resume", "resume", "{}").await;
    assert_eq!(again.event().await.event, "orchestrator.agent.changed");
}
