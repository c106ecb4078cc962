//! Events of others: what each of them does, once; and that none is acknowledged before that is decided.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ids::Origin;
use orchestrator_kernel::ports::backtests::{BacktestRunner as _, MemoryBacktests};
use orchestrator_kernel::ports::event_bus_memory::MemoryEventBus;
use orchestrator_kernel::ports::observer::Unobserved;
use orchestrator_kernel::ports::source::{
    ItemFate, RawItem, ResumeAt, Settlement, Source, SourceBatch, SourceError, SourceFactory,
};
use orchestrator_kernel::ports::stage::StageBackend;
use orchestrator_kernel::trading::agent::{AgentCommand, AgentStatus};
use orchestrator_kernel::trading::cycle::CycleStatus;
use orchestrator_kernel::trading::event::{EventNaming, EventStyle, ServiceHealth};
use orchestrator_kernel::trading::journal::{CommandOutcome, CycleStarted, JournalFact};
use orchestrator_kernel::trading::stage::StageProvider;
use orchestrator_runtime::status::Condition;
use orchestrator_runtime::testkit::OnAppend;
use orchestrator_trading_plane::command::{DECISION_AGE_MAX_MS, TradingCommand};
use orchestrator_trading_plane::intake::{AnalysisRequests, EventIntake, IntakeFate, IntakeSettings};
use orchestrator_trading_plane::plane::TradingPlane;
use orchestrator_trading_plane::testkit::{
    PlaneRig, WALL, every_minute, origin, start_agent, trading_settings,
};
use orchestrator_trading_plane::view::TradingView;
use serde_json::{Value, json};

use crate::common::eventually;
use crate::cycles::{ended, run_cycle};

fn rig() -> PlaneRig {
    let mut settings = trading_settings();
    settings.schedules.clear();
    PlaneRig::new(settings)
}

fn intake_settings(patterns: &[&str]) -> IntakeSettings {
    IntakeSettings {
        naming: EventNaming::default(),
        patterns: patterns.iter().map(|pattern| (*pattern).to_owned()).collect(),
        pause_on_error: true,
        extended_hours: false,
        heartbeat_interval: Duration::from_secs(30),
        retry: Duration::from_millis(5),
    }
}

fn intake_of(rig: &PlaneRig, plane: &TradingPlane, settings: IntakeSettings) -> EventIntake {
    EventIntake::new(plane.handle().clone(), settings, Arc::new(Unobserved), rig.board.clone())
}

/// An event that was made `age_ms` before now.
fn aged_event(name: &str, id: &str, age_ms: i64, payload: Value) -> Vec<u8> {
    let at = orchestrator_kernel::rfc3339::to_rfc3339(orchestrator_kernel::ids::TsMs(WALL - age_ms));
    json!({
        "event_id": id, "event_type": name, "schema_version": "1.0.0", "ts_event": at, "source": "tester",
        "correlation_id": "c", "payload": payload,
    })
    .to_string()
    .into_bytes()
}

fn event(name: &str, id: &str, payload: Value) -> Vec<u8> {
    aged_event(name, id, 0, payload)
}

fn decision(strategy: &str, symbol: &str) -> Value {
    json!({"decisionId": "d-a", "symbol": symbol, "strategyId": strategy, "action": "BUY", "confidence": 0.7,
        "reasoning": "up", "suggestedQuantity": 10})
}

/// Method: a runner with one recording and room for one.
#[tokio::test]
async fn an_event_asks_for_a_backtest_once_and_what_cannot_be_run_is_refused() {
    let mut rig = rig();
    let backtests = Arc::new(MemoryBacktests::of_captures(&["day.jsonl"], 1));
    rig.backtests = backtests.clone();
    let plane = rig.start().await;
    let name = "ordinis.ops.run.backtest.requested";
    let intake = intake_of(&rig, &plane, intake_settings(&["ordinis.ops.run.*.requested"]));
    let ask = |id: &str, capture: &str| event(name, id, json!({"capture": capture}));

    assert_eq!(intake.take_message(name, &ask("1", "day.jsonl")).await, IntakeFate::Taken);
    assert_eq!(intake.take_message(name, &ask("1", "day.jsonl")).await, IntakeFate::Taken);
    let none = intake.take_message(name, &ask("2", "night.jsonl")).await;
    assert!(matches!(&none, IntakeFate::Refused(why) if why.contains("night.jsonl")), "{none:?}");
    let full = intake.take_message(name, &ask("3", "day.jsonl")).await;
    assert!(matches!(&full, IntakeFate::Refused(why) if why.contains("no more may")), "{full:?}");

    assert_eq!(backtests.list_jobs().len(), 1, "what comes again is the same job");
    let on_record = rig.facts(
        |fact| matches!(fact, JournalFact::CommandReceived(command) if command.name == "backtest/run"),
    );
    assert!(3 <= on_record.await.len(), "refusals are on record too");
}

async fn cycles_begun(rig: &PlaneRig) -> Vec<CycleStarted> {
    let facts = rig.facts(|fact| matches!(fact, JournalFact::CycleStarted(_))).await;
    let started = facts.into_iter().map(|fact| match fact {
        JournalFact::CycleStarted(started) => *started,
        other => panic!("{other:?}"),
    });
    started.collect()
}

async fn refusals(rig: &PlaneRig) -> Vec<String> {
    let facts = rig.facts(|fact| matches!(fact, JournalFact::CommandEnded(_))).await;
    let refused = facts.into_iter().filter_map(|fact| match fact {
        JournalFact::CommandEnded(ended) => match ended.outcome {
            CommandOutcome::Refused { detail, .. } => Some(detail),
            CommandOutcome::Done { .. } => None,
        },
        other => panic!("{other:?}"),
    });
    refused.collect()
}

/// T11: a decision begins one cycle of its strategy, at RISK, however often it comes.
#[tokio::test]
async fn a_decision_begins_one_cycle_at_risk_also_when_it_comes_twice_and_late() {
    const NAME: &str = "ai.decision.generated";
    let rig = rig();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let intake = intake_of(&rig, &plane, intake_settings(&["ai.decision.*"]));
    let good = event(NAME, "e-1", decision("a", "AAPL"));

    assert_eq!(intake.take_message(NAME, &good).await, IntakeFate::Taken);
    assert_eq!(intake.take_message(NAME, &good).await, IntakeFate::Taken);
    eventually("the cycle ends", || plane.handle().view.agent().tally.cycles == 1).await;
    plane.kill().await;
    let plane = rig.start().await;
    let intake = intake_of(&rig, &plane, intake_settings(&["ai.decision.*"]));
    assert_eq!(intake.take_message(NAME, &good).await, IntakeFate::Taken);

    let begun = cycles_begun(&rig).await;
    assert_eq!(begun.len(), 1);
    let first = &begun[0].pipeline.stages[usize::from(begun[0].begin_at)];
    assert_eq!((first.name.as_str(), begun[0].strategies[0].as_str()), ("RISK", "a"));
    assert_eq!(begun[0].decisions[0].decision_id.as_str(), "d-a");
    let intents = rig.facts(|fact| matches!(fact, JournalFact::OrderIntended(_))).await;
    assert_eq!(intents.len(), 1);

    for (id, age_ms, payload, why) in [
        ("e-2", 0, decision("nobody", "AAPL"), "unknown_strategy"),
        ("e-3", 0, decision("a", "TSLA"), "unknown_symbol"),
        ("e-4", DECISION_AGE_MAX_MS + 1, decision("a", "AAPL"), "too_late"),
    ] {
        let taken = intake.take_message(NAME, &aged_event(NAME, id, age_ms, payload)).await;
        assert!(matches!(&taken, IntakeFate::Refused(reason) if reason.contains(why)), "{id}: {taken:?}");
        assert!(refusals(&rig).await.last().unwrap().contains(why), "it is on record");
    }
    assert_eq!(cycles_begun(&rig).await.len(), 1);
    plane.kill().await;
}

/// Method: whoever may send commands uses the texts that an event's command could derive from as his idempotency keys,
/// before the event comes.
#[tokio::test]
async fn no_idempotency_key_takes_the_place_of_an_event() {
    const NAME: &str = "ordinis.ops.kill.activate.requested";
    let rig = rig();
    let plane = rig.start().await;
    let pause = TradingCommand::Agent(AgentCommand::Pause { minutes: None });
    for key in ["event|0|tester|k-1", "event|1|tester|k-1", "by event|0|tester/k-1", "0|tester/k-1"] {
        plane.handle().execute_command(pause.clone(), origin(key)).await.unwrap_err();
    }
    let intake = intake_of(&rig, &plane, intake_settings(&["ordinis.ops.kill.*.requested"]));

    let taken = intake.take_message(NAME, &event(NAME, "k-1", json!({"reason": "odd prices"}))).await;

    assert_eq!(taken, IntakeFate::Taken);
    assert!(plane.handle().view.agent().latched.is_some(), "trading is stopped all the same");
    plane.kill().await;
}

/// KILL-2: an event can stop trading and never allow it.
#[tokio::test]
async fn an_event_latches_the_kill_switch_and_none_releases_it() {
    let rig = rig();
    let plane = rig.start().await;
    let intake = intake_of(&rig, &plane, intake_settings(&["ordinis.ops.kill.*.requested"]));
    let (activate, deactivate) =
        ("ordinis.ops.kill.activate.requested", "ordinis.ops.kill.deactivate.requested");

    let stop = event(activate, "k-1", json!({"reason": "odd prices"}));
    assert_eq!(intake.take_message(activate, &stop).await, IntakeFate::Taken);
    let latched = |plane: &TradingPlane| plane.handle().view.agent().latched;
    assert_eq!(latched(&plane).as_deref(), Some("odd prices"));
    let allow = event(deactivate, "k-2", json!({"reason": "fine again"}));
    assert!(matches!(intake.take_message(deactivate, &allow).await, IntakeFate::Refused(_)));
    assert!(latched(&plane).is_some());
    plane.kill().await;

    let plane = rig.start().await;
    assert_eq!(latched(&plane).as_deref(), Some("odd prices"), "it was durable when it was acknowledged");
    assert!(refusals(&rig).await[0].contains("an operator does"));
    plane.kill().await;
}

/// Method: closed, older news, a restart, open again.
#[tokio::test]
async fn an_announced_session_only_closes_and_a_restart_opens_nothing() {
    const NAME: &str = "market.session.changed";
    let rig = rig();
    let plane = rig.start().await;
    let intake = intake_of(&rig, &plane, intake_settings(&["market.session.*"]));
    let news = |id: &str, age_ms: i64, market: &str, session: &str| {
        let payload = json!({"previousSession": "x", "currentSession": session, "market": market});
        aged_event(NAME, id, age_ms, payload)
    };
    assert_eq!(plane.handle().view.announced_session(), None);

    intake.take_message(NAME, &news("s-1", 10, "XNYS", "regular")).await;
    assert_eq!(plane.handle().view.announced_session(), Some(true));
    intake.take_message(NAME, &news("s-2", 5, "XLON", "closed")).await;
    assert_eq!(plane.handle().view.announced_session(), Some(false), "one closed market closes all");
    intake.take_message(NAME, &news("s-3", 8, "XLON", "regular")).await;
    assert_eq!(plane.handle().view.announced_session(), Some(false), "older news open nothing");
    plane.kill().await;

    let plane = rig.start().await;
    assert_eq!(plane.handle().view.announced_session(), Some(false), "nor does a restart");
    let intake = intake_of(&rig, &plane, intake_settings(&["market.session.*"]));
    intake.take_message(NAME, &news("s-4", 1, "XLON", "pre")).await;
    assert_eq!(plane.handle().view.announced_session(), Some(false), "no session without extended hours");
    intake.take_message(NAME, &news("s-5", 0, "XLON", "regular")).await;
    assert_eq!(plane.handle().view.announced_session(), Some(true));
    plane.kill().await;
}

#[tokio::test]
async fn an_error_of_others_pauses_the_agent_by_policy_and_once() {
    const NAME: &str = "system.error.occurred";
    let rig = rig();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let error =
        |id: &str| event(NAME, id, json!({"service": "market-data", "errorCode": "E", "message": "gone"}));
    let status = |plane: &TradingPlane| plane.handle().view.agent().state.status;

    let lenient = IntakeSettings { pause_on_error: false, ..intake_settings(&["system.#"]) };
    assert_eq!(intake_of(&rig, &plane, lenient).take_message(NAME, &error("e-1")).await, IntakeFate::Taken);
    assert_eq!(status(&plane), AgentStatus::Running);
    let strict = intake_of(&rig, &plane, intake_settings(&["system.#"]));
    strict.take_message(NAME, &error("e-2")).await;
    assert_eq!(status(&plane), AgentStatus::Paused);
    let resume = TradingCommand::Agent(AgentCommand::Resume);
    plane.handle().execute_command(resume, origin("resume")).await.unwrap();
    strict.take_message(NAME, &error("e-2")).await;
    assert_eq!(status(&plane), AgentStatus::Running, "the same event pauses once");

    let received = rig.facts(|fact| matches!(fact, JournalFact::CommandReceived(_))).await;
    let told: Vec<_> = received
        .iter()
        .filter(|fact| matches!(fact, JournalFact::CommandReceived(it) if it.body.contains("market-data")))
        .collect();
    assert_eq!(told.len(), 2, "each is on record once");
    plane.kill().await;
}

#[tokio::test]
async fn schedules_fire_for_their_topics_heartbeats_are_remembered_and_misfits_are_told() {
    let mut rig = rig();
    let mut waiting = every_minute("waiting", "heartbeat");
    waiting.topics = vec!["ordinis.market.*".to_owned()];
    rig.settings.schedules.push(waiting);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let intake = intake_of(&rig, &plane, intake_settings(&["ordinis.market.*", "system.heartbeat"]));

    let bar = event("ordinis.market.bar", "m-1", json!({"close": 1}));
    for _ in 0..2 {
        assert_eq!(intake.take_message("ordinis.market.bar", &bar).await, IntakeFate::Taken);
    }
    let beat = event("system.heartbeat", "h-1", json!({"service": "market-data", "status": "healthy"}));
    assert_eq!(intake.take_message("system.heartbeat", &beat).await, IntakeFate::Taken);
    assert_eq!(plane.handle().view.list_services(), [("market-data".to_owned(), ServiceHealth::Healthy)]);

    let misfit = |fate: IntakeFate, said: &str| match fate {
        IntakeFate::Misfit(reason) => assert!(reason.contains(said), "{reason}"),
        other => panic!("{said}: {other:?}"),
    };
    misfit(intake.take_message("system.heartbeat", b"no event").await, "no event envelope");
    misfit(intake.take_message("system.heartbeat", &bar).await, "came by the topic system.heartbeat");
    let kill = "ordinis.ops.kill.activate.requested";
    misfit(intake.take_message(kill, &event(kill, "k", json!({}))).await, "no pattern of");

    eventually("its cycle ends", || plane.handle().view.agent().tally.cycles == 1).await;
    plane.kill().await;
    let by_event = rig.facts(|fact| matches!(fact, JournalFact::ScheduleFired(_))).await;
    assert_eq!(by_event.len(), 1, "the event fires once");
}

/// Method: a bus on which somebody answers every request, twice, one of them with another symbol, and once more late.
#[tokio::test]
async fn a_stage_of_the_event_provider_gets_the_decisions_that_answer_and_no_late_one() {
    const NAME: &str = "ai.decision.generated";
    let mut rig = rig();
    let bus = Arc::new(MemoryEventBus::default());
    rig.pipeline("canonical").stages[2].provider = StageProvider::Event;
    rig.pipeline("canonical").stages[2].budget = Duration::from_secs(5);
    let view = TradingView::default();
    let style = EventStyle { source: "orchestrator".to_owned(), ..EventStyle::default() };
    let requests = Arc::new(AnalysisRequests::new(bus.clone(), style, rig.clock.clone(), view.clone()));
    rig.asks_bus = Some((view, requests.clone() as Arc<dyn StageBackend>));
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let intake = intake_of(&rig, &plane, intake_settings(&["ai.decision.*"])).answering(Some(requests));

    let cycle = run_cycle(&plane, "go", "canonical").await;
    eventually("all requests are made", || bus.delivered("orchestrator.analysis.requested").len() == 4).await;
    let asked: Vec<Value> = bus
        .delivered("orchestrator.analysis.requested")
        .iter()
        .map(|event| serde_json::from_slice(&event.body).unwrap())
        .collect();
    let answer = |asked: &Value, id: &str, symbol: &Value| {
        let payload = &asked["payload"];
        let mut answer: Value = serde_json::from_slice(&event(
            NAME,
            id,
            json!({
                "decisionId": format!("d-{id}"), "symbol": symbol, "strategyId": payload["strategyId"],
                "action": "BUY", "confidence": 0.7, "reasoning": "up", "suggestedQuantity": 10,
            }),
        ))
        .unwrap();
        answer["correlation_id"] = asked["correlation_id"].clone();
        answer.to_string().into_bytes()
    };
    for (asked, number) in asked.iter().zip(0..) {
        let (wrong, right) = (format!("w{number}"), format!("r{number}"));
        let other = answer(asked, &wrong, &json!("TSLA"));
        assert_eq!(intake.take_message(NAME, &other).await, IntakeFate::Taken);
        let good = answer(asked, &right, &asked["payload"]["symbol"]);
        for _ in 0..2 {
            assert_eq!(intake.take_message(NAME, &good).await, IntakeFate::Taken);
        }
    }
    let ended = ended(&plane, cycle).await;
    assert_eq!((ended.status, ended.counts.decisions), (CycleStatus::Ok, 4));
    let late = answer(&asked[0], "late", &asked[0]["payload"]["symbol"]);
    assert_eq!(intake.take_message(NAME, &late).await, IntakeFate::Taken);

    assert_eq!(cycles_begun(&rig).await.len(), 1, "no answer begins a cycle");
    plane.kill().await;
}

/// Method: a schedule fires, and the journal makes nothing durable that nobody waits for, in all the time of the test.
#[tokio::test]
async fn nobody_is_asked_for_a_decision_before_its_cycle_is_durable() {
    let mut rig = PlaneRig::new(trading_settings());
    rig.settings.journal.linger = Duration::from_secs(3600);
    let bus = Arc::new(MemoryEventBus::default());
    rig.pipeline("canonical").stages[2].provider = StageProvider::Event;
    let (view, style) = (TradingView::default(), EventStyle::default());
    let requests = AnalysisRequests::new(bus.clone(), style, rig.clock.clone(), view.clone());
    rig.asks_bus = Some((view, Arc::new(requests) as Arc<dyn StageBackend>));
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();

    rig.clock.set(WALL + 60_000);

    let asked = || bus.delivered("orchestrator.analysis.requested").len();
    eventually("all requests are made", || asked() == 4).await;
    assert_eq!(cycles_begun(&rig).await.len(), 1);
    plane.kill().await;
}

#[derive(Default)]
struct QueueState {
    waiting: VecDeque<RawItem>,
    /// What was handed over and is not settled.
    open: Option<(u64, Vec<RawItem>)>,
    settled: Vec<(Vec<RawItem>, Vec<ItemFate>)>,
    refused: usize,
    opened: u64,
}

/// A queue in memory: what is refused comes again.
#[derive(Clone, Default)]
struct TestQueue(Arc<Mutex<QueueState>>);

impl TestQueue {
    fn publish(&self, topic: &str, bytes: Vec<u8>) {
        let item =
            RawItem { position: None, bytes: bytes.into(), oversized: None, topic: Some(topic.into()) };
        self.0.lock().unwrap().waiting.push_back(item);
    }
}

#[async_trait]
impl Source for TestQueue {
    async fn next_batch(&mut self) -> Result<Option<SourceBatch>, SourceError> {
        loop {
            {
                let mut state = self.0.lock().unwrap();
                if state.open.is_none() && !state.waiting.is_empty() {
                    let items: Vec<_> = state.waiting.drain(..).collect();
                    state.opened += 1;
                    let id = state.opened;
                    state.open = Some((id, items.clone()));
                    return Ok(Some(SourceBatch { id, origin: Origin::from("test"), items }));
                }
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn settle_batch(&mut self, id: u64, settlement: Settlement) -> Result<(), SourceError> {
        let mut state = self.0.lock().unwrap();
        let (open, items) = state.open.take().expect("a batch that is open");
        assert_eq!(open, id);
        match settlement {
            Settlement::Durable(fates) => state.settled.push((items, fates)),
            Settlement::Refused { .. } => {
                state.refused += 1;
                state.waiting = items.into_iter().chain(std::mem::take(&mut state.waiting)).collect();
            }
            other => panic!("{other:?}"),
        }
        Ok(())
    }
}

#[async_trait]
impl SourceFactory for TestQueue {
    fn name(&self) -> &str {
        "test"
    }

    async fn open_source(&self, _: ResumeAt) -> Result<Box<dyn Source>, SourceError> {
        Ok(Box::new(self.clone()))
    }
}

/// Method: the journal has no room while events come; then it has.
#[tokio::test]
async fn nothing_is_acknowledged_before_it_is_decided_and_misfits_keep_nothing_up() {
    let rig = rig();
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    let queue = TestQueue::default();
    let intake = intake_of(&rig, &plane, intake_settings(&["ordinis.ops.kill.*.requested"]));
    let kill = "ordinis.ops.kill.activate.requested";
    rig.log.always(OnAppend::Full);
    queue.publish(kill, event(kill, "k-1", json!({"reason": "odd"})));
    queue.publish(kill, b"no event".to_vec());

    let running = tokio::spawn(intake.run(Arc::new(queue.clone())));

    eventually("it is refused and offered again", || 1 < queue.0.lock().unwrap().refused).await;
    assert!(rig.board.holds_condition(&Condition::EventIntakeDown));
    assert!(queue.0.lock().unwrap().settled.is_empty());
    rig.log.always(OnAppend::Work);
    eventually("it is settled", || !queue.0.lock().unwrap().settled.is_empty()).await;
    eventually("it is over", || !rig.board.holds_condition(&Condition::EventIntakeDown)).await;

    let (items, fates) = queue.0.lock().unwrap().settled.remove(0);
    assert_eq!(items.len(), 2);
    assert_eq!(fates[0], ItemFate::Appended);
    assert!(matches!(&fates[1], ItemFate::Quarantined(reason) if reason.contains("no event envelope")));
    assert!(plane.handle().view.agent().latched.is_some());
    running.abort();
    plane.kill().await;
    let latches = rig.facts(|fact| matches!(fact, JournalFact::KillLatched(_))).await;
    assert_eq!(latches.len(), 1);
}
