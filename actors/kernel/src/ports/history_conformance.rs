//! The suite that every database of the history passes unchanged: each promise of the port as one check.
//!
//! It needs no runtime: the caller blocks on [`run`] with whatever the provider needs.
#![allow(clippy::expect_used, reason = "a provider that breaks a promise must stop the suite loudly")]

use std::sync::Arc;

use async_trait::async_trait;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::history::{HistoryBatch, HistoryError, HistoryStore, HistoryTables};
use crate::ids::TsMs;
use crate::trading::history::{
    AgentStatusRow, ArtifactRow, CycleDetails, CycleLogRow, CyclePageQuery, CyclePageStatus, CycleRow,
    HistoryMark, HistoryRows, OrchestrationDetails, OrchestrationPage, OrchestrationPageQuery,
    OrchestrationRunRow, RunRow, ScheduleRow, SignalOrderRow, fit_json, fit_moment, fit_text, fit_word,
};
use crate::trading::ids::{
    CommandId, CycleId, HistoryRowId, JournalSeq, ScheduleName, StrategyName, StrategyUuid,
};
use crate::trading::journal::ChainHash;

/// Makes the databases that the suite works on.
#[async_trait]
pub trait HistoryProvider: Send + Sync {
    /// A database without a history.
    async fn fresh(&self) -> Arc<dyn HistoryStore>;

    /// The database of this store, as the next process opens it.
    async fn reopen(&self, store: Arc<dyn HistoryStore>) -> Arc<dyn HistoryStore>;
}

/// Runs the whole suite.
///
/// # Panics
///
/// When the provider breaks a promise.
pub async fn run(provider: &impl HistoryProvider) {
    a_fresh_database_has_no_history(provider).await;
    every_row_is_read_as_it_was_written(provider).await;
    a_later_row_of_a_key_replaces_the_earlier(provider).await;
    the_mark_moves_with_its_rows_and_only_from_where_it_stands(provider).await;
    a_cleared_history_begins_again(provider).await;
    pages_are_newest_first_and_of_the_wanted_status(provider).await;
    what_is_dropped_is_the_oldest_that_has_ended(provider).await;
    values_at_the_ends_of_their_columns_are_held(provider).await;
    a_run_and_its_mappings_are_read_as_they_were_written_last(provider).await;
    pages_of_runs_tell_how_many_match(provider).await;
    runs_of_any_text_and_number_are_held(provider).await;
}

const AT: i64 = 1_768_002_660_123;
const MINUTE: i64 = 60_000;

/// The cycle of this number.
#[must_use]
pub fn sample_cycle_id(number: u8) -> CycleId {
    CycleId::of_command(CommandId::of_random([number; 16]))
}

/// A mark at this position.
#[must_use]
pub fn sample_mark(position: u64) -> HistoryMark {
    let position = JournalSeq(position);
    let chain_hash = ChainHash::START.hash_of_next(&position.0.to_le_bytes());
    HistoryMark {
        position,
        chain_hash,
        open_from: position.next(),
        code: "0.1.0 (abc)".to_owned(),
        schedules: Some("{}".to_owned()),
    }
}

/// Rows of a cycle of this number, which began so many minutes after the first, and has ended or not.
#[must_use]
pub fn sample_rows(number: u8, has_ended: bool) -> HistoryRows {
    let id = sample_cycle_id(number);
    let began = TsMs(AT + i64::from(number) * MINUTE);
    let ended_at = has_ended.then(|| began.plus_ms(77));
    let status = if has_ended { "completed" } else { "started" };
    let cycle = CycleRow {
        id,
        kind: "canonical".to_owned(),
        status: status.to_owned(),
        started_at: began,
        completed_at: ended_at,
        duration_ms: has_ended.then_some(77),
        strategies_processed: 2,
        decisions_generated: 3,
        orders_submitted: 1,
        orders_filled: 0,
        errors: json!([{ "code": "E_ORCH_TIMEOUT", "detail": "late", "retryable": true }]),
        metadata: json!({ "config": "07", "confidence": 0.7, "strategies": ["a", "b"] }),
        created_at: began,
    };
    let run = RunRow {
        run_id: id,
        correlation_id: id.to_string(),
        mode: "paper".to_owned(),
        status: if has_ended { "ok" } else { "running" }.to_owned(),
        started_at: began,
        finished_at: ended_at,
    };
    let line = |of_cycle: u64, message: &str| CycleLogRow {
        id: JournalSeq(u64::from(number) * 10 + of_cycle),
        cycle_id: id,
        level: "info".to_owned(),
        message: message.to_owned(),
        context: json!({ "stage": "SIG", "took": 1.5, "nothing": null }),
        at: began.plus_ms(of_cycle.cast_signed()),
    };
    let artifact = ArtifactRow {
        artifact_id: HistoryRowId::of_artifact(id, "cycle_result"),
        run_id: id,
        kind: "cycle_result".to_owned(),
        schema_version: "1.0.0".to_owned(),
        code: "0.1.0 (abc)".to_owned(),
        content: json!({ "status": "ok", "stage_results": { "SIG": { "attempts": 1 } } }),
        created_at: began.plus_ms(77),
    };
    HistoryRows {
        runs: [(id, run)].into(),
        cycles: [(id, cycle)].into(),
        logs: vec![line(1, "cycle of canonical began"), line(2, "it's \"over\"; DROP TABLE runs")],
        artifacts: has_ended.then_some(artifact).into_iter().collect(),
        agent: None,
        schedules: [].into(),
        orchestration_runs: [].into(),
        signal_orders: [].into(),
    }
}

/// An orchestration run of this number, running or completed, with a mapping of each kind.
#[must_use]
pub fn sample_orchestration(number: u8, has_ended: bool) -> HistoryRows {
    let run_id = sample_cycle_id(number);
    let began = TsMs(AT + i64::from(number) * MINUTE);
    let changed = if has_ended { began.plus_ms(900) } else { began };
    let ended = |value: &str| has_ended.then(|| value.to_owned());
    let decimal = |text: &str| text.parse::<Decimal>().ok();
    let run = OrchestrationRunRow {
        run_id,
        strategy_id: "alpha_baseline".to_owned(),
        as_of_date: "2025-01-02".to_owned(),
        status: if has_ended { "completed" } else { "running" }.to_owned(),
        symbols: vec!["AAPL".to_owned(), "MSFT".to_owned(), "BRK.B".to_owned()],
        capital: Decimal::from(100_000),
        max_position_size: decimal("20000.005").unwrap_or_default(),
        num_signals: 2,
        num_orders_submitted: i32::from(has_ended),
        num_orders_accepted: i32::from(has_ended),
        num_orders_rejected: 0,
        num_orders_filled: has_ended.then_some(1),
        started_at: began,
        completed_at: has_ended.then_some(changed),
        duration_seconds: decimal("0.018432").filter(|_| has_ended),
        error_message: None,
        model_version: ended("v1.2.3"),
        signal_service_response: has_ended.then(|| {
            json!({
                "signals": [{ "symbol": "AAPL", "target_weight": 0.5 }],
                "metadata": { "strategies": ["alpha_baseline"], "multi_strategy": false, "allocation_method": null },
            })
        }),
        execution_gateway_responses: has_ended.then(|| json!([{ "status": "filled" }])),
        created_at: began,
        updated_at: changed,
    };
    let order = SignalOrderRow {
        run_id,
        position: 0,
        symbol: "AAPL".to_owned(),
        predicted_return: decimal("0.02"),
        rank: Some(1),
        target_weight: decimal("0.5"),
        client_order_id: Some("479131535213089960f7eebb".to_owned()),
        order_qty: Some(133),
        order_side: Some("buy".to_owned()),
        broker_order_id: ended("b-1"),
        order_status: ended("filled"),
        filled_qty: decimal("133").filter(|_| has_ended),
        filled_avg_price: decimal("150.12345678").filter(|_| has_ended),
        skip_reason: None,
        created_at: began,
        updated_at: changed,
    };
    let skipped = SignalOrderRow {
        position: 1,
        symbol: "MSFT".to_owned(),
        predicted_return: decimal("-0.333333333333"),
        rank: Some(2),
        target_weight: Some(Decimal::ZERO),
        client_order_id: None,
        order_qty: None,
        order_side: None,
        broker_order_id: None,
        order_status: None,
        filled_qty: None,
        filled_avg_price: None,
        skip_reason: Some("zero_weight".to_owned()),
        ..order.clone()
    };
    // The same symbol once more, and nothing of it could be read.
    let doubled = SignalOrderRow {
        position: 2,
        symbol: order.symbol.clone(),
        predicted_return: None,
        rank: None,
        target_weight: None,
        skip_reason: Some("duplicate_signal".to_owned()),
        ..skipped.clone()
    };
    HistoryRows {
        orchestration_runs: [(run_id, run)].into(),
        signal_orders: [order, skipped, doubled].map(|row| ((run_id, row.position), row)).into(),
        ..HistoryRows::default()
    }
}

/// The agent's row, running.
#[must_use]
pub fn sample_agent() -> AgentStatusRow {
    AgentStatusRow {
        status: "running".to_owned(),
        started_at: Some(TsMs(AT)),
        stopped_at: Some(TsMs(AT - 1)),
        mode: "conservative".to_owned(),
        cycles_completed: 7,
        decisions_generated: 8,
        orders_executed: 9,
        errors_count: 10,
        last_error: Some("odd".to_owned()),
        last_error_at: Some(TsMs(AT - 2)),
        updated_at: TsMs(AT),
        ..AgentStatusRow::default()
    }
}

/// The row of the schedule of this name, of one strategy.
#[must_use]
pub fn sample_schedule(name: &str) -> ScheduleRow {
    let strategy = StrategyName::new("momentum").expect("a name");
    let schedule = ScheduleName::new(name).expect("a name");
    ScheduleRow {
        id: HistoryRowId::of_schedule(&strategy, &schedule),
        strategy_id: StrategyUuid::derive(&strategy),
        schedule_type: "cron".to_owned(),
        schedule_value: "0 9 * * 1-5".to_owned(),
        enabled: true,
        last_run_at: None,
        next_run_at: Some(TsMs(AT + MINUTE)),
        created_at: TsMs(AT),
        updated_at: TsMs(AT),
    }
}

fn batch(after: Option<u64>, position: u64, rows: HistoryRows) -> HistoryBatch {
    HistoryBatch { after: after.map(JournalSeq), mark: sample_mark(position), rows }
}

async fn apply(store: &dyn HistoryStore, batch: &HistoryBatch) {
    store.apply_batch(batch).await.expect("the database takes a batch");
}

async fn dump(store: &dyn HistoryStore) -> HistoryTables {
    store.dump_tables().await.expect("the database can be read")
}

/// The tables after these rows alone.
fn tables_of(rows: &HistoryRows) -> HistoryTables {
    let mut artifacts = rows.artifacts.clone();
    artifacts.sort_by_key(|row| row.artifact_id);
    HistoryTables {
        runs: rows.runs.values().cloned().collect(),
        artifacts,
        agent: rows.agent.clone(),
        cycles: rows.cycles.values().cloned().collect(),
        logs: rows.logs.clone(),
        schedules: rows.schedules.values().cloned().collect(),
        orchestration_runs: rows.orchestration_runs.values().cloned().collect(),
        signal_orders: rows.signal_orders.values().cloned().collect(),
    }
}

async fn a_fresh_database_has_no_history(provider: &impl HistoryProvider) {
    let store = provider.fresh().await;

    assert_eq!(store.load_resume().await, Ok(None));
    assert_eq!(dump(store.as_ref()).await, HistoryTables::default());
    assert_eq!(store.find_cycle(sample_cycle_id(1)).await, Ok(None));
    let all = CyclePageQuery { limit: 20, status: None };
    assert_eq!(store.list_cycles(all).await, Ok(Vec::new()));
    let page = store.list_orchestration_runs(&orchestration_page(50, 0)).await;
    assert_eq!(page, Ok(OrchestrationPage::default()));
    assert_eq!(store.find_orchestration_run(sample_cycle_id(1)).await, Ok(None));
}

async fn every_row_is_read_as_it_was_written(provider: &impl HistoryProvider) {
    let store = provider.fresh().await;
    let mut rows = sample_rows(1, true);
    rows.agent = Some(sample_agent());
    let schedules = ["daily", "beat"].map(sample_schedule);
    rows.schedules = schedules.into_iter().map(|row| (row.id, row)).collect();
    apply(store.as_ref(), &batch(None, 12, rows.clone())).await;

    let store = provider.reopen(store).await;

    assert_eq!(dump(store.as_ref()).await, tables_of(&rows));
    let resume = store.load_resume().await.expect("the database can be read").expect("a history");
    assert_eq!(resume.mark, sample_mark(12));
    assert_eq!(resume.agent, rows.agent);
    let mut found = resume.schedules;
    found.sort_by_key(|row| row.id);
    assert_eq!(found, rows.schedules.values().cloned().collect::<Vec<_>>());
    let details = store.find_cycle(sample_cycle_id(1)).await.expect("the database can be read");
    let cycle = rows.cycles[&sample_cycle_id(1)].clone();
    assert_eq!(details, Some(CycleDetails { cycle, logs: rows.logs }));
}

async fn a_later_row_of_a_key_replaces_the_earlier(provider: &impl HistoryProvider) {
    let store = provider.fresh().await;
    let mut first = sample_rows(1, false);
    first.agent = Some(AgentStatusRow::default());
    let daily = sample_schedule("daily");
    first.schedules = [(daily.id, daily.clone())].into();
    apply(store.as_ref(), &batch(None, 1, first)).await;

    let mut second = sample_rows(1, true);
    second.agent = Some(sample_agent());
    let off = ScheduleRow { enabled: false, next_run_at: None, last_run_at: Some(TsMs(AT)), ..daily };
    second.schedules = [(off.id, off)].into();
    apply(store.as_ref(), &batch(Some(1), 2, second.clone())).await;

    assert_eq!(dump(store.as_ref()).await, tables_of(&second));
}

async fn the_mark_moves_with_its_rows_and_only_from_where_it_stands(provider: &impl HistoryProvider) {
    let store = provider.fresh().await;
    apply(store.as_ref(), &batch(None, 5, sample_rows(1, true))).await;
    let before = dump(store.as_ref()).await;

    for (after, expected) in [(None, 0), (Some(4), 4), (Some(6), 6)] {
        let refused = store.apply_batch(&batch(after, 9, sample_rows(2, true))).await;
        assert_eq!(refused, Err(HistoryError::Moved { expected: JournalSeq(expected) }), "{after:?}");
    }
    assert_eq!(dump(store.as_ref()).await, before);

    let unchanged = HistoryMark { schedules: None, ..sample_mark(9) };
    let moved = HistoryBatch { mark: unchanged, ..batch(Some(5), 9, HistoryRows::default()) };
    apply(store.as_ref(), &moved).await;
    let resume = store.load_resume().await.expect("the database can be read").expect("a history");
    assert_eq!(resume.mark, sample_mark(9));
    assert_eq!(dump(store.as_ref()).await, before, "a mark can move without rows");
}

async fn a_cleared_history_begins_again(provider: &impl HistoryProvider) {
    let store = provider.fresh().await;
    let mut rows = sample_rows(1, true);
    rows.agent = Some(sample_agent());
    apply(store.as_ref(), &batch(None, 5, rows.clone())).await;

    store.clear_history().await.expect("it can be cleared");

    assert_eq!(store.load_resume().await, Ok(None));
    assert_eq!(dump(store.as_ref()).await, HistoryTables::default());
    apply(store.as_ref(), &batch(None, 5, rows.clone())).await;
    assert_eq!(dump(store.as_ref()).await, tables_of(&rows));
}

async fn pages_are_newest_first_and_of_the_wanted_status(provider: &impl HistoryProvider) {
    let store = provider.fresh().await;
    let words = ["completed", "failed", "cancelled", "started", "completed"];
    let mut rows = HistoryRows::default();
    for (word, number) in words.into_iter().zip(1..) {
        let mut of_cycle = sample_rows(number, word != "started");
        of_cycle.cycles.values_mut().for_each(|row| row.status = word.to_owned());
        rows.runs.extend(of_cycle.runs);
        rows.cycles.extend(of_cycle.cycles);
    }
    apply(store.as_ref(), &batch(None, 50, rows)).await;

    for (limit, status, expected) in [
        (20, None, vec![5, 4, 3, 2, 1]),
        (2, None, vec![5, 4]),
        (20, Some(CyclePageStatus::Completed), vec![5, 1]),
        (1, Some(CyclePageStatus::Completed), vec![5]),
        (20, Some(CyclePageStatus::Failed), vec![2]),
        (20, Some(CyclePageStatus::Cancelled), vec![3]),
    ] {
        let page = store.list_cycles(CyclePageQuery { limit, status }).await.expect("a page");
        let expected: Vec<_> = expected.into_iter().map(sample_cycle_id).collect();
        assert_eq!(page.iter().map(|row| row.id).collect::<Vec<_>>(), expected, "{limit} {status:?}");
    }
}

async fn what_is_dropped_is_the_oldest_that_has_ended(provider: &impl HistoryProvider) {
    let store = provider.fresh().await;
    let mut mark = None;
    for number in 1..=5 {
        let position = u64::from(number) * 10 + 9;
        apply(store.as_ref(), &batch(mark, position, sample_rows(number, number != 2))).await;
        mark = Some(position);
    }
    // The cycle of number 4 began at this moment, so it stays.
    let before = TsMs(AT + 4 * MINUTE);

    for (limit, dropped, left) in [(1, 1, vec![2, 3, 4, 5]), (9, 1, vec![2, 4, 5]), (9, 0, vec![2, 4, 5])] {
        assert_eq!(store.drop_cycles_before(before, limit).await, Ok(dropped));
        let tables = dump(store.as_ref()).await;
        let mut expected: Vec<_> = left.iter().map(|number| sample_cycle_id(*number)).collect();
        expected.sort_unstable();
        assert_eq!(tables.cycles.iter().map(|row| row.id).collect::<Vec<_>>(), expected);
        assert_eq!(tables.runs.iter().map(|row| row.run_id).collect::<Vec<_>>(), expected);
        assert_eq!(tables.logs.len(), expected.len() * 2);
        assert_eq!(tables.artifacts.len(), expected.len() - 1, "the one that runs has none");
    }
}

/// Method: the values that `columns.rs` makes of what no column holds, each in every column of its kind.
async fn values_at_the_ends_of_their_columns_are_held(provider: &impl HistoryProvider) {
    let odd = "\0é\u{1f600}'\"\\\r\n\u{2028}%_$1";
    let long_word = fit_word(&"é".repeat(99), 20);
    let huge = fit_json(json!({ odd: [odd, 0.25, -1.5, u64::MAX, i64::MIN, true, null, {}] }), 1 << 20);
    for moment in [TsMs(i64::MIN), TsMs(i64::MAX), TsMs(1), TsMs(999)].map(fit_moment) {
        let store = provider.fresh().await;
        let mut rows = sample_rows(1, true);
        for row in rows.cycles.values_mut() {
            row.kind.clone_from(&long_word);
            (row.started_at, row.completed_at, row.created_at) = (moment, Some(moment), moment);
            (row.duration_ms, row.strategies_processed) = (Some(i32::MAX), i32::MAX);
            (row.errors, row.metadata) = (Value::Array(vec![huge.clone()]), huge.clone());
        }
        for row in rows.runs.values_mut() {
            row.correlation_id = fit_text(odd);
            (row.started_at, row.finished_at) = (moment, Some(moment));
        }
        for (line, id) in rows.logs.iter_mut().zip([JournalSeq(1), JournalSeq(i64::MAX.cast_unsigned())]) {
            line.id = id;
            line.message = fit_text(odd).repeat(1000);
            (line.context, line.at) = (huge.clone(), moment);
        }
        for row in &mut rows.artifacts {
            (row.content, row.created_at) = (huge.clone(), moment);
        }
        rows.agent = Some(AgentStatusRow {
            paused_at: Some(moment),
            resume_at: Some(moment),
            cycles_completed: i32::MAX,
            last_error: Some(fit_text(odd)),
            updated_at: moment,
            ..sample_agent()
        });
        apply(store.as_ref(), &batch(None, u64::MAX >> 1, rows.clone())).await;

        let store = provider.reopen(store).await;

        assert_eq!(dump(store.as_ref()).await, tables_of(&rows));
    }
}

fn orchestration_page(limit: u32, offset: u32) -> OrchestrationPageQuery {
    OrchestrationPageQuery { limit, offset, strategy_id: None, status: None }
}

/// Everything of both rows: those of the cycle too, which an orchestration run is.
fn joined(mut rows: HistoryRows, orchestration: HistoryRows) -> HistoryRows {
    rows.orchestration_runs.extend(orchestration.orchestration_runs);
    rows.signal_orders.extend(orchestration.signal_orders);
    rows
}

async fn a_run_and_its_mappings_are_read_as_they_were_written_last(provider: &impl HistoryProvider) {
    let store = provider.fresh().await;
    apply(store.as_ref(), &batch(None, 1, sample_orchestration(1, false))).await;
    let running = sample_orchestration(1, false);
    assert_eq!(dump(store.as_ref()).await, tables_of(&running), "a run may come before its cycle");
    let ended = joined(sample_rows(1, true), sample_orchestration(1, true));
    apply(store.as_ref(), &batch(Some(1), 2, ended.clone())).await;

    let store = provider.reopen(store).await;

    assert_eq!(dump(store.as_ref()).await, tables_of(&ended));
    let found = store.find_orchestration_run(sample_cycle_id(1)).await.expect("it can be read");
    let run = ended.orchestration_runs[&sample_cycle_id(1)].clone();
    let mappings = ended.signal_orders.values().cloned().collect();
    assert_eq!(found, Some(OrchestrationDetails { run, mappings }));

    // What an ended cycle leaves, it takes with it.
    assert_eq!(store.drop_cycles_before(TsMs(i64::MAX), 9).await, Ok(1));
    assert_eq!(dump(store.as_ref()).await, HistoryTables::default());
    apply(store.as_ref(), &batch(Some(2), 3, ended)).await;
    store.clear_history().await.expect("it can be cleared");
    assert_eq!(dump(store.as_ref()).await, HistoryTables::default());
}

async fn pages_of_runs_tell_how_many_match(provider: &impl HistoryProvider) {
    let store = provider.fresh().await;
    let mut rows = HistoryRows::default();
    for (number, (status, strategy)) in (1..).zip([
        ("completed", "a"),
        ("failed", "a"),
        ("partial", "b"),
        ("running", "b"),
        ("completed", "b"),
    ]) {
        let mut of_run = sample_orchestration(number, true);
        for row in of_run.orchestration_runs.values_mut() {
            (row.status, row.strategy_id) = (status.to_owned(), strategy.to_owned());
        }
        rows = joined(rows, of_run);
    }
    apply(store.as_ref(), &batch(None, 50, rows)).await;

    for (limit, offset, strategy, status, expected, total) in [
        (50, 0, None, None, vec![5, 4, 3, 2, 1], 5),
        (2, 0, None, None, vec![5, 4], 5),
        (2, 3, None, None, vec![2, 1], 5),
        (2, 5, None, None, vec![], 5),
        (2, u32::MAX, None, None, vec![], 5),
        (1, 1, Some("b"), None, vec![4], 3),
        (50, 0, None, Some("completed"), vec![5, 1], 2),
        (50, 0, Some("b"), Some("completed"), vec![5], 1),
        (50, 0, Some("b' OR '1' = '1"), Some("%"), vec![], 0),
    ] {
        let query = OrchestrationPageQuery {
            strategy_id: strategy.map(str::to_owned),
            status: status.map(str::to_owned),
            ..orchestration_page(limit, offset)
        };
        let page = store.list_orchestration_runs(&query).await.expect("a page");
        let expected: Vec<_> = expected.into_iter().map(sample_cycle_id).collect();
        let found: Vec<_> = page.runs.iter().map(|row| row.run_id).collect();
        assert_eq!((found, page.total), (expected, total), "{query:?}");
    }
}

/// Method: symbols and identifiers of any length and content; amounts of the most digits there are.
async fn runs_of_any_text_and_number_are_held(provider: &impl HistoryProvider) {
    let odd = fit_text("\0é\u{1f600}'\"\\\r\n{},NULL%_$1").repeat(50);
    let store = provider.fresh().await;
    let mut rows = sample_orchestration(1, true);
    for row in rows.orchestration_runs.values_mut() {
        row.strategy_id.clone_from(&odd);
        row.symbols = vec![odd.clone(), String::new(), "NULL".to_owned(), "A".repeat(5000)];
        (row.capital, row.max_position_size) = (Decimal::MAX, Decimal::new(1, 28));
        row.error_message = Some(odd.clone());
        (row.num_signals, row.num_orders_filled) = (i32::MAX, None);
        row.as_of_date = "9999-12-31".to_owned();
    }
    for row in rows.signal_orders.values_mut() {
        (row.symbol, row.skip_reason) = (odd.clone(), Some(odd.clone()));
        row.client_order_id = Some("x".repeat(5000));
        row.order_status = Some("submitted_unconfirmed".to_owned());
        (row.predicted_return, row.target_weight) = (Some(Decimal::MIN), Some(Decimal::new(-1, 28)));
        row.filled_qty = Some(Decimal::MAX);
        (row.rank, row.order_qty) = (Some(i32::MIN), Some(i32::MAX));
    }
    apply(store.as_ref(), &batch(None, 7, rows.clone())).await;

    let store = provider.reopen(store).await;

    assert_eq!(dump(store.as_ref()).await, tables_of(&rows));
}
