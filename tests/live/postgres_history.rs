//! The history in PostgreSQL: its port's suite, and a server that is killed, frozen, or refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator::adapters::sql::SchemaName;
use orchestrator::adapters::sql::postgres::{PostgresAddress, PostgresHistoryOptions, open_postgres_history};
use orchestrator_kernel::ports::history::{HistoryBatch, HistoryError, HistoryStore};
use orchestrator_kernel::ports::history_conformance::{self, HistoryProvider, sample_mark, sample_rows};
use orchestrator_kernel::trading::history::CyclePageQuery;
use orchestrator_kernel::trading::ids::JournalSeq;

use crate::support::postgres_server::PostgresServer;
use crate::support::process::eventually;

fn open(url: String, answer_timeout: Duration) -> Arc<dyn HistoryStore> {
    let schema = SchemaName::new("orchestration").unwrap();
    let connect_timeout = Duration::from_secs(10).min(answer_timeout);
    let address = PostgresAddress::Url(url);
    open_postgres_history(PostgresHistoryOptions { address, schema, connect_timeout, answer_timeout })
        .unwrap()
}

/// Patient enough for a busy machine.
const PATIENT: Duration = Duration::from_secs(30);
const PAGE: CyclePageQuery = CyclePageQuery { limit: 20, status: None };

fn batch(number: u8) -> HistoryBatch {
    let after = (1 < number).then(|| JournalSeq(u64::from(number) - 1));
    HistoryBatch { after, mark: sample_mark(u64::from(number)), rows: sample_rows(number, true) }
}

struct InDatabases {
    server: PostgresServer,
    made: AtomicU64,
}

impl InDatabases {
    fn newest(&self) -> Arc<dyn HistoryStore> {
        let name = format!("history_{}", self.made.load(Ordering::Relaxed));
        open(self.server.admin_url(&name), PATIENT)
    }
}

#[async_trait]
impl HistoryProvider for InDatabases {
    async fn fresh(&self) -> Arc<dyn HistoryStore> {
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        self.server.execute("postgres", &format!("CREATE DATABASE history_{number}")).await;
        self.newest()
    }

    async fn reopen(&self, store: Arc<dyn HistoryStore>) -> Arc<dyn HistoryStore> {
        drop(store);
        self.newest()
    }
}

#[tokio::test]
async fn postgres_passes_the_suite() {
    let databases = InDatabases { server: PostgresServer::start(), made: AtomicU64::new(0) };

    history_conformance::run(&databases).await;
}

/// Specification 002, "Database Schema": what a row has where nobody says anything. The service writes every column.
#[tokio::test]
async fn columns_without_a_value_have_the_defaults_on_postgres_too() {
    let server = PostgresServer::start();
    open(server.admin_url("postgres"), PATIENT).load_resume().await.unwrap();

    for (insert, table, holds) in [
        (
            "INSERT INTO orchestration.agent_status DEFAULT VALUES",
            "agent_status",
            "status = 'stopped' AND mode = 'normal' AND cycles_completed = 0 AND decisions_generated = 0 AND \
             orders_executed = 0 AND errors_count = 0 AND id IS NOT NULL AND now() - updated_at < INTERVAL '1 hour'",
        ),
        (
            "INSERT INTO orchestration.cycles (type) VALUES ('analysis')",
            "cycles",
            "status = 'started' AND strategies_processed = 0 AND decisions_generated = 0 AND orders_submitted = 0 AND \
             orders_filled = 0 AND errors = '[]' AND id IS NOT NULL AND now() - started_at < INTERVAL '1 hour' AND \
             now() - created_at < INTERVAL '1 hour'",
        ),
        (
            "INSERT INTO orchestration.strategy_schedules (strategy_id, schedule_type, schedule_value) \
             VALUES (gen_random_uuid(), 'interval', '60000')",
            "strategy_schedules",
            "enabled AND id IS NOT NULL AND now() - created_at < INTERVAL '1 hour' AND \
             now() - updated_at < INTERVAL '1 hour'",
        ),
    ] {
        server.execute("postgres", insert).await;
        // A division by zero fails the statement, and with it the test.
        let check = format!("SELECT 1 / (count(*) FILTER (WHERE {holds}))::int FROM orchestration.{table}");
        server.execute("postgres", &check).await;
    }
}

/// Specification 003 §7. Method: each statement is carried out whole or fails, and the values of the row that stands
/// are compared; what has to be refused is caught where it is, so that being taken fails the test.
#[tokio::test]
async fn tables_of_runs_check_their_values_on_postgres_too() {
    let server = PostgresServer::start();
    open(server.admin_url("postgres"), PATIENT).load_resume().await.unwrap();
    let id = "00000000-0000-8000-8000-000000000001";
    let run = |id: &str, status: &str, more: &str, values: &str| {
        format!(
            "INSERT INTO orchestration_runs \
             (run_id, strategy_id, as_of_date, status, symbols, capital, max_position_size, started_at{more}) \
             VALUES ('{id}', repeat('s', 500), '2025-01-02', '{status}', '{{AAPL,MSFT}}', 1, 1, now(){values})"
        )
    };
    let mapping = |columns: &str, values: &str| {
        format!(
            "INSERT INTO signal_order_mappings (run_id, position, symbol{columns}) VALUES ('{id}', {values})"
        )
    };
    server.execute("postgres", &run(id, "running", "", "")).await;
    server.execute("postgres", &mapping("", "0, 'A'")).await;
    let other = "00000000-0000-8000-8000-000000000002";
    for refused in [
        run(id, "running", "", ""),
        run(other, "odd", "", ""),
        run(other, "failed", ", num_signals", ", -1"),
        run(other, "failed", ", duration_seconds", ", -0.5"),
        mapping("", "0, 'B'"),
        mapping(", order_side", "1, 'A', 'short'"),
        mapping(", order_qty", "1, 'A', 0"),
        mapping(", filled_qty", "1, 'A', -0.5"),
    ] {
        let check = format!(
            "DO $$ BEGIN BEGIN {refused}; EXCEPTION WHEN integrity_constraint_violation OR check_violation \
             OR unique_violation THEN RETURN; END; RAISE 'it was taken'; END $$"
        );
        server.execute("postgres", &check).await;
    }
    let holds = "num_signals = 0 AND num_orders_submitted = 0 AND num_orders_accepted = 0 AND \
                 num_orders_rejected = 0 AND num_orders_filled = 0 AND symbols = '{AAPL,MSFT}' AND id IS NOT NULL AND \
                 now() - created_at < INTERVAL '1 hour' AND now() - updated_at < INTERVAL '1 hour'";
    let check = format!("SELECT 1 / (count(*) FILTER (WHERE {holds}))::int FROM orchestration_runs");
    server.execute("postgres", &check).await;
    server.execute("postgres", "DELETE FROM orchestration_runs").await;
    // A division by zero fails the statement: what a run leaves goes with it.
    server.execute("postgres", "SELECT 1 / (1 - count(*)) FROM signal_order_mappings").await;
}

/// Method: killed between transactions and while one is on its way; the mark alone says what was written.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_loses_and_repeats_no_row() {
    let mut server = PostgresServer::start();
    let store = open(server.admin_url("postgres"), PATIENT);
    store.apply_batch(&batch(1)).await.unwrap();

    server.kill();
    let away = store.apply_batch(&batch(2)).await;
    assert!(matches!(away, Err(HistoryError::Away(_))), "{away:?}");
    server.start_again();

    for number in 2..10 {
        let writer = {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.apply_batch(&batch(number)).await })
        };
        if number % 2 == 0 {
            server.kill();
            server.start_again();
        }
        let written = writer.await.unwrap();
        let resume = eventually("it answers again", async || store.load_resume().await.ok()).await.unwrap();
        if resume.mark.position == JournalSeq(u64::from(number) - 1) {
            assert!(written.is_err(), "{number}: it was said to be written");
            store.apply_batch(&batch(number)).await.unwrap();
        }
    }

    let tables = store.dump_tables().await.unwrap();
    assert_eq!((tables.cycles.len(), tables.logs.len(), tables.artifacts.len()), (9, 18, 9));
    assert_eq!(store.load_resume().await.unwrap().unwrap().mark, sample_mark(9));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_postgres_is_away_and_heals_by_itself() {
    let server = PostgresServer::start();
    let store = open(server.admin_url("postgres"), Duration::from_millis(500));
    eventually("it is written", async || store.apply_batch(&batch(1)).await.ok()).await;

    server.pause();
    // More than there are connections: whoever hangs must not take the place of those that come later.
    for _ in 0..5 {
        let page = store.list_cycles(PAGE).await;
        assert!(matches!(page, Err(HistoryError::Away(_))), "{page:?}");
    }
    server.resume();

    let page = eventually("it answers again", async || store.list_cycles(PAGE).await.ok()).await;
    assert_eq!(page.len(), 1);
    eventually("it is written", async || store.apply_batch(&batch(2)).await.ok()).await;
}

#[tokio::test]
async fn what_postgres_refuses_is_said_without_the_password() {
    let server = PostgresServer::start();
    let sql = "CREATE ROLE stranger LOGIN PASSWORD 'known'; CREATE DATABASE theirs; \
               REVOKE CREATE ON DATABASE theirs FROM PUBLIC";
    for statement in sql.split("; ") {
        server.execute("postgres", statement).await;
    }
    for (url, reason) in [
        (server.url("stranger", "guessed", "theirs"), "password"),
        (server.url("stranger", "known", "theirs"), "permission"),
        (server.url("stranger", "known", "missing"), "does not exist"),
        (server.admin_url("postgres") + "?sslmode=require", "TLS"),
    ] {
        let refused = open(url, PATIENT).load_resume().await;

        let Err(HistoryError::Refused(what)) = refused else { panic!("{reason}: {refused:?}") };
        assert!(what.contains(reason) && !what.contains("guessed") && !what.contains("known"), "{what}");
    }
}

/// The schema of specification 002 may be there already, made by whoever has the right.
#[tokio::test]
async fn tables_and_indexes_are_those_of_the_specification() {
    let server = PostgresServer::start();
    server.execute("postgres", "CREATE SCHEMA orchestration").await;
    let store = open(server.admin_url("postgres"), PATIENT);
    store.load_resume().await.unwrap();

    // Fails when one of them is missing.
    for index in ["idx_cycles_started", "idx_cycles_status", "idx_logs_cycle", "idx_schedules_next"] {
        server.execute("postgres", &format!("SELECT 'orchestration.{index}'::regclass")).await;
    }
    for table in ["agent_status", "cycles", "cycle_logs", "strategy_schedules"] {
        server.execute("postgres", &format!("SELECT 'orchestration.{table}'::regclass")).await;
    }
    for name in [
        "runs",
        "artifacts",
        "history_mark",
        "orchestrator_migrations",
        "orchestration_runs",
        "signal_order_mappings",
        "idx_orchestration_runs_status",
        "idx_orchestration_runs_as_of_date",
        "idx_orchestration_runs_run_id",
        "idx_orchestration_runs_strategy_id",
        "idx_orchestration_runs_started_at",
        "idx_signal_order_mappings_run_id",
        "idx_signal_order_mappings_symbol",
        "idx_signal_order_mappings_client_order_id",
    ] {
        server.execute("postgres", &format!("SELECT 'public.{name}'::regclass")).await;
    }
}
