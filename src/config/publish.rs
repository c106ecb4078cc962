//! `[publish]` and `[http]`: from the run log to the consumers, and the HTTP interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use orchestrator_kernel::retry::RetrySchedule;

use super::rabbitmq::RabbitFanOutConfig;
use super::reader::forms::{AddressForm, Bytes, Count, DurationForm, Flag, OptionalPath};
use super::reader::section::Section;
use super::retry;

/// `[publish]`: where outputs go and how far they may fall behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishConfig {
    /// File that outputs are appended to, one JSON object a line; relative to `service.data_dir`, `None` for no file.
    pub file: Option<PathBuf>,
    /// Whether an output counts as published only after the file is synced. Without it a loss of power can cost the end
    /// of the file, which can be written again from the run log.
    pub file_sync: bool,
    /// Outputs that are published together, 1 to 65536.
    pub batch_max: usize,
    /// Outputs waiting for confirmation above which no new runs are made, 1 to 100000000. None is dropped.
    pub backlog_max: u64,
    /// Waiting outputs below which runs are made again, 0 to 100000000. Less than `backlog_max`.
    pub backlog_resume: u64,
    /// Time without progress after which publishing counts as blocked and no new runs are made, 100ms to 1h.
    pub blocked_max: Duration,
    /// Symbols of which an output may be refused for good, 0 to 1000. Their outputs wait and the others go on; beyond
    /// it publishing waits as a whole.
    pub held_symbols_max: usize,
    /// The fan-out to RabbitMQ.
    pub rabbitmq: RabbitFanOutConfig,
    /// Publishing again after a failure. Afterwards the service is degraded and tries at the longest delay.
    pub retry: RetrySchedule,
}

impl Default for PublishConfig {
    fn default() -> Self {
        Self {
            file: Some(PathBuf::from("outputs/orchestrator_events.jsonl")),
            file_sync: true,
            batch_max: 4096,
            backlog_max: 100_000,
            backlog_resume: 50_000,
            blocked_max: Duration::from_secs(30),
            held_symbols_max: 100,
            rabbitmq: RabbitFanOutConfig::default(),
            retry: RetrySchedule {
                min: Duration::from_millis(100),
                max: Duration::from_secs(5),
                max_attempts: 10,
                max_elapsed: Duration::from_secs(60),
            },
        }
    }
}

impl PublishConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value("file", &mut config.file, &OptionalPath);
        section.read_value("file_sync", &mut config.file_sync, &Flag);
        section.read_value("batch_max", &mut config.batch_max, &Count(1..=65_536));
        section.read_value("backlog_max", &mut config.backlog_max, &Count(1..=100_000_000));
        section.read_value("backlog_resume", &mut config.backlog_resume, &Count(0..=100_000_000));
        let blocked = DurationForm(Duration::from_millis(100)..=Duration::from_secs(3600));
        section.read_value("blocked_max", &mut config.blocked_max, &blocked);
        section.read_value("held_symbols_max", &mut config.held_symbols_max, &Count(0..=1000));
        config.rabbitmq = section.read_section("rabbitmq", RabbitFanOutConfig::from_section);
        section.read_section("retry", |section| retry::read_schedule(&mut config.retry, section));
        config
    }
}

/// `[http]`: health, metrics, outputs as server-sent events, and the posts of the HTTP source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one. Not on loopback only with `allow_public`.
    pub listen: SocketAddr,
    /// Allows an address that other machines can reach. Nothing on it asks who is calling.
    pub allow_public: bool,
    /// Largest request body, 1KiB to 256MiB. A larger one is answered 413.
    pub body_bytes_max: u64,
    /// Connections at a time, 1 to 65536. Further ones wait to be accepted.
    pub connections_max: usize,
    /// Time for a request, from its first byte to the answer, 100ms to 10m. Streams are exempt once they began.
    pub request_timeout: Duration,
    /// Event streams at a time, 1 to 65535, fewer than `connections_max`. Further ones are answered 503.
    pub subscribers_max: usize,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8003)),
            allow_public: false,
            body_bytes_max: 1 << 20,
            connections_max: 1024,
            request_timeout: Duration::from_secs(10),
            subscribers_max: 256,
        }
    }
}

impl HttpConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value("listen", &mut config.listen, &AddressForm);
        section.read_value("allow_public", &mut config.allow_public, &Flag);
        section.read_value("body_bytes_max", &mut config.body_bytes_max, &Bytes(1 << 10..=256 << 20));
        section.read_value("connections_max", &mut config.connections_max, &Count(1..=65_536));
        let timeout = DurationForm(Duration::from_millis(100)..=Duration::from_secs(600));
        section.read_value("request_timeout", &mut config.request_timeout, &timeout);
        section.read_value("subscribers_max", &mut config.subscribers_max, &Count(1..=65_535));
        config
    }
}
