//! The history as configured: its database, and how it is kept.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::history::HistoryStore;
use orchestrator_kernel::retry::RetrySchedule;
use orchestrator_trading_plane::history::{HistoryPorts, HistorySettings};

use super::WiringError;
use crate::adapters::sql::SchemaName;
use crate::adapters::sql::postgres::{PostgresHistoryOptions, open_postgres_history};
use crate::adapters::sql::sqlite::{SqliteHistoryOptions, open_sqlite_history};
use crate::config::{Config, HistoryKind};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What failed is tried again soon, and then every few seconds for ever: a database comes back.
const RETRY: RetrySchedule = RetrySchedule {
    min: Duration::from_millis(100),
    max: Duration::from_secs(5),
    max_attempts: u32::MAX,
    max_elapsed: Duration::MAX,
};

/// The history for the trading plane; nothing where none is kept. Asks its database nothing.
///
/// # Errors
///
/// [`WiringError::History`].
pub fn history_ports(config: &Config) -> Result<Option<HistoryPorts>, WiringError> {
    let history = &config.history;
    let settings = HistorySettings {
        required: history.required,
        records_max: history.records_max,
        behind_after: history.behind_after,
        retry: RETRY,
        retention: Some(DAY * history.retention_days),
    };
    Ok(open_history(config)?.map(|store| HistoryPorts { store, settings }))
}

/// The history's database; nothing where none is kept. Asks it nothing.
///
/// # Errors
///
/// [`WiringError::History`].
pub fn open_history(config: &Config) -> Result<Option<Arc<dyn HistoryStore>>, WiringError> {
    let history = &config.history;
    let schema = SchemaName::new(&history.schema);
    let schema = schema.ok_or(WiringError::History { setting: "history.schema" })?;
    Ok(match history.kind {
        HistoryKind::None => None,
        HistoryKind::Sqlite => Some(open_sqlite_history(SqliteHistoryOptions {
            path: config.history_file(),
            schema,
            busy_timeout: history.connect_timeout,
        })),
        HistoryKind::Postgres => {
            let options = PostgresHistoryOptions {
                url: history.url.expose_url().to_owned(),
                schema,
                connect_timeout: history.connect_timeout,
                answer_timeout: history.answer_timeout,
            };
            let opened = open_postgres_history(options);
            Some(opened.map_err(|_| WiringError::History { setting: "history.url" })?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_history_is_where_its_settings_say() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.service.data_dir = dir.path().to_owned();

        let ports = history_ports(&config).unwrap().unwrap();
        assert_eq!(ports.store.load_resume().await, Ok(None));
        assert!(dir.path().join("history.sqlite").is_file());
        assert_eq!(ports.settings.retention, Some(DAY * 365));

        config.history.kind = HistoryKind::None;
        assert!(open_history(&config).unwrap().is_none());
        config.history.kind = HistoryKind::Postgres;
        config.history.url = crate::config::SecretUrl::from("postgres://[");
        let refused = open_history(&config).err().unwrap();
        assert_eq!(refused.to_string(), "history.url cannot be used");
    }
}
