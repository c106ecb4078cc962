//! Rows as values that are bound, in the order of their table's columns, and rows again from what was read.

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::history::HistoryError;
use orchestrator_kernel::rfc3339::{moment_of_people, to_rfc3339};
use orchestrator_kernel::trading::history::{
    AgentStatusRow, ArtifactRow, CycleLogRow, CycleRow, HistoryMark, OrchestrationRunRow, RunRow,
    ScheduleRow, SignalOrderRow, fit_position,
};
use orchestrator_kernel::trading::ids::{CycleId, HistoryRowId, JournalSeq, StrategyUuid};
use orchestrator_kernel::trading::journal::ChainHash;
use rust_decimal::Decimal;
use serde_json::Value;

use super::statements::SqlValue;

fn text(text: impl ToString) -> SqlValue {
    SqlValue::Text(Some(text.to_string()))
}

fn moment(at: Option<TsMs>) -> SqlValue {
    SqlValue::Text(at.map(to_rfc3339))
}

const fn integer(value: i64) -> SqlValue {
    SqlValue::Integer(Some(value))
}

fn words(text: Option<&String>) -> SqlValue {
    SqlValue::Text(text.cloned())
}

fn amount(value: Option<Decimal>) -> SqlValue {
    SqlValue::Text(value.map(|value| value.normalize().to_string()))
}

fn json(value: Option<&Value>) -> SqlValue {
    SqlValue::Text(value.map(ToString::to_string))
}

fn count(value: Option<i32>) -> SqlValue {
    SqlValue::Integer(value.map(i64::from))
}

pub(super) fn mark_values(mark: &HistoryMark) -> Vec<SqlValue> {
    vec![
        integer(1),
        integer(fit_position(mark.position.0)),
        text(mark.chain_hash),
        integer(fit_position(mark.open_from.0)),
        text(&mark.code),
        SqlValue::Text(mark.schedules.clone()),
    ]
}

pub(super) fn run_values(row: &RunRow) -> Vec<SqlValue> {
    vec![
        text(row.run_id),
        text(&row.correlation_id),
        text(&row.mode),
        text(&row.status),
        moment(Some(row.started_at)),
        moment(row.finished_at),
    ]
}

pub(super) fn artifact_values(row: &ArtifactRow) -> Vec<SqlValue> {
    vec![
        text(row.artifact_id),
        text(row.run_id),
        text(&row.kind),
        text(&row.schema_version),
        text(&row.code),
        text(&row.content),
        moment(Some(row.created_at)),
    ]
}

pub(super) fn agent_values(row: &AgentStatusRow) -> Vec<SqlValue> {
    vec![
        text(row.id),
        text(&row.status),
        moment(row.started_at),
        moment(row.stopped_at),
        moment(row.paused_at),
        moment(row.resume_at),
        text(&row.mode),
        integer(row.cycles_completed.into()),
        integer(row.decisions_generated.into()),
        integer(row.orders_executed.into()),
        integer(row.errors_count.into()),
        SqlValue::Text(row.last_error.clone()),
        moment(row.last_error_at),
        moment(Some(row.updated_at)),
    ]
}

pub(super) fn cycle_values(row: &CycleRow) -> Vec<SqlValue> {
    vec![
        text(row.id),
        text(&row.kind),
        text(&row.status),
        moment(Some(row.started_at)),
        moment(row.completed_at),
        SqlValue::Integer(row.duration_ms.map(i64::from)),
        integer(row.strategies_processed.into()),
        integer(row.decisions_generated.into()),
        integer(row.orders_submitted.into()),
        integer(row.orders_filled.into()),
        text(&row.errors),
        text(&row.metadata),
        moment(Some(row.created_at)),
    ]
}

pub(super) fn log_values(row: &CycleLogRow) -> Vec<SqlValue> {
    vec![
        integer(fit_position(row.id.0)),
        text(row.cycle_id),
        text(&row.level),
        text(&row.message),
        text(&row.context),
        moment(Some(row.at)),
    ]
}

pub(super) fn schedule_values(row: &ScheduleRow) -> Vec<SqlValue> {
    vec![
        text(row.id),
        text(row.strategy_id),
        text(&row.schedule_type),
        text(&row.schedule_value),
        integer(row.enabled.into()),
        moment(row.last_run_at),
        moment(row.next_run_at),
        moment(Some(row.created_at)),
        moment(Some(row.updated_at)),
    ]
}

pub(super) fn orchestration_values(row: &OrchestrationRunRow) -> Vec<SqlValue> {
    vec![
        text(row.run_id),
        text(&row.strategy_id),
        text(&row.as_of_date),
        text(&row.status),
        text(Value::from(row.symbols.clone())),
        amount(Some(row.capital)),
        amount(Some(row.max_position_size)),
        count(Some(row.num_signals)),
        count(Some(row.num_orders_submitted)),
        count(Some(row.num_orders_accepted)),
        count(Some(row.num_orders_rejected)),
        count(row.num_orders_filled),
        moment(Some(row.started_at)),
        moment(row.completed_at),
        amount(row.duration_seconds),
        words(row.error_message.as_ref()),
        words(row.model_version.as_ref()),
        json(row.signal_service_response.as_ref()),
        json(row.execution_gateway_responses.as_ref()),
        moment(Some(row.created_at)),
        moment(Some(row.updated_at)),
    ]
}

pub(super) fn signal_order_values(row: &SignalOrderRow) -> Vec<SqlValue> {
    vec![
        text(row.run_id),
        count(Some(row.position)),
        text(&row.symbol),
        amount(row.predicted_return),
        count(row.rank),
        amount(row.target_weight),
        words(row.client_order_id.as_ref()),
        count(row.order_qty),
        words(row.order_side.as_ref()),
        words(row.broker_order_id.as_ref()),
        words(row.order_status.as_ref()),
        amount(row.filled_qty),
        amount(row.filled_avg_price),
        words(row.skip_reason.as_ref()),
        moment(Some(row.created_at)),
        moment(Some(row.updated_at)),
    ]
}

/// The cells of one row that was read, taken from left to right. What is no value of ours was written by somebody else.
pub(super) struct SqlCells {
    table: &'static str,
    cells: std::vec::IntoIter<SqlValue>,
    taken: usize,
}

impl SqlCells {
    pub(super) fn new(table: &'static str, cells: Vec<SqlValue>) -> Self {
        Self { table, cells: cells.into_iter(), taken: 0 }
    }

    fn strange(&self, what: &str) -> HistoryError {
        let (table, column) = (self.table, self.taken);
        HistoryError::Refused(format!(
            "column {column} of a row of {table} holds {what}; rebuild the history"
        ))
    }

    fn next_text(&mut self) -> Result<Option<String>, HistoryError> {
        self.taken += 1;
        match self.cells.next() {
            Some(SqlValue::Text(text)) => Ok(text),
            Some(SqlValue::Integer(_)) | None => Err(self.strange("no text")),
        }
    }

    fn text(&mut self) -> Result<String, HistoryError> {
        self.next_text()?.ok_or_else(|| self.strange("nothing"))
    }

    fn next_integer(&mut self) -> Result<Option<i64>, HistoryError> {
        self.taken += 1;
        match self.cells.next() {
            Some(SqlValue::Integer(value)) => Ok(value),
            Some(SqlValue::Text(_)) | None => Err(self.strange("no number")),
        }
    }

    fn integer(&mut self) -> Result<i64, HistoryError> {
        self.next_integer()?.ok_or_else(|| self.strange("nothing"))
    }

    fn count(&mut self) -> Result<i32, HistoryError> {
        let value = self.integer()?;
        i32::try_from(value).map_err(|_| self.strange("a number that is too large"))
    }

    fn next_count(&mut self) -> Result<Option<i32>, HistoryError> {
        let value = self.next_integer()?.map(i32::try_from).transpose();
        value.map_err(|_| self.strange("a number that is too large"))
    }

    fn next_amount(&mut self) -> Result<Option<Decimal>, HistoryError> {
        let value = self.next_text()?.map(|text| text.parse::<Decimal>()).transpose();
        value.map_err(|_| self.strange("no amount"))
    }

    fn amount(&mut self) -> Result<Decimal, HistoryError> {
        self.next_amount()?.ok_or_else(|| self.strange("nothing"))
    }

    fn next_json(&mut self) -> Result<Option<Value>, HistoryError> {
        let value = self.next_text()?.map(|text| serde_json::from_str(&text)).transpose();
        value.map_err(|_| self.strange("no JSON"))
    }

    fn texts(&mut self) -> Result<Vec<String>, HistoryError> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|_| self.strange("no list of texts"))
    }

    fn position(&mut self) -> Result<JournalSeq, HistoryError> {
        let value = self.integer()?;
        u64::try_from(value).map(JournalSeq).map_err(|_| self.strange("no position"))
    }

    fn next_moment(&mut self) -> Result<Option<TsMs>, HistoryError> {
        match self.next_text()? {
            None => Ok(None),
            Some(text) => match moment_of_people(&text) {
                Some(at) => Ok(Some(at)),
                None => Err(self.strange("no moment")),
            },
        }
    }

    fn moment(&mut self) -> Result<TsMs, HistoryError> {
        self.next_moment()?.ok_or_else(|| self.strange("nothing"))
    }

    fn json(&mut self) -> Result<Value, HistoryError> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|_| self.strange("no JSON"))
    }

    fn cycle_id(&mut self) -> Result<CycleId, HistoryError> {
        let text = self.text()?;
        CycleId::parse(&text).ok_or_else(|| self.strange("no UUID"))
    }

    fn row_id(&mut self) -> Result<HistoryRowId, HistoryError> {
        let text = self.text()?;
        HistoryRowId::parse(&text).ok_or_else(|| self.strange("no UUID"))
    }

    pub(super) fn into_mark(mut self) -> Result<HistoryMark, HistoryError> {
        self.integer()?;
        let position = self.position()?;
        let hash = self.text()?;
        Ok(HistoryMark {
            position,
            chain_hash: ChainHash::from_hex(&hash).ok_or_else(|| self.strange("no hash"))?,
            open_from: self.position()?,
            code: self.text()?,
            schedules: self.next_text()?,
        })
    }

    pub(super) fn into_run(mut self) -> Result<RunRow, HistoryError> {
        Ok(RunRow {
            run_id: self.cycle_id()?,
            correlation_id: self.text()?,
            mode: self.text()?,
            status: self.text()?,
            started_at: self.moment()?,
            finished_at: self.next_moment()?,
        })
    }

    pub(super) fn into_artifact(mut self) -> Result<ArtifactRow, HistoryError> {
        Ok(ArtifactRow {
            artifact_id: self.row_id()?,
            run_id: self.cycle_id()?,
            kind: self.text()?,
            schema_version: self.text()?,
            code: self.text()?,
            content: self.json()?,
            created_at: self.moment()?,
        })
    }

    pub(super) fn into_agent(mut self) -> Result<AgentStatusRow, HistoryError> {
        Ok(AgentStatusRow {
            id: self.row_id()?,
            status: self.text()?,
            started_at: self.next_moment()?,
            stopped_at: self.next_moment()?,
            paused_at: self.next_moment()?,
            resume_at: self.next_moment()?,
            mode: self.text()?,
            cycles_completed: self.count()?,
            decisions_generated: self.count()?,
            orders_executed: self.count()?,
            errors_count: self.count()?,
            last_error: self.next_text()?,
            last_error_at: self.next_moment()?,
            updated_at: self.moment()?,
        })
    }

    pub(super) fn into_cycle(mut self) -> Result<CycleRow, HistoryError> {
        Ok(CycleRow {
            id: self.cycle_id()?,
            kind: self.text()?,
            status: self.text()?,
            started_at: self.moment()?,
            completed_at: self.next_moment()?,
            duration_ms: self.next_count()?,
            strategies_processed: self.count()?,
            decisions_generated: self.count()?,
            orders_submitted: self.count()?,
            orders_filled: self.count()?,
            errors: self.json()?,
            metadata: self.json()?,
            created_at: self.moment()?,
        })
    }

    /// The one cell of a count.
    pub(super) fn into_total(mut self) -> Result<u64, HistoryError> {
        let value = self.integer()?;
        u64::try_from(value).map_err(|_| self.strange("no count"))
    }

    pub(super) fn into_orchestration(mut self) -> Result<OrchestrationRunRow, HistoryError> {
        Ok(OrchestrationRunRow {
            run_id: self.cycle_id()?,
            strategy_id: self.text()?,
            as_of_date: self.text()?,
            status: self.text()?,
            symbols: self.texts()?,
            capital: self.amount()?,
            max_position_size: self.amount()?,
            num_signals: self.count()?,
            num_orders_submitted: self.count()?,
            num_orders_accepted: self.count()?,
            num_orders_rejected: self.count()?,
            num_orders_filled: self.next_count()?,
            started_at: self.moment()?,
            completed_at: self.next_moment()?,
            duration_seconds: self.next_amount()?,
            error_message: self.next_text()?,
            model_version: self.next_text()?,
            signal_service_response: self.next_json()?,
            execution_gateway_responses: self.next_json()?,
            created_at: self.moment()?,
            updated_at: self.moment()?,
        })
    }

    pub(super) fn into_signal_order(mut self) -> Result<SignalOrderRow, HistoryError> {
        Ok(SignalOrderRow {
            run_id: self.cycle_id()?,
            position: self.count()?,
            symbol: self.text()?,
            predicted_return: self.next_amount()?,
            rank: self.next_count()?,
            target_weight: self.next_amount()?,
            client_order_id: self.next_text()?,
            order_qty: self.next_count()?,
            order_side: self.next_text()?,
            broker_order_id: self.next_text()?,
            order_status: self.next_text()?,
            filled_qty: self.next_amount()?,
            filled_avg_price: self.next_amount()?,
            skip_reason: self.next_text()?,
            created_at: self.moment()?,
            updated_at: self.moment()?,
        })
    }

    pub(super) fn into_log(mut self) -> Result<CycleLogRow, HistoryError> {
        Ok(CycleLogRow {
            id: self.position()?,
            cycle_id: self.cycle_id()?,
            level: self.text()?,
            message: self.text()?,
            context: self.json()?,
            at: self.moment()?,
        })
    }

    pub(super) fn into_schedule(mut self) -> Result<ScheduleRow, HistoryError> {
        let id = self.row_id()?;
        let strategy = self.text()?;
        Ok(ScheduleRow {
            id,
            strategy_id: StrategyUuid::parse(&strategy).ok_or_else(|| self.strange("no UUID"))?,
            schedule_type: self.text()?,
            schedule_value: self.text()?,
            enabled: self.integer()? != 0,
            last_run_at: self.next_moment()?,
            next_run_at: self.next_moment()?,
            created_at: self.moment()?,
            updated_at: self.moment()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ports::history_conformance::{
        sample_agent, sample_cycle_id, sample_mark, sample_orchestration, sample_rows, sample_schedule,
    };

    use super::super::tables::{
        AGENT_STATUS, ARTIFACTS, CYCLE_LOGS, CYCLES, HISTORY_MARK, ORCHESTRATION_RUNS, RUNS,
        SIGNAL_ORDER_MAPPINGS, STRATEGY_SCHEDULES, SqlTable,
    };
    use super::*;

    /// The cells that a database gives back for these values, which have to be one for each column, of its kind.
    fn cells(table: &SqlTable, values: Vec<SqlValue>) -> SqlCells {
        assert_eq!(values.len(), table.columns.len(), "{}", table.name);
        for (value, (column, kind)) in values.iter().zip(table.columns) {
            let is_integer = matches!(value, SqlValue::Integer(_));
            assert_eq!(is_integer, kind.is_integer(), "{}.{column}", table.name);
        }
        SqlCells::new(table.name, values)
    }

    #[test]
    fn every_row_is_the_same_from_its_values() {
        for has_ended in [false, true] {
            let rows = sample_rows(1, has_ended);
            let (run, cycle) = (&rows.runs[&sample_cycle_id(1)], &rows.cycles[&sample_cycle_id(1)]);
            assert_eq!(cells(&RUNS, run_values(run)).into_run().as_ref(), Ok(run));
            assert_eq!(cells(&CYCLES, cycle_values(cycle)).into_cycle().as_ref(), Ok(cycle));
            for line in &rows.logs {
                assert_eq!(cells(&CYCLE_LOGS, log_values(line)).into_log().as_ref(), Ok(line));
            }
            for artifact in &rows.artifacts {
                let read = cells(&ARTIFACTS, artifact_values(artifact)).into_artifact();
                assert_eq!(read.as_ref(), Ok(artifact));
            }
            let rows = sample_orchestration(1, has_ended);
            for run in rows.orchestration_runs.values() {
                let read = cells(&ORCHESTRATION_RUNS, orchestration_values(run)).into_orchestration();
                assert_eq!(read.as_ref(), Ok(run));
            }
            for mapping in rows.signal_orders.values() {
                let read = cells(&SIGNAL_ORDER_MAPPINGS, signal_order_values(mapping)).into_signal_order();
                assert_eq!(read.as_ref(), Ok(mapping));
            }
        }
        let (agent, schedule, mark) = (sample_agent(), sample_schedule("daily"), sample_mark(7));
        assert_eq!(cells(&AGENT_STATUS, agent_values(&agent)).into_agent(), Ok(agent));
        assert_eq!(cells(&STRATEGY_SCHEDULES, schedule_values(&schedule)).into_schedule(), Ok(schedule));
        assert_eq!(cells(&HISTORY_MARK, mark_values(&mark)).into_mark(), Ok(mark));
    }

    #[test]
    fn what_somebody_else_wrote_is_named() {
        let row = &sample_rows(1, true).runs[&sample_cycle_id(1)];
        for (at, value) in [
            (0, SqlValue::Text(Some("no uuid".to_owned()))),
            (1, SqlValue::Text(None)),
            (2, SqlValue::Integer(Some(1))),
            (4, SqlValue::Text(Some("yesterday".to_owned()))),
        ] {
            let mut values = run_values(row);
            values[at] = value;
            let read = SqlCells::new(RUNS.name, values).into_run();
            let message = read.unwrap_err().to_string();
            assert!(message.contains(&format!("column {} of a row of runs", at + 1)), "{message}");
        }
    }
}
