//! The history in PostgreSQL, by its address. Without TLS in this build: an address that asks for it is refused.

use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::ports::history::{HistoryError, HistoryStore};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Database, PgPool, Postgres, Row as _};
use tokio::time::timeout;

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
/// What it is called in the server's list of sessions.
const APPLICATION: &str = "orchestrator";

/// Address of a database. Never shown: it may hold a password.
#[derive(Clone)]
pub enum PostgresAddress {
    /// `postgres://user:password@host:port/database`.
    Url(String),
    /// By its parts.
    Parts {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The database.
        name: String,
        /// Who logs in; nothing for what the server takes without.
        user: Option<String>,
        /// With which password, if with any.
        password: Option<String>,
    },
}

impl PostgresAddress {
    fn to_connect_options(&self) -> Result<PgConnectOptions, PostgresAddressError> {
        match self {
            // The driver takes any scheme for its own.
            Self::Url(url) => ["postgres://", "postgresql://"]
                .iter()
                .any(|scheme| url.starts_with(scheme))
                .then(|| PgConnectOptions::from_str(url).ok())
                .flatten()
                .ok_or(PostgresAddressError),
            Self::Parts { host, port, name, user, password } => {
                let mut options =
                    PgConnectOptions::new_without_pgpass().host(host).port(*port).database(name);
                if let Some(user) = user {
                    options = options.username(user);
                }
                if let Some(password) = password {
                    options = options.password(password);
                }
                Ok(options)
            }
        }
    }
}

/// Address of a history, and how it is used.
#[derive(Clone)]
pub struct PostgresHistoryOptions {
    /// The database.
    pub address: PostgresAddress,
    /// Specification 002's schema; made if it is not there.
    pub schema: SchemaName,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long an answer may take, of a whole transaction.
    pub answer_timeout: Duration,
}

/// An address that is none. It is not shown: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no address of a PostgreSQL database: postgres://user:password@host:port/database")]
pub struct PostgresAddressError;

/// A history in this database. Connects when it is asked first.
///
/// # Errors
///
/// [`PostgresAddressError`].
pub fn open_postgres_history(
    options: PostgresHistoryOptions,
) -> Result<Arc<dyn HistoryStore>, PostgresAddressError> {
    let connect = options.address.to_connect_options()?;
    let connect = connect.application_name(APPLICATION).disable_statement_logging();
    let backend = PostgresBackend {
        pool: Mutex::new(make_pool(&connect, options.connect_timeout)),
        connect,
        connect_timeout: options.connect_timeout,
        answer_timeout: options.answer_timeout,
    };
    Ok(Arc::new(SqlHistory::new(backend, options.schema, &MIGRATIONS)))
}

fn make_pool(connect: &PgConnectOptions, connect_timeout: Duration) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS_MAX)
        .acquire_timeout(connect_timeout)
        .connect_lazy_with(connect.clone())
}

struct PostgresBackend {
    /// Exchanged for a new one after an answer that did not come: its connections may hang for as long as the network
    /// takes to notice, and would be all that there are.
    pool: Mutex<PgPool>,
    connect: PgConnectOptions,
    connect_timeout: Duration,
    answer_timeout: Duration,
}

const DIALECT: SqlDialect = SqlDialect::Postgres;

fn on_error(error: sqlx::Error) -> HistoryError {
    history_error(DIALECT, &error)
}

impl PostgresBackend {
    fn pool(&self) -> PgPool {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The answer, if it comes in time.
    async fn within_time<T>(
        &self,
        answer: impl Future<Output = Result<T, HistoryError>> + Send,
    ) -> Result<T, HistoryError> {
        let limit = self.connect_timeout.saturating_add(self.answer_timeout);
        match timeout(limit, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                let fresh = make_pool(&self.connect, self.connect_timeout);
                *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = fresh;
                Err(HistoryError::Away(format!("no answer within {} ms", limit.as_millis())))
            }
        }
    }

    async fn write_all(&self, statements: Vec<SqlStatement>) -> Result<Option<Vec<u64>>, HistoryError> {
        let mut transaction = self.pool().begin().await.map_err(on_error)?;
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

    async fn read_all(
        &self,
        queries: Vec<(SqlStatement, SqlColumns)>,
    ) -> Result<Vec<Vec<SqlRow>>, HistoryError> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        let mut transaction = self.pool().begin_with(begin).await.map_err(on_error)?;
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

#[async_trait]
impl SqlBackend for PostgresBackend {
    fn dialect(&self) -> SqlDialect {
        DIALECT
    }

    async fn migrate(&self, migrations: &Migrator) -> Result<(), HistoryError> {
        let migrated = async {
            let mut connection = self.pool().acquire().await.map_err(on_error)?;
            // Not `run`, whose bounds keep the future from being sent between threads.
            let migrated: Result<(), MigrateError> =
                migrations.run_direct(None, &mut *connection, false).await;
            if migrated.is_err() {
                // What failed may have left its lock on the session.
                connection.close_on_drop();
            }
            migrated.map_err(|error| migration_error(DIALECT, &error))
        };
        self.within_time(migrated).await
    }

    async fn transact(&self, statements: Vec<SqlStatement>) -> Result<Option<Vec<u64>>, HistoryError> {
        self.within_time(self.write_all(statements)).await
    }

    async fn fetch(
        &self,
        queries: Vec<(SqlStatement, SqlColumns)>,
    ) -> Result<Vec<Vec<SqlRow>>, HistoryError> {
        self.within_time(self.read_all(queries)).await
    }
}

/// The statement is made of our tables' names and of places; what it holds of others is bound here.
fn bind_values(statement: SqlStatement) -> Query<'static, Postgres, <Postgres as Database>::Arguments> {
    let query = sqlx::query(AssertSqlSafe(statement.sql));
    statement.values.into_iter().fold(query, |query, value| match value {
        SqlValue::Text(text) => query.bind(text),
        SqlValue::Integer(value) => query.bind(value),
    })
}

fn read_row(row: &PgRow, columns: SqlColumns) -> Result<SqlRow, sqlx::Error> {
    let cell = |(at, (_, kind)): (usize, &(&str, super::tables::ColumnKind))| match kind.is_integer() {
        true => row.try_get(at).map(SqlValue::Integer),
        false => row.try_get(at).map(SqlValue::Text),
    };
    columns.iter().enumerate().map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_refused_without_being_shown_and_a_server_that_is_not_there_is_away() {
        let options = |url: &str| PostgresHistoryOptions {
            address: PostgresAddress::Url(url.to_owned()),
            schema: SchemaName::new("orchestration").unwrap(),
            connect_timeout: Duration::from_millis(200),
            answer_timeout: Duration::from_millis(200),
        };
        for url in ["hidden", "mysql://hidden@localhost/history", "postgres://hidden:x@[::1/history"] {
            let refused = open_postgres_history(options(url)).err().unwrap();
            assert!(!refused.to_string().contains("hidden"), "{refused}");
        }

        // A port that nobody listens on: bound, and let go of.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let url = format!("postgres://orchestrator:secret@127.0.0.1:{port}/history");
        let store = open_postgres_history(options(&url)).unwrap();

        let away = store.load_resume().await.unwrap_err();

        assert!(matches!(away, HistoryError::Away(_)), "{away}");
        assert!(!away.to_string().contains("secret"), "{away}");
    }
}
