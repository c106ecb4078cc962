//! `[trading.events]`: what the trading plane tells over the broker, and what it listens to.

use std::time::Duration;

use orchestrator_kernel::trading::event::{EventFamily, EventNaming};
use orchestrator_trading_plane::outbox::PublishFrom;

use crate::config::rabbitmq::{NAME, RabbitConnection};
use crate::config::reader::forms::{Count, DurationForm, OneOf, TextForm, Texts, is_line};
use crate::config::reader::section::Section;

use super::forms::{TOPIC_PATTERN, TOPIC_PREFIX};

/// Policy for an error that another service announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForeignErrorPolicy {
    /// It is recorded and counted.
    #[default]
    Record,
    /// And the agent is paused until an operator resumes it.
    Pause,
}

impl ForeignErrorPolicy {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Pause => "pause",
        }
    }
}

/// `[trading.events]`.
///
/// Source: CONTRACTS, section 7; specification 002, "Configuration", `eventBus`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradingEventsConfig {
    /// The broker; no URL means that nothing is published to it or taken from it.
    pub connection: RabbitConnection,
    /// Names on the wire.
    pub names: EventFamily,
    /// The topic exchange that events go to, routed by their names.
    pub exchange: String,
    /// Stands, with a dot, before every name that is published or consumed; empty for none.
    pub prefix: String,
    /// Where publishing begins when nothing was published before.
    pub publish_from: PublishFrom,
    /// The topic exchange that events are taken from.
    pub consume_exchange: String,
    /// The queue that is bound to it.
    pub consume_queue: String,
    /// Patterns of names that are taken, without the prefix. Whoever may publish them may trade.
    pub consume: Vec<String>,
    /// Messages that may be on their way into the journal, 1 to 65535.
    pub prefetch: u16,
    /// Deliveries of one message before it goes to the dead letters, 1 to 1000000.
    pub delivery_limit: u32,
    /// Messages that may wait for their confirmation, 1 to 65536.
    pub confirms_max: usize,
    /// Time for one confirmation, 100ms to 10m.
    pub confirm_timeout: Duration,
    /// Time between two heartbeats of another service, 1s to 1h. One that is silent for three of them is unhealthy.
    pub heartbeat_interval: Duration,
    /// What another service's error does.
    pub on_foreign_error: ForeignErrorPolicy,
    /// Tag `instrument_type` of events.
    pub instrument_type: String,
    /// Tag `venue` of events.
    pub venue: String,
    /// Tag `jurisdiction` of events.
    pub jurisdiction: String,
}

impl Default for TradingEventsConfig {
    fn default() -> Self {
        Self {
            connection: RabbitConnection::default(),
            names: EventFamily::default(),
            exchange: "orchestrator.trading".to_owned(),
            prefix: String::new(),
            publish_from: PublishFrom::default(),
            consume_exchange: "orchestrator.trading".to_owned(),
            consume_queue: "orchestrator.trading.events".to_owned(),
            consume: Vec::new(),
            prefetch: 256,
            delivery_limit: 100,
            confirms_max: 1024,
            confirm_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_secs(30),
            on_foreign_error: ForeignErrorPolicy::default(),
            instrument_type: String::new(),
            venue: String::new(),
            jurisdiction: String::new(),
        }
    }
}

/// The value of a tag.
const TAG: TextForm = TextForm {
    accepts: |text| text.len() <= 64 && is_line(text),
    allowed: "at most 64 bytes, \"\" for none",
};
/// Patterns that are taken.
const PATTERNS: Texts = Texts { item: TOPIC_PATTERN, items_max: 64 };

impl TradingEventsConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        let names = OneOf(&[("orchestrator", EventFamily::Orchestrator), ("ordinis", EventFamily::Ordinis)]);
        let beginnings = OneOf(&[("latest", PublishFrom::Latest), ("earliest", PublishFrom::Earliest)]);
        let policies = OneOf(&[("record", ForeignErrorPolicy::Record), ("pause", ForeignErrorPolicy::Pause)]);
        let timeout = DurationForm(Duration::from_millis(100)..=Duration::from_secs(600));
        let heartbeats = DurationForm(Duration::from_secs(1)..=Duration::from_secs(3600));
        config.connection.read_optional(section);
        section.read_value("names", &mut config.names, &names);
        section.read_value("exchange", &mut config.exchange, &NAME);
        section.read_value("prefix", &mut config.prefix, &TOPIC_PREFIX);
        section.read_value("publish_from", &mut config.publish_from, &beginnings);
        section.read_value("consume_exchange", &mut config.consume_exchange, &NAME);
        section.read_value("consume_queue", &mut config.consume_queue, &NAME);
        section.read_value("consume", &mut config.consume, &PATTERNS);
        section.read_value("prefetch", &mut config.prefetch, &Count(1..=65_535));
        section.read_value("delivery_limit", &mut config.delivery_limit, &Count(1..=1_000_000));
        section.read_value("confirms_max", &mut config.confirms_max, &Count(1..=65_536));
        section.read_value("confirm_timeout", &mut config.confirm_timeout, &timeout);
        section.read_value("heartbeat_interval", &mut config.heartbeat_interval, &heartbeats);
        section.read_value("on_foreign_error", &mut config.on_foreign_error, &policies);
        section.read_value("instrument_type", &mut config.instrument_type, &TAG);
        section.read_value("venue", &mut config.venue, &TAG);
        section.read_value("jurisdiction", &mut config.jurisdiction, &TAG);
        config
    }

    /// How events are named on the wire.
    #[must_use]
    pub fn naming(&self) -> EventNaming {
        EventNaming { family: self.names, prefix: self.prefix.clone() }
    }
}
