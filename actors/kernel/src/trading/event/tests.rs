//! Published events against recorded files, what a restart changes of them (nothing), and what comes in.

mod incoming;

use std::collections::BTreeSet;

use crate::trading::agent::{AgentCause, AgentCommand, AgentState};
use crate::trading::cycle::{CYCLE_ERRORS_MAX, CycleEndReason, CycleErrorCode, CycleStatus};
use crate::trading::gate::{GateCheck, GateDecided, GateKind, GatePlace, GateVerdict};
use crate::trading::ids::{CorrelationId, IntentId, JournalSeq};
use crate::trading::journal::{
    AlertCleared, AlertRaised, ChainHash, CycleCounts, CycleEnded, CycleError, FireDisposition, FireTrigger,
    IntentEnd, IntentSide, JournalAuthor, JournalEntry, JournalFact, JournalIndex, KillLatched,
    OrderIntended, ScheduleFired, StageEnded, StageError, StageErrorKind, StageOutcome, seal_entry,
};
use crate::trading::pipeline::canonical_pipeline;
use crate::trading::strategy::{StrategyChanged, StrategyCommand, StrategyStatus};
use crate::trading::testkit::{
    CycleScript, CycleWalk, WALL, cycle_id, dec, decision_id, open_readings, schedule_name, stage_name,
    started, strategy, strategy_name,
};

use super::*;
use crate::error::ERROR_DETAIL_BYTES_MAX;
use crate::ids::TsMs;
use crate::ports::event_bus::EVENT_BYTES_MAX;

pub(super) fn style() -> EventStyle {
    EventStyle {
        naming: EventNaming::default(),
        source: "orchestrator".to_owned(),
        tags: EventTags {
            instrument_type: Some("equity".to_owned()),
            venue: Some("XNYS".to_owned()),
            jurisdiction: None,
            env: "dev".to_owned(),
        },
    }
}

fn moved(from: StrategyStatus, to: StrategyStatus, command: StrategyCommand) -> JournalFact {
    JournalFact::StrategyChanged(StrategyChanged::Moved { name: strategy_name("a"), from, to, command })
}

fn cycle_error(stage: Option<&str>, code: CycleErrorCode, detail: &str) -> CycleError {
    CycleError { stage: stage.map(stage_name), strategy: None, code, detail: detail.to_owned() }
}

/// Facts that give every kind of event.
fn facts_of_every_event() -> Vec<JournalFact> {
    let start = AgentCause::Command(AgentCommand::Start { strategies: None, mode: None });
    let agent = AgentState::default().decide_change(start, TsMs(WALL)).unwrap().unwrap();
    let cycle_id = cycle_id(1);
    let fired = ScheduleFired {
        schedule: schedule_name("daily"),
        fire: 1,
        planned_ts_ms: TsMs(WALL),
        trigger: FireTrigger::Event { topic: "ordinis.market.bar".to_owned(), event_id: "e-1".to_owned() },
        cycle_id,
        disposition: FireDisposition::Start,
    };
    let denied = GateDecided {
        cycle_id,
        place: GatePlace::Before(4),
        readings: Some(open_readings()),
        checks: vec![GateCheck {
            gate: GateKind::KillSwitch,
            verdict: GateVerdict::Deny("halted by ops: odd prices".to_owned()),
        }],
        narrowed: vec![],
    };
    let intent = OrderIntended {
        intent_id: IntentId::derive(cycle_id, &decision_id("d-1")),
        cycle_id,
        decision_id: decision_id("d-1"),
        strategy: strategy_name("a"),
        symbol: "AAPL".into(),
        side: IntentSide::Buy,
        quantity: dec("10"),
        price: dec("150.10"),
        end: IntentEnd::DryRun,
    };
    let failed = StageEnded {
        cycle_id,
        stage: 0,
        name: stage_name("ING"),
        attempts: 2,
        took_ms: 500,
        outcome: StageOutcome::Failed(StageError::new(StageErrorKind::Timeout, "no answer")),
    };
    let ended = CycleEnded {
        cycle_id,
        status: CycleStatus::Failed,
        reason: CycleEndReason::OutOfTime,
        finished_at: TsMs(WALL + 5000),
        spent_ms: 5000,
        counts: CycleCounts { strategies_processed: 1, decisions: 2, intents: 1 },
        errors: vec![
            cycle_error(Some("ING"), CycleErrorCode::Timeout, "no answer"),
            cycle_error(None, CycleErrorCode::Timeout, "the cycle's budget was exceeded before FEAT"),
        ],
        audit_failed: false,
    };
    vec![
        JournalFact::AlertRaised(AlertRaised {
            alert: "calendar_ends".to_owned(),
            detail: "soon".to_owned(),
        }),
        JournalFact::AlertCleared(AlertCleared { alert: "calendar_ends".to_owned() }),
        JournalFact::KillLatched(KillLatched { latched: true, reason: "by event".to_owned() }),
        JournalFact::KillLatched(KillLatched { latched: false, reason: "checked".to_owned() }),
        JournalFact::AgentChanged(agent),
        JournalFact::StrategyChanged(StrategyChanged::Defined {
            definition: strategy("a"),
            status: StrategyStatus::Active,
        }),
        moved(StrategyStatus::Active, StrategyStatus::Paused, StrategyCommand::Pause),
        JournalFact::StrategyChanged(StrategyChanged::Removed { name: strategy_name("a") }),
        JournalFact::ScheduleFired(fired),
        JournalFact::CycleStarted(Box::new(started(canonical_pipeline()))),
        JournalFact::StageEnded(Box::new(failed)),
        JournalFact::GateDecided(Box::new(denied)),
        JournalFact::OrderIntended(Box::new(intent)),
        JournalFact::CycleEnded(Box::new(ended)),
    ]
}

fn entry(fact: JournalFact) -> JournalEntry {
    JournalEntry {
        who: JournalAuthor::Operator("ops".to_owned()),
        planned_ts_ms: Some(TsMs(WALL)),
        at_ms: TsMs(WALL + 12),
        correlation: CorrelationId::new("request-1").unwrap(),
        fact,
    }
}

/// The stored records of these facts, from the journal's beginning.
fn stored(facts: &[JournalFact]) -> Vec<Vec<u8>> {
    let mut previous = ChainHash::START;
    let seal = |fact: &JournalFact| {
        let mut bytes = Vec::new();
        previous = seal_entry(previous, &entry(fact.clone()), &mut bytes);
        bytes
    };
    facts.iter().map(seal).collect()
}

/// Takes records from `first` on.
fn take_all(cursor: &mut EventCursor, records: &[Vec<u8>]) -> Vec<TradingEvent> {
    let mut events = Vec::new();
    for bytes in records {
        cursor.take_record(cursor.position().next(), bytes, &mut events).unwrap();
    }
    events
}

fn events_of(facts: &[JournalFact]) -> Vec<TradingEvent> {
    take_all(&mut EventCursor::begin_at(JournalSeq(1)), &stored(facts))
}

fn analysis_request() -> AnalysisRequest {
    AnalysisRequest {
        cycle_id: cycle_id(1),
        stage: stage_name("SIG"),
        strategy: strategy_name("a"),
        symbol: "AAPL".into(),
        at: TsMs(WALL),
    }
}

#[test]
fn an_answer_to_a_request_is_known_by_its_correlation_also_when_it_is_late() {
    let request = analysis_request();
    let again = AnalysisRequest { at: TsMs(WALL + 1), ..request.clone() };
    assert_eq!(request.correlation_id(), again.correlation_id(), "the same question");
    assert_eq!(request.to_event().event_id, again.to_event().event_id);
    assert!(AnalysisRequest::is_answered_by(&request.correlation_id()));
    assert!(!AnalysisRequest::is_answered_by(&cycle_id(1).correlation_id()));
    let other = AnalysisRequest { symbol: "MSFT".into(), ..request.clone() };
    assert_ne!(request.correlation_id(), other.correlation_id());
}

#[expect(clippy::disallowed_methods, reason = "a test reads its golden files")]
fn golden(name: &str, shown: &str) {
    let path = format!("{}/../../tests/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, shown).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(shown == recorded, "consumers see {name}: BLESS=1 records it\n{shown}");
}

/// Method: a journal that gives every kind, in the names of specification 002 and in those of 001.
#[test]
fn every_event_has_its_golden_bytes_in_both_families_of_names() {
    let events = events_of(&facts_of_every_event());
    let ordinis = EventNaming { family: EventFamily::Ordinis, prefix: "ai-trader".to_owned() };
    let ordinis = EventStyle { naming: ordinis, tags: EventTags::default(), ..style() };

    let events = [vec![analysis_request().to_event()], events].concat();
    let kinds: BTreeSet<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, BTreeSet::from(TradingEventKind::ALL));
    let lines = |style: &EventStyle| -> String {
        events.iter().map(|event| format!("{}\n", event.to_wire(style))).collect()
    };
    golden("trading_events_v1.ndjson", &lines(&style()));
    golden("trading_events_ordinis_v1.ndjson", &lines(&ordinis));
}

#[test]
fn the_cursor_has_the_golden_bytes_of_version_1() {
    let facts = facts_of_every_event();
    let mut cursor = EventCursor::begin_at(JournalSeq(1));
    // In the middle of a cycle, with a strategy known and another fire open.
    let mut fired = facts[8].clone();
    if let JournalFact::ScheduleFired(fired) = &mut fired {
        fired.fire = 2;
    }
    let records = [&facts[5..7], &facts[8..11], &[fired]].concat();
    take_all(&mut cursor, &stored(&records));

    let mut bytes = Vec::new();
    cursor.encode_to(&mut bytes);

    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    golden("trading_event_cursor_v1.hex", &format!("{hex}\n"));
    assert_eq!(EventCursor::decode(&bytes).as_ref(), Ok(&cursor));
    for length in 0..bytes.len() {
        assert!(EventCursor::decode(&bytes[..length]).is_err(), "cut at {length}");
    }
}

/// Method: whole cycles and whatever else, with a restart behind each record: the cursor is stored and read back.
#[test]
fn a_restart_behind_any_record_changes_no_event() {
    let mut facts = facts_of_every_event();
    let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
    walk.walk();
    facts.extend(walk.facts);
    let records = stored(&facts);
    let whole = events_of(&facts);

    for cut in 0..=records.len() {
        let mut cursor = EventCursor::begin_at(JournalSeq(1));
        let mut events = take_all(&mut cursor, &records[..cut]);
        let mut bytes = Vec::new();
        cursor.encode_to(&mut bytes);
        let mut again = EventCursor::decode(&bytes).unwrap();
        events.extend(take_all(&mut again, &records[cut..]));
        assert_eq!(events, whole, "cut behind record {cut}");
    }
    let ids: BTreeSet<_> = whole.iter().map(|event| event.event_id).collect();
    assert_eq!(ids.len(), whole.len(), "no two events have one identifier");
}

/// A bus that refused one for its size would hold up all that come behind it.
#[test]
fn the_longest_cycle_with_errors_of_a_thousand_strategies_fits_every_bus() {
    let names = || (0..1000).map(|number| strategy_name(&format!("{number:064}")));
    let mut begun = started(canonical_pipeline());
    begun.strategies = names().collect();
    let one = |name| CycleError {
        strategy: Some(name),
        ..cycle_error(Some("SIG"), CycleErrorCode::StageFailed, &"x".repeat(ERROR_DETAIL_BYTES_MAX))
    };
    let ended = CycleEnded {
        cycle_id: begun.cycle_id,
        status: CycleStatus::Failed,
        reason: CycleEndReason::OutOfTime,
        finished_at: TsMs(WALL + 5000),
        spent_ms: 5000,
        counts: CycleCounts { strategies_processed: 0, decisions: 0, intents: 0 },
        errors: names().map(one).take(CYCLE_ERRORS_MAX).collect(),
        audit_failed: false,
    };
    let facts = [JournalFact::CycleStarted(Box::new(begun)), JournalFact::CycleEnded(Box::new(ended))];

    let longest = events_of(&facts).iter().map(|event| event.to_message(&style()).body.len()).max();

    assert!(longest.unwrap() < EVENT_BYTES_MAX, "{longest:?}");
}

/// Method: behind each record, a cursor made from what the records add up to, and one that has read them.
#[test]
fn a_cursor_behind_what_records_add_up_to_is_the_one_that_has_read_them() {
    let mut facts = facts_of_every_event();
    let mut walk = CycleWalk::new(started(canonical_pipeline()), CycleScript::default());
    walk.walk();
    facts.extend(walk.facts);
    let records = stored(&facts);
    let (mut index, mut read) = (JournalIndex::default(), EventCursor::begin_at(JournalSeq(1)));
    assert_eq!(EventCursor::behind_index(&index, ChainHash::START), read);

    for (bytes, fact) in records.iter().zip(&facts) {
        take_all(&mut read, std::slice::from_ref(bytes));
        index.take_entry(read.position(), &entry(fact.clone()));
        let head = read.chain_hash().unwrap();
        assert_eq!(EventCursor::behind_index(&index, head), read, "behind {fact:?}");
    }
}

#[test]
fn another_journal_gives_other_identifiers_and_is_not_gone_on_with() {
    let facts = facts_of_every_event();
    let mut others = facts.clone();
    others.swap(0, 1);
    let (ours, theirs) = (stored(&facts), stored(&others));

    let ids = |facts: &[JournalFact]| -> BTreeSet<_> {
        events_of(facts).into_iter().map(|event| event.event_id).collect()
    };
    assert!(ids(&facts).is_disjoint(&ids(&others)));

    let mut cursor = EventCursor::begin_at(JournalSeq(1));
    take_all(&mut cursor, &ours[..2]);
    let before = cursor.clone();
    let mut events = Vec::new();
    let refused = cursor.take_record(JournalSeq(3), &theirs[2], &mut events);
    assert!(matches!(refused, Err(EventBreak::OtherJournal { seq: JournalSeq(3), .. })), "{refused:?}");
    let refused = cursor.take_record(JournalSeq(4), &ours[3], &mut events);
    let missing = EventBreak::Missing { expected: JournalSeq(3), found: JournalSeq(4) };
    assert_eq!(refused, Err(missing));
    assert!(events.is_empty() && cursor == before);
}

/// Source: issue, "A cycle out of time emits `stage.failed` with E_ORCH_TIMEOUT, then `cycle.completed`".
#[test]
fn a_cycle_out_of_time_tells_the_stage_that_was_not_begun_and_its_end_last() {
    let facts = facts_of_every_event();
    let events = events_of(&facts);
    let last = &events[events.len() - 4..];

    let kinds: Vec<_> = last.iter().map(|event| event.kind.last_words()).collect();
    assert_eq!(kinds, ["stage.failed", "error.occurred", "error.occurred", "cycle.completed"]);
    let told = &last[0].payload;
    assert_eq!((&told["stage"], &told["errorCode"]), (&"FEAT".into(), &"E_ORCH_TIMEOUT".into()));
    assert_eq!(told["retryable"], true);
    let told = &last[3].payload;
    assert_eq!(
        (&told["status"], &told["decisions"], &told["orders"]),
        (&"failed".into(), &2.into(), &1.into())
    );
    assert_eq!(told["error"], "no answer");
}

#[test]
fn a_cycle_that_began_before_the_cursor_is_told_all_the_same() {
    let facts = facts_of_every_event();
    let records = stored(&facts);
    let mut cursor = EventCursor::begin_at(JournalSeq(14));
    let mut events = Vec::new();

    cursor.take_record(JournalSeq(14), &records[13], &mut events).unwrap();

    assert_eq!(events.last().unwrap().payload["cycleType"], serde_json::Value::Null);
    let mut named = EventCursor::begin_at(JournalSeq(14));
    named.name_cycle(&started(canonical_pipeline()));
    let mut events = Vec::new();
    named.take_record(JournalSeq(14), &records[13], &mut events).unwrap();
    assert_eq!(events.last().unwrap().payload["cycleType"], "canonical");
}

#[test]
fn a_cycle_is_one_trace_with_its_parts_below_it() {
    let events = events_of(&facts_of_every_event());
    let of_cycle: Vec<_> =
        events.iter().filter(|event| event.partition_key == cycle_id(1).to_string()).collect();
    let root = of_cycle[0].trace.clone();

    assert!(of_cycle.len() == 8 && root.parent_span_id.is_none());
    for event in &of_cycle {
        assert_eq!(event.trace.trace_id, cycle_id(1).to_string().replace('-', ""));
        assert_eq!(event.correlation.as_str(), cycle_id(1).to_string());
        let is_root = matches!(event.kind, TradingEventKind::CycleStarted | TradingEventKind::CycleCompleted);
        let parent = (!is_root).then(|| root.span_id.clone());
        assert_eq!(event.trace.parent_span_id, parent, "{:?}", event.kind);
    }
    assert_eq!(events[0].correlation.as_str(), "request-1");
}

#[test]
fn a_strategy_that_keeps_its_status_is_no_news() {
    let defined =
        |status| JournalFact::StrategyChanged(StrategyChanged::Defined { definition: strategy("a"), status });
    let active = StrategyStatus::Active;
    let facts = [
        defined(active),
        defined(active),
        moved(active, StrategyStatus::Stopped, StrategyCommand::Deactivate { close_positions: false }),
        defined(StrategyStatus::Stopped),
        moved(StrategyStatus::Stopped, active, StrategyCommand::Activate),
        JournalFact::StrategyChanged(StrategyChanged::Removed { name: strategy_name("a") }),
    ];

    let kinds: Vec<_> = events_of(&facts).iter().map(|event| event.kind.last_words()).collect();

    assert_eq!(
        kinds,
        ["strategy.activated", "strategy.deactivated", "strategy.activated", "strategy.deactivated"]
    );
}
