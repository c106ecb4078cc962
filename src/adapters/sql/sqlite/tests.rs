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
                 VALUES (2, 'later', TRUE, x'00', 0)";
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
