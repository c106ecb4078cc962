//! What a database does for the history, and what its errors mean to whoever waits for it.

use async_trait::async_trait;
use orchestrator_kernel::error::bounded_detail;
use orchestrator_kernel::ports::history::HistoryError;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::statements::{SqlRow, SqlStatement};
use super::tables::{SchemaName, SqlColumns, SqlDialect};

/// Where it is noted which migrations a database has. Ours by name: others in one database have theirs.
const MIGRATIONS_TABLE: &str = "orchestrator_migrations";

/// A database, as far as it differs from the other one.
#[async_trait]
pub(super) trait SqlBackend: Send + Sync {
    /// Its flavour.
    fn dialect(&self) -> SqlDialect;

    /// Brings the tables to what this program knows.
    async fn migrate(&self, migrations: &Migrator) -> Result<(), HistoryError>;

    /// Carries statements out in one transaction and says how many rows each changed. Nothing, when one that has to
    /// change a row changes none: then all of them are without effect.
    async fn transact(&self, statements: Vec<SqlStatement>) -> Result<Option<Vec<u64>>, HistoryError>;

    /// Carries queries out that see one state, each with the kinds of its columns.
    async fn fetch(&self, queries: Vec<(SqlStatement, SqlColumns)>)
    -> Result<Vec<Vec<SqlRow>>, HistoryError>;
}

/// The migrations of a database, in order, for this schema.
pub(super) fn make_migrator(files: &[(&'static str, &str)], schema: &SchemaName) -> Migrator {
    let migrations = files.iter().zip(1..).map(|((description, text), version)| {
        let sql = text.replace("{{schema}}", &schema.to_string());
        // A file of ours and a name that was checked.
        let sql = AssertSqlSafe(sql).into_sql_str();
        Migration::new(version, (*description).into(), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(MIGRATIONS_TABLE);
    migrator
}

/// Consequence of a database's error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CodeMeaning {
    /// It may do it later.
    Away,
    /// A value does not fit.
    Unfit,
    /// An operator has to look.
    Refused,
}

impl CodeMeaning {
    fn of_code(dialect: SqlDialect, code: &str) -> Self {
        match dialect {
            SqlDialect::Sqlite => Self::of_result_code(code),
            SqlDialect::Postgres => Self::of_sqlstate(code),
        }
    }

    /// Source: the SQLite documentation, "Result and Error Codes": the primary code is the lowest byte.
    fn of_result_code(code: &str) -> Self {
        match code.parse::<i32>().map(|code| code & 0xff) {
            // Busy, locked, out of memory, input or output, full, cannot open.
            Ok(5 | 6 | 7 | 10 | 13 | 14) => Self::Away,
            // Too big, constraint, mismatch, out of range.
            Ok(18 | 19 | 20 | 25) => Self::Unfit,
            Ok(_) | Err(_) => Self::Refused,
        }
    }

    /// Source: the PostgreSQL documentation, appendix A, "PostgreSQL Error Codes": the class is the first two letters.
    fn of_sqlstate(code: &str) -> Self {
        match code.get(..2) {
            // Connection, transaction state (a standby is read-only), rollback, resources, not in a prerequisite state,
            // operator's intervention, system.
            Some("08" | "25" | "40" | "53" | "55" | "57" | "58") => Self::Away,
            // Data, integrity, program limit.
            Some("22" | "23" | "54") => Self::Unfit,
            Some(_) | None => Self::Refused,
        }
    }

    fn to_error(self, detail: String) -> HistoryError {
        match self {
            Self::Away => HistoryError::Away(detail),
            Self::Unfit => HistoryError::Unfit(detail),
            Self::Refused => HistoryError::Refused(detail),
        }
    }
}

/// The port's error. No password stands in what the driver says.
pub(super) fn history_error(dialect: SqlDialect, error: &sqlx::Error) -> HistoryError {
    let detail = bounded_detail(&error.to_string());
    match error {
        sqlx::Error::Database(answer) => {
            let code = answer.code().unwrap_or_default();
            CodeMeaning::of_code(dialect, &code).to_error(detail)
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::BeginFailed => HistoryError::Away(detail),
        sqlx::Error::Encode(_) => HistoryError::Unfit(detail),
        // The driver may add kinds: none of them is worth hammering.
        _ => HistoryError::Refused(detail),
    }
}

/// As [`history_error`], of what the tables are brought up to date with.
pub(super) fn migration_error(dialect: SqlDialect, error: &MigrateError) -> HistoryError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            // What does not fit a migration is what stands there already.
            match history_error(dialect, error) {
                HistoryError::Unfit(detail) => HistoryError::Refused(detail),
                other => other,
            }
        }
        MigrateError::VersionMissing(version) => {
            let what = format!("its tables are those of a newer version (migration {version}); upgrade");
            HistoryError::Refused(what)
        }
        other => HistoryError::Refused(bounded_detail(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_the_databases_document() {
        use CodeMeaning::{Away, Refused, Unfit};
        for (dialect, code, meaning) in [
            (SqlDialect::Sqlite, "5", Away),
            (SqlDialect::Sqlite, "517", Away),
            (SqlDialect::Sqlite, "13", Away),
            (SqlDialect::Sqlite, "787", Unfit),
            (SqlDialect::Sqlite, "26", Refused),
            (SqlDialect::Sqlite, "odd", Refused),
            (SqlDialect::Postgres, "57P03", Away),
            (SqlDialect::Postgres, "25006", Away),
            (SqlDialect::Postgres, "53100", Away),
            (SqlDialect::Postgres, "22P05", Unfit),
            (SqlDialect::Postgres, "42501", Refused),
            (SqlDialect::Postgres, "", Refused),
        ] {
            assert_eq!(CodeMeaning::of_code(dialect, code), meaning, "{dialect:?} {code}");
        }
    }

    #[test]
    fn a_migration_of_another_schema_is_another_text() {
        let files = [("history", "CREATE TABLE \"{{schema}}\".t (id INTEGER)")];
        let sql = |schema: &str| {
            let migrator = make_migrator(&files, &SchemaName::new(schema).unwrap());
            migrator.iter().map(|migration| migration.sql.as_str().to_owned()).collect::<Vec<_>>()
        };

        assert_eq!(sql("a"), ["CREATE TABLE \"a\".t (id INTEGER)"]);
        assert_ne!(sql("a"), sql("b"));
    }
}
