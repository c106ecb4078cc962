//! The reference of the history's port: tables in memory, and a database that fails as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::history::{CYCLE_LOGS_SHOWN_MAX, HistoryBatch, HistoryError, HistoryStore, HistoryTables};
use crate::ids::TsMs;
use crate::trading::history::{
    AgentStatusRow, ArtifactRow, CycleDetails, CycleLogRow, CyclePageQuery, CycleRow, HistoryMark,
    HistoryResume, MAPPINGS_SHOWN_MAX, OrchestrationDetails, OrchestrationPage, OrchestrationPageQuery,
    OrchestrationRunRow, RunRow, ScheduleRow, SignalOrderRow,
};
use crate::trading::ids::{CycleId, HistoryRowId, JournalSeq};

#[derive(Debug, Default)]
struct MemoryTables {
    mark: Option<HistoryMark>,
    runs: BTreeMap<CycleId, RunRow>,
    artifacts: BTreeMap<HistoryRowId, ArtifactRow>,
    agent: Option<AgentStatusRow>,
    cycles: BTreeMap<CycleId, CycleRow>,
    logs: BTreeMap<JournalSeq, CycleLogRow>,
    schedules: BTreeMap<HistoryRowId, ScheduleRow>,
    orchestration_runs: BTreeMap<CycleId, OrchestrationRunRow>,
    signal_orders: BTreeMap<(CycleId, i32), SignalOrderRow>,
    failures: VecDeque<HistoryError>,
    is_away: bool,
    /// A log line with this in its message is one that it cannot hold.
    unfit: Option<String>,
    batches: u64,
}

/// Tables in memory.
#[derive(Debug, Default)]
pub struct MemoryHistory(Mutex<MemoryTables>);

impl MemoryHistory {
    /// Lets it be away, or back.
    pub fn set_away(&self, is_away: bool) {
        self.lock_tables().is_away = is_away;
    }

    /// Lets the next calls fail so.
    pub fn fail_next(&self, failures: impl IntoIterator<Item = HistoryError>) {
        self.lock_tables().failures.extend(failures);
    }

    /// Lets it hold no log line with `part` in its message.
    pub fn refuse_lines(&self, part: &str) {
        self.lock_tables().unfit = Some(part.to_owned());
    }

    /// Batches that it took.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.lock_tables().batches
    }

    /// The mark, past everything that it was told to fail with.
    #[must_use]
    pub fn mark(&self) -> Option<HistoryMark> {
        self.lock_tables().mark.clone()
    }

    fn lock_tables(&self) -> MutexGuard<'_, MemoryTables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach_tables(&self) -> Result<MutexGuard<'_, MemoryTables>, HistoryError> {
        let mut tables = self.lock_tables();
        if tables.is_away {
            return Err(HistoryError::Away("it was told so".to_owned()));
        }
        match tables.failures.pop_front() {
            Some(failure) => Err(failure),
            None => Ok(tables),
        }
    }
}

#[async_trait]
impl HistoryStore for MemoryHistory {
    async fn load_resume(&self) -> Result<Option<HistoryResume>, HistoryError> {
        let tables = self.reach_tables()?;
        Ok(tables.mark.clone().map(|mark| HistoryResume {
            mark,
            agent: tables.agent.clone(),
            schedules: tables.schedules.values().cloned().collect(),
        }))
    }

    async fn apply_batch(&self, batch: &HistoryBatch) -> Result<(), HistoryError> {
        let mut tables = self.reach_tables()?;
        let stands_at = tables.mark.as_ref().map(|mark| mark.position);
        if stands_at != batch.after {
            return Err(HistoryError::Moved { expected: batch.after.unwrap_or_default() });
        }
        let rows = batch.rows.clone();
        if let Some(part) = &tables.unfit
            && rows.logs.iter().any(|line| line.message.contains(part.as_str()))
        {
            return Err(HistoryError::Unfit(format!("a line with {part:?}")));
        }
        let known = tables.mark.take().and_then(|mark| mark.schedules);
        let mark = batch.mark.clone();
        tables.mark = Some(HistoryMark { schedules: mark.schedules.or(known), ..mark });
        tables.runs.extend(rows.runs);
        tables.cycles.extend(rows.cycles);
        tables.artifacts.extend(rows.artifacts.into_iter().map(|row| (row.artifact_id, row)));
        tables.logs.extend(rows.logs.into_iter().map(|row| (row.id, row)));
        tables.schedules.extend(rows.schedules);
        tables.orchestration_runs.extend(rows.orchestration_runs);
        tables.signal_orders.extend(rows.signal_orders);
        tables.agent = rows.agent.or(tables.agent.take());
        tables.batches += 1;
        Ok(())
    }

    async fn clear_history(&self) -> Result<(), HistoryError> {
        let mut tables = self.reach_tables()?;
        *tables = MemoryTables {
            failures: std::mem::take(&mut tables.failures),
            unfit: tables.unfit.take(),
            ..MemoryTables::default()
        };
        Ok(())
    }

    async fn drop_cycles_before(&self, before: TsMs, limit: u32) -> Result<u64, HistoryError> {
        let mut tables = self.reach_tables()?;
        let ended = tables.cycles.values().filter(|row| row.completed_at.is_some());
        let mut old: Vec<(TsMs, CycleId)> =
            ended.filter(|row| row.started_at < before).map(|row| (row.started_at, row.id)).collect();
        old.sort_unstable();
        old.truncate(limit as usize);
        for (_, id) in &old {
            tables.cycles.remove(id);
            tables.runs.remove(id);
            tables.logs.retain(|_, row| row.cycle_id != *id);
            tables.artifacts.retain(|_, row| row.run_id != *id);
            tables.orchestration_runs.remove(id);
            tables.signal_orders.retain(|(run, _), _| run != id);
        }
        Ok(old.len() as u64)
    }

    async fn list_cycles(&self, query: CyclePageQuery) -> Result<Vec<CycleRow>, HistoryError> {
        let tables = self.reach_tables()?;
        let is_wanted = |row: &&CycleRow| query.status.is_none_or(|status| status.as_str() == row.status);
        let mut rows: Vec<CycleRow> = tables.cycles.values().filter(is_wanted).cloned().collect();
        rows.sort_by_key(|row| std::cmp::Reverse((row.started_at, row.id)));
        rows.truncate(query.limit as usize);
        Ok(rows)
    }

    async fn find_cycle(&self, id: CycleId) -> Result<Option<CycleDetails>, HistoryError> {
        let tables = self.reach_tables()?;
        let Some(cycle) = tables.cycles.get(&id).cloned() else { return Ok(None) };
        let logs = tables.logs.values().filter(|row| row.cycle_id == id).cloned();
        Ok(Some(CycleDetails { cycle, logs: logs.take(CYCLE_LOGS_SHOWN_MAX as usize).collect() }))
    }

    async fn list_orchestration_runs(
        &self,
        query: &OrchestrationPageQuery,
    ) -> Result<OrchestrationPage, HistoryError> {
        let tables = self.reach_tables()?;
        let is_wanted = |row: &&OrchestrationRunRow| {
            query.strategy_id.as_ref().is_none_or(|strategy| *strategy == row.strategy_id)
                && query.status.as_ref().is_none_or(|status| *status == row.status)
        };
        let mut runs: Vec<_> = tables.orchestration_runs.values().filter(is_wanted).cloned().collect();
        let total = runs.len() as u64;
        runs.sort_by_key(|row| std::cmp::Reverse((row.started_at, row.run_id)));
        let runs = runs.into_iter().skip(query.offset as usize).take(query.limit as usize).collect();
        Ok(OrchestrationPage { runs, total })
    }

    async fn find_orchestration_run(
        &self,
        id: CycleId,
    ) -> Result<Option<OrchestrationDetails>, HistoryError> {
        let tables = self.reach_tables()?;
        let Some(run) = tables.orchestration_runs.get(&id).cloned() else { return Ok(None) };
        let mappings = tables.signal_orders.values().filter(|row| row.run_id == id).cloned();
        Ok(Some(OrchestrationDetails { run, mappings: mappings.take(MAPPINGS_SHOWN_MAX as usize).collect() }))
    }

    async fn dump_tables(&self) -> Result<HistoryTables, HistoryError> {
        let tables = self.reach_tables()?;
        Ok(HistoryTables {
            runs: tables.runs.values().cloned().collect(),
            artifacts: tables.artifacts.values().cloned().collect(),
            agent: tables.agent.clone(),
            cycles: tables.cycles.values().cloned().collect(),
            logs: tables.logs.values().cloned().collect(),
            schedules: tables.schedules.values().cloned().collect(),
            orchestration_runs: tables.orchestration_runs.values().cloned().collect(),
            signal_orders: tables.signal_orders.values().cloned().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::history_conformance::{self, HistoryProvider};
    use super::*;

    struct InMemory;

    #[async_trait]
    impl HistoryProvider for InMemory {
        async fn fresh(&self) -> Arc<dyn HistoryStore> {
            Arc::new(MemoryHistory::default())
        }

        async fn reopen(&self, store: Arc<dyn HistoryStore>) -> Arc<dyn HistoryStore> {
            store
        }
    }

    #[test]
    fn memory_passes_the_suite() {
        pollster::block_on(history_conformance::run(&InMemory));
    }
}
