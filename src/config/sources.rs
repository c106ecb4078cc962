//! `[sources.<name>]`: where receipts come from.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::rabbitmq::RabbitSourceConfig;
use super::reader::forms::{Bytes, Count, DurationForm, FilePath, Flag, OneOf, Real, SettingForm, text_of};
use super::reader::section::Section;
use super::reader::tree::Value;
use super::redis_stream::RedisStreamConfig;

/// The sources by name. A name is 1 to 32 of `a-z 0-9 _ -`; it is also the origin in the receipt log, so renaming a
/// source starts its positions anew.
pub type Sources = BTreeMap<String, SourceConfig>;

/// One source, by its `kind`.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceConfig {
    /// `kind = "file"`: a recording, or a file that another process appends to.
    File(FileSourceConfig),
    /// `kind = "http"`: producers that post batches.
    Http(HttpSourceConfig),
    /// `kind = "rabbitmq"`: a queue of a broker.
    Rabbit(RabbitSourceConfig),
    /// `kind = "redis_stream"`: a Redis Stream, read as one consumer of a group.
    RedisStream(RedisStreamConfig),
    /// `kind = "demo"`: a market made up from a seed.
    Demo(DemoSourceConfig),
}

/// Speed at which a recording is read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum RecordingSpeed {
    /// As fast as the receipts become durable.
    #[default]
    Max,
    /// This many times as fast as recorded, 0.01 to 1000000; `"original"` is 1.
    Times(f64),
}

/// Options of a file source.
#[derive(Clone, Debug, PartialEq)]
pub struct FileSourceConfig {
    /// The file, one receipt a line; `.gz` and `.zst` are unpacked.
    pub path: PathBuf,
    /// How fast it is read.
    pub speed: RecordingSpeed,
    /// Whether to wait for more at its end, like `tail -f`.
    pub follow: bool,
    /// Longest line that is read whole, 1KiB to 64MiB. A longer one goes to the quarantine.
    pub line_bytes_max: u64,
}

/// Options of the HTTP source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpSourceConfig {
    /// Posted batches that may wait for ingestion, 1 to 65536; further ones are answered 429.
    pub queue_batches_max: usize,
    /// Their bytes, 64KiB to 16GiB.
    pub queue_bytes_max: u64,
    /// Batches whose receipts may be on their way into the log, 1 to 65536.
    pub unsettled_batches_max: usize,
    /// When a producer that was turned away should come again, 10ms to 10m.
    pub retry_after: Duration,
}

/// Options of the demo source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemoSourceConfig {
    /// Same seed, same market.
    pub seed: u64,
    /// How many symbols it quotes, 1 to 10000.
    pub symbols: usize,
    /// Receipts a second over all symbols, besides snapshots and bursts, 0 to 1000000.
    pub rate_per_second: u32,
    /// Time between two SnapshotInputs of one symbol, 100ms to 1day. Divides the interval of the schedule.
    pub snapshot_interval: Duration,
    /// How long after its boundary a snapshot comes, 0s to 1h. Shorter than `schedule.delay`.
    pub snapshot_lag: Duration,
}

impl Default for HttpSourceConfig {
    fn default() -> Self {
        Self {
            queue_batches_max: 256,
            queue_bytes_max: 32 << 20,
            unsettled_batches_max: 8,
            retry_after: Duration::from_secs(1),
        }
    }
}

impl Default for DemoSourceConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            symbols: 5,
            rate_per_second: 200,
            snapshot_interval: Duration::from_secs(1),
            snapshot_lag: Duration::from_millis(50),
        }
    }
}

/// The sources when the configuration names none: producers post.
pub(super) fn default_sources() -> Sources {
    Sources::from([("http".to_owned(), SourceConfig::Http(HttpSourceConfig::default()))])
}

/// Whether `name` can name a source.
fn is_name(name: &str) -> bool {
    (1..=32).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// What [`is_name`] accepts.
const NAME_ALLOWED: &str = "1 to 32 of a-z 0-9 _ -";

/// Reads the sources; those of the default only when no layer names any.
pub(super) fn read_sources(section: &mut Section<'_>) -> Sources {
    let mut sources = Sources::new();
    section.named_sections(is_name, NAME_ALLOWED, default_sources().keys(), |name, section| {
        if let Some(source) = SourceConfig::from_section(name, section) {
            sources.insert(name.to_owned(), source);
        }
    });
    sources
}

/// The kinds, without their options.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Http,
    Rabbit,
    RedisStream,
    Demo,
}

impl SourceConfig {
    /// The word of its `kind`.
    #[must_use]
    pub const fn kind_word(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Http(_) => "http",
            Self::Rabbit(_) => "rabbitmq",
            Self::RedisStream(_) => "redis_stream",
            Self::Demo(_) => "demo",
        }
    }

    fn from_section(name: &str, section: &mut Section<'_>) -> Option<Self> {
        let kinds = OneOf(&[
            ("file", Kind::File),
            ("http", Kind::Http),
            ("rabbitmq", Kind::Rabbit),
            ("redis_stream", Kind::RedisStream),
            ("demo", Kind::Demo),
        ]);
        let kind = match default_sources().get(name) {
            // Options of a default source can be changed without repeating its kind.
            Some(Self::Http(_)) => {
                let mut kind = Kind::Http;
                section.read_value("kind", &mut kind, &kinds);
                Some(kind)
            }
            Some(Self::File(_) | Self::Rabbit(_) | Self::RedisStream(_) | Self::Demo(_)) | None => {
                section.read_required("kind", "it says what the source is", &kinds)
            }
        };
        match kind {
            Some(Kind::File) => FileSourceConfig::from_section(section).map(Self::File),
            Some(Kind::Http) => Some(Self::Http(HttpSourceConfig::from_section(section))),
            Some(Kind::Rabbit) => RabbitSourceConfig::from_section(section).map(Self::Rabbit),
            Some(Kind::RedisStream) => RedisStreamConfig::from_section(section).map(Self::RedisStream),
            Some(Kind::Demo) => Some(Self::Demo(DemoSourceConfig::from_section(section))),
            None => {
                // Which keys it may have is unknown without the kind.
                section.ignore_rest();
                None
            }
        }
    }
}

impl FileSourceConfig {
    fn from_section(section: &mut Section<'_>) -> Option<Self> {
        let path = section.read_required("path", "it says which file to read", &FilePath);
        let (mut speed, mut follow, mut line_bytes_max) = (RecordingSpeed::default(), false, 256 << 10);
        section.read_value("speed", &mut speed, &SpeedForm);
        section.read_value("follow", &mut follow, &Flag);
        section.read_value("line_bytes_max", &mut line_bytes_max, &Bytes(1 << 10..=64 << 20));
        Some(Self { path: path?, speed, follow, line_bytes_max })
    }
}

impl HttpSourceConfig {
    fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value("queue_batches_max", &mut config.queue_batches_max, &Count(1..=65_536));
        section.read_value("queue_bytes_max", &mut config.queue_bytes_max, &Bytes(64 << 10..=16 << 30));
        section.read_value("unsettled_batches_max", &mut config.unsettled_batches_max, &Count(1..=65_536));
        let retry_after = DurationForm(Duration::from_millis(10)..=Duration::from_secs(600));
        section.read_value("retry_after", &mut config.retry_after, &retry_after);
        config
    }
}

impl DemoSourceConfig {
    fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value("seed", &mut config.seed, &Count(0..=i64::MAX as u64));
        section.read_value("symbols", &mut config.symbols, &Count(1..=10_000));
        section.read_value("rate_per_second", &mut config.rate_per_second, &Count(0..=1_000_000));
        let interval = DurationForm(Duration::from_millis(100)..=Duration::from_secs(86_400));
        section.read_value("snapshot_interval", &mut config.snapshot_interval, &interval);
        let lag = DurationForm(Duration::ZERO..=Duration::from_secs(3600));
        section.read_value("snapshot_lag", &mut config.snapshot_lag, &lag);
        config
    }
}

/// `"max"`, `"original"` or a factor.
struct SpeedForm;

/// With the recorded pauses.
const ORIGINAL: RecordingSpeed = RecordingSpeed::Times(1.0);
/// Factors that a recording may be sped up by.
const FACTOR: Real = Real(0.01..=1_000_000.0);

impl SettingForm<RecordingSpeed> for SpeedForm {
    fn parse_value(&self, value: &Value) -> Result<RecordingSpeed, String> {
        match text_of(value) {
            Some("max") => Ok(RecordingSpeed::Max),
            Some("original") => Ok(ORIGINAL),
            Some(_) | None => FACTOR.parse_value(value).map(RecordingSpeed::Times),
        }
    }

    fn render_value(&self, value: &RecordingSpeed) -> String {
        match value {
            RecordingSpeed::Max => "\"max\"".to_owned(),
            speed if *speed == ORIGINAL => "\"original\"".to_owned(),
            RecordingSpeed::Times(factor) => FACTOR.render_value(factor),
        }
    }

    fn allowed_text(&self) -> String {
        format!("\"max\" or \"original\" or {}", FACTOR.allowed_text())
    }
}
