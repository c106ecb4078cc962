//! The fold on whole journals: what the rows say, and that they say the same however the records were batched.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::ids::TsMs;
use crate::ports::history::{HistoryBatch, HistoryStore};
use crate::ports::history_memory::MemoryHistory;
use crate::trading::agent::{AgentCause, AgentChanged, AgentCommand, AgentState};
use crate::trading::ids::{CorrelationId, CycleId, HistoryRowId, JournalSeq, StrategyUuid};
use crate::trading::journal::{
    ChainHash, ConfigurationSnapshot, FireDisposition, FireTrigger, JournalAuthor, JournalEntry, JournalFact,
    ScheduleFired, ScheduleSkipped, StageError, StageErrorKind, seal_entry,
};
use crate::trading::pipeline::canonical_pipeline;
use crate::trading::schedule::FireSkipReason;
use crate::trading::strategy::StrategyChanged;
use crate::trading::testkit::{
    CycleScript, CycleWalk, WALL, cycle_id, schedule_name, started, strategy_name,
};

/// The facts of a cycle, its start first, on the way that `script` gives it.
fn cycle(seed: u8, script: CycleScript) -> Vec<JournalFact> {
    let mut begun = started(canonical_pipeline());
    begun.cycle_id = cycle_id(seed);
    let mut walk = CycleWalk::new(begun, script);
    walk.walk();
    walk.facts
}

fn snapshot(schedules: &[(&str, HistoryTrigger)]) -> JournalFact {
    let settings = schedules.iter().map(|(name, trigger)| {
        let strategies = vec![strategy_name("a"), strategy_name("b")];
        HistorySchedule { trigger: trigger.clone(), strategies }.to_setting(&schedule_name(name))
    });
    JournalFact::ConfigurationSnapshot(ConfigurationSnapshot {
        settings: settings.collect(),
        tz_database: "2026a".to_owned(),
        code: "0.1.0 (abc)".to_owned(),
    })
}

fn agent_started() -> JournalFact {
    let cause = AgentCause::Command(AgentCommand::Start { strategies: None, mode: None });
    let changed = AgentState::default().decide_change(cause, TsMs(WALL));
    JournalFact::AgentChanged(changed.unwrap().unwrap())
}

fn fired(fire: u64, planned: i64) -> JournalFact {
    JournalFact::ScheduleFired(ScheduleFired {
        schedule: schedule_name("daily"),
        fire,
        planned_ts_ms: TsMs(planned),
        trigger: FireTrigger::Interval,
        cycle_id: cycle_id(1),
        disposition: FireDisposition::Start,
    })
}

/// Stored records of these facts, chained; fact `i` was made so many milliseconds after the first.
fn stored(facts: &[JournalFact]) -> Vec<Vec<u8>> {
    let mut hash = ChainHash::START;
    let sealed = facts.iter().zip(0..).map(|(fact, at)| {
        let entry = JournalEntry {
            who: JournalAuthor::Actor("t".to_owned()),
            planned_ts_ms: None,
            at_ms: TsMs(WALL + at),
            correlation: CorrelationId::new("c\u{e9}").unwrap(),
            fact: fact.clone(),
        };
        let mut bytes = Vec::new();
        hash = seal_entry(hash, &entry, &mut bytes);
        bytes
    });
    sealed.collect()
}

/// A journal of a day: configuration, agent, two cycles of which one goes wrong.
fn day() -> Vec<JournalFact> {
    let failing = StageError::new(StageErrorKind::Provider, "no feed");
    let script = CycleScript { answers: vec![("SIG", vec![(5, Err(failing))])], ..CycleScript::default() };
    let mut facts = vec![
        snapshot(&[("daily", HistoryTrigger::Interval(60_000))]),
        agent_started(),
        fired(1, WALL + 60_000),
    ];
    facts.extend(cycle(1, CycleScript::default()));
    facts.extend(cycle(2, script));
    facts
}

/// A history of these facts, taken in one after the other.
fn fold_all(facts: &[JournalFact]) -> (HistoryFold, HistoryRows) {
    let (mut fold, mut rows) = (HistoryFold::begin_at(JournalSeq(1)), HistoryRows::default());
    for (bytes, seq) in stored(facts).iter().zip(1..) {
        fold.take_record(JournalSeq(seq), bytes, &mut rows).unwrap();
    }
    (fold, rows)
}

#[test]
fn a_cycle_is_a_row_of_each_table_and_a_line_a_record() {
    let facts = day();
    let (_, rows) = fold_all(&facts);
    let id = cycle_id(1);

    let row = &rows.cycles[&id];
    assert_eq!((row.kind.as_str(), row.status.as_str()), ("canonical", "completed"));
    assert_eq!((row.decisions_generated, row.orders_submitted, row.strategies_processed), (2, 2, 2));
    assert_eq!(row.metadata["cause"], "fire 1 of schedule daily");
    assert_eq!(row.errors, Value::Array(vec![]));
    assert!(row.completed_at.is_some() && row.duration_ms.is_some());
    let run = &rows.runs[&id];
    assert_eq!((run.status.as_str(), run.mode.as_str()), ("ok", "live"));
    assert_eq!(run.correlation_id, "c\u{e9}");
    let artifact = rows.artifacts.iter().find(|artifact| artifact.run_id == id).unwrap();
    assert_eq!((artifact.kind.as_str(), artifact.code.as_str()), (CYCLE_RESULT_KIND, "0.1.0 (abc)"));
    assert_eq!(artifact.content["stage_results"]["SIG"]["status"], "done");

    let of_cycle = facts.iter().filter(|fact| fact.cycle_id() == Some(id)).count();
    let lines: Vec<_> = rows.logs.iter().filter(|line| line.cycle_id == id).collect();
    assert_eq!(lines.len(), of_cycle);
    assert_eq!(lines[0].message, "cycle of canonical began: fire 1 of schedule daily, dry run");
    assert_eq!(lines[lines.len() - 1].message, "cycle ended ok: done");
    assert!(lines.iter().any(|line| line.message == "order intent: buy 10 AAPL at 150, dry_run"));
    assert!(lines.windows(2).all(|pair| pair[0].id < pair[1].id));

    let details = CycleDetails { cycle: row.clone(), logs: lines.into_iter().cloned().collect() };
    let body = details.to_wire();
    assert_eq!(body["decisions"].as_array().map(Vec::len), Some(2));
    assert_eq!(body["orders"][0]["symbol"], "AAPL");
    assert_eq!(body["orders"][0]["status"], "dry_run");
    assert_eq!(body["cycle"]["id"], id.to_string());
    assert_eq!(body["cycle"]["orders"], 2);
}

#[test]
fn a_failed_cycle_says_so_in_its_rows_and_in_the_agents_counts() {
    let (_, rows) = fold_all(&day());

    let row = &rows.cycles[&cycle_id(2)];
    assert_eq!(row.status, "failed");
    assert_eq!(row.errors[0]["code"], "E_ORCH_STAGE_FAILED");
    assert!(rows.logs.iter().any(|line| line.level == "error" && line.message.contains("no feed")));
    let agent = rows.agent.unwrap();
    assert_eq!((agent.status.as_str(), agent.cycles_completed), ("running", 2));
    assert_eq!((agent.orders_executed, agent.errors_count), (0, 1), "a dry run executes nothing");
}

#[test]
fn schedules_have_a_row_with_each_strategy_and_know_their_last_and_next_run() {
    let id = |strategy: &str, name: &str| {
        HistoryRowId::of_schedule(&strategy_name(strategy), &schedule_name(name))
    };
    let (_, rows) = fold_all(&day());
    assert_eq!(rows.schedules.len(), 2);
    let row = &rows.schedules[&id("a", "daily")];
    assert_eq!(row.strategy_id, StrategyUuid::derive(&strategy_name("a")));
    assert_eq!((row.schedule_type.as_str(), row.schedule_value.as_str()), ("interval", "60000"));
    assert_eq!(row.last_run_at, Some(TsMs(WALL)));
    assert_eq!(row.next_run_at, Some(TsMs(WALL + 120_000)));

    let mut facts = day();
    facts.push(JournalFact::ScheduleSkipped(ScheduleSkipped {
        schedule: schedule_name("daily"),
        first_fire: 2,
        fires: 3,
        first_planned_ts_ms: TsMs(WALL + 120_000),
        last_planned_ts_ms: TsMs(WALL + 240_000),
        trigger: FireTrigger::Interval,
        reason: FireSkipReason::Misfire,
    }));
    let (_, rows) = fold_all(&facts);
    assert_eq!(rows.schedules[&id("b", "daily")].next_run_at, Some(TsMs(WALL + 300_000)));

    facts.push(JournalFact::StrategyChanged(StrategyChanged::Removed { name: strategy_name("a") }));
    facts.push(snapshot(&[("open", HistoryTrigger::Calendar("open+15m".to_owned()))]));
    let (_, rows) = fold_all(&facts);
    assert_eq!(rows.schedules.len(), 4);
    for (strategy, name, enabled) in [("a", "daily", false), ("b", "daily", false), ("a", "open", true)] {
        let row = &rows.schedules[&id(strategy, name)];
        assert_eq!((row.enabled, row.next_run_at), (enabled, None), "{strategy} {name}");
    }
}

#[test]
fn a_cycle_that_began_before_the_history_is_not_shown_and_stops_nothing() {
    let facts = day();
    let records = stored(&facts);
    let begin = 1 + facts.iter().position(|fact| matches!(fact, JournalFact::CycleStarted(_))).unwrap();
    let (mut fold, mut rows) = (HistoryFold::begin_at(JournalSeq(begin as u64 + 1)), HistoryRows::default());

    for (bytes, seq) in records.iter().zip(1..).skip(begin) {
        fold.take_record(JournalSeq(seq), bytes, &mut rows).unwrap();
    }

    assert!(!rows.cycles.contains_key(&cycle_id(1)) && rows.cycles.contains_key(&cycle_id(2)));
    assert!(rows.logs.iter().all(|line| line.cycle_id == cycle_id(2)));
    assert_eq!(rows.agent.unwrap().cycles_completed, 1);
}

#[test]
fn another_journal_and_a_gap_are_named() {
    let records = stored(&day());
    let other = stored(&day()[1..]);
    let mut rows = HistoryRows::default();
    let mut fold = HistoryFold::begin_at(JournalSeq(1));
    fold.take_record(JournalSeq(1), &records[0], &mut rows).unwrap();

    let gap = fold.take_record(JournalSeq(3), &records[2], &mut rows);
    let expected = HistoryBreak::Missing { expected: JournalSeq(2), found: JournalSeq(3) };
    assert_eq!(gap, Err(expected));
    let strange = fold.take_record(JournalSeq(2), &other[1], &mut rows);
    assert!(matches!(strange, Err(HistoryBreak::OtherJournal { seq: JournalSeq(2), .. })), "{strange:?}");
    fold.take_record(JournalSeq(2), &records[1], &mut rows).unwrap();

    let resume = HistoryResume { mark: fold.mark().unwrap(), agent: None, schedules: vec![] };
    let mut resumed = HistoryFold::resume(resume.clone()).unwrap();
    assert!(resumed.reread_record(JournalSeq(2), &other[1]).is_err());
    resumed.reread_record(JournalSeq(2), &records[1]).unwrap();
    let by_hand = HistoryMark { schedules: Some("none".to_owned()), ..resume.mark };
    let by_hand = HistoryResume { mark: by_hand, agent: None, schedules: vec![] };
    assert!(matches!(HistoryFold::resume(by_hand), Err(HistoryBreak::Mark(_))));
}

/// Everything that a record can hold and a column cannot.
#[test]
fn no_value_of_a_record_is_one_that_a_column_cannot_hold() {
    let mut facts = day();
    for fact in &mut facts {
        match fact {
            JournalFact::CycleStarted(started) => {
                started.as_of_date = "\0".repeat(10);
                started.started_at = TsMs(i64::MAX);
                started.pipeline.name = crate::trading::ids::PipelineName::new(&"p".repeat(64)).unwrap();
            }
            JournalFact::CycleEnded(ended) => {
                (ended.spent_ms, ended.finished_at) = (u64::MAX, TsMs(i64::MIN));
                ended.counts.decisions = u32::MAX;
            }
            JournalFact::StageEnded(ended) => ended.took_ms = u64::MAX,
            JournalFact::AgentChanged(AgentChanged { state, .. }) => {
                state.last_error = Some("\0".to_owned());
                state.resume_at = Some(TsMs(i64::MIN));
            }
            JournalFact::ConfigurationSnapshot(snapshot) => snapshot.code = "\0".repeat(1000),
            _ => {}
        }
    }

    let (_, rows) = fold_all(&facts);

    for row in rows.cycles.values() {
        assert_eq!((row.kind.chars().count(), row.duration_ms), (WORD_CHARS_MAX, Some(i32::MAX)));
        assert_eq!(row.decisions_generated, i32::MAX);
        assert!(!row.metadata.to_string().contains("\\u0000"));
    }
    assert_eq!(rows.cycles[&cycle_id(1)].completed_at, Some(TsMs(0)));
    assert_eq!(rows.agent.as_ref().unwrap().last_error.as_deref(), Some("\u{fffd}"));
    assert_eq!(rows.agent.unwrap().decisions_generated, i32::MAX, "it stays at the column's end");
    assert!(rows.artifacts.iter().all(|artifact| !artifact.content.to_string().contains("\\u0000")));
}

/// Writes the records to a database in batches of these lengths; after each the fold is lost, and made again from what
/// the database and the journal hold.
fn write_in_batches(records: &[Vec<u8>], lengths: &[usize]) -> MemoryHistory {
    let store = MemoryHistory::default();
    let (mut at, mut lengths) = (0, lengths.iter().copied().cycle());
    while at < records.len() {
        let length = lengths.next().unwrap_or(1).clamp(1, records.len() - at);
        let resume = pollster::block_on(store.load_resume()).unwrap();
        let after = resume.as_ref().map(|resume| resume.mark.position);
        let mut fold = match resume {
            None => HistoryFold::begin_at(JournalSeq(1)),
            Some(resume) => {
                let from = resume.mark.open_from.min(resume.mark.position);
                let mut fold = HistoryFold::resume(resume).unwrap();
                for seq in from.0..=fold.tail().0 {
                    fold.reread_record(JournalSeq(seq), &records[seq as usize - 1]).unwrap();
                }
                fold
            }
        };
        let mut rows = HistoryRows::default();
        for bytes in &records[at..at + length] {
            let seq = fold.tail().next();
            fold.take_record(seq, bytes, &mut rows).unwrap();
        }
        let batch = HistoryBatch { after, mark: fold.mark().unwrap(), rows };
        pollster::block_on(store.apply_batch(&batch)).unwrap();
        at += length;
    }
    store
}

/// Two cycles that run beside each other.
fn interleaved() -> Vec<JournalFact> {
    let (one, other) = (cycle(1, CycleScript::default()), cycle(3, CycleScript::default()));
    let mut facts = day();
    facts.truncate(3);
    for at in 0..one.len().max(other.len()) {
        facts.extend(one.get(at).cloned());
        facts.extend(other.get(at).cloned());
    }
    facts
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the journal is cut into transactions, and wherever a crash falls between two of them.
    #[test]
    fn tables_are_equal_row_by_row_however_the_records_came(lengths in prop::collection::vec(1..9usize, 1..6)) {
        for facts in [day(), interleaved()] {
            let records = stored(&facts);
            let whole = write_in_batches(&records, &[records.len()]);
            let pieces = write_in_batches(&records, &lengths);

            prop_assert_eq!(whole.mark(), pieces.mark());
            let dump = |store: &MemoryHistory| pollster::block_on(store.dump_tables()).unwrap();
            prop_assert_eq!(dump(&whole), dump(&pieces));
        }
    }
}

/// The journal has to keep what this says and nothing more.
#[test]
fn what_is_needed_begins_with_the_oldest_open_cycle() {
    let facts = interleaved();
    let records = stored(&facts);
    let begun = |id: CycleId| {
        let is_start =
            |fact: &JournalFact| matches!(fact, JournalFact::CycleStarted(_)) && fact.cycle_id() == Some(id);
        JournalSeq(1 + facts.iter().position(is_start).unwrap() as u64)
    };
    let (mut fold, mut rows) = (HistoryFold::begin_at(JournalSeq(1)), HistoryRows::default());
    for (bytes, seq) in records.iter().zip(1..) {
        fold.take_record(JournalSeq(seq), bytes, &mut rows).unwrap();
        let open = [cycle_id(1), cycle_id(3)].into_iter().filter(|id| {
            begun(*id).0 <= seq && !rows.artifacts.iter().any(|artifact| artifact.run_id == *id)
        });
        let expected = open.map(begun).min().unwrap_or(JournalSeq(seq));
        assert_eq!(fold.needed_from(), expected.min(JournalSeq(seq)), "record {seq}");
    }
}
