//! Which requests a rule strikes, and what is refused.

use super::*;

fn request(id: u8, symbol: &'static str) -> FaultedRequest<'static> {
    let id = ClientOrderId::from_hex(&format!("{id:024x}"));
    FaultedRequest { route: PaperRoute::Submit, id, symbol: Some(symbol), side: Some(OrderSide::Buy) }
}

fn strikes(faults: &mut PaperFaults, id: u8, symbol: &'static str) -> bool {
    faults.plan_request(request(id, symbol), BrokerPlan::undisturbed(20)).answer.is_some()
}

fn with(rule: &str) -> PaperFaults {
    let mut faults = PaperFaults::new(7);
    faults.set_fault(rule.as_bytes()).unwrap();
    faults
}

#[test]
fn a_rule_strikes_the_orders_of_its_scope() {
    let mut nth = with(r#"{"fault":"reset_after_acceptance","symbol":"AAPL","nth":2,"times":2}"#);
    let struck = [(1, "AAPL"), (2, "MSFT"), (3, "AAPL"), (1, "AAPL"), (3, "AAPL"), (3, "AAPL"), (4, "AAPL")]
        .map(|(id, symbol)| strikes(&mut nth, id, symbol));
    assert_eq!(struck, [false, false, true, false, true, false, false]);
    assert_eq!(nth.list_faults()[0]["hits"], 2);

    let mut each = with(r#"{"fault":"reset_after_acceptance","times_per_order":1}"#);
    let struck = [1, 1, 2, 2, 1].map(|id| strikes(&mut each, id, "AAPL"));
    assert_eq!(struck, [true, false, true, false, false]);

    let mut half = with(r#"{"fault":"cut_answer","percent":50}"#);
    let struck = (0..200).filter(|id| strikes(&mut half, *id, "AAPL")).count();
    assert!((60..140).contains(&struck), "{struck}");
}

#[test]
fn of_two_rules_for_the_same_thing_the_earlier_one_wins_and_others_add_up() {
    let mut faults = with(r#"{"fault":"cut_answer"}"#);
    for rule in [
        r#"{"fault":"garbage_answer"}"#,
        r#"{"fault":"latency","before_ms":5}"#,
        r#"{"fault":"latency","before_ms":7,"after_ms":1}"#,
        r#"{"fault":"fills_only","qty":3}"#,
        r#"{"fault":"cancel_lost"}"#,
    ] {
        faults.set_fault(rule.as_bytes()).unwrap();
    }

    let plan = faults.plan_request(request(1, "AAPL"), BrokerPlan::undisturbed(20));

    assert_eq!((plan.answer, plan.before_ms, plan.after_ms), (Some(AnswerFault::Cut), 12, 1));
    assert_eq!(plan.broker.fills, crate::adapters::paper::broker::FillPlan::Only { qty: 3 });
    let hits: Vec<u64> = faults.list_faults().iter().map(|rule| rule["hits"].as_u64().unwrap()).collect();
    assert_eq!(hits, [1, 0, 1, 1, 1, 1]);
}

#[test]
fn what_is_not_understood_is_refused_and_says_what_there_is() {
    let mut faults = PaperFaults::new(7);
    for (rule, part) in [
        (r#"{"fault":"explode"}"#, "unknown variant `explode`"),
        (r#"{"fault":"cut_answer","wobble":1}"#, "unknown field `wobble`"),
        (r#"{"fault":"latency","before":1}"#, "unknown field `before`"),
        (r#"{"symbol":"AAPL"}"#, "missing field `fault`"),
        (r#"{"fault":"cut_answer","on":"elsewhere"}"#, "unknown variant `elsewhere`"),
        (r#"{"fault":"fills_only","qty":0}"#, "qty is at least 1"),
        (r#"{"fault":"fills_only","qty":1,"on":"read"}"#, "fault fills_only does not exist on route read"),
        (r#"{"fault":"error_after_acceptance","status":404}"#, "status is from 500 to 599"),
        (r#"{"fault":"cut_answer","nth":0}"#, "nth counts from 1"),
        (r#"{"fault":"cut_answer","percent":101}"#, "percent is from 1 to 100"),
        (r#"{"fault":"cut_answer","client_order_id":"x"}"#, "client_order_id has 24"),
        (r#"{"fault":"cut_answer","on":"config","symbol":"AAPL"}"#, "on is a route without orders"),
        (r#"{"fault":"timeout_after_acceptance","hold_ms":600001}"#, "hold_ms is at most 600000"),
        ("[]", ""),
        ("no", ""),
    ] {
        let refused = faults.set_fault(rule.as_bytes()).expect_err(rule).to_string();
        assert!(refused.contains(part), "{rule}: {refused}");
    }
    assert!(faults.list_faults().is_empty());
}

#[test]
fn rules_are_listed_removed_and_bounded() {
    let mut faults = PaperFaults::new(7);
    for _ in 0..RULES_MAX {
        faults.set_fault(br#"{"fault":"cut_answer"}"#).unwrap();
    }

    assert_eq!(faults.set_fault(br#"{"fault":"cut_answer"}"#), Err(FaultRefused::TooMany));
    assert!(faults.remove_fault(3) && !faults.remove_fault(3));
    assert_eq!(faults.list_faults().len(), RULES_MAX - 1);
    assert_eq!(faults.clear_faults(), RULES_MAX - 1);
}
