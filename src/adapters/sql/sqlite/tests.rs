//! The port's suite on a file of SQLite, and what is particular about a file.

use std::time::Duration;

use orchestrator_kernel::ports::history::{HistoryBatch, HistoryError};
use orchestrator_kernel::ports::history_conformance::{
    self, HistoryProvider, sample_cycle_id, sample_mark, sample_rows,
};
use orchestrator_kernel::trading::history::CyclePageQuery;
use sqlx::Connection as _;

use super::*;

fn open(path: PathBuf) -> Arc<dyn HistoryStore> {
    let schema = SchemaName::new("orchestration").unwrap();
    open_sqlite_history(SqliteHistoryOptions { path, schema, busy_timeout: Duration::from_secs(5) })
}

/// Files in one folder, a fresh one each.
struct InFiles {
    dir: tempfile::TempDir,
    made: std::sync::atomic::AtomicU64,
}

impl InFiles {
    fn newest(&self) -> Arc<dyn HistoryStore> {
        let number = self.made.load(std::sync::atomic::Ordering::Relaxed);
        open(self.dir.path().join(format!("{number}.sqlite")))
    }
}

#[async_trait]
impl HistoryProvider for InFiles {
    async fn fresh(&self) -> Arc<dyn HistoryStore> {
        self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.newest()
    }

    async fn reopen(&self, store: Arc<dyn HistoryStore>) -> Arc<dyn HistoryStore> {
        drop(store);
        self.newest()
    }
}

#[tokio::test]
async fn sqlite_passes_the_suite() {
    let files = InFiles { dir: tempfile::tempdir().unwrap(), made: 0.into() };

    history_conformance::run(&files).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_away_and_one_of_something_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let away = open(dir.path().join("no folder").join("history.sqlite")).load_resume().await;
    assert!(matches!(away, Err(HistoryError::Away(_))), "{away:?}");

    let path = dir.path().join("notes.txt");
    std::fs::write(&path, "no database, but long enough to be looked at ".repeat(100)).unwrap();
    let refused = open(path.clone()).load_resume().await;
    assert!(matches!(refused, Err(HistoryError::Refused(_))), "{refused:?}");
    assert!(std::fs::read_to_string(path).unwrap().starts_with("no database"), "it is not changed");
}

/// Method: another process writes to the file, and holds its lock; readers are answered meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn readers_do_not_wait_for_a_writer_and_a_writer_waits_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.sqlite");
    let store = open(path.clone());
    let first = HistoryBatch { after: None, mark: sample_mark(1), rows: sample_rows(1, true) };
    store.apply_batch(&first).await.unwrap();
    let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let held = other.begin_with("BEGIN IMMEDIATE").await.unwrap();

    let after = first.mark.position;
    let second = HistoryBatch { after: Some(after), mark: sample_mark(2), rows: sample_rows(2, true) };
    let writer = {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.apply_batch(&second).await })
    };
    let page = store.list_cycles(CyclePageQuery { limit: 20, status: None }).await.unwrap();
    assert_eq!(page.iter().map(|row| row.id).collect::<Vec<_>>(), [sample_cycle_id(1)]);
    assert!(!writer.is_finished());
    held.rollback().await.unwrap();

    writer.await.unwrap().unwrap();
    assert_eq!(store.load_resume().await.unwrap().unwrap().mark, sample_mark(2));
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.sqlite");
    open(path.clone()).load_resume().await.unwrap();
    let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    let newer = "INSERT INTO orchestrator_migrations (version, description, success, checksum, execution_time) \
                 VALUES (3, 'later', TRUE, x'00', 0)";
    sqlx::query(newer).execute(&mut other).await.unwrap();

    let refused = open(path).load_resume().await;

    let Err(HistoryError::Refused(what)) = refused else { panic!("{refused:?}") };
    assert!(what.contains("newer version"), "{what}");
}

/// Specification 002, "Database Schema": what a row has where nobody says anything. The service writes every column.
#[tokio::test]
async fn columns_without_a_value_have_the_defaults_of_the_specification() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.sqlite");
    open(path.clone()).load_resume().await.unwrap();
    let mut other = SqliteConnectOptions::new().filename(&path).connect().await.unwrap();

    for (insert, select, expected) in [
        (
            "INSERT INTO orchestration_agent_status (id) VALUES ('a')",
            "SELECT status || ' ' || mode || ' ' || cycles_completed || decisions_generated || orders_executed || \
             errors_count FROM orchestration_agent_status",
            "stopped normal 0000",
        ),
        (
            "INSERT INTO orchestration_cycles (id, type) VALUES ('c', 'analysis')",
            "SELECT status || ' ' || strategies_processed || decisions_generated || orders_submitted || \
             orders_filled || ' ' || errors FROM orchestration_cycles",
            "started 0000 []",
        ),
        (
            "INSERT INTO orchestration_strategy_schedules (id, strategy_id, schedule_type, schedule_value) \
             VALUES ('s', 'x', 'interval', '60000')",
            "SELECT '' || enabled FROM orchestration_strategy_schedules",
            "1",
        ),
    ] {
        sqlx::query(insert).execute(&mut other).await.unwrap();
        let row: (String,) = sqlx::query_as(select).fetch_one(&mut other).await.unwrap();
        assert_eq!(row.0, expected, "{insert}");
    }
}

/// Specification 003 §7: defaults, checks, the reference and the indexes, as SQLite has them.
#[tokio::test]
async fn tables_of_runs_have_the_defaults_checks_and_indexes_of_the_specification() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.sqlite");
    open(path.clone()).load_resume().await.unwrap();
    let mut other = SqliteConnectOptions::new().filename(&path).foreign_keys(true).connect().await.unwrap();
    let run = |id: &str, status: &str, more: &str, values: &str| {
        format!(
            "INSERT INTO orchestration_runs \
             (run_id, strategy_id, as_of_date, status, symbols, capital, max_position_size, started_at{more}) \
             VALUES ('{id}', 's', '2025-01-02', '{status}', '[]', '1', '1', '2025-01-02T00:00:00.000+00:00'{values})"
        )
    };
    let mapping = |columns: &str, values: &str| {
        format!("INSERT INTO signal_order_mappings (run_id, position, symbol{columns}) VALUES ({values})")
    };

    for (sql, is_held) in [
        (run("r", "running", "", ""), true),
        (run("r", "running", "", ""), false),
        (run("odd", "odd", "", ""), false),
        (run("less", "failed", ", num_signals", ", -1"), false),
        (run("filled", "partial", ", num_orders_filled", ", NULL"), true),
        (mapping("", "'r', 0, 'A'"), true),
        (mapping("", "'r', 0, 'B'"), false),
        (mapping("", "'r', 1, 'A'"), true),
        (mapping("", "'nobody', 0, 'A'"), false),
        (mapping(", order_side", "'r', 2, 'A', 'short'"), false),
        (mapping(", order_qty", "'r', 2, 'A', 0"), false),
        (mapping(", filled_qty", "'r', 2, 'A', '-0.5'"), false),
    ] {
        let held = sqlx::query(AssertSqlSafe(sql.clone())).execute(&mut other).await;
        assert_eq!(held.is_ok(), is_held, "{sql}: {held:?}");
    }
    let row: (String,) = sqlx::query_as(
        "SELECT id || ' ' || num_signals || num_orders_submitted || num_orders_accepted || num_orders_rejected || \
         num_orders_filled || (created_at = updated_at) FROM orchestration_runs WHERE run_id = 'r'",
    )
    .fetch_one(&mut other)
    .await
    .unwrap();
    assert_eq!(row.0, "1 000001");
    sqlx::query("DELETE FROM orchestration_runs WHERE run_id = 'r'").execute(&mut other).await.unwrap();
    let left: (i64,) =
        sqlx::query_as("SELECT COUNT(*) FROM signal_order_mappings").fetch_one(&mut other).await.unwrap();
    assert_eq!(left.0, 0, "what a run leaves goes with it");
    for index in ORCHESTRATION_INDEXES {
        let there: (i64,) =
            sqlx::query_as("SELECT COUNT(*) FROM sqlite_master WHERE type = 'index' AND name = ?1")
                .bind(index)
                .fetch_one(&mut other)
                .await
                .unwrap();
        assert_eq!(there.0, 1, "{index}");
    }
}

const ORCHESTRATION_INDEXES: [&str; 8] = [
    "idx_orchestration_runs_status",
    "idx_orchestration_runs_as_of_date",
    "idx_orchestration_runs_run_id",
    "idx_orchestration_runs_strategy_id",
    "idx_orchestration_runs_started_at",
    "idx_signal_order_mappings_run_id",
    "idx_signal_order_mappings_symbol",
    "idx_signal_order_mappings_client_order_id",
];
