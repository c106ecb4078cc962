//! RabbitMQ as configured: the fan-out, the sources, and what every connection has.

use orchestrator_kernel::ports::source::SourceFactory;

use super::WiringError;
use crate::adapters::rabbitmq::{
    RabbitEndpoint, RabbitFanOut, RabbitFanOutOptions, RabbitItems, RabbitSourceFactory, RabbitSourceOptions,
    TopologyMode,
};
use crate::config::{RabbitConnection, RabbitFanOutConfig, RabbitSourceConfig, RabbitTopology};

/// Batches of a source that may be on their way into the log.
const UNSETTLED_BATCHES_MAX: usize = 8;
/// Bytes handed over together.
const BATCH_BYTES_MAX: usize = 8 << 20;

pub(super) fn fan_out(config: &RabbitFanOutConfig) -> Result<RabbitFanOut, WiringError> {
    let options = RabbitFanOutOptions {
        name: "rabbitmq".to_owned(),
        exchange: config.exchange.clone(),
        unrouted_messages_max: config.unrouted_messages_max,
        topology: topology_mode(&config.connection),
        window: config.confirms_max,
        confirm_timeout: config.confirm_timeout,
    };
    Ok(RabbitFanOut::new(rabbit_endpoint("publish.rabbitmq", &config.connection)?, options))
}

pub(super) fn rabbit_source(
    name: &str,
    config: &RabbitSourceConfig,
) -> Result<impl SourceFactory + use<>, WiringError> {
    let options = RabbitSourceOptions {
        name: name.to_owned(),
        exchange: config.exchange.clone(),
        queue: config.queue.clone(),
        prefetch: config.prefetch,
        delivery_limit: config.delivery_limit,
        single_active_consumer: config.single_active,
        priority: Some(i32::from(config.priority)).filter(|priority| *priority > 0),
        batch_max: config.batch_max,
        batch_bytes_max: BATCH_BYTES_MAX,
        unsettled_batches_max: UNSETTLED_BATCHES_MAX,
        topology: topology_mode(&config.connection),
        brings: RabbitItems::Receipts,
    };
    let endpoint = rabbit_endpoint(&format!("sources.{name}"), &config.connection)?;
    Ok(RabbitSourceFactory::new(endpoint, options))
}

pub(super) const fn topology_mode(connection: &RabbitConnection) -> TopologyMode {
    match connection.topology {
        RabbitTopology::Declare => TopologyMode::Declare,
        RabbitTopology::Passive => TopologyMode::Passive,
    }
}

pub(super) fn rabbit_endpoint(
    section: &str,
    connection: &RabbitConnection,
) -> Result<RabbitEndpoint, WiringError> {
    let read = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path).map_err(|source| WiringError::File {
            what: format!("{section}.ca_file {}", path.display()),
            source,
        })
    };
    let authorities = connection.ca_file.as_ref().map(read).transpose()?;
    RabbitEndpoint::new(connection.url.expose_url(), authorities, connection.timeout)
        .map_err(|source| WiringError::Broker { setting: format!("{section}.url"), source })
}
