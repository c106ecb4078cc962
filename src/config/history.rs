//! `[history]`: the database that holds the journal as tables, for pages and reports.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::forms::{Count, DurationForm, FilePath, Flag, OneOf, TextForm};
use super::reader::secret::{SecretUrl, UrlForm};
use super::reader::section::Section;

/// Database of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryKind {
    /// None: pages show what is in memory.
    None,
    /// A file of SQLite.
    Sqlite,
    /// PostgreSQL, by its address.
    Postgres,
}

/// `[history]`. Counts only while trading is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryConfig {
    /// What holds it.
    pub kind: HistoryKind,
    /// For `Sqlite`: the file, relative to `service.data_dir`.
    pub file: PathBuf,
    /// For `Postgres`: the server and database. Required then.
    pub url: SecretUrl,
    /// Schema of specification 002's tables; on SQLite what their names begin with.
    pub schema: String,
    /// Whether cycles stop while it is behind.
    pub required: bool,
    /// Days for which ended cycles are kept, 1 to 36500.
    pub retention_days: u32,
    /// Records that one transaction takes in, 1 to 10000.
    pub records_max: usize,
    /// From this time on, without having caught up, it counts as behind, 100ms to 1h.
    pub behind_after: Duration,
    /// How long a connection, or a lock of another process, is waited for, 100ms to 1m.
    pub connect_timeout: Duration,
    /// How long the answer to a transaction may take, 100ms to 10m.
    pub answer_timeout: Duration,
}

impl Default for HistoryConfig {
    fn default() -> Self {
        Self {
            kind: HistoryKind::Sqlite,
            file: PathBuf::from("history.sqlite"),
            url: SecretUrl::default(),
            schema: "orchestration".to_owned(),
            required: false,
            retention_days: 365,
            records_max: 1000,
            behind_after: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(3),
            answer_timeout: Duration::from_secs(10),
        }
    }
}

impl HistoryConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let kinds = OneOf(&[
            ("none", HistoryKind::None),
            ("sqlite", HistoryKind::Sqlite),
            ("postgres", HistoryKind::Postgres),
        ]);
        section.read_value("kind", &mut config.kind, &kinds);
        section.read_value("file", &mut config.file, &FilePath);
        let url = UrlForm { schemes: &["postgres", "postgresql"], may_be_empty: true };
        section.read_value("url", &mut config.url, &url);
        let schema = TextForm { accepts: is_schema, allowed: "1 to 40 of a-z, 0-9 and _, no digit first" };
        section.read_value("schema", &mut config.schema, &schema);
        section.read_value("required", &mut config.required, &Flag);
        section.read_value("retention_days", &mut config.retention_days, &Count(1..=36_500));
        section.read_value("records_max", &mut config.records_max, &Count(1..=10_000));
        let behind = DurationForm(Duration::from_millis(100)..=Duration::from_secs(60 * 60));
        section.read_value("behind_after", &mut config.behind_after, &behind);
        let connect = DurationForm(Duration::from_millis(100)..=Duration::from_secs(60));
        section.read_value("connect_timeout", &mut config.connect_timeout, &connect);
        let answer = DurationForm(Duration::from_millis(100)..=Duration::from_secs(600));
        section.read_value("answer_timeout", &mut config.answer_timeout, &answer);
        config
    }
}

/// Longest name of a schema.
const SCHEMA_BYTES_MAX: usize = 40;

/// As the databases' adapter takes it: nothing that needs quoting, or hides a statement.
fn is_schema(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = text.bytes().next().is_some_and(|first| !first.is_ascii_digit());
    begins && text.len() <= SCHEMA_BYTES_MAX && text.bytes().all(is_part)
}
