//! `[publish.rabbitmq]`, sources of kind `rabbitmq`, and the broker of `[redis.mark]`.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::forms::{Count, DurationForm, Flag, OneOf, OptionalPath, TextForm, is_line};
use super::reader::secret::{SecretUrl, UrlForm};
use super::reader::section::Section;

/// Responsibility for exchanges and queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RabbitTopology {
    /// The service declares them; one that exists with other settings is refused.
    #[default]
    Declare,
    /// An operator does; the service only checks that they are there, and needs no permission to configure.
    Passive,
}

/// Connection to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitConnection {
    /// Where it is; empty for none where that is allowed.
    pub url: SecretUrl,
    /// Certificates of further authorities for `amqps`, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Time for one question to the broker, 100ms to 1m.
    pub timeout: Duration,
    /// Who declares what is needed.
    pub topology: RabbitTopology,
}

impl Default for RabbitConnection {
    fn default() -> Self {
        let timeout = Duration::from_secs(5);
        Self { url: SecretUrl::default(), ca_file: None, timeout, topology: RabbitTopology::default() }
    }
}

/// `[publish.rabbitmq]`: the fan-out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitFanOutConfig {
    /// The broker; no URL means no fan-out.
    pub connection: RabbitConnection,
    /// The topic exchange that outputs go to.
    pub exchange: String,
    /// Messages that may wait for their confirmation, 1 to 65536.
    pub confirms_max: usize,
    /// Time for one confirmation, 100ms to 10m; it does not run while the broker blocks publishers.
    pub confirm_timeout: Duration,
    /// Outputs without a subscriber that the broker keeps, 1 to 1000000000; it drops older ones. The run log has them
    /// all.
    pub unrouted_messages_max: u32,
}

impl Default for RabbitFanOutConfig {
    fn default() -> Self {
        Self {
            connection: RabbitConnection::default(),
            exchange: "orchestrator.events".to_owned(),
            confirms_max: 1024,
            confirm_timeout: Duration::from_secs(10),
            unrouted_messages_max: 100_000,
        }
    }
}

/// A source of kind `rabbitmq`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitSourceConfig {
    /// The broker.
    pub connection: RabbitConnection,
    /// The queue that is consumed.
    pub queue: String,
    /// The topic exchange that it is bound to, by every key.
    pub exchange: String,
    /// Messages that may be on their way into the log, 1 to 65535.
    pub prefetch: u16,
    /// Messages handed over together, 1 to 65536.
    pub batch_max: usize,
    /// How often the broker delivers one message before it goes to the dead-letter queue, 1 to 1000000. Each end of
    /// this process with the message in hand counts.
    pub delivery_limit: u32,
    /// The higher one of several consumers gets the messages, 0 to 255.
    pub priority: u8,
    /// Whether only one consumer at a time gets messages, so that they stay in order.
    pub single_active: bool,
}

impl Default for RabbitSourceConfig {
    fn default() -> Self {
        Self {
            connection: RabbitConnection::default(),
            queue: "orchestrator.receipts".to_owned(),
            exchange: "market.raw".to_owned(),
            prefetch: 4096,
            batch_max: 1024,
            delivery_limit: 100,
            priority: 0,
            single_active: true,
        }
    }
}

/// The schemes of a broker.
const SCHEMES: &[&str] = &["amqp", "amqps"];

/// A name on the broker.
pub(super) const NAME: TextForm = TextForm {
    accepts: |text| (1..=200).contains(&text.len()) && is_line(text),
    allowed: "1 to 200 bytes without control characters",
};

fn timeout_form() -> DurationForm {
    DurationForm(Duration::from_millis(100)..=Duration::from_secs(600))
}

impl RabbitConnection {
    /// Reads all of it where the broker may be left out.
    pub(super) fn read_optional(&mut self, section: &mut Section<'_>) {
        section.read_value("url", &mut self.url, &UrlForm { schemes: SCHEMES, may_be_empty: true });
        self.read_common_keys(section);
    }

    /// Reads what source and fan-out have in common, but for the URL.
    fn read_common_keys(&mut self, section: &mut Section<'_>) {
        let minute = DurationForm(Duration::from_millis(100)..=Duration::from_secs(60));
        let modes = OneOf(&[("declare", RabbitTopology::Declare), ("passive", RabbitTopology::Passive)]);
        section.read_value("ca_file", &mut self.ca_file, &OptionalPath);
        section.read_value("timeout", &mut self.timeout, &minute);
        section.read_value("topology", &mut self.topology, &modes);
    }
}

impl RabbitFanOutConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        config.connection.read_optional(section);
        section.read_value("exchange", &mut config.exchange, &NAME);
        section.read_value("confirms_max", &mut config.confirms_max, &Count(1..=65_536));
        section.read_value("confirm_timeout", &mut config.confirm_timeout, &timeout_form());
        section.read_value(
            "unrouted_messages_max",
            &mut config.unrouted_messages_max,
            &Count(1..=1_000_000_000),
        );
        config
    }
}

impl RabbitSourceConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Option<Self> {
        let mut config = Self::default();
        let form = UrlForm { schemes: SCHEMES, may_be_empty: false };
        let url = section.read_required("url", "it says where the broker is", &form);
        config.connection.read_common_keys(section);
        section.read_value("queue", &mut config.queue, &NAME);
        section.read_value("exchange", &mut config.exchange, &NAME);
        section.read_value("prefetch", &mut config.prefetch, &Count(1..=65_535));
        section.read_value("batch_max", &mut config.batch_max, &Count(1..=65_536));
        section.read_value("delivery_limit", &mut config.delivery_limit, &Count(1..=1_000_000));
        section.read_value("priority", &mut config.priority, &Count(0..=255));
        section.read_value("single_active", &mut config.single_active, &Flag);
        config.connection.url = url?;
        Some(config)
    }
}
