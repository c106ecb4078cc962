//! `[kill_switch]`: where operators stop all effects, and how long a reading of it counts.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::forms::{DurationForm, FilePath, OneOf, TextForm, is_line};
use super::reader::secret::{SecretUrl, UrlForm};
use super::reader::section::Section;
use super::reader::tree::Origin;
use super::reader::violation::Violation;

/// Store of the kill switch's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillSwitchKind {
    /// A file of this machine.
    File,
    /// A key in Redis.
    Redis,
}

/// `[kill_switch]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillSwitchConfig {
    /// What stores the value.
    pub kind: KillSwitchKind,
    /// For `File`: the file, relative to `service.data_dir`.
    pub file: PathBuf,
    /// For `Redis`: the server. Required then.
    pub url: SecretUrl,
    /// For `Redis`: the same server, with the login of operators who command over HTTP or by this program. Empty: none
    /// over HTTP.
    pub operator_url: SecretUrl,
    /// For `Redis`: the key with the value.
    pub key: String,
    /// For `Redis`: the list with the history of commands.
    pub history_key: String,
    /// Time between two reads, 10ms to 10s.
    pub poll: Duration,
    /// How long one read may take, 10ms to 10s.
    pub read_timeout: Duration,
    /// How long a reading permits effects, from the moment the read was sent, 50ms to 1m. More than `poll` and
    /// `read_timeout` together.
    pub lease: Duration,
}

impl Default for KillSwitchConfig {
    fn default() -> Self {
        Self {
            kind: KillSwitchKind::File,
            file: PathBuf::from("kill_switch.json"),
            url: SecretUrl::default(),
            operator_url: SecretUrl::default(),
            key: "kill_switch:state".to_owned(),
            history_key: "kill_switch:history".to_owned(),
            poll: Duration::from_millis(100),
            read_timeout: Duration::from_millis(100),
            lease: Duration::from_millis(500),
        }
    }
}

/// Settings that name the place by themselves.
pub(super) const NAMES_PLACE: [&str; 2] = ["kill_switch.file", "kill_switch.url"];
/// Settings of this section that say nothing about the place of the value.
const BESIDE_PLACE: [&str; 4] =
    ["kill_switch.history_key", "kill_switch.poll", "kill_switch.read_timeout", "kill_switch.lease"];

/// Whether the place of the value is not known because of `violation`. `named` says that flags name the place.
pub(super) fn concerns_place(violation: &Violation, named: bool) -> bool {
    match &violation.origin {
        Origin::Flag { .. } => true,
        Origin::Default | Origin::File { .. } | Origin::Env { .. } | Origin::EnvFile { .. } if named => false,
        Origin::Default | Origin::File { .. } | Origin::Env { .. } | Origin::EnvFile { .. } => {
            // A variable that cannot be used is named as it is, and a section that is mistyped by what it may mean.
            let path = violation.path.to_ascii_lowercase().replace("__", ".").replace("orchestrator.", "");
            let is_beside = BESIDE_PLACE.iter().any(|beside| path.starts_with(beside));
            let is_of_place =
                path.starts_with("kill_switch") || path == "service" || path.starts_with("service.data");
            (is_of_place && !is_beside) || violation.what.contains("`kill_switch`")
        }
    }
}

/// Longest name of a key.
const KEY_BYTES_MAX: usize = 512;

impl KillSwitchConfig {
    /// The server as operators log in there.
    #[must_use]
    pub const fn url_of_operators(&self) -> &SecretUrl {
        if self.operator_url.is_empty() { &self.url } else { &self.operator_url }
    }

    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let kinds = OneOf(&[("file", KillSwitchKind::File), ("redis", KillSwitchKind::Redis)]);
        section.read_value("kind", &mut config.kind, &kinds);
        section.read_value("file", &mut config.file, &FilePath);
        section.read_value(
            "url",
            &mut config.url,
            &UrlForm { schemes: &["redis", "rediss"], may_be_empty: true },
        );
        section.read_value(
            "operator_url",
            &mut config.operator_url,
            &UrlForm { schemes: &["redis", "rediss"], may_be_empty: true },
        );
        let key = TextForm { accepts: is_key, allowed: "1 to 512 bytes without control character" };
        section.read_value("key", &mut config.key, &key);
        section.read_value("history_key", &mut config.history_key, &key);
        let short = DurationForm(Duration::from_millis(10)..=Duration::from_secs(10));
        section.read_value("poll", &mut config.poll, &short);
        section.read_value("read_timeout", &mut config.read_timeout, &short);
        let lease = DurationForm(Duration::from_millis(50)..=Duration::from_secs(60));
        section.read_value("lease", &mut config.lease, &lease);
        config
    }
}

fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= KEY_BYTES_MAX && is_line(text)
}
