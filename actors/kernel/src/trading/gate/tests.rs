//! Gates by their tables, cell by cell.

use rust_decimal::Decimal;

use super::*;
use crate::kill_switch::{Halt, Lease, TradingState};
use crate::trading::stage::{HookMode, HookMoment};
use crate::trading::testkit::{dec, hook, strategy_name};

fn word(verdict: &GateVerdict) -> &'static str {
    match verdict {
        GateVerdict::Allow => "allow",
        GateVerdict::Deny(_) => "deny",
        GateVerdict::Noted(_) => "noted",
    }
}

/// Method: a real lease, read at 0, asked at 100 ms and at its end.
#[test]
fn only_a_reading_of_trading_that_still_counts_permits() {
    let at = Duration::from_millis;
    let read = |reading| {
        let mut lease = Lease::new(at(500), Duration::ZERO);
        lease.on_read(Duration::ZERO, at(1), Ok(reading));
        lease
    };
    let halted =
        TradingState::Halted(Halt { by: Some("ops".to_owned()), reason: Some("odd".to_owned()), at: None });

    let fresh = KillReading::from_permit(&read(TradingState::Trading).issue_permit(at(100)), None);
    assert_eq!(fresh, KillReading::Permit { age_ms: 100, left_ms: 400 });
    assert_eq!(judge_kill_switch(&fresh), GateVerdict::Allow);

    let old = KillReading::from_permit(&read(TradingState::Trading).issue_permit(at(500)), None);
    assert_eq!(word(&judge_kill_switch(&old)), "deny");

    let stopped = KillReading::from_permit(&read(halted).issue_permit(at(100)), None);
    assert_eq!(judge_kill_switch(&stopped), GateVerdict::Deny("halted by ops: odd".to_owned()));

    let never = KillReading::from_permit(&Lease::new(at(500), Duration::ZERO).issue_permit(at(1)), None);
    assert_eq!(word(&judge_kill_switch(&never)), "deny");

    let latched =
        KillReading::from_permit(&read(TradingState::Trading).issue_permit(at(100)), Some("by event"));
    assert_eq!(judge_kill_switch(&latched), GateVerdict::Deny("latched: by event".to_owned()));

    let kept_too_long = KillReading::Permit { age_ms: 500, left_ms: 0 };
    assert_eq!(word(&judge_kill_switch(&kept_too_long)), "deny");
}

#[test]
fn only_a_running_agent_that_has_caught_up_allows() {
    for (status, catching_up, expected) in [
        (AgentStatus::Running, false, "allow"),
        (AgentStatus::Running, true, "deny"),
        (AgentStatus::Paused, false, "deny"),
        (AgentStatus::Stopped, false, "deny"),
        (AgentStatus::Error, false, "deny"),
    ] {
        assert_eq!(word(&judge_agent(AgentReading { status, catching_up })), expected, "{status:?}");
    }
}

#[test]
fn one_active_strategy_is_enough_for_a_stage_and_only_its_own_for_an_intent() {
    let (a, b) = (strategy_name("a"), strategy_name("b"));
    let strategies = [(a.clone(), StrategyStatus::Paused), (b.clone(), StrategyStatus::Active)];

    for (only, expected) in [(None, "allow"), (Some(&a), "deny"), (Some(&b), "allow")] {
        assert_eq!(word(&judge_strategies(&strategies, only)), expected, "{only:?}");
    }
    assert_eq!(word(&judge_strategies(&strategies[..1], None)), "deny");
    assert_eq!(word(&judge_strategies(&[], None)), "deny");
}

#[test]
fn an_announcement_makes_the_calendar_only_stricter() {
    for (calendar_allows, announcement_allows, expected) in [
        (true, None, "allow"),
        (true, Some(true), "allow"),
        (true, Some(false), "deny"),
        (false, None, "deny"),
        (false, Some(true), "deny"),
        (false, Some(false), "deny"),
    ] {
        let reading = SessionReading { calendar_allows, announcement_allows };
        assert_eq!(word(&judge_session(reading)), expected, "{reading:?}");
    }
}

#[test]
fn an_input_is_stale_when_it_is_older_than_the_limit() {
    let limit = Some(Duration::from_millis(180));
    for (newest, limit, expected) in [
        (Some(820), limit, "allow"),
        (Some(819), limit, "deny"),
        (Some(5000), limit, "allow"),
        (Some(i64::MIN), limit, "deny"),
        (None, limit, "deny"),
        (None, None, "allow"),
        (Some(0), None, "allow"),
    ] {
        let verdict = judge_staleness(newest.map(TsMs), TsMs(1000), limit);
        assert_eq!(word(&verdict), expected, "{newest:?} {limit:?}");
    }
}

/// One hook's case: its answer, and what it is worth HARD and SOFT, with whether its patch is applied.
#[test]
fn a_hard_objection_denies_a_soft_one_is_noted_and_no_patch_widens() {
    let id = |id: &str| DecisionId::new(id).unwrap();
    let limit = |of: &str, quantity: &str| Narrowing::Limit { decision_id: id(of), quantity: dec(quantity) };
    let answer = |vote, patch: &[Narrowing]| {
        Ok(HookAnswer { vote, reasons: vec!["why".to_owned()], patch: patch.to_vec() })
    };
    let modify = |patch: &[Narrowing]| answer(HookVote::Modify, patch);
    // "sized" may have 10 shares now, the quantity of "open" is open.
    let ceiling = |of: &DecisionId| match of.as_str() {
        "sized" => Some(Some(Decimal::TEN)),
        "open" => Some(None),
        _ => None,
    };
    for (answer, hard, soft, applied) in [
        (answer(HookVote::Allow, &[]), "allow", "allow", false),
        (answer(HookVote::Allow, &[limit("sized", "11")]), "allow", "allow", false),
        (answer(HookVote::Deny, &[]), "deny", "noted", false),
        (Err(HookError::TimedOut), "deny", "noted", false),
        (Err(HookError::Failed("garbage".to_owned())), "deny", "noted", false),
        (modify(&[]), "allow", "allow", false),
        (modify(&[limit("sized", "10")]), "allow", "allow", true),
        (modify(&[limit("sized", "0")]), "allow", "allow", true),
        (modify(&[limit("sized", "10.1")]), "deny", "noted", false),
        (modify(&[limit("sized", "-1")]), "deny", "noted", false),
        (modify(&[limit("open", "500")]), "allow", "allow", true),
        (modify(&[Narrowing::Drop(id("open"))]), "allow", "allow", true),
        (modify(&[Narrowing::Drop(id("other"))]), "deny", "noted", false),
        (modify(&[limit("sized", "5"), limit("other", "5")]), "deny", "noted", false),
    ] {
        for (mode, expected) in [(HookMode::Hard, hard), (HookMode::Soft, soft)] {
            let hook = hook("gov", "SIG", HookMoment::After, mode);
            let ruling = judge_hook(&hook, answer.as_ref(), ceiling);
            assert_eq!(word(&ruling.verdict), expected, "{mode:?} {answer:?}");
            assert_eq!(!ruling.narrowed.is_empty(), applied, "{mode:?} {answer:?}");
        }
    }
}
