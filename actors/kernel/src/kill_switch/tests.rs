//! What values mean, what commands write, and that no lease is ever stretched.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::ids::TsMs;

const fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn text(value: &str) -> Stored {
    Stored::Value(Bytes::copy_from_slice(value.as_bytes()))
}

fn word(stored: &Stored) -> &'static str {
    match TradingState::of_stored(stored) {
        TradingState::Trading => "trading",
        TradingState::Halted(_) => "halted",
        TradingState::Unknown(_) => "unknown",
    }
}

#[test]
fn only_the_values_of_the_contract_mean_something() {
    for (value, meaning) in [
        (r#"{"state":"ACTIVE"}"#, "trading"),
        (" {\"state\": \"ACTIVE\", \"engaged_at\": null, \"new\": [1]}\n", "trading"),
        ("disengaged", "trading"),
        ("0", "trading"),
        ("false", "trading"),
        ("off", "trading"),
        (r#"{"state":"ENGAGED"}"#, "halted"),
        (r#"{"state":"ENGAGED","engaged_by":7,"engagement_count_today":"x"}"#, "halted"),
        ("engaged", "halted"),
        ("1", "halted"),
        ("true", "halted"),
        ("on", "halted"),
    ] {
        assert_eq!(word(&text(value)), meaning, "{value}");
    }
    for value in [
        "ACTIVE",
        "ENGAGED",
        "active",
        "OFF",
        "off ",
        "off\n",
        " off",
        "\"off\"",
        "clear",
        "",
        "null",
        "2",
        "-0",
        "0.0",
        "{}",
        "[]",
        r#"{"state":"active"}"#,
        r#"{"state":"OPEN"}"#,
        r#"{"state":true}"#,
        r#"{"STATE":"ACTIVE"}"#,
        r#"{"state":"ACTIVE"} x"#,
        r#"[{"state":"ACTIVE"}]"#,
        r#"{"a":{"state":"ACTIVE"}}"#,
        "{\"state\":\"ACTIVE\"",
    ] {
        assert_eq!(word(&text(value)), "unknown", "{value}");
    }
    let unknown = |stored| TradingState::of_stored(&stored) == TradingState::Unknown(UnknownReason::TooLong);
    assert!(unknown(Stored::TooLong) && !unknown(Stored::NotText) && !unknown(Stored::Missing));
}

#[test]
fn a_value_that_says_both_means_nothing() {
    for value in [r#"{"state":"ENGAGED","state":"ACTIVE"}"#, r#"{"state":"ACTIVE","state":"ACTIVE"}"#] {
        assert_eq!(word(&text(value)), "unknown", "{value}");
    }
    let deep = format!("{{\"state\":\"ACTIVE\",\"engagement_details\":{}}}", "[".repeat(20_000));
    assert_eq!(word(&text(&deep)), "unknown");
    let no_text = Stored::Value(Bytes::from_static(b"{\"state\":\"ACTIVE\",\"x\":\"\xff\"}"));
    assert_eq!(word(&no_text), "unknown");
}

#[test]
fn who_halted_is_one_bounded_line() {
    let value = json!({"state": "ENGAGED", "engaged_by": "a\nb", "engagement_reason": "é".repeat(9999)});

    let TradingState::Halted(halt) = TradingState::of_stored(&text(&value.to_string())) else {
        panic!("halted")
    };

    assert_eq!(halt.by.as_deref(), Some("a b"));
    assert!(halt.to_string().len() < 600, "{halt}");
}

#[test]
fn engagements_are_counted_per_day() {
    let day = |day: i64| TsMs(1_767_225_600_000 + day * 86_400_000);
    let engage =
        OperatorCommand::Engage { operator: "ops".to_owned(), reason: "r".to_owned(), details: None };
    let lift = OperatorCommand::Disengage { operator: "ops".to_owned(), notes: None };
    let mut stored = Stored::Missing;
    let mut counts = Vec::new();
    for at in [day(0), day(0), day(0), day(1), day(1)] {
        let change = decide(&stored, &engage, at).unwrap();
        let record: serde_json::Value = serde_json::from_str(&change.value).unwrap();
        counts.push(record["engagement_count_today"].as_u64().unwrap());
        stored = text(&decide(&text(&change.value), &lift, at).unwrap().value);
    }

    assert_eq!(counts, [1, 2, 3, 1, 2]);
}

/// Method: a stop without a history, and what whoever lifts it finds.
#[test]
fn the_line_that_a_stop_owes_is_the_one_that_it_would_have_written() {
    let details = serde_json::json!({"limit": 1e5, "b": 1, "a": [true, null, "\u{7f}"]}).as_object().cloned();
    let stop = OperatorCommand::Engage { operator: "ops".to_owned(), reason: "\"odd\"".to_owned(), details };
    let stopped = decide(&text("off"), &stop, TsMs(0)).unwrap();

    assert_eq!(owed_entry(&text(&stopped.value)), Some(stopped.entry));
    for nobody in ["off", "on", "{\"state\":\"ENGAGED\"}", "{\"state\":\"ACTIVE\",\"engaged_at\":\"x\"}"] {
        assert_eq!(owed_entry(&text(nobody)), None, "{nobody}");
    }
}

#[test]
fn what_is_written_can_always_be_read() {
    let padding = "x".repeat(VALUE_BYTES_MAX - 60);
    let stored = text(&json!({"state": "ENGAGED", "engagement_details": padding}).to_string());
    assert_eq!(word(&stored), "halted");
    let lift = OperatorCommand::Disengage { operator: "ops".to_owned(), notes: Some("n".repeat(4096)) };

    let change = decide(&stored, &lift, TsMs(0)).unwrap();

    assert!(change.value.len() <= VALUE_BYTES_MAX);
    assert_eq!(word(&text(&change.value)), "trading");
}

const TERM: Duration = ms(500);

fn halted() -> Result<TradingState, KillSwitchReadError> {
    Ok(TradingState::Halted(Halt::default()))
}

#[test]
fn a_permit_counts_from_when_the_read_was_sent() {
    let mut lease = Lease::new(TERM, ms(0));
    assert_eq!(lease.issue_permit(ms(0)), Err(PermitRefused::Unknown(UnknownReason::NotReadYet)));

    lease.on_read(ms(100), ms(190), Ok(TradingState::Trading));

    let permit = lease.issue_permit(ms(200)).unwrap();
    assert_eq!((permit.reading_age(), permit.time_left()), (ms(100), ms(400)));
    assert!(lease.issue_permit(ms(599)).is_ok());
    assert!(matches!(lease.issue_permit(ms(600)), Err(PermitRefused::Stale { age, .. }) if age == ms(500)));
    assert!(lease.issue_permit(ms(599)).is_ok(), "asking decides nothing");
    let ended = lease.settle_expiry(ms(700)).unwrap();
    assert_eq!((ended.at, ended.from, ended.to.state_word()), (ms(600), "trading", "unknown"));
    assert!(lease.issue_permit(ms(599)).is_err(), "time does not go back");
}

#[test]
fn what_blocks_counts_at_once_and_what_allows_only_when_asked_for_later() {
    let mut lease = Lease::new(TERM, ms(0));
    lease.on_read(ms(0), ms(1), Ok(TradingState::Trading));

    lease.on_read(ms(10), ms(20), halted());
    lease.on_read(ms(15), ms(21), Ok(TradingState::Trading));
    assert_eq!(lease.issue_permit(ms(21)), Err(PermitRefused::Halted(Halt::default())));

    lease.on_read(ms(22), ms(23), Ok(TradingState::Trading));
    assert!(lease.issue_permit(ms(23)).is_ok());
    lease.on_read(ms(5), ms(24), Ok(TradingState::Unknown(UnknownReason::Missing)));
    assert_eq!(lease.issue_permit(ms(24)), Err(PermitRefused::Unknown(UnknownReason::Missing)));
    lease.on_read(ms(25), ms(26), Ok(TradingState::Trading));
    lease.on_read(ms(27), ms(28), Err(KillSwitchReadError::Refused("NOPERM".to_owned())));
    assert_eq!(
        lease.issue_permit(ms(28)),
        Err(PermitRefused::Unknown(UnknownReason::Refused("NOPERM".to_owned())))
    );
}

#[test]
fn no_answer_lets_the_lease_run_out_and_says_why() {
    let mut lease = Lease::new(TERM, ms(0));
    lease.on_read(ms(0), ms(1), Ok(TradingState::Trading));
    for at in [100, 200, 300, 400] {
        let changes =
            lease.on_read(ms(at), ms(at + 99), Err(KillSwitchReadError::NoAnswer("timed out".to_owned())));
        assert!(changes.is_empty() && lease.issue_permit(ms(at + 99)).is_ok());
    }

    let changes = lease.on_read(ms(500), ms(599), Err(KillSwitchReadError::NoAnswer("refused".to_owned())));

    assert_eq!(changes.len(), 1);
    assert_eq!(
        lease.issue_permit(ms(599)),
        Err(PermitRefused::Stale { age: ms(599), why: "timed out".to_owned() })
    );
    lease.on_read(ms(600), ms(601), Ok(TradingState::Trading));
    assert!(lease.issue_permit(ms(601)).is_ok(), "it recovers by itself");
}

#[test]
fn an_answer_older_than_its_lease_allows_nothing() {
    let mut lease = Lease::new(TERM, ms(0));

    assert_eq!(lease.on_read(ms(0), ms(500), Ok(TradingState::Trading)), []);

    assert!(lease.issue_permit(ms(500)).is_err());
}

#[test]
fn recent_transitions_are_bounded_and_only_changes_count() {
    let mut lease = Lease::new(TERM, ms(0));
    for number in 0..300 {
        lease.on_read(ms(number * 10), ms(number * 10 + 1), Ok(TradingState::Trading));
        lease.on_read(ms(number * 10 + 2), ms(number * 10 + 3), halted());
        lease.on_read(ms(number * 10 + 4), ms(number * 10 + 5), halted());
    }

    assert_eq!(lease.recent_changes().count(), RECENT_MAX);
    assert!(
        lease
            .recent_changes()
            .zip(lease.recent_changes().skip(1))
            .all(|(a, b)| a.at < b.at && a.to.state_word() == b.from)
    );
    let view = lease.view_at(ms(3000));
    assert_eq!((view.state.state_word(), view.age, view.lasted), ("halted", Some(ms(6)), ms(7)));
}

#[derive(Clone, Debug)]
enum Step {
    Read { sent: u64, received: u64, outcome: u8 },
    Ask { now: u64 },
    Settle { now: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..3000u64, 0..3000u64, 0..5u8).prop_map(|(sent, received, outcome)| Step::Read {
            sent,
            received,
            outcome
        }),
        (0..3000u64).prop_map(|now| Step::Ask { now }),
        (0..3000u64).prop_map(|now| Step::Settle { now }),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// KILL-1. Method: any reads and questions at any times, backwards and forwards; whenever there is a permit, some
    /// read that said Trading was sent less than a term before the latest moment ever named, and nothing that blocks
    /// has been received since it was sent.
    #[test]
    fn no_permit_without_a_fresh_reading(steps in steps()) {
        let mut lease = Lease::new(TERM, ms(0));
        let (mut latest, mut allowed, mut blocked) = (ms(0), Vec::new(), None);
        for step in steps {
            match step {
                Step::Read { sent, received, outcome } => {
                    latest = latest.max(ms(received));
                    let sent = ms(sent);
                    match outcome {
                        0 | 1 => allowed.push(sent.min(latest)),
                        2 | 3 => blocked = Some(latest),
                        _ => {}
                    }
                    let outcome = match outcome {
                        0 | 1 => Ok(TradingState::Trading),
                        2 => halted(),
                        3 => Ok(TradingState::Unknown(UnknownReason::Missing)),
                        _ => Err(KillSwitchReadError::NoAnswer("timed out".to_owned())),
                    };
                    lease.on_read(sent, ms(received), outcome);
                }
                Step::Settle { now } => {
                    latest = latest.max(ms(now));
                    lease.settle_expiry(ms(now));
                }
                Step::Ask { now } => {
                    let permit = lease.issue_permit(ms(now));
                    let now = latest.max(ms(now));
                    let reason = allowed.iter().any(|sent| now - *sent < TERM && blocked.is_none_or(|at| at < *sent));
                    if let Ok(permit) = permit {
                        prop_assert!(reason, "a permit without reason at {now:?}");
                        prop_assert!(permit.reading_age() < TERM && permit.reading_age() + permit.time_left() == TERM);
                    }
                }
            }
        }
    }

    /// KILL-2. Method: any commands on any value; trading is allowed afterwards only if it was before, or by an init
    /// on nothing, or by a disengagement of an engaged switch.
    #[test]
    fn only_an_operators_act_allows_trading(
        values in prop::collection::vec(
            prop::sample::select(vec!["", "off", "on", "ACTIVE", "{\"state\":\"ACTIVE\"}", "{\"state\":\"ENGAGED\"}", "x"]), 1..5,
        ),
        acts in prop::collection::vec(0..3u8, 1..10),
    ) {
        for value in values {
            let mut stored = if value.is_empty() { Stored::Missing } else { text(value) };
            for act in &acts {
                let operator = "ops".to_owned();
                let command = match act {
                    0 => OperatorCommand::Init { operator },
                    1 => OperatorCommand::Engage { operator, reason: "r".to_owned(), details: None },
                    _ => OperatorCommand::Disengage { operator, notes: None },
                };
                let before = word(&stored);
                match decide(&stored, &command, TsMs(0)) {
                    Err(_) => prop_assert!(!command.only_blocks() || before == "halted", "engage works: {stored:?}"),
                    Ok(change) => {
                        let after = word(&text(&change.value));
                        let lifted = *act == 2 && before == "halted";
                        let first = *act == 0 && stored == Stored::Missing;
                        prop_assert_eq!(after == "trading", lifted || first);
                        prop_assert_eq!(after == "halted", command.only_blocks());
                        stored = text(&change.value);
                    }
                }
            }
        }
    }

    /// KILL-4. Method: a stop overwrites a value in place, its first byte last and marked until then; torn at every
    /// byte, over whatever allowed trading, it allows nothing.
    #[test]
    fn a_torn_overwrite_by_a_stop_never_reads_as_trading(
        operator in "[a-zA-Z\\\\\"{}:,]{1,20}",
        reason in prop::sample::select(vec!["ACTIVE", "\",\"state\":\"ACTIVE\"}", "odd prices", "{}"]),
        before in prop::sample::select(vec![0, 1, 2, 3, 4, 5, 6, 7]),
    ) {
        let init = decide(&Stored::Missing, &OperatorCommand::Init { operator: operator.clone() }, TsMs(0)).unwrap().value;
        let stop = OperatorCommand::Engage { operator: operator.clone(), reason: reason.to_owned(), details: None };
        let halted = decide(&Stored::Missing, &stop, TsMs(0)).unwrap().value;
        let lift = OperatorCommand::Disengage { operator, notes: Some(reason.to_owned()) };
        let lifted = decide(&text(&halted), &lift, TsMs(1)).unwrap().value;
        let nested = format!("{{\"x\":{{\"state\":\"ACTIVE\"}},\"state\":\"ACTIVE\",\"y\":\"{}\"}}", "a".repeat(400));
        let values = [init.as_str(), &lifted, "off", "0", "false", "disengaged", " {\"state\":\"ACTIVE\"}", &nested];
        let old = values[before].as_bytes();
        let new = decide(&text(values[before]), &stop, TsMs(2)).unwrap().value.into_bytes();

        for written in 1..=new.len() {
            let mut torn = b"!".to_vec();
            torn.extend_from_slice(&new[1..written]);
            torn.extend_from_slice(old.get(written..).unwrap_or_default());
            let reading = TradingState::of_stored(&Stored::Value(Bytes::from(torn.clone())));
            prop_assert_ne!(reading, TradingState::Trading, "{}", String::from_utf8_lossy(&torn));
        }
        // The whole value, before what is left of a longer one is blanked or cut off.
        let mut whole = new.clone();
        whole.extend_from_slice(old.get(new.len()..).unwrap_or_default());
        prop_assert_ne!(TradingState::of_stored(&Stored::Value(Bytes::from(whole))), TradingState::Trading);
    }

    /// Method: any bytes; what is not in the table of [`Reading::of`] never allows trading.
    #[test]
    fn bytes_that_say_nothing_allow_nothing(value in prop::collection::vec(any::<u8>(), 0..200)) {
        let listed = [&b"disengaged"[..], b"0", b"false", b"off"].contains(&value.as_slice());
        let record = serde_json::from_slice::<serde_json::Value>(&value).is_ok_and(|json| json["state"] == "ACTIVE");
        let reading = TradingState::of_stored(&Stored::Value(Bytes::from(value)));
        prop_assert_eq!(reading == TradingState::Trading, listed || record);
    }
}
