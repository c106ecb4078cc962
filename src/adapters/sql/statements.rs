//! Statements, made from the tables as data. What they hold of others is bound, never written into them.

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::history::{CYCLE_LOGS_SHOWN_MAX, HistoryBatch};
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_kernel::trading::history::{
    CyclePageQuery, HistoryMark, HistoryRows, MAPPINGS_SHOWN_MAX, OrchestrationPageQuery, fit_moment,
    fit_position, fit_text,
};
use orchestrator_kernel::trading::ids::CycleId;

use super::cells::{
    agent_values, artifact_values, cycle_values, log_values, mark_values, orchestration_values, run_values,
    schedule_values, signal_order_values,
};
use super::tables::{
    AGENT_STATUS, ARTIFACTS, CYCLE_LOGS, CYCLES, ColumnKind, HISTORY_MARK, ORCHESTRATION_RUNS, RUNS,
    SIGNAL_ORDER_MAPPINGS, STRATEGY_SCHEDULES, SchemaName, SqlDialect, SqlTable, TABLES,
};

/// Rows that one statement writes: fewer round trips, and few different statements to prepare.
const ROWS_AT_ONCE: usize = 32;

/// A value that is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SqlValue {
    Text(Option<String>),
    Integer(Option<i64>),
}

/// The values of one row, in the order of its table's columns.
pub(super) type SqlRow = Vec<SqlValue>;

/// A statement with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SqlStatement {
    pub(super) sql: String,
    pub(super) values: Vec<SqlValue>,
    /// Whether it has to change one row, or else the transaction ends without effect.
    pub(super) changes_one: bool,
}

impl SqlStatement {
    fn new(sql: String, values: Vec<SqlValue>) -> Self {
        Self { sql, values, changes_one: false }
    }
}

/// Maker of the statements of one database.
#[derive(Clone, Debug)]
pub(super) struct HistorySql {
    pub(super) dialect: SqlDialect,
    pub(super) schema: SchemaName,
}

impl HistorySql {
    fn name(&self, table: &SqlTable) -> String {
        self.dialect.table_name(table, &self.schema)
    }

    /// Everything that a batch writes: the mark first, because where it does not stand nothing is written.
    pub(super) fn write_batch(&self, batch: &HistoryBatch) -> Vec<SqlStatement> {
        let HistoryRows {
            runs,
            cycles,
            logs,
            artifacts,
            agent,
            schedules,
            orchestration_runs,
            signal_orders,
        } = &batch.rows;
        let moved = match batch.after {
            None => self.first_mark(&batch.mark),
            Some(after) => self.move_mark(&batch.mark, fit_position(after.0)),
        };
        let mut statements = vec![moved];
        statements.extend(self.put_rows(&RUNS, runs.values().map(run_values)));
        statements.extend(self.put_rows(&CYCLES, cycles.values().map(cycle_values)));
        statements.extend(self.put_rows(&CYCLE_LOGS, logs.iter().map(log_values)));
        statements.extend(self.put_rows(&ARTIFACTS, artifacts.iter().map(artifact_values)));
        statements.extend(self.put_rows(&AGENT_STATUS, agent.iter().map(agent_values)));
        statements.extend(self.put_rows(&STRATEGY_SCHEDULES, schedules.values().map(schedule_values)));
        statements.extend(
            self.put_rows(&ORCHESTRATION_RUNS, orchestration_runs.values().map(orchestration_values)),
        );
        statements
            .extend(self.put_rows(&SIGNAL_ORDER_MAPPINGS, signal_orders.values().map(signal_order_values)));
        statements
    }

    fn first_mark(&self, mark: &HistoryMark) -> SqlStatement {
        let values = mark_values(mark);
        let sql = format!("{} ON CONFLICT DO NOTHING", self.insert(&HISTORY_MARK, 1));
        SqlStatement { changes_one: true, ..SqlStatement::new(sql, values) }
    }

    fn move_mark(&self, mark: &HistoryMark, after: i64) -> SqlStatement {
        let mut values = mark_values(mark);
        let columns = HISTORY_MARK.columns.iter().zip(1..).skip(1);
        let set: Vec<String> = columns
            .map(|((column, kind), number)| {
                let bound = self.dialect.bound(*kind, number);
                match *column {
                    // What is not said stays.
                    "schedules" => format!("\"{column}\" = COALESCE({bound}, \"{column}\")"),
                    _ => format!("\"{column}\" = {bound}"),
                }
            })
            .collect();
        let (id, after_at) =
            (self.bound_integer(1), self.bound_integer(HISTORY_MARK.columns.len().saturating_add(1)));
        let sql = format!(
            "UPDATE {} SET {} WHERE \"id\" = {id} AND \"position\" = {after_at}",
            self.name(&HISTORY_MARK),
            set.join(", "),
        );
        values.push(SqlValue::Integer(Some(after)));
        SqlStatement { changes_one: true, ..SqlStatement::new(sql, values) }
    }

    fn bound_integer(&self, number: usize) -> String {
        self.dialect.bound(ColumnKind::Integer, number)
    }

    /// `INSERT INTO table (columns) VALUES (…), …` of so many rows.
    fn insert(&self, table: &SqlTable, rows: usize) -> String {
        let width = table.columns.len();
        let names: Vec<String> = table.columns.iter().map(|(column, _)| format!("\"{column}\"")).collect();
        let tuple = |row: usize| {
            let places = table.columns.iter().zip(row * width + 1..);
            let places = places.map(|((_, kind), number)| self.dialect.bound(*kind, number));
            format!("({})", places.collect::<Vec<_>>().join(", "))
        };
        let tuples: Vec<String> = (0..rows).map(tuple).collect();
        format!("INSERT INTO {} ({}) VALUES {}", self.name(table), names.join(", "), tuples.join(", "))
    }

    /// Writes rows, each whole; one of a key that is there replaces it. No two of them have one key.
    fn put_rows(&self, table: &SqlTable, rows: impl Iterator<Item = SqlRow>) -> Vec<SqlStatement> {
        let Some((_, others)) = table.columns.split_at_checked(table.key_width) else { return Vec::new() };
        let key = table.key_list();
        let set: Vec<String> =
            others.iter().map(|(column, _)| format!("\"{column}\" = excluded.\"{column}\"")).collect();
        let put = |rows: usize, values: Vec<SqlValue>| {
            let insert = self.insert(table, rows);
            let sql = format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {}", set.join(", "));
            SqlStatement::new(sql, values)
        };
        let rows: Vec<SqlRow> = rows.collect();
        let (full, rest) = rows.as_chunks::<ROWS_AT_ONCE>();
        let full = full.iter().map(|chunk| put(ROWS_AT_ONCE, chunk.concat()));
        full.chain(rest.iter().map(|row| put(1, row.clone()))).collect()
    }

    /// `SELECT columns FROM table`, with what follows.
    pub(super) fn select(&self, table: &SqlTable, rest: &str, values: Vec<SqlValue>) -> SqlStatement {
        let columns: Vec<String> =
            table.columns.iter().map(|(column, kind)| self.dialect.read(column, *kind)).collect();
        let sql = format!("SELECT {} FROM {} {rest}", columns.join(", "), self.name(table));
        SqlStatement::new(sql, values)
    }

    /// Every row, by its key.
    pub(super) fn select_all(&self, table: &SqlTable) -> SqlStatement {
        self.select(table, &format!("ORDER BY {}", table.key_list()), Vec::new())
    }

    pub(super) fn select_page(&self, query: CyclePageQuery) -> SqlStatement {
        let limit = SqlValue::Integer(Some(i64::from(query.limit)));
        let order = "ORDER BY \"started_at\" DESC, \"id\" DESC LIMIT";
        match query.status {
            None => {
                let rest = format!("{order} {}", self.bound_integer(1));
                self.select(&CYCLES, &rest, vec![limit])
            }
            Some(status) => {
                let status = SqlValue::Text(Some(status.as_str().to_owned()));
                let (first, second) = (self.bound_integer(1), self.bound_integer(2));
                let rest = format!("WHERE \"status\" = {first} {order} {second}");
                self.select(&CYCLES, &rest, vec![status, limit])
            }
        }
    }

    pub(super) fn select_cycle(&self, id: CycleId) -> SqlStatement {
        let id = SqlValue::Text(Some(id.to_string()));
        let place = self.dialect.bound(ColumnKind::Uuid, 1);
        self.select(&CYCLES, &format!("WHERE \"id\" = {place}"), vec![id])
    }

    pub(super) fn select_logs(&self, id: CycleId) -> SqlStatement {
        let values = vec![
            SqlValue::Text(Some(id.to_string())),
            SqlValue::Integer(Some(i64::from(CYCLE_LOGS_SHOWN_MAX))),
        ];
        let place = self.dialect.bound(ColumnKind::Uuid, 1);
        let rest = format!("WHERE \"cycle_id\" = {place} ORDER BY \"id\" LIMIT {}", self.bound_integer(2));
        self.select(&CYCLE_LOGS, &rest, values)
    }

    /// A page of orchestration runs, and the count of all that match.
    pub(super) fn select_orchestration_page(
        &self,
        query: &OrchestrationPageQuery,
    ) -> (SqlStatement, SqlStatement) {
        let filters = [("strategy_id", &query.strategy_id), ("status", &query.status)];
        let given = filters.into_iter().filter_map(|(column, wanted)| Some((column, wanted.as_ref()?)));
        let (conditions, mut values): (Vec<String>, Vec<SqlValue>) = given
            .zip(1..)
            .map(|((column, wanted), number)| {
                let place = self.dialect.bound(ColumnKind::Text, number);
                (format!("\"{column}\" = {place}"), SqlValue::Text(Some(fit_text(wanted))))
            })
            .unzip();
        let wanted =
            if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        let count = format!("SELECT COUNT(*) FROM {} {wanted}", self.name(&ORCHESTRATION_RUNS));
        let count = SqlStatement::new(count, values.clone());
        let place = |more: usize| self.bound_integer(values.len().saturating_add(more));
        let rest = format!(
            "{wanted} ORDER BY \"started_at\" DESC, \"run_id\" DESC LIMIT {} OFFSET {}",
            place(1),
            place(2),
        );
        values.extend([query.limit, query.offset].map(|number| SqlValue::Integer(Some(number.into()))));
        (self.select(&ORCHESTRATION_RUNS, &rest, values), count)
    }

    pub(super) fn select_orchestration_run(&self, id: CycleId) -> SqlStatement {
        let place = self.dialect.bound(ColumnKind::Uuid, 1);
        let id = SqlValue::Text(Some(id.to_string()));
        self.select(&ORCHESTRATION_RUNS, &format!("WHERE \"run_id\" = {place}"), vec![id])
    }

    pub(super) fn select_signal_orders(&self, id: CycleId) -> SqlStatement {
        let values = vec![
            SqlValue::Text(Some(id.to_string())),
            SqlValue::Integer(Some(i64::from(MAPPINGS_SHOWN_MAX))),
        ];
        let place = self.dialect.bound(ColumnKind::Uuid, 1);
        let rest =
            format!("WHERE \"run_id\" = {place} ORDER BY \"position\" LIMIT {}", self.bound_integer(2));
        self.select(&SIGNAL_ORDER_MAPPINGS, &rest, values)
    }

    /// Removes every row, what refers to others first.
    pub(super) fn clear_tables(&self) -> Vec<SqlStatement> {
        let tables = TABLES.iter().rev();
        tables
            .map(|table| SqlStatement::new(format!("DELETE FROM {}", self.name(table)), Vec::new()))
            .collect()
    }

    /// Removes the oldest ended cycles that began before a moment, and what stands beside them. The last statement's
    /// count is theirs.
    pub(super) fn drop_cycles(&self, before: TsMs, limit: u32) -> Vec<SqlStatement> {
        let values = vec![
            SqlValue::Text(Some(to_rfc3339(fit_moment(before)))),
            SqlValue::Integer(Some(i64::from(limit))),
        ];
        let moment = self.dialect.bound(ColumnKind::Time, 1);
        let old = format!(
            "SELECT \"id\" FROM {} WHERE \"started_at\" < {moment} AND \"completed_at\" IS NOT NULL \
             ORDER BY \"started_at\", \"id\" LIMIT {}",
            self.name(&CYCLES),
            self.bound_integer(2),
        );
        let of_cycle = [
            (&CYCLE_LOGS, "cycle_id"),
            (&ARTIFACTS, "run_id"),
            (&RUNS, "run_id"),
            (&SIGNAL_ORDER_MAPPINGS, "run_id"),
            (&ORCHESTRATION_RUNS, "run_id"),
            (&CYCLES, "id"),
        ];
        of_cycle
            .into_iter()
            .map(|(table, column)| {
                let sql = format!("DELETE FROM {} WHERE \"{column}\" IN ({old})", self.name(table));
                SqlStatement::new(sql, values.clone())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ports::history_conformance::{sample_mark, sample_orchestration, sample_rows};
    use orchestrator_kernel::trading::history::{CyclePageStatus, HistoryRows};
    use orchestrator_kernel::trading::ids::JournalSeq;

    use super::*;

    fn maker(dialect: SqlDialect) -> HistorySql {
        HistorySql { dialect, schema: SchemaName::new("orchestration").unwrap() }
    }

    #[test]
    fn statements_are_the_documented_ones() {
        let sqlite = maker(SqlDialect::Sqlite);
        let postgres = maker(SqlDialect::Postgres);
        let query = CyclePageQuery { limit: 20, status: Some(CyclePageStatus::Failed) };

        assert!(
            sqlite.select_page(query).sql.ends_with(
                "FROM \"orchestration_cycles\" WHERE \"status\" = ?1 ORDER BY \"started_at\" DESC, \"id\" DESC LIMIT ?2"
            )
        );
        assert!(postgres.select_page(query).sql.starts_with("SELECT \"id\"::text, \"type\"::text, "));
        let wanted = OrchestrationPageQuery {
            limit: 50,
            offset: 7,
            strategy_id: None,
            status: Some("failed".to_owned()),
        };
        let (page, count) = sqlite.select_orchestration_page(&wanted);
        assert_eq!(count.sql, "SELECT COUNT(*) FROM \"orchestration_runs\" WHERE \"status\" = ?1");
        assert!(page.sql.ends_with(
            "WHERE \"status\" = ?1 ORDER BY \"started_at\" DESC, \"run_id\" DESC LIMIT ?2 OFFSET ?3"
        ));
        assert_eq!((count.values.len(), page.values.len()), (1, 3));
        let mark = sample_mark(9);
        let batch = |after| HistoryBatch { after, mark: mark.clone(), rows: HistoryRows::default() };
        let first = &postgres.write_batch(&batch(None))[0];
        assert_eq!(
            first.sql,
            "INSERT INTO \"history_mark\" (\"id\", \"position\", \"chain_hash\", \"open_from\", \"code\", \
             \"schedules\") VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING"
        );
        let moved = &sqlite.write_batch(&batch(Some(JournalSeq(7))))[0];
        assert_eq!(
            moved.sql,
            "UPDATE \"history_mark\" SET \"position\" = ?2, \"chain_hash\" = ?3, \"open_from\" = ?4, \
             \"code\" = ?5, \"schedules\" = COALESCE(?6, \"schedules\") WHERE \"id\" = ?1 AND \"position\" = ?7"
        );
        assert!(first.changes_one && moved.changes_one && moved.values.len() == 7);
    }

    /// Method: more rows than one statement takes; every place has its value, and every value of a row is in one place.
    #[test]
    fn every_value_has_its_place() {
        let mut rows = HistoryRows::default();
        for number in 0..100 {
            let of_cycle = sample_rows(number, true);
            rows.runs.extend(of_cycle.runs);
            rows.cycles.extend(of_cycle.cycles);
            rows.logs.extend(of_cycle.logs);
            let of_run = sample_orchestration(number, true);
            rows.orchestration_runs.extend(of_run.orchestration_runs);
            rows.signal_orders.extend(of_run.signal_orders);
        }
        for dialect in [SqlDialect::Sqlite, SqlDialect::Postgres] {
            let batch = HistoryBatch { after: None, mark: sample_mark(9), rows: rows.clone() };
            let written = maker(dialect).write_batch(&batch);
            let sign = if dialect == SqlDialect::Sqlite { '?' } else { '$' };
            for statement in &written {
                assert_eq!(statement.sql.matches(sign).count(), statement.values.len(), "{}", statement.sql);
            }
            // 100 = 3 × 32 + 4 runs, as many cycles, twice as many lines: 200 = 6 × 32 + 8; of orchestration as many
            // runs again, and 300 = 9 × 32 + 12 mappings.
            assert_eq!(written.len(), 1 + 7 + 7 + 14 + 7 + 21);
        }
    }
}
