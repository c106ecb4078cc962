//! The history in a file of SQLite, the default: nothing to install, one writer, any number of readers beside it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ports::history::{HistoryError, HistoryStore};
use sqlx::migrate::Migrator;
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Database, Row as _, Sqlite, SqlitePool};

use super::backend::{SqlBackend, history_error, migration_error};
use super::history::SqlHistory;
use super::statements::{SqlRow, SqlStatement, SqlValue};
use super::tables::{SchemaName, SqlColumns, SqlDialect};

/// The migrations, by their descriptions.
pub(super) const MIGRATIONS: [(&str, &str); 2] = [
    ("history", include_str!("migrations/0001_history.sql")),
    ("orchestration", include_str!("migrations/0002_orchestration.sql")),
];
/// One writes, the others read pages.
const CONNECTIONS_MAX: u32 = 4;

/// File of a history, and how it is used.
#[derive(Clone, Debug)]
pub struct SqliteHistoryOptions {
    /// The file. Its folder has to be there.
    pub path: PathBuf,
    /// What the names of specification 002's tables begin with.
    pub schema: SchemaName,
    /// How long a lock of another process is waited for.
    pub busy_timeout: Duration,
}

/// A history in this file. Opens it when it is asked first.
#[must_use]
pub fn open_sqlite_history(options: SqliteHistoryOptions) -> Arc<dyn HistoryStore> {
    let connect = SqliteConnectOptions::new()
        .filename(&options.path)
        .create_if_missing(true)
        // Readers do not wait for the writer.
        .journal_mode(SqliteJournalMode::Wal)
        // A power cut may lose the last transactions, whole: their mark goes with them, and they are written again.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(options.busy_timeout)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(options.busy_timeout.max(Duration::from_secs(1)))
        .connect_lazy_with(connect);
    Arc::new(SqlHistory::new(SqliteBackend(pool), options.schema, &MIGRATIONS))
}

struct SqliteBackend(SqlitePool);

const DIALECT: SqlDialect = SqlDialect::Sqlite;

fn on_error(error: sqlx::Error) -> HistoryError {
    history_error(DIALECT, &error)
}

#[async_trait]
impl SqlBackend for SqliteBackend {
    fn dialect(&self) -> SqlDialect {
        DIALECT
    }

    async fn migrate(&self, migrations: &Migrator) -> Result<(), HistoryError> {
        let mut connection = self.0.acquire().await.map_err(on_error)?;
        // Not `run`, whose bounds keep the future from being sent between threads.
        let migrated = migrations.run_direct(None, &mut *connection, false).await;
        migrated.map_err(|error| migration_error(DIALECT, &error))
    }

    async fn transact(&self, statements: Vec<SqlStatement>) -> Result<Option<Vec<u64>>, HistoryError> {
        // A transaction that begins to write later could find that another one has written meanwhile.
        let mut transaction = self.0.begin_with("BEGIN IMMEDIATE").await.map_err(on_error)?;
        let mut changed = Vec::with_capacity(statements.len());
        for statement in statements {
            let changes_one = statement.changes_one;
            let done = bind_values(statement).execute(&mut *transaction).await.map_err(on_error)?;
            if changes_one && done.rows_affected() != 1 {
                transaction.rollback().await.map_err(on_error)?;
                return Ok(None);
            }
            changed.push(done.rows_affected());
        }
        transaction.commit().await.map_err(on_error)?;
        Ok(Some(changed))
    }

    async fn fetch(
        &self,
        queries: Vec<(SqlStatement, SqlColumns)>,
    ) -> Result<Vec<Vec<SqlRow>>, HistoryError> {
        let mut transaction = self.0.begin().await.map_err(on_error)?;
        let mut found = Vec::with_capacity(queries.len());
        for (statement, columns) in queries {
            let rows = bind_values(statement).fetch_all(&mut *transaction).await.map_err(on_error)?;
            let rows: Result<Vec<SqlRow>, sqlx::Error> =
                rows.iter().map(|row| read_row(row, columns)).collect();
            found.push(rows.map_err(on_error)?);
        }
        transaction.rollback().await.map_err(on_error)?;
        Ok(found)
    }
}

/// The statement is made of our tables' names and of places; what it holds of others is bound here.
fn bind_values(statement: SqlStatement) -> Query<'static, Sqlite, <Sqlite as Database>::Arguments> {
    let query = sqlx::query(AssertSqlSafe(statement.sql));
    statement.values.into_iter().fold(query, |query, value| match value {
        SqlValue::Text(text) => query.bind(text),
        SqlValue::Integer(value) => query.bind(value),
    })
}

fn read_row(row: &SqliteRow, columns: SqlColumns) -> Result<SqlRow, sqlx::Error> {
    let cell = |(at, (_, kind)): (usize, &(&str, super::tables::ColumnKind))| match kind.is_integer() {
        true => row.try_get(at).map(SqlValue::Integer),
        false => row.try_get(at).map(SqlValue::Text),
    };
    columns.iter().enumerate().map(cell).collect()
}

#[cfg(test)]
mod tests;
