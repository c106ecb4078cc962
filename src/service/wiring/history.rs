//! The history as configured: its database, and how it is kept.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::history::HistoryStore;
use orchestrator_kernel::retry::RetrySchedule;
use orchestrator_trading_plane::history::{HistoryPorts, HistorySettings};

use super::WiringError;
use crate::adapters::sql::SchemaName;
use crate::adapters::sql::postgres::{PostgresAddress, PostgresHistoryOptions, open_postgres_history};
use crate::adapters::sql::sqlite::{SqliteHistoryOptions, open_sqlite_history};
use crate::config::Config;
use crate::config::trading::HistoryPlace;

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
    let history = &config.trading.history;
    let settings = HistorySettings {
        required: history.required,
        records_max: history.batch_records_max,
        behind_after: history.behind_after,
        retry: RETRY,
        retention: Some(history.age_max).filter(|age| !age.is_zero()),
    };
    Ok(open_history(config)?.map(|store| HistoryPorts { store, settings }))
}

/// The history's database; nothing where none is kept. Asks it nothing.
///
/// # Errors
///
/// [`WiringError::History`].
pub fn open_history(config: &Config) -> Result<Option<Arc<dyn HistoryStore>>, WiringError> {
    let history = &config.trading.history;
    let schema = SchemaName::new(&history.schema);
    let schema = schema.ok_or(WiringError::History { setting: "trading.history.schema" })?;
    let Some(place) = history.place() else { return Ok(None) };
    let address = match place {
        HistoryPlace::Sqlite(file) => {
            return Ok(Some(open_sqlite_history(SqliteHistoryOptions {
                path: config.service.data_dir.join(file),
                schema,
                busy_timeout: history.connect_timeout,
            })));
        }
        HistoryPlace::PostgresUrl(url) => PostgresAddress::Url(url.expose_url().to_owned()),
        HistoryPlace::PostgresHost { host, port, name, user, password } => {
            let password = password.expose_secret().map(str::to_owned);
            PostgresAddress::Parts { host, port, name, user, password }
        }
    };
    let options = PostgresHistoryOptions {
        address,
        schema,
        connect_timeout: history.connect_timeout,
        answer_timeout: history.answer_timeout,
    };
    let opened = open_postgres_history(options);
    Ok(Some(opened.map_err(|_| WiringError::History { setting: "trading.history.url" })?))
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
        assert_eq!(ports.settings.retention, Some(Duration::from_secs(365 * 86_400)));

        config.trading.history.enabled = false;
        assert!(open_history(&config).unwrap().is_none());
        config.trading.history.enabled = true;
        config.trading.history.url = crate::config::SecretUrl::from("postgres://[");
        let refused = open_history(&config).err().unwrap();
        assert_eq!(refused.to_string(), "trading.history.url cannot be used");
    }
}
