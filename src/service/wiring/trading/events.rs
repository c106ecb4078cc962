//! The trading plane's events as configured: the bus that they go to, and what is taken from it.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::observer::Observer;
use orchestrator_kernel::retry::RetrySchedule;
use orchestrator_kernel::trading::event::{EventStyle, EventTags};
use orchestrator_runtime::status::StatusBoard;
use orchestrator_trading_plane::intake::{AnalysisRequests, EventIntake, IntakeSettings};
use orchestrator_trading_plane::outbox::{EventPorts, OutboxSettings};
use orchestrator_trading_plane::plane::TradingHandle;
use orchestrator_trading_plane::settings::{TradingHours, TradingSettings};
use tokio_util::task::AbortOnDropHandle;

use super::super::WiringError;
use super::super::rabbit::{rabbit_endpoint, topology_mode};
use crate::adapters::rabbitmq::{
    RabbitEventBus, RabbitEventBusOptions, RabbitItems, RabbitSourceFactory, RabbitSourceOptions,
};
use crate::config::Config;
use crate::config::trading::ForeignErrorPolicy;

/// What failed is tried again soon, and then every few seconds for ever: a broker comes back.
const RETRY: RetrySchedule = RetrySchedule {
    min: Duration::from_millis(100),
    max: Duration::from_secs(5),
    max_attempts: u32::MAX,
    max_elapsed: Duration::MAX,
};
/// How long the intake waits before it tries again what failed.
const INTAKE_RETRY: Duration = Duration::from_secs(1);
/// Records whose events are on their way at a time.
const RECORDS_MAX: usize = 512;
/// What may be published again after a crash.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Longest that the outbox may be on its way without anybody being told.
const BEHIND_AFTER: Duration = Duration::from_secs(10);
/// Bytes of messages that are handed over together.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The form of events, for the bus and for whoever listens to this service itself.
#[must_use]
pub fn event_style(config: &Config) -> EventStyle {
    let events = &config.trading.events;
    let tag = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    EventStyle {
        naming: config.trading.events.naming(),
        source: "orchestrator".to_owned(),
        tags: EventTags {
            instrument_type: tag(&events.instrument_type),
            venue: tag(&events.venue),
            jurisdiction: tag(&events.jurisdiction),
            env: config.trading.environment.as_str().to_owned(),
        },
    }
}

/// The bus that events are published to; nothing where no broker is named. Asks it nothing.
///
/// # Errors
///
/// [`WiringError`]: the URL or the file of authorities cannot be used.
pub fn event_ports(config: &Config) -> Result<Option<EventPorts>, WiringError> {
    let events = &config.trading.events;
    if events.connection.url.expose_url().is_empty() {
        return Ok(None);
    }
    let options = RabbitEventBusOptions {
        name: "trading events".to_owned(),
        exchange: events.exchange.clone(),
        topology: topology_mode(&events.connection),
        window: events.confirms_max,
        confirm_timeout: events.confirm_timeout,
    };
    let endpoint = rabbit_endpoint("trading.events", &events.connection)?;
    let settings = OutboxSettings {
        style: event_style(config),
        from: events.publish_from,
        records_max: RECORDS_MAX,
        behind_after: BEHIND_AFTER,
        save_every: SAVE_EVERY,
        retry: RETRY,
    };
    Ok(Some(EventPorts { bus: Arc::new(RabbitEventBus::new(endpoint, options)), settings }))
}

/// The intake of events, ready to begin once the plane runs.
pub struct IntakePlan {
    factory: RabbitSourceFactory,
    settings: IntakeSettings,
    requests: Option<Arc<AnalysisRequests>>,
    observer: Arc<dyn Observer>,
}

/// The intake as configured; nothing where no pattern is listed, or no broker is named. Asks the broker nothing.
///
/// # Errors
///
/// [`WiringError`], as [`event_ports`].
pub(super) fn plan_intake(
    config: &Config,
    trading: &TradingSettings,
    requests: Option<Arc<AnalysisRequests>>,
    observer: Arc<dyn Observer>,
) -> Result<Option<IntakePlan>, WiringError> {
    let events = &config.trading.events;
    if events.consume.is_empty() || events.connection.url.expose_url().is_empty() {
        return Ok(None);
    }
    let naming = events.naming();
    let options = RabbitSourceOptions {
        name: "trading intake".to_owned(),
        exchange: events.consume_exchange.clone(),
        queue: events.consume_queue.clone(),
        prefetch: events.prefetch,
        delivery_limit: events.delivery_limit,
        single_active_consumer: true,
        priority: None,
        batch_max: usize::from(events.prefetch),
        batch_bytes_max: BATCH_BYTES_MAX,
        unsettled_batches_max: 1,
        topology: topology_mode(&events.connection),
        brings: RabbitItems::Events {
            patterns: events.consume.iter().map(|pattern| naming.prefixed_name(pattern)).collect(),
        },
    };
    let endpoint = rabbit_endpoint("trading.events", &events.connection)?;
    let settings = IntakeSettings {
        naming,
        patterns: events.consume.clone(),
        pause_on_error: events.on_foreign_error == ForeignErrorPolicy::Pause,
        extended_hours: trading.hours != TradingHours::Session,
        heartbeat_interval: events.heartbeat_interval,
        retry: INTAKE_RETRY,
    };
    let factory = RabbitSourceFactory::new(endpoint, options);
    Ok(Some(IntakePlan { factory, settings, requests, observer }))
}

/// Begins to take events; dropping the handle ends it, and what is not acknowledged stays in the queue.
pub fn spawn_event_intake(
    plan: IntakePlan,
    handle: TradingHandle,
    board: StatusBoard,
) -> AbortOnDropHandle<()> {
    let intake = EventIntake::new(handle, plan.settings, plan.observer, board).answering(plan.requests);
    AbortOnDropHandle::new(tokio::spawn(intake.run(Arc::new(plan.factory))))
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::trading::event::{EventFamily, TradingEventKind};

    use super::*;
    use crate::config::SecretUrl;

    #[test]
    fn nothing_is_published_without_a_broker_and_names_are_as_configured() {
        let mut config = Config::default();
        assert!(event_ports(&config).unwrap().is_none());
        config.trading.events.connection.url = SecretUrl::from("amqp://user:sekret@localhost/v");
        config.trading.events.names = EventFamily::Ordinis;
        config.trading.events.prefix = "ai-trader".to_owned();
        config.trading.events.venue = "XNYS".to_owned();

        let ports = event_ports(&config).unwrap().unwrap();

        let style = &ports.settings.style;
        assert_eq!(
            style.naming.wire_name(TradingEventKind::CycleStarted),
            "ai-trader.ordinis.ops.cycle.started"
        );
        assert_eq!((style.tags.venue.as_deref(), &style.tags.jurisdiction), (Some("XNYS"), &None));
        assert_eq!(style.tags.env, "dev");
        config.trading.events.connection.url = SecretUrl::from("amqp://[");
        let refused = event_ports(&config).err().unwrap().to_string();
        assert!(refused.contains("trading.events.url"), "{refused}");
    }
}
