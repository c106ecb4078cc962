//! Pages: from memory, and from the history what is no longer there.

use orchestrator_kernel::ports::history_memory::MemoryHistory;
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_trading_plane::testkit::{history_ports, stage_failure};

use super::*;

async fn with_history() -> (Trading, Arc<MemoryHistory>) {
    let store = Arc::new(MemoryHistory::default());
    let mut rig = PlaneRig::new(by_hand());
    rig.history = Some(history_ports(store.clone(), false));
    (Trading::of(rig).await, store)
}

async fn run(trading: &Trading, key: &str) -> String {
    let answer = trading.post("/api/v1/cycles", key, r#"{"pipeline":"canonical"}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()["correlation_id"].as_str().unwrap().to_owned()
}

async fn caught_up(trading: &Trading) {
    let plane = trading.plane.as_ref().unwrap().handle().clone();
    until("the history has caught up", async || {
        let tail = plane.committed.borrow().tail;
        JournalSeq(0) < tail && plane.history_progress.borrow().projected == tail
    })
    .await;
}

fn ids(answer: &Answer) -> Vec<String> {
    let cycles = answer.json()["cycles"].as_array().unwrap().clone();
    cycles.iter().map(|cycle| cycle["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_cycle_has_the_same_page_from_memory_and_from_the_history() {
    let (mut trading, store) = with_history().await;
    trading.start_agent().await;
    let first = run(&trading, "1").await;
    trading.rig.clock.set(WALL + 1000);
    trading.rig.stages.next("SIG/a", [stage_failure("no feed")]);
    let second = run(&trading, "2").await;
    caught_up(&trading).await;
    let pages = async |trading: &Trading| {
        let details = [&first, &second].map(|id| format!("/api/v1/cycles/{id}"));
        (
            trading.get(&details[0]).await.text,
            trading.get(&details[1]).await.text,
            trading.get("/api/v1/cycles").await.text,
        )
    };
    let from_memory = pages(&trading).await;

    trading.restart_plane().await;

    assert_eq!(pages(&trading).await, from_memory);
    assert_eq!(ids(&trading.get("/api/v1/cycles").await), [&second, &first].map(String::clone));
    trading.rig.clock.set(WALL + 2000);
    trading.post("/api/v1/agent/stop", "stop", "{}").await;
    trading.post("/api/v1/agent/start", "start again", "{}").await;
    let third = run(&trading, "3").await;
    assert_eq!(ids(&trading.get("/api/v1/cycles?limit=2").await), [third.clone(), second.clone()]);
    assert_eq!(
        ids(&trading.get("/api/v1/cycles?status=completed").await),
        [third.clone(), second, first.clone()]
    );
    assert_eq!(ids(&trading.get("/api/v1/cycles?status=failed").await), Vec::<String>::new());

    store.set_away(true);
    let some = trading.get("/api/v1/cycles").await;
    assert_eq!((ids(&some), some.json()["incomplete"].is_string()), (vec![third], true));
    trading.get(&format!("/api/v1/cycles/{first}")).await.refusal(503);
    let unknown = "/api/v1/cycles/00000000-0000-8000-8000-000000000000";
    store.set_away(false);
    trading.get(unknown).await.refusal(404);
}

#[tokio::test]
async fn without_a_history_only_what_is_in_memory_is_known() {
    let mut trading = Trading::start().await;
    trading.start_agent().await;
    let cycle = run(&trading, "1").await;
    let path = format!("/api/v1/cycles/{}", cycle.to_uppercase());
    assert_eq!(trading.get(&path).await.json()["cycle"]["id"], json!(cycle));

    trading.restart_plane().await;

    trading.get(&path).await.refusal(404);
    assert_eq!(trading.get("/api/v1/cycles").await.json(), json!({ "cycles": [] }));
    // The command is remembered; what its cycle came to is no longer known here.
    let again = trading.post("/api/v1/cycles", "1", r#"{"pipeline":"canonical"}"#).await;
    assert_eq!((again.status, &again.json()["cycleId"]), (202, &json!(cycle)), "{}", again.text);
}

/// Specification 002, `limit`: 20 where nobody says how many; and what the history has counts too.
#[tokio::test]
async fn a_page_without_a_limit_has_twenty_cycles() {
    let (mut trading, _) = with_history().await;
    for number in 0..22 {
        let body = r#"{"pipeline":"heartbeat"}"#;
        let answer = trading.post("/api/v1/cycles", &number.to_string(), body).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(ids(&trading.get("/api/v1/cycles").await).len(), 20);
    assert_eq!(ids(&trading.get("/api/v1/cycles?limit=22").await).len(), 22);
    caught_up(&trading).await;

    trading.restart_plane().await;

    assert_eq!(ids(&trading.get("/api/v1/cycles").await).len(), 20, "from the history alone");
}

/// Specification 002, `checks.database`: connected, behind while the database does not answer, connected again.
#[tokio::test]
async fn health_says_whether_the_historys_database_is_connected() {
    let (trading, store) = with_history().await;
    let database = async || trading.get("/health").await.json()["checks"]["database"].clone();
    caught_up(&trading).await;
    assert_eq!(database().await, json!("connected"));

    store.set_away(true);
    trading.start_agent().await;
    until("it is behind", async || database().await == json!("behind")).await;
    store.set_away(false);
    until("it is connected again", async || database().await == json!("connected")).await;
}
