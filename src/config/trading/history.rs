//! `[trading.history]`: where the projection of the journal is written, for people and reports.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::reader::forms::{Count, DurationForm, FilePath, Flag, TextForm, is_line};
use crate::config::reader::secret::{HiddenText, Secret, SecretUrl, UrlForm};
use crate::config::reader::section::Section;

/// `[trading.history]`. It is PostgreSQL when `url` or `host` is given, else SQLite. Counts only while trading is on.
///
/// Source: specification 001, sections 6 and 11; specification 002, "Configuration", `database`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradingHistoryConfig {
    /// Whether it is kept. Pages show what is in memory without it.
    pub enabled: bool,
    /// The file of SQLite, relative to `service.data_dir`.
    pub file: PathBuf,
    /// PostgreSQL with everything in one URL; empty for none.
    pub url: SecretUrl,
    /// PostgreSQL by its parts: the host (`DB_HOST`); empty for none.
    pub host: String,
    /// Its port (`DB_PORT`).
    pub port: u16,
    /// Name of the database.
    pub name: String,
    /// Who logs in; empty for what the server takes without.
    pub user: String,
    /// With which password.
    pub password: Secret,
    /// Schema of specification 002's tables; a prefix of their names in SQLite.
    pub schema: String,
    /// Whether nothing trades while the history cannot be written.
    pub required: bool,
    /// Age of what is kept, 0s to 10years; 0 means no limit.
    pub age_max: Duration,
    /// Records that are written together, 1 to 10000.
    pub batch_records_max: usize,
    /// From this time on, without having caught up, it counts as behind, 100ms to 1h.
    pub behind_after: Duration,
    /// How long a connection, or a lock of another process, is waited for, 100ms to 1m.
    pub connect_timeout: Duration,
    /// How long the answer of PostgreSQL to a transaction may take, 100ms to 10m.
    pub answer_timeout: Duration,
}

/// Ten years as durations are written: 365.25 days each.
const YEARS_10: Duration = Duration::from_secs(315_576_000);

impl Default for TradingHistoryConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            file: PathBuf::from("history.sqlite"),
            url: SecretUrl::default(),
            host: String::new(),
            port: 5432,
            name: "ai_trader".to_owned(),
            user: String::new(),
            password: Secret::default(),
            schema: "orchestration".to_owned(),
            required: false,
            age_max: Duration::from_secs(365 * 86_400),
            batch_records_max: 1000,
            behind_after: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            answer_timeout: Duration::from_secs(10),
        }
    }
}

/// A host, a database or a user.
const SHORT_TEXT: TextForm = TextForm {
    accepts: |text| text.len() <= 255 && is_line(text),
    allowed: "at most 255 bytes, \"\" for none",
};
/// A name that stands in SQL as it is.
const SCHEMA: TextForm = TextForm {
    accepts: |text| {
        (1..=40).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
            && !text.starts_with(|first: char| first.is_ascii_digit())
    },
    allowed: "1 to 40 of a-z 0-9 _, no digit first",
};

/// Place of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryPlace {
    /// A file of SQLite, relative to the data directory.
    Sqlite(PathBuf),
    /// PostgreSQL, by URL.
    PostgresUrl(SecretUrl),
    /// PostgreSQL, by its parts.
    PostgresHost {
        /// The host.
        host: String,
        /// The port.
        port: u16,
        /// The database.
        name: String,
        /// Who logs in, if anybody.
        user: Option<String>,
        /// With which password.
        password: Secret,
    },
}

impl TradingHistoryConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let url = UrlForm { schemes: &["postgres", "postgresql"], may_be_empty: true };
        let up_to = |seconds| DurationForm(Duration::from_millis(100)..=Duration::from_secs(seconds));
        section.read_value("enabled", &mut config.enabled, &Flag);
        section.read_value("file", &mut config.file, &FilePath);
        section.read_value("url", &mut config.url, &url);
        section.read_value("host", &mut config.host, &SHORT_TEXT);
        section.read_value("port", &mut config.port, &Count(1..=65_535));
        section.read_value("name", &mut config.name, &SHORT_TEXT);
        section.read_value("user", &mut config.user, &SHORT_TEXT);
        section.read_value("password", &mut config.password, &HiddenText);
        section.read_value("schema", &mut config.schema, &SCHEMA);
        section.read_value("required", &mut config.required, &Flag);
        section.read_value("age_max", &mut config.age_max, &DurationForm(Duration::ZERO..=YEARS_10));
        section.read_value("batch_records_max", &mut config.batch_records_max, &Count(1..=10_000));
        section.read_value("behind_after", &mut config.behind_after, &up_to(3600));
        section.read_value("connect_timeout", &mut config.connect_timeout, &up_to(60));
        section.read_value("answer_timeout", &mut config.answer_timeout, &up_to(600));
        config
    }

    /// Where the history is; nothing where none is kept.
    #[must_use]
    pub fn place(&self) -> Option<HistoryPlace> {
        if !self.enabled {
            return None;
        }
        if !self.url.is_empty() {
            return Some(HistoryPlace::PostgresUrl(self.url.clone()));
        }
        if self.host.is_empty() {
            return Some(HistoryPlace::Sqlite(self.file.clone()));
        }
        Some(HistoryPlace::PostgresHost {
            host: self.host.clone(),
            port: self.port,
            name: self.name.clone(),
            user: Some(self.user.clone()).filter(|user| !user.is_empty()),
            password: self.password.clone(),
        })
    }
}
