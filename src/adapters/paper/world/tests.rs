//! Both services without sockets: the recorded words and vectors, and every fault's effect on record and ledger.

use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::trading::order::answer::{AnswerBody, GatewayAnswer};
use orchestrator_kernel::trading::order::outcome::{ExpectedOrder, OrderOutcome, outcome_of};
use orchestrator_kernel::trading::order::read_back::{OrderReading, reading_of};
use orchestrator_kernel::trading::order::{OrderContent, OrderSide};
use orchestrator_kernel::trading::sizing::read_signals;
use serde_json::Value;

use super::*;
use crate::adapters::paper::auth::SignedHeaders;
use crate::adapters::paper::request::PaperRole;

/// 2025-01-02T15:00:00Z, a Thursday.
const NOW: TsMs = TsMs(1_735_830_000_000);
const SECOND: i64 = 1_000;
/// The recorded vector of that date.
const APPLE_ID: &str = "479131535213089960f7eebb";
const APPLE: &str = r#"{"order_type":"market","qty":133,"side":"buy","symbol":"AAPL","time_in_force":"day"}"#;

fn settings() -> PaperSettings {
    PaperSettings {
        seed: 7,
        symbols: ["AAPL", "MSFT", "GOOGL", "AMZN", "TSLA"].map(str::to_owned).to_vec(),
        strategy_id: "alpha_baseline".to_owned(),
        dry_run: false,
        alpaca_paper: true,
        position_limit: 1_000,
        orders_per_minute: 100,
        fill_after_ms: 20,
        orders_max: 50,
        top_n: None,
        bottom_n: None,
        secret: None,
        version: "0",
    }
}

struct Paper(PaperWorld);

impl Paper {
    fn new() -> Self {
        Self(PaperWorld::new(settings()))
    }

    fn with_fault(rule: &str) -> Self {
        let mut paper = Self::new();
        paper.0.set_fault(rule.as_bytes()).unwrap();
        paper
    }

    fn ask(&mut self, role: PaperRole, method: &str, path: &str, body: &str, at: TsMs) -> PaperAnswer {
        let request = PaperRequest {
            role,
            method: method.to_owned(),
            path: path.to_owned(),
            query: String::new(),
            headers: SignedHeaders::default(),
            body: body.to_owned().into(),
        };
        let target = PaperTarget::of_request(role, method, path);
        let plan = self.0.plan_request(&target, &request, at);
        self.0.answer_request(&target, &request, &plan, at)
    }

    fn gateway(&mut self, method: &str, path: &str, body: &str, at: TsMs) -> (u16, Value) {
        let answer = self.ask(PaperRole::Gateway, method, path, body, at);
        (answer.status, serde_json::from_slice(&answer.body).unwrap())
    }

    fn submit(&mut self, body: &str, at: TsMs) -> (u16, Value) {
        self.gateway("POST", "/api/v1/orders", body, at)
    }

    fn read(&mut self, id: &str, at: TsMs) -> (u16, Value) {
        self.gateway("GET", &format!("/api/v1/orders/{id}"), "", at)
    }

    fn signals(&mut self, body: &str) -> (u16, String) {
        let answer = self.ask(PaperRole::Signals, "POST", "/api/v1/signals/generate", body, NOW);
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    fn counts(&self) -> super::super::ledger::OrderCounts {
        self.0.ledger.counts(ClientOrderId::from_hex(APPLE_ID).unwrap())
    }
}

/// What the kernel makes of an answer about the order of 133 AAPL.
fn outcome(answer: &PaperAnswer) -> OrderOutcome {
    let content = OrderContent::market_order(Symbol::from("AAPL"), OrderSide::Buy, 133);
    let ids = [ClientOrderId::from_hex(APPLE_ID).unwrap()];
    let expected = ExpectedOrder { content: &content, ids: &ids, first_sent_at: NOW };
    let retry_after = answer.headers.iter().find(|(name, _)| *name == "Retry-After");
    let answered = GatewayAnswer::Answered {
        code: answer.status,
        retry_after: retry_after.map(|(_, value)| value.as_str()),
        body: AnswerBody::Whole(&answer.body),
    };
    outcome_of(&answered, &expected, NOW)
}

#[test]
fn the_recorded_order_gets_the_recorded_id_and_answer() {
    let mut paper = Paper::new();

    let answer = paper.ask(PaperRole::Gateway, "POST", "/api/v1/orders", APPLE, NOW);

    let text = String::from_utf8(answer.body).unwrap();
    let (before, after) = text.split_once(r#""broker_order_id":""#).unwrap();
    assert_eq!(before, format!(r#"{{"client_order_id":"{APPLE_ID}","status":"pending_new","#));
    assert_eq!(
        after.split_once('"').unwrap().1,
        concat!(
            r#","symbol":"AAPL","side":"buy","qty":133,"order_type":"market","limit_price":null,"#,
            r#""created_at":"2025-01-02T15:00:00Z","message":"Order submitted"}"#
        )
    );
    let limit = concat!(
        r#"{"symbol":"MSFT","side":"sell","qty":5,"order_type":"limit","#,
        r#""limit_price":"300.495","time_in_force":"gtc"}"#
    );
    let (_, body) = paper.submit(limit, NOW);
    assert_eq!(
        (body["client_order_id"].as_str(), &body["limit_price"]),
        (Some("dbc1c3abf98c0cb5561d131a"), &"300.50".into())
    );
}

#[test]
fn a_repeat_is_answered_with_the_order_as_it_stands_on_one_utc_date() {
    let mut paper = Paper::new();
    paper.submit(APPLE, NOW);

    let (status, body) = paper.submit(APPLE, NOW.plus_ms(SECOND));
    assert_eq!((status, &body["status"]), (200, &"filled".into()));
    assert_eq!(body["message"], "Order already exists (idempotent retry)");
    assert_eq!(body["created_at"], "2025-01-02T15:00:00Z");

    let (_, tomorrow) = paper.submit(APPLE, NOW.plus_ms(86_400_000));
    assert_ne!(tomorrow["client_order_id"], APPLE_ID);
    let counts = paper.counts();
    assert_eq!((counts.requests, counts.accepted, counts.repeats, counts.effects), (2, 1, 1, 1));
    let ledger = paper.gateway("GET", "/ledger", "", NOW.plus_ms(86_400_000)).1;
    assert_eq!((&ledger["intents"][0]["effects"], &ledger["totals"]["effects"]), (&2.into(), &2.into()));
}

#[test]
fn the_kernel_reads_every_answer_as_the_contract_says() {
    let known = |outcome: &OrderOutcome| matches!(outcome, OrderOutcome::Known { .. });
    let rejected = |outcome: &OrderOutcome| matches!(outcome, OrderOutcome::Rejected { .. });
    let not_accepted = |outcome: &OrderOutcome| matches!(outcome, OrderOutcome::NotAccepted(_));
    let unknown = |outcome: &OrderOutcome| matches!(outcome, OrderOutcome::Unknown(_));
    type Is = fn(&OrderOutcome) -> bool;
    let gates = [
        "kill_switch_unavailable",
        "circuit_breaker_unavailable",
        "reservation_unavailable",
        "kill_switch_engaged",
        "circuit_breaker_tripped",
        "quarantine_unavailable",
        "symbol_quarantined",
        "reconciliation_in_progress",
        "broker_unavailable_during_reconciliation",
        "position_lookup_unavailable",
        "database_unavailable",
        "client_not_initialized",
    ];
    let mut cases: Vec<(String, Is, u64)> = vec![
        (r#"{"fault":"fills_never"}"#.to_owned(), known, 1),
        (r#"{"fault":"must_be_unique"}"#.to_owned(), unknown, 1),
        (r#"{"fault":"rate_limited"}"#.to_owned(), not_accepted, 0),
        (r#"{"fault":"rate_limited","header":"absent"}"#.to_owned(), not_accepted, 0),
    ];
    for gate in gates {
        cases.push((format!(r#"{{"fault":"safety_gate","gate":"{gate}"}}"#), not_accepted, 0));
    }
    for status in [401, 403, 404, 405] {
        cases.push((format!(r#"{{"fault":"refused","status":{status}}}"#), not_accepted, 0));
    }
    for by in ["validation", "fat_finger", "schema", "position_limit", "broker"] {
        cases.push((format!(r#"{{"fault":"rejected","by":"{by}"}}"#), rejected, 0));
    }
    for (rule, is_read_so, effects) in cases {
        let mut paper = Paper::with_fault(&rule);

        let answer = paper.ask(PaperRole::Gateway, "POST", "/api/v1/orders", APPLE, NOW);

        let outcome = outcome(&answer);
        assert!(is_read_so(&outcome), "{rule}: {outcome:?}");
        assert_eq!(paper.counts().effects, effects, "{rule}");
        assert_eq!(paper.counts().requests, 1, "{rule}");
    }
}

#[test]
fn an_id_that_must_be_unique_is_rejected_for_ever_and_filled_all_the_same() {
    let mut paper = Paper::with_fault(r#"{"fault":"must_be_unique","times":1}"#);

    let (status, body) = paper.submit(APPLE, NOW);
    let later = NOW.plus_ms(SECOND);
    let (_, repeat) = paper.submit(APPLE, later);
    let (_, read) = paper.read(APPLE_ID, later);

    assert_eq!(
        (status, body["detail"].as_str()),
        (422, Some("Order rejected by broker: client_order_id must be unique"))
    );
    assert_eq!(
        (&repeat["status"], &read["status"], &read["filled_qty"]),
        (&"rejected".into(), &"rejected".into(), &"0".into())
    );
    assert_eq!(read["metadata"]["fills"][0]["fill_id"], format!("{APPLE_ID}_133"));
    let (_, positions) = paper.gateway("GET", "/api/v1/positions", "", later);
    assert_eq!(positions["positions"][0]["qty"], "133");
    assert_eq!(paper.counts().effects, 1);
}

#[test]
fn after_a_broken_connection_to_the_broker_the_record_says_failed() {
    let mut paper = Paper::with_fault(r#"{"fault":"error_after_acceptance","status":503}"#);
    paper.submit(APPLE, NOW);

    let (_, read) = paper.read(APPLE_ID, NOW.plus_ms(SECOND));

    assert_eq!((&read["status"], &read["filled_qty"]), (&"failed".into(), &"0".into()));
    assert_eq!((paper.counts().effects, paper.counts().filled_qty), (1, 133));
}

#[test]
fn fills_are_told_twice_or_reversed_and_counted_once() {
    for (telling, told) in [("fills_twice", [67, 67, 133, 133].as_slice()), ("fills_reversed", &[133, 67])] {
        let mut paper = Paper::with_fault(&format!(r#"{{"fault":"{telling}"}}"#));
        paper.0.set_fault(br#"{"fault":"fills_in_parts","parts":2,"every_ms":10}"#).unwrap();
        paper.submit(APPLE, NOW);

        let answer = paper.ask(
            PaperRole::Gateway,
            "GET",
            &format!("/api/v1/orders/{APPLE_ID}"),
            "",
            NOW.plus_ms(SECOND),
        );

        let content = OrderContent::market_order(Symbol::from("AAPL"), OrderSide::Buy, 133);
        let answered =
            GatewayAnswer::Answered { code: 200, retry_after: None, body: AnswerBody::Whole(&answer.body) };
        let reading = reading_of(&answered, &content, ClientOrderId::from_hex(APPLE_ID).unwrap());
        let OrderReading::Found(view) = reading else { panic!("{reading:?}") };
        let cumulative: Vec<u64> =
            view.fills.iter().map(|fill| fill.cumulative.try_into().unwrap()).collect();
        assert_eq!((cumulative.as_slice(), view.total.filled_qty), (told, 133.into()));
        assert_eq!((paper.counts().fills, paper.counts().filled_qty), (2, 133));
    }
}

#[test]
fn cancels_are_answered_in_the_recorded_words() {
    let mut paper = Paper::with_fault(r#"{"fault":"fills_only","qty":5}"#);
    paper.submit(APPLE, NOW);
    let path = format!("/api/v1/orders/{APPLE_ID}/cancel");

    let first = paper.gateway("POST", &path, "", NOW.plus_ms(SECOND));
    let again = paper.gateway("POST", &path, "", NOW.plus_ms(SECOND));
    let other = paper.gateway("POST", "/api/v1/orders/000000000000000000000000/cancel", "", NOW);

    let said = |message: &str| {
        (200, json!({ "client_order_id": APPLE_ID, "status": "canceled", "message": message }))
    };
    assert_eq!(first, said("Order canceled"));
    assert_eq!(again, said("Order already in terminal state"));
    assert_eq!(other, (404, json!({ "detail": "Order not found: 000000000000000000000000" })));
}

#[test]
fn a_position_beyond_the_limit_is_refused_also_for_a_repeat() {
    let mut paper = Paper::new();
    let order = r#"{"symbol":"AAPL","side":"buy","qty":600}"#;
    assert_eq!(paper.submit(order, NOW).0, 200);

    // The real one reserves before it looks for the order.
    let (status, body) = paper.submit(order, NOW);

    assert_eq!((status, &body["detail"]["error"]), (422, &"Position limit exceeded".into()));
    assert_eq!(
        (&body["detail"]["symbol"], &body["detail"]["max_position_size"]),
        (&"AAPL".into(), &1_000.into())
    );
}

#[test]
fn refusals_without_a_fault_have_their_words() {
    let mut paper = Paper::new();

    let unknown = paper.submit(r#"{"symbol":"NOPE","side":"buy","qty":1}"#, NOW);
    assert_eq!(unknown, (400, json!({ "detail": "Order rejected by fat-finger checks: data_unavailable" })));
    let limit = paper.submit(r#"{"symbol":"AAPL","side":"buy","qty":1,"order_type":"limit"}"#, NOW);
    assert_eq!(
        limit,
        (400, json!({ "detail": "Order validation failed: a limit order has no limit_price" }))
    );
    let (status, body) = paper.submit("{}", NOW);
    assert_eq!((status, body["detail"].as_array().map(Vec::len)), (422, Some(3)));
    assert_eq!(paper.read("nonsense", NOW), (404, json!({ "detail": "Order not found: nonsense" })));
}

#[test]
fn health_and_readiness_say_what_a_fault_says() {
    let mut paper = Paper::new();
    let ask = |paper: &mut Paper, role, path| {
        let answer = paper.ask(role, "GET", path, "", NOW);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        (answer.status, body["service"].clone(), body["status"].clone())
    };
    let signals = |status: &str| (200, "signal_service".into(), status.into());
    let gateway = |status: &str| (200, "execution_gateway".into(), status.into());

    assert_eq!(ask(&mut paper, PaperRole::Signals, "/ready"), signals("healthy"));
    assert_eq!(ask(&mut paper, PaperRole::Signals, "/health"), signals("healthy"));
    assert_eq!(ask(&mut paper, PaperRole::Gateway, "/health"), gateway("healthy"));
    paper.0.set_fault(br#"{"fault":"not_ready","on":"health"}"#).unwrap();
    assert_eq!(ask(&mut paper, PaperRole::Signals, "/ready").0, 503);
    assert_eq!(ask(&mut paper, PaperRole::Signals, "/health"), signals("degraded"));
    assert_eq!(ask(&mut paper, PaperRole::Gateway, "/health"), gateway("degraded"));
}

#[test]
fn the_limit_of_a_minute_is_kept_and_told() {
    let mut paper = Paper(PaperWorld::new(PaperSettings { orders_per_minute: 2, ..settings() }));
    let of = |answer: &PaperAnswer, name: &str| {
        answer.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.clone())
    };
    let mut submit = |at| paper.ask(PaperRole::Gateway, "POST", "/api/v1/orders", APPLE, at);

    let [first, second, third] = [0, 1, 2].map(|second| submit(NOW.plus_ms(second * SECOND)));
    assert_eq!([first.status, second.status, third.status], [200, 200, 429]);
    assert_eq!(of(&first, "X-RateLimit-Remaining").as_deref(), Some("1"));
    assert_eq!(of(&third, "Retry-After").as_deref(), Some("58"));
    assert_eq!(submit(NOW.plus_ms(60 * SECOND)).status, 200);
}

#[test]
fn a_dry_run_logs_and_fills_nothing() {
    let mut paper = Paper(PaperWorld::new(PaperSettings { dry_run: true, ..settings() }));

    let (status, body) = paper.submit(APPLE, NOW);
    let (_, read) = paper.read(APPLE_ID, NOW.plus_ms(60 * SECOND));

    assert_eq!(
        (status, &body["status"], &body["message"]),
        (200, &"dry_run".into(), &"Order logged (DRY_RUN mode)".into())
    );
    assert_eq!(
        (&read["status"], &read["filled_qty"], paper.counts().effects),
        (&"dry_run".into(), &"0".into(), 0)
    );
}

#[test]
fn orders_beyond_what_is_kept_are_refused_by_a_gate() {
    let mut paper = Paper(PaperWorld::new(PaperSettings { orders_max: 2, ..settings() }));
    let mut submit =
        |qty: u64| paper.submit(&format!(r#"{{"symbol":"AAPL","side":"buy","qty":{qty}}}"#), NOW).0;

    assert_eq!([1, 2, 3, 1].map(&mut submit), [200, 200, 503, 200]);
}

#[test]
fn hidden_and_vanished_orders_are_not_found_by_reads() {
    let mut hidden = Paper::with_fault(r#"{"fault":"order_hidden","for_ms":500}"#);
    hidden.submit(APPLE, NOW);
    assert_eq!(hidden.read(APPLE_ID, NOW.plus_ms(499)).0, 404);
    assert_eq!(hidden.read(APPLE_ID, NOW.plus_ms(500)).0, 200);

    let mut vanished = Paper::with_fault(r#"{"fault":"order_vanishes","after_ms":500}"#);
    vanished.submit(APPLE, NOW);
    let later = NOW.plus_ms(500);
    assert_eq!(vanished.read(APPLE_ID, later).0, 404);
    let again = vanished.submit(APPLE, later);
    assert_eq!(again, (422, json!({ "detail": "Order rejected by broker: client_order_id must be unique" })));
    assert_eq!(vanished.counts().effects, 1);
}

#[test]
fn signals_are_read_by_the_kernel_and_sum_up() {
    let mut paper = Paper::new();
    let body = r#"{"symbols":["AAPL","MSFT","GOOGL","AMZN","TSLA"],"as_of_date":"2025-01-02"}"#;

    let (status, text) = paper.signals(body);

    assert_eq!((status, paper.signals(body).1), (200, text.clone()));
    let answer: Value = serde_json::from_str(&text).unwrap();
    let metadata = &answer["metadata"];
    assert_eq!((&metadata["as_of_date"], &metadata["num_signals"]), (&"2025-01-02".into(), &5.into()));
    assert_eq!((&metadata["top_n"], &metadata["bottom_n"]), (&2.into(), &2.into()));
    let requested = ["AAPL", "MSFT", "GOOGL", "AMZN", "TSLA"].map(Symbol::from).into();
    assert!(read_signals(text.as_bytes(), &requested).is_ok());
}

#[test]
fn refused_requests_for_signals_have_the_recorded_words() {
    let mut paper = Paper::new();
    for (body, status, part) in [
        (r#"{"symbols":[]}"#, 422, r#""loc":["body","symbols"]"#),
        (r#"{"symbols":["AAPL"],"as_of_date":"bad"}"#, 422, r#""loc":["body","as_of_date"]"#),
        (
            r#"{"symbols":["AAPL"],"top_n":2,"bottom_n":1}"#,
            400,
            "Cannot select 2 long + 1 short from 1 symbols",
        ),
        (r#"{"symbols":["AAPL","X"]}"#, 400, "Invalid request: No features available for 2025-01-02: X"),
        (r#"{"symbols":["AAPL"],"as_of_date":"2025-01-04"}"#, 400, "No features available for 2025-01-04"),
        (r#"{"symbols":["AAPL"],"as_of_date":"2025-01-03"}"#, 400, "No features available for 2025-01-03"),
    ] {
        let (found, text) = paper.signals(body);
        assert_eq!(found, status, "{body}: {text}");
        assert!(text.contains(part), "{body}: {text}");
    }
}

#[test]
fn wrong_signals_are_wrong_in_the_way_that_was_asked_for() {
    let body = r#"{"symbols":["AAPL","MSFT"],"as_of_date":"2025-01-02"}"#;
    for (how, part) in [
        ("bare_nan", r#""target_weight":NaN"#),
        ("text_infinity", r#""target_weight":"Infinity""#),
        ("null_weight", r#""target_weight":null"#),
        ("missing_weight", r#""rank":1}"#),
        ("zero_weights", r#""rank":2,"target_weight":0}"#),
        ("empty", r#""signals":[]"#),
        ("doubled", r#""num_signals":3"#),
    ] {
        let mut paper =
            Paper::with_fault(&format!(r#"{{"fault":"wrong_signals","how":"{how}","on":"signals"}}"#));
        let (status, text) = paper.signals(body);
        assert!(status == 200 && text.contains(part), "{how}: {text}");
    }
}

#[test]
fn the_clock_the_quotes_and_the_positions_can_be_set() {
    let mut paper = Paper::new();

    let shifted = paper.gateway("POST", "/paper/clock", r#"{"offset_ms":86400000}"#, NOW);
    assert_eq!(shifted, (200, json!({ "offset_ms": 86_400_000, "now": "2025-01-03T15:00:00Z" })));
    assert_ne!(paper.submit(APPLE, NOW).1["client_order_id"], APPLE_ID);
    let (_, quote) = paper.gateway("POST", "/paper/quotes", r#"{"symbol":"AAPL","price":"150.25"}"#, NOW);
    assert_eq!((&quote["mid"], &quote["bid"]), (&"150.25".into(), &"150.24".into()));
    let position = r#"{"symbol":"TSLA","qty":-7,"avg_entry_price":"200"}"#;
    assert_eq!(paper.gateway("POST", "/paper/positions", position, NOW).0, 200);
    let (_, positions) = paper.gateway("GET", "/api/v1/positions", "", NOW);
    assert_eq!(positions["positions"][0]["qty"], "-7");

    for (path, body) in [
        ("/paper/clock", r#"{"offset_ms":99999999999999}"#),
        ("/paper/clock", r#"{"offset":1}"#),
        ("/paper/quotes", r#"{"symbol":"AAPL","price":"NaN"}"#),
        ("/paper/quotes", r#"{"symbol":"AAPL","price":0}"#),
        ("/paper/quotes", r#"{"symbol":"X","price":1}"#),
        ("/paper/positions", r#"{"symbol":"AAPL","qty":1.5,"avg_entry_price":1}"#),
        ("/paper/faults", r#"{"fault":"x"}"#),
    ] {
        assert_eq!(paper.gateway("POST", path, body, NOW).0, 422, "{path} {body}");
    }
}
