//! Commands: done once, done to the end, and from nowhere else.

use orchestrator_kernel::trading::journal::{JournalAuthor, JournalFact};
use orchestrator_runtime::testkit::OnAppend;
use orchestrator_trading_plane::testkit::OnStage;

use super::*;

async fn agent_changes(trading: &Trading) -> usize {
    trading.rig.facts(|fact| matches!(fact, JournalFact::AgentChanged(_))).await.len()
}

#[tokio::test]
async fn a_repeat_with_its_key_has_the_same_answer_also_behind_a_crash_and_another_body_is_409() {
    let mut trading = Trading::start().await;
    let first = trading.post("/api/v1/agent/start", "key", r#"{"mode":"normal"}"#).await;
    trading.rig.clock.set(WALL + 1000);

    for body in [r#"{"mode":"normal"}"#, r#" {"mode": "normal", "strategies": null} "#] {
        let again = trading.post("/api/v1/agent/start", "key", body).await;
        assert_eq!((again.status, &again.text), (200, &first.text), "{body}");
    }
    trading.crash_plane().await;
    assert_eq!(trading.post("/api/v1/agent/start", "key", r#"{"mode":"normal"}"#).await.text, first.text);
    trading.post("/api/v1/agent/start", "key", r#"{"mode":"aggressive"}"#).await.refusal(409);
    trading.post("/api/v1/agent/stop", "key", "{}").await.refusal(409);
    assert_eq!(agent_changes(&trading).await, 1);
    trading.post("/api/v1/agent/start", "other", "{}").await.refusal(409);
    trading.rig.audited().await;
}

#[tokio::test]
async fn without_a_key_the_same_request_is_another_command() {
    let trading = Trading::start().await;
    let json = [("content-type", "application/json")];

    assert_eq!(trading.post_with("/api/v1/agent/start", &json, "{}").await.status, 200);
    trading.post_with("/api/v1/agent/start", &json, "{}").await.refusal(409);
}

/// Method: the journal hangs while the command is on its way; its client closes the connection; the journal works
/// again.
#[tokio::test]
async fn a_client_that_goes_away_cancels_nothing() {
    let trading = Trading::start().await;
    trading.rig.log.always(OnAppend::Hang);
    let head = "POST /api/v1/agent/start HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let mut client = TcpStream::connect(trading.service.address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    until("the command is on its way", async || 0 < trading.rig.log.hanging()).await;

    drop(client);
    trading.rig.log.always(OnAppend::Work);

    until("the agent runs", async || trading.get("/api/v1/agent/status").await.json()["status"] == "running")
        .await;
    let entries = trading.rig.audited().await;
    let received = entries.iter().find_map(|entry| match &entry.fact {
        JournalFact::CommandReceived(received) => Some((entry, received.from.clone())),
        _ => None,
    });
    let (entry, from) = received.unwrap();
    assert!(from.starts_with("http 127.0.0.1:"), "{from}");
    assert_eq!(entry.who, JournalAuthor::Operator("http".to_owned()));
}

/// Method: the journal hangs for longer than a request may take. The answer says what is known; the repeat of the
/// request has the answer.
#[tokio::test]
async fn a_command_that_takes_too_long_is_in_doubt_and_its_repeat_knows() {
    let limits = HttpLimits { request_timeout: Duration::from_millis(200), ..HttpLimits::default() };
    let trading = Trading::within(PlaneRig::new(by_hand()), limits).await;
    trading.rig.log.always(OnAppend::Hang);

    let detail = trading.post("/api/v1/agent/start", "key", "{}").await.refusal(503);
    assert!(detail.as_str().unwrap().contains("same Idempotency-Key"), "{detail}");
    // Without a key the repeat would be another command.
    let json = [("content-type", "application/json")];
    let detail = trading.post_with("/api/v1/agent/resume", &json, "{}").await.refusal_for_good(503);
    assert!(detail.as_str().unwrap().contains("look before you send it again"), "{detail}");
    // Neither is sent again to a plane that is over.
    trading.rig.board.raise_condition(Condition::TradingStopped, "the journal is corrupt");
    let detail = trading.post("/api/v1/agent/start", "key", "{}").await.refusal_for_good(503);
    assert!(detail.as_str().unwrap().contains("once the service is started again"), "{detail}");
    trading.rig.board.clear_condition(&Condition::TradingStopped);
    trading.rig.log.always(OnAppend::Work);

    until("the repeat is answered", async || {
        trading.post("/api/v1/agent/start", "key", "{}").await.status == 200
    })
    .await;
    assert_eq!(agent_changes(&trading).await, 1);
}

#[tokio::test]
async fn the_operator_is_on_record() {
    let trading = Trading::start().await;
    let headers = [("content-type", "application/json"), ("orchestrator-operator", "ana")];
    trading.post_with("/api/v1/agent/start", &headers, "{}").await;
    trading.post("/api/v1/kill-switch/latch", "l", r#"{"operator":"bob","reason":"news"}"#).await;

    let entries = trading.rig.audited().await;
    let who = |name: &str| JournalAuthor::Operator(name.to_owned());
    let of = |is_fact: fn(&JournalFact) -> bool| entries.iter().find(|entry| is_fact(&entry.fact)).unwrap();
    assert_eq!(of(|fact| matches!(fact, JournalFact::AgentChanged(_))).who, who("ana"));
    assert_eq!(of(|fact| matches!(fact, JournalFact::KillLatched(_))).who, who("bob"));
    assert_eq!(trading.get("/api/v1/agent/status").await.json()["latched"], "news");
}

#[tokio::test]
async fn a_cycle_is_answered_by_its_result_and_its_repeat_by_the_same_one() {
    let trading = Trading::start().await;
    trading.start_agent().await;
    let body = r#"{"pipeline":"canonical"}"#;

    let first = trading.post("/api/v1/cycles", "run", body).await;
    let again = trading.post("/api/v1/cycles", "run", body).await;

    let result = first.json();
    assert_eq!((first.status, &result["status"]), (200, &json!("ok")), "{}", first.text);
    assert_eq!((&result["strategies"], &result["code"]), (&json!(["a", "b"]), &json!("1.0.0+abc")));
    assert_eq!(first.text, again.text);
    let started = trading.rig.facts(|fact| matches!(fact, JournalFact::CycleStarted(_))).await;
    assert_eq!(started.len(), 1);
}

/// Method: a stage that hangs for longer than the cycle's budget, in a pipeline whose stages have more than it.
#[tokio::test]
async fn a_cycle_beyond_its_budget_has_failed_by_then_and_says_that_a_repeat_may_help() {
    let mut rig = PlaneRig::new(by_hand());
    rig.pipeline("canonical").budget = Duration::from_millis(100);
    rig.stages.next("ING", [OnStage::Hang]);
    let trading = Trading::of(rig).await;
    trading.start_agent().await;

    let answer = trading.post("/api/v1/cycles", "run", r#"{"pipeline":"canonical"}"#).await;

    let result = answer.json();
    assert_eq!((answer.status, &result["status"]), (200, &json!("failed")), "{}", answer.text);
    let codes = result["errors"].as_array().unwrap().iter();
    assert!(codes.clone().any(|error| error["code"] == "E_ORCH_TIMEOUT" && error["retryable"] == true));
}

/// Method: the service stops while somebody waits for a cycle.
#[tokio::test]
async fn who_waits_for_a_cycle_at_the_stop_is_told_where_to_look() {
    let rig = PlaneRig::new(by_hand());
    rig.stages.next("ING", [OnStage::Hold]);
    let trading = Trading::of(rig).await;
    trading.start_agent().await;
    let asked = trading.post("/api/v1/cycles", "run", r#"{"pipeline":"canonical"}"#);

    let (answer, ()) = tokio::join!(asked, async {
        until("the cycle waits", async || trading.rig.stages.count_calls("ING") == 1).await;
        let status = trading.get("/api/v1/agent/status").await.json();
        assert_eq!(
            (&status["currentCycle"]["type"], &status["currentCycle"]["progress"]),
            (&json!("canonical"), &json!(0))
        );
        assert_eq!(trading.get("/health").await.json()["agent"]["currentCycle"], "canonical");
        trading.service.shutdown.cancel();
    });

    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("started")), "{}", answer.text);
    let id = answer.json()["cycleId"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), format!("/api/v1/cycles/{id}"));
    trading.rig.stages.release();
}

/// A cycle that is limited to symbols decides about no other: the stages of the test always decide about AAPL.
#[tokio::test]
async fn an_analysis_is_limited_to_its_symbols_and_they_must_be_the_strategys() {
    let trading = Trading::start().await;
    trading.start_agent().await;
    let id =
        trading.get("/api/v1/strategies").await.json()["strategies"][0]["id"].as_str().unwrap().to_owned();
    let analyze = format!("/api/v1/strategies/{id}/analyze");
    for (key, symbols, decisions) in [("1", "AAPL", 1), ("2", "MSFT", 0)] {
        let body = format!(r#"{{"symbols":["{symbols}"]}}"#);
        let begun = trading.post(&analyze, key, &body).await;
        assert_eq!((begun.status, &begun.json()["status"]), (200, &json!("started")), "{}", begun.text);
        let cycle = format!("/api/v1/cycles/{}", begun.json()["cycleId"].as_str().unwrap());
        until("it has ended", async || trading.get(&cycle).await.json()["cycle"]["status"] == "completed")
            .await;
        let details = trading.get(&cycle).await.json();
        assert_eq!(details["orders"].as_array().unwrap().len(), decisions, "{symbols}: {details:#}");
    }

    let detail = trading.post(&analyze, "3", r#"{"symbols":["TSLA"]}"#).await.refusal(400);
    assert_eq!(detail, "symbols: strategy a does not trade TSLA");
    trading.rig.audited().await;
}

/// Method: as many cycles run as may, so that a further one is not begun (503); its repeat, with the same key, is.
#[tokio::test]
async fn what_the_plane_did_not_take_is_done_when_it_is_sent_again() {
    let mut settings = by_hand();
    settings.cycles_running_max = 1;
    let rig = PlaneRig::new(settings);
    rig.stages.next("ING", [OnStage::Hold]);
    let trading = Trading::of(rig).await;
    trading.start_agent().await;
    trading.post("/api/v1/strategies/a/analyze", "first", "{}").await;
    until("it waits", async || trading.rig.stages.count_calls("ING") == 1).await;

    for _ in 0..2 {
        trading.post("/api/v1/strategies/b/analyze", "second", "{}").await.refusal(503);
    }
    trading.rig.stages.release();

    until("the repeat is done", async || {
        trading.post("/api/v1/strategies/b/analyze", "second", "{}").await.status == 200
    })
    .await;
    trading.rig.audited().await;
}

/// KILL-4: done and answered first, on record as soon as the journal can. Method: the plane is down when the stop
/// comes, and starts later; then one comes while it runs.
#[tokio::test]
async fn an_operators_stop_is_done_before_the_journal_has_it_and_noted_there_afterwards() {
    let mut trading = Trading::start().await;
    trading.door.send_replace(None);
    trading.plane.take().expect("a plane").kill().await;
    let stop = r#"{"operator":"ops","reason":"a market of ghosts"}"#;

    let engaged = trading.post("/api/v1/kill-switch/engage", "unused", stop).await;

    assert_eq!((engaged.status, &engaged.json()["effects"]), (200, &json!("halted")), "{}", engaged.text);
    let is_on_record = async |trading: &Trading, parts: [&str; 3]| {
        let records = trading.rig.log.records().await;
        records.iter().any(|record| {
            let text = String::from_utf8_lossy(record);
            parts.iter().all(|part| text.contains(part))
        })
    };
    let note = ["kill_switch.engaged", "a market of ghosts", "ops"];
    assert!(!is_on_record(&trading, note).await);
    trading.start_plane().await;
    until("the stop is on record", async || is_on_record(&trading, note).await).await;
    let lifted = trading.post("/api/v1/kill-switch/disengage", "unused", r#"{"operator":"chief"}"#).await;
    assert_eq!(lifted.status, 200, "{}", lifted.text);
    let note = ["kill_switch.disengaged", "", "chief"];
    until("so is its end", async || is_on_record(&trading, note).await).await;
    trading.rig.audited().await;
}
