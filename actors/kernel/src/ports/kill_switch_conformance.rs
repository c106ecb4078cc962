//! The suite that every store of the kill switch passes unchanged: each promise of the port as one check.
//!
//! It needs no runtime: the caller blocks on [`run`] with whatever the provider needs.
#![allow(clippy::expect_used, reason = "a provider that breaks a promise must stop the suite loudly")]

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::kill_switch::{ApplyError, KillSwitchRead as _, KillSwitchStore};
use crate::ids::TsMs;
use crate::kill_switch::{
    HISTORY_MAX, OperatorCommand, Refusal, Shortfall, Stored, TradingState, UnknownReason, VALUE_BYTES_MAX,
};

/// Makes the stores that the suite works on.
#[async_trait]
pub trait KillSwitchProvider: Send + Sync {
    /// What is tested.
    type Store: KillSwitchStore + 'static;

    /// A store that holds nothing.
    async fn fresh(&self) -> Arc<Self::Store>;

    /// Stores `value` as somebody else's tool would, past the store; `None` removes what is there.
    async fn put(&self, store: &Self::Store, value: Option<&[u8]>);

    /// Appends lines to the history as somebody else's tool would, past the store.
    async fn put_history(&self, store: &Self::Store, lines: Vec<String>);

    /// Makes the history one that nothing can be appended to.
    async fn spoil_history(&self, store: &Self::Store);
}

/// Runs the whole suite.
///
/// # Panics
///
/// When the provider breaks a promise.
pub async fn run(provider: &impl KillSwitchProvider) {
    nothing_stored_is_unknown(provider).await;
    values_of_others_are_read_as_they_are(provider).await;
    only_init_on_nothing_creates_trading_allowed(provider).await;
    engage_works_whatever_is_stored(provider).await;
    disengage_lifts_only_what_is_engaged(provider).await;
    records_are_those_of_the_contract(provider).await;
    unfit_commands_change_nothing(provider).await;
    one_of_many_commands_at_once_wins(provider).await;
    a_stop_needs_no_history_and_permission_needs_one(provider).await;
    a_stop_wins_over_a_permission_that_is_under_way(provider).await;
    a_change_is_announced(provider).await;
    history_keeps_the_last_lines_in_order(provider).await;
}

/// 2026-01-01T00:00:00Z.
const NOW: TsMs = TsMs(1_767_225_600_000);

fn init() -> OperatorCommand {
    OperatorCommand::Init { operator: "ops_team".to_owned() }
}

fn engage(reason: &str) -> OperatorCommand {
    let details = json!({"anomaly": "flash_crash"}).as_object().cloned();
    OperatorCommand::Engage { operator: "ops_team".to_owned(), reason: reason.to_owned(), details }
}

fn disengage() -> OperatorCommand {
    OperatorCommand::Disengage {
        operator: "second".to_owned(),
        notes: Some("prices are right again".to_owned()),
    }
}

async fn reading(store: &impl KillSwitchStore) -> TradingState {
    TradingState::of_stored(&store.read_value().await.expect("the store can be read"))
}

#[track_caller]
fn refusal<T: std::fmt::Debug>(result: Result<T, ApplyError>) -> Refusal {
    match result {
        Err(ApplyError::Refused(refusal)) => refusal,
        other => panic!("must be refused: {other:?}"),
    }
}

async fn nothing_stored_is_unknown(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;

    assert_eq!(store.read_value().await, Ok(Stored::Missing));
    assert_eq!(reading(&*store).await, TradingState::Unknown(UnknownReason::Missing));
    assert_eq!(store.read_history(10).await, Ok(Vec::new()));
    assert!(!store.place_text().is_empty());
    assert_eq!(store.read_value().await, Ok(Stored::Missing), "reading creates nothing (KILL-2)");
}

async fn values_of_others_are_read_as_they_are(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    let longest = vec![b'x'; VALUE_BYTES_MAX];

    for value in [&b"off"[..], b"ACTIVE", b"{\"state\":\"ENGAGED\"}", b"\xff\x00\r", &longest] {
        provider.put(&store, Some(value)).await;
        let read = store.read_value().await;
        assert!(matches!(&read, Ok(Stored::Value(read)) if read.as_ref() == value), "{read:?}");
    }
    provider.put(&store, Some(&vec![b'x'; VALUE_BYTES_MAX + 1])).await;
    assert_eq!(store.read_value().await, Ok(Stored::TooLong));
    provider.put(&store, Some(&vec![b'x'; 10 << 20])).await;
    assert_eq!(store.read_value().await, Ok(Stored::TooLong));
    provider.put(&store, None).await;
    assert_eq!(store.read_value().await, Ok(Stored::Missing));
}

async fn only_init_on_nothing_creates_trading_allowed(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    store.apply_command(&init(), NOW).await.expect("nothing is stored");
    assert_eq!(reading(&*store).await, TradingState::Trading);

    for taken in [None, Some(&b"engaged"[..]), Some(b"garbage"), Some(&vec![b'x'; VALUE_BYTES_MAX + 1])] {
        if let Some(value) = taken {
            provider.put(&store, Some(value)).await;
        }
        let before = store.read_value().await;
        assert_eq!(refusal(store.apply_command(&init(), NOW).await), Refusal::NotMissing);
        assert_eq!(store.read_value().await, before, "init overwrites nothing (KILL-2)");
    }
}

async fn engage_works_whatever_is_stored(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    let too_long = vec![b'{'; VALUE_BYTES_MAX + 1];
    let values = [None, Some(&b"off"[..]), Some(b"garbage"), Some(b"{}"), Some(&too_long)];
    // Each a moment later: the same words at the same millisecond are the same act, which is recorded once.
    for (later, value) in (0..).zip(values) {
        provider.put(&store, value).await;

        let now = TsMs(NOW.0 + later);
        store.apply_command(&engage("for a reason"), now).await.expect("engage always works");

        let TradingState::Halted(halt) = reading(&*store).await else { panic!("not halted over {value:?}") };
        assert_eq!((halt.by.as_deref(), halt.reason.as_deref()), (Some("ops_team"), Some("for a reason")));
        assert_eq!(refusal(store.apply_command(&engage("again"), NOW).await), Refusal::AlreadyEngaged);
        assert_eq!(reading(&*store).await, TradingState::Halted(halt), "who engaged it first stays");
    }
    assert_eq!(store.read_history(100).await.map(|lines| lines.len()), Ok(5));
}

async fn disengage_lifts_only_what_is_engaged(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    for (value, expected) in [
        (None, Refusal::NotKnown(UnknownReason::Missing)),
        (Some(&b"off"[..]), Refusal::NotEngaged),
        (Some(b"garbage"), Refusal::NotKnown(UnknownReason::NotAState { shown: "\"garbage\"".to_owned() })),
    ] {
        provider.put(&store, value).await;
        let before = store.read_value().await;

        assert_eq!(refusal(store.apply_command(&disengage(), NOW).await), expected);

        assert_eq!(store.read_value().await, before, "nothing but an operator's act allows trading (KILL-2)");
    }
    for halted in [&b"on"[..], b"{\"state\":\"ENGAGED\"}"] {
        provider.put(&store, Some(halted)).await;
        store.apply_command(&disengage(), NOW).await.expect("it is engaged");
        assert_eq!(reading(&*store).await, TradingState::Trading);
        assert_eq!(refusal(store.apply_command(&disengage(), NOW).await), Refusal::NotEngaged);
    }
}

async fn records_are_those_of_the_contract(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    store.apply_command(&init(), NOW).await.expect("nothing is stored");
    store.apply_command(&engage("Market anomaly"), NOW).await.expect("it is not engaged");

    let engaged = json!({
        "state": "ENGAGED", "engaged_at": "2026-01-01T00:00:00+00:00", "engaged_by": "ops_team",
        "engagement_reason": "Market anomaly", "engagement_details": {"anomaly": "flash_crash"},
        "disengaged_at": null, "disengaged_by": null, "engagement_count_today": 1,
    });
    assert_eq!(record(&*store).await, engaged);

    let later = TsMs(NOW.0 + 61_250);
    store.apply_command(&disengage(), later).await.expect("it is engaged");

    let mut disengaged = engaged;
    disengaged["state"] = json!("ACTIVE");
    disengaged["disengaged_at"] = json!("2026-01-01T00:01:01.250+00:00");
    disengaged["disengaged_by"] = json!("second");
    disengaged["disengagement_notes"] = json!("prices are right again");
    assert_eq!(record(&*store).await, disengaged);

    let history = store.read_history(10).await.expect("the store can be read");
    let lines: Vec<Value> = history.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let expected = [
        json!({"event": "INITIALIZED", "timestamp": "2026-01-01T00:00:00+00:00", "operator": "ops_team"}),
        json!({
            "event": "ENGAGED", "timestamp": "2026-01-01T00:00:00+00:00", "operator": "ops_team",
            "reason": "Market anomaly", "details": {"anomaly": "flash_crash"},
        }),
        json!({
            "event": "DISENGAGED", "timestamp": "2026-01-01T00:01:01.250+00:00", "operator": "second",
            "notes": "prices are right again",
        }),
    ];
    assert_eq!(lines, expected);
}

async fn record(store: &impl KillSwitchStore) -> Value {
    match store.read_value().await {
        Ok(Stored::Value(value)) => serde_json::from_slice(&value).expect("records are JSON"),
        other => panic!("no record: {other:?}"),
    }
}

async fn unfit_commands_change_nothing(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    let long = "x".repeat(100_000);
    for unfit in [
        OperatorCommand::Init { operator: " ".to_owned() },
        OperatorCommand::Engage { operator: "a\nb".to_owned(), reason: "r".to_owned(), details: None },
        OperatorCommand::Engage { operator: "ops".to_owned(), reason: long.clone(), details: None },
        OperatorCommand::Engage {
            operator: "ops".to_owned(),
            reason: "r".to_owned(),
            details: json!({"k": long}).as_object().cloned(),
        },
    ] {
        let refused = refusal(store.apply_command(&unfit, NOW).await);
        assert!(matches!(refused, Refusal::Unfit { .. }), "{refused:?}");
    }
    assert_eq!(store.read_value().await, Ok(Stored::Missing));
}

/// Method: eight engagements at once, then eight disengagements; each round has one winner, the others are told.
async fn one_of_many_commands_at_once_wins(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    store.apply_command(&init(), NOW).await.expect("nothing is stored");
    for (command, loser) in
        [(engage("all at once"), Refusal::AlreadyEngaged), (disengage(), Refusal::NotEngaged)]
    {
        let results = join_all((0..8).map(|_| store.apply_command(&command, NOW)).collect()).await;
        let (won, lost): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1, "{lost:?}");
        for result in lost {
            assert_eq!(refusal(result), loser);
        }
    }
    assert_eq!(store.read_history(100).await.map(|lines| lines.len()), Ok(3));
}

/// KILL-4.
async fn a_stop_needs_no_history_and_permission_needs_one(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    provider.spoil_history(&store).await;
    let refused = store.apply_command(&init(), NOW).await;
    assert!(matches!(refused, Err(ApplyError::Unchanged(_))), "{refused:?}");
    assert_eq!(store.read_value().await, Ok(Stored::Missing));
    provider.put(&store, Some(b"off")).await;

    let applied = store.apply_command(&engage("no record"), NOW).await.expect("engage always works");

    assert!(matches!(applied.shortfalls.as_slice(), [Shortfall::Unrecorded(_)]), "{applied:?}");
    let halted = reading(&*store).await;
    assert!(matches!(halted, TradingState::Halted(_)), "{halted:?}");
    let refused = store.apply_command(&disengage(), NOW).await;
    assert!(matches!(refused, Err(ApplyError::Unchanged(_))), "{refused:?}");
    assert_eq!(reading(&*store).await, halted, "nothing is allowed without a record");
}

/// KILL-4. Method: one lifts a stop while others stop, at once. Whoever was told that it is engaged finds it so: what
/// was lifted is what was there before.
async fn a_stop_wins_over_a_permission_that_is_under_way(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    let (lift, stop, other) = (disengage(), engage("meanwhile"), engage("meanwhile, too"));
    for round in 0..20 {
        let now = TsMs(NOW.0 + round);
        provider.put(&store, Some(b"on")).await;
        let commands = [&lift, &stop, &lift, &other];
        let results =
            join_all(commands.map(|command| store.apply_command(command, now)).into_iter().collect()).await;

        let engaged = results.iter().flatten().any(|applied| applied.change.entry.contains("\"ENGAGED\""));
        let lifts = results.iter().flatten().filter(|applied| !applied.change.entry.contains("\"ENGAGED\""));
        let halted = matches!(reading(&*store).await, TradingState::Halted(_));
        assert!(halted || !engaged || lifts.count() == 2, "round {round}: {results:?}");
    }
}

async fn a_change_is_announced(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    store.apply_command(&engage("to be announced"), NOW).await.expect("engage always works");
    store.wait_changed().await;
}

/// Method: as many lines as are kept are there already, and several times as many commands as may be kept beyond.
async fn history_keeps_the_last_lines_in_order(provider: &impl KillSwitchProvider) {
    let store = provider.fresh().await;
    store.apply_command(&init(), NOW).await.expect("nothing is stored");
    let old =
        (0..HISTORY_MAX).map(|number| json!({"event": "ENGAGED", "reason": number.to_string()}).to_string());
    provider.put_history(&store, old.collect()).await;
    for number in 0..60 {
        let now = TsMs(NOW.0 + number);
        store.apply_command(&engage(&number.to_string()), now).await.expect("it is not engaged");
        store.apply_command(&disengage(), now).await.expect("it is engaged");
    }

    let all = store.read_history(usize::MAX).await.expect("the store can be read");
    assert_eq!(all.len(), HISTORY_MAX);
    assert!(all[0].contains("\"reason\":\"120\""), "{}", all[0]);
    let last = store.read_history(2).await.expect("the store can be read");
    assert_eq!(last, all[HISTORY_MAX - 2..]);
    assert!(last[0].contains("\"reason\":\"59\"") && last[1].contains("DISENGAGED"), "{last:?}");
    assert_eq!(store.read_history(0).await, Ok(Vec::new()));
}

type Applying<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Drives all futures to their end, on whatever executor the caller has.
async fn join_all<T>(mut futures: Vec<Applying<'_, T>>) -> Vec<T> {
    let mut results = Vec::new();
    poll_fn(|context| {
        futures.retain_mut(|future| match future.as_mut().poll(context) {
            Poll::Ready(result) => {
                results.push(result);
                false
            }
            Poll::Pending => true,
        });
        if futures.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results
}
