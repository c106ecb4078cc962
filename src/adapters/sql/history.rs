//! The port of the history over either database.

use async_trait::async_trait;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::history::{HistoryBatch, HistoryError, HistoryStore, HistoryTables};
use orchestrator_kernel::trading::history::{
    CycleDetails, CyclePageQuery, CycleRow, HistoryResume, OrchestrationDetails, OrchestrationPage,
    OrchestrationPageQuery,
};
use orchestrator_kernel::trading::ids::CycleId;
use sqlx::migrate::Migrator;
use tokio::sync::OnceCell;

use super::backend::{SqlBackend, make_migrator};
use super::cells::SqlCells;
use super::statements::{HistorySql, SqlRow, SqlStatement};
use super::tables::{
    AGENT_STATUS, ARTIFACTS, COUNT, CYCLE_LOGS, CYCLES, HISTORY_MARK, ORCHESTRATION_RUNS, RUNS,
    SIGNAL_ORDER_MAPPINGS, STRATEGY_SCHEDULES, SchemaName, SqlTable,
};

/// A history in a database of SQL.
pub(super) struct SqlHistory<B> {
    backend: B,
    sql: HistorySql,
    migrations: Migrator,
    /// Set once the tables were seen to be those that this program knows.
    is_migrated: OnceCell<()>,
}

impl<B: SqlBackend> SqlHistory<B> {
    /// Of this database, whose migrations are these files. Asks it nothing yet.
    pub(super) fn new(backend: B, schema: SchemaName, files: &[(&'static str, &str)]) -> Self {
        let migrations = make_migrator(files, &schema);
        let sql = HistorySql { dialect: backend.dialect(), schema };
        Self { backend, sql, migrations, is_migrated: OnceCell::new() }
    }

    async fn make_tables(&self) -> Result<(), HistoryError> {
        self.is_migrated.get_or_try_init(|| self.backend.migrate(&self.migrations)).await?;
        Ok(())
    }

    /// The rows of each query, read at one moment.
    async fn read_rows(
        &self,
        queries: Vec<(&'static SqlTable, SqlStatement)>,
    ) -> Result<Vec<Vec<SqlCells>>, HistoryError> {
        self.make_tables().await?;
        let names: Vec<&'static str> = queries.iter().map(|(table, _)| table.name).collect();
        let queries = queries.into_iter().map(|(table, statement)| (statement, table.columns)).collect();
        let found = self.backend.fetch(queries).await?;
        let cells = |(name, rows): (&'static str, Vec<SqlRow>)| {
            rows.into_iter().map(|row| SqlCells::new(name, row)).collect::<Vec<_>>()
        };
        Ok(names.into_iter().zip(found).map(cells).collect())
    }

    /// The rows of one query, each as `read` makes it.
    async fn read_table<T>(
        &self,
        table: &'static SqlTable,
        statement: SqlStatement,
        read: impl Fn(SqlCells) -> Result<T, HistoryError>,
    ) -> Result<Vec<T>, HistoryError> {
        let rows = self.read_rows(vec![(table, statement)]).await?;
        rows.into_iter().flatten().map(read).collect()
    }
}

#[async_trait]
impl<B: SqlBackend> HistoryStore for SqlHistory<B> {
    async fn load_resume(&self) -> Result<Option<HistoryResume>, HistoryError> {
        // Asked at a start and after each failure: the tables may be others by now.
        self.backend.migrate(&self.migrations).await?;
        let tables = [&HISTORY_MARK, &AGENT_STATUS, &STRATEGY_SCHEDULES];
        let queries = tables.map(|table| (table, self.sql.select_all(table)));
        let mut found = self.read_rows(queries.into()).await?.into_iter();
        let (marks, agents, schedules) = (found.next(), found.next(), found.next());
        let Some(mark) = marks.into_iter().flatten().next() else { return Ok(None) };
        let agent = agents.into_iter().flatten().next();
        Ok(Some(HistoryResume {
            mark: mark.into_mark()?,
            agent: agent.map(SqlCells::into_agent).transpose()?,
            schedules: schedules
                .into_iter()
                .flatten()
                .map(SqlCells::into_schedule)
                .collect::<Result<_, _>>()?,
        }))
    }

    async fn apply_batch(&self, batch: &HistoryBatch) -> Result<(), HistoryError> {
        self.make_tables().await?;
        match self.backend.transact(self.sql.write_batch(batch)).await? {
            Some(_) => Ok(()),
            None => Err(HistoryError::Moved { expected: batch.after.unwrap_or_default() }),
        }
    }

    async fn clear_history(&self) -> Result<(), HistoryError> {
        self.make_tables().await?;
        self.backend.transact(self.sql.clear_tables()).await.map(drop)
    }

    async fn drop_cycles_before(&self, before: TsMs, limit: u32) -> Result<u64, HistoryError> {
        self.make_tables().await?;
        let changed = self.backend.transact(self.sql.drop_cycles(before, limit)).await?;
        Ok(changed.and_then(|changed| changed.last().copied()).unwrap_or(0))
    }

    async fn list_cycles(&self, query: CyclePageQuery) -> Result<Vec<CycleRow>, HistoryError> {
        self.read_table(&CYCLES, self.sql.select_page(query), SqlCells::into_cycle).await
    }

    async fn find_cycle(&self, id: CycleId) -> Result<Option<CycleDetails>, HistoryError> {
        let queries = vec![(&CYCLES, self.sql.select_cycle(id)), (&CYCLE_LOGS, self.sql.select_logs(id))];
        let mut found = self.read_rows(queries).await?.into_iter();
        let (cycles, logs) = (found.next(), found.next());
        let Some(cycle) = cycles.into_iter().flatten().next() else { return Ok(None) };
        let logs = logs.into_iter().flatten().map(SqlCells::into_log);
        Ok(Some(CycleDetails { cycle: cycle.into_cycle()?, logs: logs.collect::<Result<_, _>>()? }))
    }

    async fn list_orchestration_runs(
        &self,
        query: &OrchestrationPageQuery,
    ) -> Result<OrchestrationPage, HistoryError> {
        self.make_tables().await?;
        let table = &ORCHESTRATION_RUNS;
        let (page, count) = self.sql.select_orchestration_page(query);
        let found = self.backend.fetch(vec![(page, table.columns), (count, COUNT)]).await?;
        let mut found = found.into_iter();
        let mut cells = || found.next().into_iter().flatten().map(move |row| SqlCells::new(table.name, row));
        let runs = cells().map(SqlCells::into_orchestration).collect::<Result<Vec<_>, _>>()?;
        let total = cells().next().map(SqlCells::into_total).transpose()?.unwrap_or(0);
        Ok(OrchestrationPage { runs, total })
    }

    async fn find_orchestration_run(
        &self,
        id: CycleId,
    ) -> Result<Option<OrchestrationDetails>, HistoryError> {
        let queries = vec![
            (&ORCHESTRATION_RUNS, self.sql.select_orchestration_run(id)),
            (&SIGNAL_ORDER_MAPPINGS, self.sql.select_signal_orders(id)),
        ];
        let mut found = self.read_rows(queries).await?.into_iter();
        let (runs, mappings) = (found.next(), found.next());
        let Some(run) = runs.into_iter().flatten().next() else { return Ok(None) };
        let mappings = mappings.into_iter().flatten().map(SqlCells::into_signal_order);
        Ok(Some(OrchestrationDetails {
            run: run.into_orchestration()?,
            mappings: mappings.collect::<Result<_, _>>()?,
        }))
    }

    async fn dump_tables(&self) -> Result<HistoryTables, HistoryError> {
        let all = |table: &SqlTable| self.sql.select_all(table);
        let agents = self.read_table(&AGENT_STATUS, all(&AGENT_STATUS), SqlCells::into_agent).await?;
        Ok(HistoryTables {
            runs: self.read_table(&RUNS, all(&RUNS), SqlCells::into_run).await?,
            artifacts: self.read_table(&ARTIFACTS, all(&ARTIFACTS), SqlCells::into_artifact).await?,
            agent: agents.into_iter().next(),
            cycles: self.read_table(&CYCLES, all(&CYCLES), SqlCells::into_cycle).await?,
            logs: self.read_table(&CYCLE_LOGS, all(&CYCLE_LOGS), SqlCells::into_log).await?,
            schedules: self
                .read_table(&STRATEGY_SCHEDULES, all(&STRATEGY_SCHEDULES), SqlCells::into_schedule)
                .await?,
            orchestration_runs: self
                .read_table(&ORCHESTRATION_RUNS, all(&ORCHESTRATION_RUNS), SqlCells::into_orchestration)
                .await?,
            signal_orders: self
                .read_table(&SIGNAL_ORDER_MAPPINGS, all(&SIGNAL_ORDER_MAPPINGS), SqlCells::into_signal_order)
                .await?,
        })
    }
}
