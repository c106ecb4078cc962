//! The stored form: golden bytes, the chain, and what is no record.

use crate::trading::schedule::FireSkipReason;
use proptest::prelude::*;

use super::*;
use crate::ids::Symbol;
use crate::trading::agent::{AgentCause, AgentCommand, AgentState, AgentStatus};
use crate::trading::cycle::{CycleEndReason, CycleErrorCode, CycleStatus};
use crate::trading::gate::{GatePlace, Narrowing};
use crate::trading::ids::{CommandId, IntentId};
use crate::trading::pipeline::heartbeat_pipeline;
use crate::trading::risk::RiskMode;
use crate::trading::stage::{HookMode, HookMoment};
use crate::trading::strategy::{StrategyCommand, StrategyStatus};
use crate::trading::testkit::{
    CycleScript, CycleWalk, WALL, allowed, cycle_id, dec, decision, decision_id, hook, open_readings,
    schedule_name, stage_name, started, strategy, strategy_name,
};

fn entry(fact: JournalFact) -> JournalEntry {
    JournalEntry {
        who: JournalAuthor::Schedule(schedule_name("daily")),
        planned_ts_ms: Some(TsMs(WALL)),
        at_ms: TsMs(WALL + 12),
        correlation: cycle_id(1).correlation_id(),
        fact,
    }
}

/// One fact of each kind, in the order of the format.
fn one_of_each() -> Vec<JournalFact> {
    let command_id = CommandId::derive("key-1");
    let trigger =
        FireTrigger::Event { topic: "ai.decision.generated".to_owned(), event_id: "e-1".to_owned() };
    let readings = Some(open_readings());
    let mut cycle = started(heartbeat_pipeline());
    cycle.pipeline.stages.truncate(1);
    cycle.pipeline.hooks = vec![hook("gov", "check_service_health", HookMoment::After, HookMode::Soft)];
    cycle.symbols = vec![Symbol::from("AAPL")];
    cycle.decisions = vec![decision("d-1", "a", "AAPL", "10.5")];
    let narrowed = vec![
        Narrowing::Drop(decision_id("d-2")),
        Narrowing::Limit { decision_id: decision_id("d-1"), quantity: dec("3.50") },
    ];
    let output = StageOutput {
        data: r#"{"price":"150.10"}"#.to_owned(),
        decisions: vec![decision("d-1", "a", "AAPL", "10")],
        verdicts: vec![allowed("d-1", "10")],
        failures: vec![StrategyFailure {
            strategy: strategy_name("b"),
            error: StageError::new(StageErrorKind::Timeout, "late"),
        }],
    };
    let cycle_id = cycle_id(1);
    vec![
        JournalFact::CommandReceived(CommandReceived {
            command_id,
            name: "agent/start".to_owned(),
            body: "{}".to_owned(),
            from: "127.0.0.1".to_owned(),
        }),
        JournalFact::CommandEnded(CommandEnded {
            command_id,
            outcome: CommandOutcome::Refused { status: 409, detail: "the agent is running".to_owned() },
        }),
        JournalFact::AgentChanged(AgentChanged {
            from: AgentStatus::Stopped,
            cause: AgentCause::Command(AgentCommand::Start {
                strategies: None,
                mode: Some(RiskMode::Conservative),
            }),
            state: AgentState {
                status: AgentStatus::Running,
                started_at: Some(TsMs(WALL)),
                ..AgentState::default()
            },
        }),
        JournalFact::StrategyChanged(StrategyChanged::Moved {
            name: strategy_name("a"),
            from: StrategyStatus::Active,
            to: StrategyStatus::Stopped,
            command: StrategyCommand::Deactivate { close_positions: true },
        }),
        JournalFact::ScheduleFired(ScheduleFired {
            schedule: schedule_name("daily"),
            fire: 7,
            planned_ts_ms: TsMs(WALL),
            trigger: trigger.clone(),
            cycle_id,
            disposition: FireDisposition::Queue,
        }),
        JournalFact::ScheduleSkipped(ScheduleSkipped {
            schedule: schedule_name("daily"),
            first_fire: 8,
            fires: 60,
            first_planned_ts_ms: TsMs(WALL),
            last_planned_ts_ms: TsMs(WALL + 59_000),
            trigger,
            reason: FireSkipReason::Misfire,
        }),
        JournalFact::CycleStarted(Box::new(cycle)),
        JournalFact::GateDecided(Box::new(GateDecided {
            cycle_id,
            place: GatePlace::BeforeIntent(decision_id("d-1")),
            readings,
            checks: vec![],
            narrowed,
        })),
        JournalFact::StageEnded(Box::new(StageEnded {
            cycle_id,
            stage: 3,
            name: stage_name("RISK"),
            attempts: 2,
            took_ms: 17,
            outcome: StageOutcome::Done(output),
        })),
        JournalFact::OrderIntended(Box::new(OrderIntended {
            intent_id: IntentId::derive(cycle_id, &decision_id("d-1")),
            cycle_id,
            decision_id: decision_id("d-1"),
            strategy: strategy_name("a"),
            symbol: "AAPL".into(),
            side: IntentSide::Sell,
            quantity: dec("10"),
            price: dec("150.10"),
            end: IntentEnd::DryRun,
        })),
        JournalFact::CycleEnded(Box::new(CycleEnded {
            cycle_id,
            status: CycleStatus::Degraded,
            reason: CycleEndReason::OutOfTime,
            finished_at: TsMs(WALL + 5000),
            spent_ms: 5000,
            counts: CycleCounts { strategies_processed: 1, decisions: 2, intents: 1 },
            errors: vec![CycleError {
                stage: Some(stage_name("ANA")),
                strategy: None,
                code: CycleErrorCode::Timeout,
                detail: "late".to_owned(),
            }],
            audit_failed: false,
        })),
        JournalFact::AlertRaised(AlertRaised {
            alert: "calendar_ends".to_owned(),
            detail: "in 59 days".to_owned(),
        }),
        JournalFact::AlertCleared(AlertCleared { alert: "calendar_ends".to_owned() }),
        JournalFact::ConfigurationSnapshot(ConfigurationSnapshot {
            settings: [("trading.enabled".to_owned(), "true".to_owned())].into(),
            tz_database: "2025b".to_owned(),
            code: "1.0.0+abc".to_owned(),
        }),
        JournalFact::KillLatched(KillLatched { latched: true, reason: "by event".to_owned() }),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record that fails here says that journals written before are no longer read: raise the version instead.
#[test]
fn records_have_the_golden_bytes_of_version_1() {
    const GOLDEN: &str = include_str!("../../../../../tests/golden/journal_records_v1.txt");
    let mut previous = ChainHash::START;
    let mut stored = Vec::new();
    for fact in one_of_each() {
        let mut bytes = Vec::new();
        previous = seal_entry(previous, &entry(fact), &mut bytes);
        stored.push(bytes);
    }
    let lines = one_of_each().into_iter().zip(&stored);
    let lines: Vec<String> =
        lines.map(|(fact, bytes)| format!("{} {}\n", fact.kind_word(), hex(bytes))).collect();
    assert_eq!(lines.concat(), GOLDEN);

    let mut previous = ChainHash::START;
    for (fact, bytes) in one_of_each().into_iter().zip(&stored) {
        let read = SealedEntry::decode_after(previous, bytes).unwrap();
        assert_eq!(read.entry, entry(fact));
        previous = read.hash;
    }
}

/// Vector from outside: `sha256(bytes(32) + body)` in Python.
#[test]
fn the_first_record_continues_32_zero_bytes() {
    let mut bytes = Vec::new();
    let latched = JournalFact::KillLatched(KillLatched { latched: true, reason: "odd".to_owned() });
    let operator = JournalEntry {
        who: JournalAuthor::Operator("ops".to_owned()),
        planned_ts_ms: None,
        ..entry(latched)
    };
    seal_entry(ChainHash::START, &operator, &mut bytes);

    let (body, hash) = bytes.split_last_chunk::<CHAIN_HASH_BYTES>().unwrap();
    assert_eq!(
        hex(body),
        "0101036f707300d89addd2f4662434383965346463622d326138352d3835\
         63382d393332392d3765366235656132333161380e01036f6464"
    );
    assert_eq!(hex(hash), "6083cae587b9e304959c57bdeaf81b3f5cb953891359c5c72468bdaccae78908");
}

#[test]
fn only_what_has_an_effect_waits_for_the_disk() {
    let waiting: Vec<_> =
        one_of_each().iter().filter(|fact| fact.has_effect()).map(JournalFact::kind_word).collect();

    assert_eq!(
        waiting,
        ["command_ended", "agent_changed", "strategy_changed", "cycle_ended", "kill_latched"]
    );
    let Some(JournalFact::OrderIntended(mut intent)) = one_of_each().into_iter().nth(9) else {
        panic!("an intent")
    };
    intent.end = IntentEnd::HandedOn;
    assert!(JournalFact::OrderIntended(intent).has_effect());
}

/// A cycle without effects costs one wait for the disk, not one a stage.
#[test]
fn a_dry_cycle_waits_once() {
    let mut walk =
        CycleWalk::new(started(crate::trading::pipeline::canonical_pipeline()), CycleScript::default());
    walk.walk();

    assert_eq!(walk.facts.iter().filter(|fact| fact.has_effect()).count(), 1);
    assert!(walk.facts.last().unwrap().has_effect());
}

#[test]
fn the_export_is_one_line_with_who_when_and_the_fact() {
    for fact in one_of_each() {
        let kind = fact.kind_word();
        let line = entry(fact).to_wire(JournalSeq(3), ChainHash::START);

        let told: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((told["kind"].as_str(), told["seq"].as_u64()), (Some(kind), Some(3)));
        assert_eq!(told["who"], serde_json::json!({"kind": "schedule", "name": "daily"}));
        assert_eq!(
            (&told["planned"], &told["at"]),
            (&"2026-01-09T23:51:00+00:00".into(), &"2026-01-09T23:51:00.012+00:00".into())
        );
        assert!(told["fact"].is_object(), "{line}");
        if let Some(cycle) = told["fact"].get("cycle_id") {
            assert_eq!(cycle.as_str(), Some(cycle_id(1).to_string().as_str()), "{line}");
        }
        assert!(!line.contains('\n'));
    }
}

#[test]
fn equal_configurations_have_one_hash_and_different_ones_two() {
    let of = |settings: &[(&str, &str)], code: &str| {
        let settings =
            settings.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect();
        ConfigurationSnapshot { settings, tz_database: "2025b".to_owned(), code: code.to_owned() }
            .config_hash()
    };

    assert_eq!(of(&[("a", "1"), ("b", "2")], "c"), of(&[("b", "2"), ("a", "1")], "c"));
    for other in [of(&[("a", "1")], "c"), of(&[("a", "1\n1:b=1:2")], "c"), of(&[("a", "1"), ("b", "2")], "d")]
    {
        assert_ne!(of(&[("a", "1"), ("b", "2")], "c"), other);
    }
    let definition = StrategyChanged::Defined { definition: strategy("a"), status: StrategyStatus::Active };
    assert_eq!(JournalFact::StrategyChanged(definition).kind_word(), "strategy_changed");
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written_and_any_altered_byte_is_seen(
        kind in 0..15usize,
        at in any::<i64>(),
        planned in any::<Option<i64>>(),
        name in "[a-z]{1,12}",
        previous in any::<[u8; 32]>(),
        flip in any::<(usize, u8)>(),
    ) {
        let fact = one_of_each().remove(kind);
        let who = JournalAuthor::Actor(name.clone());
        let correlation = CorrelationId::new(&name).unwrap();
        let written = JournalEntry { who, planned_ts_ms: planned.map(TsMs), at_ms: TsMs(at), correlation, fact };
        let previous = ChainHash::START.hash_of_next(&previous);
        let mut bytes = Vec::new();
        let hash = seal_entry(previous, &written, &mut bytes);

        let read = SealedEntry::decode_after(previous, &bytes);
        prop_assert_eq!(read, Ok(SealedEntry { entry: written.clone(), hash }));
        prop_assert_eq!(SealedEntry::decode(&bytes), Ok(SealedEntry { entry: written, hash }));
        prop_assert!(SealedEntry::decode_after(hash, &bytes).is_err(), "after another record");

        let at = flip.0 % bytes.len();
        bytes[at] ^= flip.1.max(1);
        let altered = SealedEntry::decode_after(previous, &bytes);
        prop_assert!(matches!(altered, Err(ChainBreak::Hash { .. })), "{:?}", altered);
    }

    #[test]
    fn what_is_no_record_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(SealedEntry::decode_after(ChainHash::START, &bytes).is_err());
        drop(SealedEntry::decode(&bytes));
    }
}

#[test]
fn truncated_or_longer_bytes_are_no_record() {
    for fact in one_of_each() {
        let mut bytes = Vec::new();
        entry(fact).encode_to(&mut bytes);
        for length in 0..bytes.len() {
            assert!(JournalEntry::decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        let other = [&[2], &bytes[1..]].concat();
        assert_eq!(JournalEntry::decode(&other), Err(DecodeError::Version { found: 2, known: 1 }));
        bytes.push(0);
        assert!(matches!(JournalEntry::decode(&bytes), Err(DecodeError::Malformed { .. })));
    }
}
