//! The table, cell by cell: every answer that the contract names, and what it does not name.

use proptest::prelude::*;

use super::*;
use crate::ids::Symbol;
use crate::trading::order::id::possible_ids;
use crate::trading::order::{OrderSide, OrderType};

/// 2025-01-02T15:00:00Z: when the first attempt was sent.
const SENT: TsMs = TsMs(1_735_830_000_000);
const NOW: TsMs = TsMs(1_735_830_000_500);
const ID: &str = "479131535213089960f7eebb";

fn content() -> OrderContent {
    OrderContent::market_order(Symbol::from("AAPL"), OrderSide::Buy, 133)
}

fn outcome(answer: &GatewayAnswer<'_>) -> OrderOutcome {
    outcome_for(&content(), answer)
}

fn outcome_for(content: &OrderContent, answer: &GatewayAnswer<'_>) -> OrderOutcome {
    let ids = possible_ids(content, "alpha_baseline", SENT, 300_000);
    outcome_of(answer, &ExpectedOrder { content, ids: &ids, first_sent_at: SENT }, NOW)
}

fn answered(code: u16, body: &str) -> OrderOutcome {
    outcome(&GatewayAnswer::Answered { code, retry_after: None, body: AnswerBody::Whole(body.as_bytes()) })
}

/// The gateway's answer to our order, with fields changed.
fn order(changes: &[(&str, Value)]) -> String {
    let mut body = serde_json::json!({
        "client_order_id": ID, "status": "pending_new", "broker_order_id": "b-1", "symbol": "AAPL",
        "side": "buy", "qty": 133, "order_type": "market", "limit_price": null,
        "created_at": "2025-01-02T15:00:00.100000Z", "message": "Order submitted",
    });
    for (key, value) in changes {
        body[key] = value.clone();
    }
    body.to_string()
}

fn with_status(status: OrderStatus) -> String {
    order(&[("status", status.as_str().into())])
}

fn is_rejected(outcome: &OrderOutcome) -> bool {
    matches!(outcome, OrderOutcome::Rejected { .. })
}

fn is_gate(outcome: &OrderOutcome) -> bool {
    matches!(outcome, OrderOutcome::NotAccepted(NotAccepted::SafetyGate { .. }))
}

fn is_unknown(outcome: &OrderOutcome) -> bool {
    matches!(outcome, OrderOutcome::Unknown(_))
}

#[test]
fn our_order_is_known_with_its_status() {
    for code in [200, 201] {
        assert_eq!(
            answered(code, &order(&[])),
            OrderOutcome::Known {
                id: ClientOrderId::from_hex(ID).unwrap(),
                status: OrderStatus::PendingNew,
                broker_order_id: Some("b-1".to_owned()),
            }
        );
    }
}

#[test]
fn each_status_of_a_first_answer_is_worth_its_class() {
    for status in OrderStatus::ALL {
        let outcome = answered(200, &with_status(*status));

        match status.class() {
            StatusClass::Open | StatusClass::Ended | StatusClass::DryRun => {
                assert!(matches!(outcome, OrderOutcome::Known { status: known, .. } if known == *status));
            }
            StatusClass::Rejected => assert!(is_rejected(&outcome), "{status}"),
            StatusClass::Unknown => {
                assert_eq!(outcome, OrderOutcome::Unknown(UnknownOutcome::Status(*status)));
            }
        }
    }
}

/// A repeat says so, or the order is older than our first attempt.
#[test]
fn a_repeat_with_the_end_of_an_earlier_attempt_is_unknown() {
    let says_so = ("message", Value::from("Order already exists (idempotent retry)"));
    let is_older = ("created_at", Value::from("2025-01-02T14:59:59.999Z"));
    for repeat in [says_so, is_older] {
        for status in OrderStatus::ALL {
            let body = order(&[("status", status.as_str().into()), repeat.clone()]);
            let outcome = answered(200, &body);
            let first = answered(200, &with_status(*status));

            if status.is_doubtful_in_a_repeat() {
                let doubt = UnknownOutcome::DoubtfulRepeat(*status);
                assert_eq!(outcome, OrderOutcome::Unknown(doubt), "{status}");
            } else {
                assert_eq!(is_rejected(&outcome), is_rejected(&first), "{status}");
                assert_eq!(is_unknown(&outcome), is_unknown(&first), "{status}");
            }
        }
    }
}

#[test]
fn an_order_made_at_the_moment_of_our_first_attempt_is_no_repeat() {
    let body = order(&[("status", "rejected".into()), ("created_at", "2025-01-02T15:00:00.000Z".into())]);

    assert!(is_rejected(&answered(200, &body)));
}

#[test]
fn another_id_or_content_is_unknown() {
    for change in [
        ("client_order_id", Value::from("dbc1c3abf98c0cb5561d131a")),
        ("client_order_id", "".into()),
        ("symbol", "AAPLX".into()),
        ("side", "sell".into()),
        ("qty", 132.into()),
        ("qty", "NaN".into()),
        ("order_type", "limit".into()),
        ("limit_price", "1.00".into()),
        ("stop_price", "1.00".into()),
    ] {
        let outcome = answered(200, &order(std::slice::from_ref(&change)));
        assert_eq!(outcome, OrderOutcome::Unknown(UnknownOutcome::OtherOrder), "{change:?}");
    }
}

#[test]
fn prices_are_compared_as_the_gateway_keeps_them() {
    let content = OrderContent {
        order_type: OrderType::Limit,
        limit_price: Some("300.505".parse().unwrap()),
        ..content()
    };
    let id = possible_ids(&content, "alpha_baseline", SENT, 300_000)[0].to_string();
    let answer = |price: Value| {
        let body = order(&[
            ("client_order_id", id.as_str().into()),
            ("order_type", "limit".into()),
            ("limit_price", price),
        ]);
        outcome_for(
            &content,
            &GatewayAnswer::Answered {
                code: 200,
                retry_after: None,
                body: AnswerBody::Whole(body.as_bytes()),
            },
        )
    };

    for same in [Value::from("300.505"), "300.51".into(), serde_json::json!(300.51)] {
        assert!(matches!(answer(same), OrderOutcome::Known { .. }));
    }
    for other in [Value::from("300.50"), Value::Null] {
        assert_eq!(answer(other), OrderOutcome::Unknown(UnknownOutcome::OtherOrder));
    }
}

#[test]
fn an_answer_that_cannot_be_read_is_unknown() {
    let garbage = [
        "",
        "null",
        "[]",
        "<html>",
        "{\"status\":\"filled\"}",
        "\u{0}\u{1}",
        &order(&[("status", "Filled".into())]),
        &order(&[("status", Value::Null)]),
        &order(&[("created_at", "2025-01-02T15:00:00".into())]),
        &order(&[("message", Value::Null)]),
        &order(&[])[..100],
        &format!("{}{}", order(&[]), order(&[])),
    ];
    for body in garbage {
        assert_eq!(answered(200, body), OrderOutcome::Unknown(UnknownOutcome::Unreadable), "{body}");
    }
    for code in [202, 204, 206, 299] {
        assert_eq!(answered(code, &order(&[])), OrderOutcome::Unknown(UnknownOutcome::Unreadable));
    }
}

#[test]
fn a_body_that_is_cut_or_too_large_is_unknown_where_its_text_decides() {
    for body in [AnswerBody::Cut, AnswerBody::TooLarge] {
        for code in [200, 201, 400, 422, 500, 502, 503, 418] {
            let answer = GatewayAnswer::Answered { code, retry_after: None, body: body.clone() };
            assert_eq!(outcome(&answer), OrderOutcome::Unknown(UnknownOutcome::NotWhole), "{code}");
        }
        // The code alone says that it was not accepted.
        for code in [401, 403, 404, 405, 429] {
            let answer = GatewayAnswer::Answered { code, retry_after: None, body: body.clone() };
            assert!(matches!(outcome(&answer), OrderOutcome::NotAccepted(_)), "{code}");
        }
    }
}

#[test]
fn a_redirect_is_unknown() {
    for code in [300, 301, 302, 303, 307, 308] {
        assert_eq!(answered(code, &order(&[])), OrderOutcome::Unknown(UnknownOutcome::Redirect));
    }
}

#[test]
fn validation_and_the_brokers_refusal_are_rejections() {
    for (code, body, reason) in [
        (400, r#"{"detail":"Order validation failed: qty"}"#, "Order validation failed: qty"),
        (
            400,
            r#"{"detail":"Order rejected by fat-finger checks: data_unavailable"}"#,
            "Order rejected by fat-finger checks: data_unavailable",
        ),
        (400, "Bad Request", "answer 400"),
        (422, r#"{"detail":[{"loc":["body","qty"]}]}"#, r#"[{"loc":["body","qty"]}]"#),
        (422, r#"{"detail":[]}"#, "[]"),
        (
            422,
            r#"{"detail":{"error":"Position limit exceeded","message":"too many","symbol":"AAPL"}}"#,
            "Position limit exceeded: too many",
        ),
        (
            422,
            r#"{"detail":"Order rejected by broker: insufficient buying power"}"#,
            "Order rejected by broker: insufficient buying power",
        ),
    ] {
        assert_eq!(answered(code, body), OrderOutcome::Rejected { reason: reason.to_owned() }, "{body}");
    }
}

#[test]
fn any_other_422_is_unknown() {
    for body in [
        r#"{"detail":"Something else"}"#,
        r#"{"detail":{"error":"Something else"}}"#,
        r#"{"detail":{}}"#,
        r#"{"detail":null}"#,
        r#"{"error":"Position limit exceeded"}"#,
        r#"["Order rejected by broker"]"#,
        "Order rejected by broker: no",
        "",
    ] {
        assert!(is_unknown(&answered(422, body)), "{body}");
    }
}

/// F22: the broker had accepted the attempt before; the gateway then says `rejected` for ever.
#[test]
fn an_id_that_must_be_unique_is_at_the_broker_already() {
    for (code, body) in [
        (422, r#"{"detail":"Order rejected by broker: client_order_id must be unique"}"#),
        (422, r#"{"detail":"Order rejected by broker: Client_Order_Id must be unique (40010001)"}"#),
        (422, r#"{"detail":{"error":"rejected","message":"client_order_id must be unique"}}"#),
        (422, r#"{"detail":[{"msg":"client_order_id must be unique"}]}"#),
        (422, "client_order_id must be unique"),
        (400, r#"{"detail":"Order validation failed: client_order_id must be unique"}"#),
        (200, &order(&[("status", "rejected".into()), ("message", "client_order_id must be unique".into())])),
    ] {
        assert_eq!(answered(code, body), OrderOutcome::Unknown(UnknownOutcome::MustBeUnique), "{body}");
    }
}

#[test]
fn a_wrong_setting_is_named() {
    let token = r#"{"detail":{"error":"invalid_internal_token","message":"bad signature"}}"#;
    for (code, body, said) in [
        (
            401,
            token,
            "the secret or the service id of the gateway's client is wrong \
             (401: invalid_internal_token: bad signature)",
        ),
        (403, "", "the service may not place orders: its rights at the gateway are wrong (403: )"),
        (404, r#"{"detail":"Not Found"}"#, "the gateway's url is wrong (404: Not Found)"),
        (405, "<html>", "the gateway's url is wrong (405: )"),
    ] {
        let OrderOutcome::NotAccepted(why) = answered(code, body) else { panic!("{code}") };
        assert!(matches!(why, NotAccepted::SettingWrong { code: found, .. } if found == code));
        assert_eq!(why.to_string(), said);
    }
}

#[test]
fn after_429_nothing_is_sent_before_retry_after() {
    let until = |retry_after: Option<&str>| {
        let body = AnswerBody::Whole(br#"{"detail":{"error":"rate_limited","retry_after":5}}"#);
        match outcome(&GatewayAnswer::Answered { code: 429, retry_after, body }) {
            OrderOutcome::NotAccepted(NotAccepted::RateLimited { until }) => until.0 - NOW.0,
            other => panic!("{other:?}"),
        }
    };

    assert_eq!(until(Some("7")), 7000);
    assert_eq!(until(Some(" 0 ")), 0);
    assert_eq!(until(Some("Thu, 02 Jan 2025 15:01:40 GMT")), 99_500);
    assert_eq!(until(Some("Thu, 02 Jan 2025 14:00:00 GMT")), 0);
    for absent in [None, Some(""), Some("soon"), Some("-5"), Some("1.5")] {
        assert_eq!(until(absent), 60_000, "{absent:?}");
    }
    assert_eq!(retry_at(Some("99999999999999999999"), NOW), TsMs(i64::MAX));
}

#[test]
fn a_503_of_a_safety_gate_is_not_accepted() {
    for text in GATE_TEXTS {
        let body = serde_json::json!({ "detail": text }).to_string();
        assert!(is_gate(&answered(503, &body)), "{text}");
    }
    for error in GATE_ERRORS {
        let body = serde_json::json!({ "detail": { "error": error, "message": "m" } }).to_string();
        assert!(is_gate(&answered(503, &body)), "{error}");
    }
}

#[test]
fn any_other_503_is_unknown() {
    for body in [
        r#"{"detail":"Broker connection error: timed out"}"#,
        r#"{"detail":"Kill-switch engaged"}"#,
        r#"{"detail":{"error":"Broker connection error"}}"#,
        r#"{"detail":{"error":"Kill-switch engaged - new orders blocked"}}"#,
        r#"{"detail":["Symbol quarantined"]}"#,
        r#"{"detail":null}"#,
        "Service Unavailable",
        "",
    ] {
        assert!(is_unknown(&answered(503, body)), "{body}");
    }
}

#[test]
fn every_other_code_is_unknown() {
    let named = [400, 401, 403, 404, 405, 422, 429];
    for code in (100..200).chain(400..1000).filter(|code| !named.contains(code)) {
        for body in ["Internal Server Error", "{\"detail\":\"Kill-switch engaged\"}", &order(&[])] {
            assert!(is_unknown(&answered(code, body)), "{code} {body}");
        }
    }
}

#[test]
fn silence_is_unknown() {
    for why in ["timeout", "connection reset", "connection closed before an answer"] {
        let outcome = outcome(&GatewayAnswer::Silence(why));
        assert_eq!(outcome, OrderOutcome::Unknown(UnknownOutcome::Silence(why.to_owned())));
    }
}

proptest! {
    /// No body makes it panic, and none of a code that the table calls unknown is believed.
    #[test]
    fn no_bytes_make_it_panic_or_believe(
        code in 0..1000u16, body in prop::collection::vec(any::<u8>(), 0..200), retry_after in ".{0,20}",
    ) {
        let answer = GatewayAnswer::Answered {
            code, retry_after: Some(&retry_after), body: AnswerBody::Whole(&body),
        };
        let outcome = outcome(&answer);

        if !matches!(code, 400 | 401 | 403..=405 | 429) {
            prop_assert!(is_unknown(&outcome), "{code} is {outcome:?}");
        }
    }

    /// Stored texts are bounded, however long the answer is.
    #[test]
    fn reasons_are_bounded(length in 0..5000usize) {
        let long = "é".repeat(length);
        let body = serde_json::json!({ "detail": format!("Order rejected by broker: {long}") }).to_string();
        for code in [400, 401, 422, 500, 503] {
            let stored = postcard::to_stdvec(&answered(code, &body)).unwrap();
            prop_assert!(stored.len() < 600);
        }
    }
}
