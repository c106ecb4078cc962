//! `[storage]` and `[redis]`: where the logs are.

use std::path::PathBuf;
use std::time::Duration;

use super::rabbitmq::{NAME, RabbitConnection};
use super::reader::forms::{Bytes, DurationForm, OneOf, OptionalPath, TextForm};
use super::reader::secret::{SecretUrl, UrlForm};
use super::reader::section::Section;

/// Storage of the logs, the checkpoints and the publish cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StorageKind {
    /// Files in the data directory.
    #[default]
    Embedded,
    /// Redis Streams; the data directory then holds the archive and the high-water marks.
    Redis,
}

/// `[storage]`: where the logs are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StorageConfig {
    /// What holds them.
    pub kind: StorageKind,
}

impl StorageConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let kinds = OneOf(&[("embedded", StorageKind::Embedded), ("redis", StorageKind::Redis)]);
        section.read_value("kind", &mut config.kind, &kinds);
        config
    }
}

/// Condition under which the Redis server's answer makes a receipt durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedisDurability {
    /// Its append-only file is synced before it answers. Nothing acknowledged is lost.
    #[default]
    Always,
    /// It is synced every second: a crash of the server can lose what it acknowledged in the last seconds. That is
    /// detected and refused, not mended.
    Everysec,
    /// The operator vouches for it, because the server does not let itself be asked.
    AssertedByOperator,
}

/// Store of the second high-water mark of logs on Redis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MarkKind {
    /// Nowhere: another host takes these logs over on the operator's word only.
    #[default]
    None,
    /// A file on storage that does not fail with Redis, nor with this host.
    File,
    /// A queue of RabbitMQ.
    Rabbit,
}

/// `[redis.mark]`: how far the logs were acknowledged, for a host that has no mark of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkConfig {
    /// Where it is.
    pub kind: MarkKind,
    /// For `File`: the file. Its folder must be there. Not in `service.data_dir`.
    pub path: Option<PathBuf>,
    /// For `Rabbit`: the broker.
    pub connection: RabbitConnection,
    /// For `Rabbit`: the queue, and the fanout exchange of the same name.
    pub queue: String,
    /// How long what was acknowledged may wait to be noted before appends pause, up to 1h; 0s: they never do.
    pub max_age: Duration,
}

impl Default for MarkConfig {
    fn default() -> Self {
        Self {
            kind: MarkKind::None,
            path: None,
            connection: RabbitConnection::default(),
            queue: "orchestrator.marks".to_owned(),
            max_age: Duration::ZERO,
        }
    }
}

impl MarkConfig {
    fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let kinds =
            OneOf(&[("none", MarkKind::None), ("file", MarkKind::File), ("rabbitmq", MarkKind::Rabbit)]);
        section.read_value("kind", &mut config.kind, &kinds);
        section.read_value("path", &mut config.path, &OptionalPath);
        config.connection.read_optional(section);
        section.read_value("queue", &mut config.queue, &NAME);
        section.read_value(
            "max_age",
            &mut config.max_age,
            &DurationForm(Duration::ZERO..=Duration::from_secs(3600)),
        );
        config
    }
}

/// `[redis]`: the server of `storage.kind = "redis"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConfig {
    /// Where it is.
    pub url: SecretUrl,
    /// Separates the logs of several deployments on one server: 1 to 64 of `a-z 0-9 _ -`.
    pub namespace: String,
    /// What it must do before a receipt counts as durable.
    pub durability: RedisDurability,
    /// Time for an answer, 50ms to 1m. What takes longer is asked again.
    pub response_timeout: Duration,
    /// Time for a connection, 50ms to 1m.
    pub connect_timeout: Duration,
    /// Time between two checks of what the server promises, 100ms to 1h.
    pub check_interval: Duration,
    /// How long a writer that does not renew its claim keeps others out, 1s to 10m.
    pub writer_ttl: Duration,
    /// Bytes in Redis above which the oldest receipts and run records move to the archive in the data directory.
    pub archive_above: u64,
    /// Bytes that stay in Redis then. Less than `archive_above`.
    pub archive_keep: u64,
    /// The second mark.
    pub mark: MarkConfig,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: SecretUrl::from("redis://127.0.0.1:6379/0"),
            namespace: "default".to_owned(),
            durability: RedisDurability::Always,
            response_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            check_interval: Duration::from_secs(5),
            writer_ttl: Duration::from_secs(10),
            archive_above: 1 << 30,
            archive_keep: 512 << 20,
            mark: MarkConfig::default(),
        }
    }
}

/// The schemes of a Redis server.
pub(super) const REDIS_URL: UrlForm = UrlForm { schemes: &["redis", "rediss"], may_be_empty: false };

/// What can be part of a key.
const NAMESPACE: TextForm = TextForm {
    accepts: |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    },
    allowed: "1 to 64 of a-z 0-9 _ -",
};

impl RedisConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let durability = OneOf(&[
            ("always", RedisDurability::Always),
            ("everysec", RedisDurability::Everysec),
            ("asserted-by-operator", RedisDurability::AssertedByOperator),
        ]);
        let (ms, minute) = (Duration::from_millis, Duration::from_secs(60));
        section.read_value("url", &mut config.url, &REDIS_URL);
        section.read_value("namespace", &mut config.namespace, &NAMESPACE);
        section.read_value("durability", &mut config.durability, &durability);
        section.read_value("response_timeout", &mut config.response_timeout, &DurationForm(ms(50)..=minute));
        section.read_value("connect_timeout", &mut config.connect_timeout, &DurationForm(ms(50)..=minute));
        section.read_value(
            "check_interval",
            &mut config.check_interval,
            &DurationForm(ms(100)..=minute * 60),
        );
        section.read_value("writer_ttl", &mut config.writer_ttl, &DurationForm(ms(1000)..=minute * 10));
        section.read_value("archive_above", &mut config.archive_above, &Bytes(1 << 20..=1 << 40));
        section.read_value("archive_keep", &mut config.archive_keep, &Bytes(0..=1 << 40));
        config.mark = section.read_section("mark", MarkConfig::from_section);
        config
    }
}
