//! Outputs to a topic exchange: persistent, mandatory, each confirmed (OUT-2).
//!
//! ```text
//! publish ──▶ orchestrator.events (topic) ──binding──▶ queues of the consumers
//!                    │ no binding takes it
//!                    └─▶ orchestrator.events.unrouted (fanout) ──▶ orchestrator.events.unrouted (queue, bounded)
//! ```
//!
//! The alternate exchange keeps what nobody has subscribed to, so an output without a consumer holds nothing up and can
//! still be looked at. A message comes back as unroutable only when that is missing too: somebody broke the topology,
//! and publishing stops there until it is repaired.
//!
//! A broker refuses a message for good by closing the channel; which of those on their way it was, it does not say. So
//! the suspects are published again one at a time, and the one that is refused alone is named: its symbol is held.
//!
//! After an error the channel is given up with everything on it, and the caller offers again what follows the confirmed
//! prefix. So a consumer may see an output twice, and after a refusal one that overtook an earlier one: `message_id`
//! recognises the first, the header `symbol_seq` the second.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError, Remedy};

use super::connection::{BrokerLink, BrokerTrouble, RabbitEndpoint, to_short_string};
use super::topology::{Argument, Binding, Exchange, Kind, Queue, Topology, TopologyMode};
use super::window::{ConfirmChannel, InFlightWindow, PublishStopped, blocked_text};

/// Settings of the fan-out to RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RabbitFanOutOptions {
    /// Name of this fan-out in logs, metrics and the broker's list of connections.
    pub name: String,
    /// The topic exchange. With `.unrouted` behind it: the alternate exchange and its queue.
    pub exchange: String,
    /// Outputs without a subscriber that are kept, at least 1; beyond it the oldest is dropped. The run log has them
    /// all.
    pub unrouted_messages_max: u32,
    /// Who declares the exchanges and the queue.
    pub topology: TopologyMode,
    /// Messages on their way at a time, at least 1. So many may come twice after an error. From 256 to 4096 the
    /// throughput is the same within what measurements scatter.
    pub window: usize,
    /// Longest for the confirm of one message. Does not run while the broker blocks publishers. More than zero.
    pub confirm_timeout: Duration,
}

impl Default for RabbitFanOutOptions {
    /// `orchestrator.events`, 100,000 unrouted outputs, declared, 1024 on their way, 10 s.
    fn default() -> Self {
        Self {
            name: "rabbitmq".to_owned(),
            exchange: "orchestrator.events".to_owned(),
            unrouted_messages_max: 100_000,
            topology: TopologyMode::Declare,
            window: 1024,
            confirm_timeout: Duration::from_secs(10),
        }
    }
}

impl RabbitFanOutOptions {
    /// What has to be on the broker. The alternate exchange comes first, so that the other never is without.
    pub(super) fn needed_topology(&self) -> Topology {
        let unrouted = format!("{}.unrouted", self.exchange);
        let arguments = BTreeMap::from([
            ("x-max-length", Argument::Number(self.unrouted_messages_max.into())),
            ("x-overflow", Argument::Text("drop-head".to_owned())),
        ]);
        let alternate = Some(unrouted.clone());
        Topology {
            exchanges: vec![
                Exchange { name: unrouted.clone(), kind: Kind::Fanout, alternate: None },
                Exchange { name: self.exchange.clone(), kind: Kind::Topic, alternate },
            ],
            queues: vec![Queue { name: unrouted.clone(), arguments }],
            bindings: vec![Binding {
                exchange: unrouted.clone(),
                queue: unrouted,
                routing_key: String::new(),
            }],
        }
    }
}

/// A fan-out to RabbitMQ. Connects when it is to make ready or to publish, and again after each loss.
pub struct RabbitFanOut {
    endpoint: RabbitEndpoint,
    options: RabbitFanOutOptions,
    link: Option<BrokerLink>,
    /// The connection was lost while the broker took nothing: a new one is told so with its first output only.
    is_in_doubt: bool,
    /// Taken while it is in use: a call that is dropped takes the channel with it, and late confirms count for nothing.
    channel: Option<Channel>,
}

impl RabbitFanOut {
    /// Does not connect yet.
    #[must_use]
    pub const fn new(endpoint: RabbitEndpoint, options: RabbitFanOutOptions) -> Self {
        Self { endpoint, options, link: None, is_in_doubt: false, channel: None }
    }

    /// Publishes over a channel that is not used again after an error.
    async fn try_publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishStopped> {
        let channel = match self.channel.take().filter(|channel| channel.status().connected()) {
            Some(channel) => channel,
            None => self.open_channel().await.map_err(not_sent)?,
        };
        let exchange = to_short_string(&self.options.exchange).map_err(not_sent)?;
        let Some(link) = &self.link else { return Err(not_sent(BrokerTrouble::new("not connected"))) };
        let lane = ConfirmChannel {
            channel: &channel,
            exchange: &exchange,
            window: self.options.window,
            confirm_timeout: self.options.confirm_timeout,
            blocking: link.watch_blocking(),
        };
        InFlightWindow::publish_all(lane, messages).await?;
        self.channel = Some(channel);
        Ok(())
    }

    /// Finds the message that the broker refuses: each suspect is published alone, so that a closed channel has one
    /// cause.
    ///
    /// Those before it come twice; none of those behind it was taken.
    async fn find_refused(
        &mut self,
        messages: &[OutputMessage],
        PublishStopped { mut confirmed, suspects, why, .. }: PublishStopped,
    ) -> Result<(), PublishError> {
        let suspected = messages.iter().skip(confirmed).take(suspects);
        for message in suspected {
            match self.try_publish(std::slice::from_ref(message)).await {
                Ok(()) => confirmed += 1,
                Err(alone) => {
                    let is_refused = alone.suspects > 0;
                    let remedy = if is_refused { remedy_of_refused(&alone.why) } else { alone.remedy };
                    return Err(self.publish_error(PublishStopped { confirmed, remedy, ..alone }));
                }
            }
        }
        if confirmed == messages.len() {
            return Ok(());
        }
        // None is refused any more, so what the broker said no longer holds.
        Err(self.publish_error(PublishStopped { confirmed, remedy: Remedy::Time, ..not_sent(why) }))
    }

    /// What is said of messages that were not taken; a broker that does not answer loses its connection.
    fn publish_error(
        &mut self,
        PublishStopped { confirmed, why, is_silent, remedy, .. }: PublishStopped,
    ) -> PublishError {
        if is_silent {
            self.give_up_link();
        }
        PublishError { fan_out: self.options.name.clone(), detail: why.detail, confirmed, remedy }
    }

    /// Opens a channel that gives confirms, over a new connection when there is none.
    async fn open_channel(&mut self) -> Result<Channel, BrokerTrouble> {
        if !self.link.as_ref().is_some_and(BrokerLink::is_connected) {
            self.give_up_link();
        }
        let link = match self.link.take() {
            Some(link) => link,
            None => BrokerLink::open(&self.endpoint, &self.options.name).await?,
        };
        let link = self.link.insert(link);
        let opened = open_channel(link, &self.options).await;
        if opened.as_ref().is_err_and(|why| why.code.is_none()) {
            // Not a refusal: the broker did not answer, and will not over this connection.
            self.give_up_link();
        }
        opened
    }

    fn give_up_link(&mut self) {
        self.is_in_doubt |= self.link.take().is_some_and(|link| link.is_left_blocked());
    }
}

async fn open_channel(link: &BrokerLink, options: &RabbitFanOutOptions) -> Result<Channel, BrokerTrouble> {
    let channel = link.open_channel().await?;
    match options.needed_topology().ensure_all(link, &channel, options.topology).await {
        Ok(()) => {}
        Err(why) if why.code == Some(406) => {
            return Err(BrokerTrouble {
                detail: format!(
                    "{}: somebody declared it otherwise. Delete it, and it is declared again with what is received here; or \
                     set publish.rabbitmq.topology to passive to use it is",
                    why.detail
                ),
                ..why
            });
        }
        Err(why) => return Err(why),
    }
    link.ask_in_time("asking for confirms", channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

/// Reply codes that last until somebody changes something: a login or a right is refused, an exchange is missing or
/// declared otherwise, there is no such virtual host.
const NEEDS_AN_OPERATOR: [u16; 4] = [403, 404, 406, 530];

/// Nothing was sent, since no channel could be had.
fn not_sent(why: BrokerTrouble) -> PublishStopped {
    let is_refused = why.code.is_some_and(|code| NEEDS_AN_OPERATOR.contains(&code));
    let remedy = if is_refused { Remedy::Operator } else { Remedy::Time };
    PublishStopped { confirmed: 0, why, is_silent: false, suspects: 0, remedy }
}

/// What helps when a message that was alone on its way is refused. A missing right to the exchange itself concerns all
/// messages; the broker names the topic when it is about the routing key.
fn remedy_of_refused(why: &BrokerTrouble) -> Remedy {
    let is_about_all = why.code == Some(403) && !why.detail.contains("access to topic '");
    if is_about_all { Remedy::Operator } else { Remedy::NoneForThisOutput }
}

#[async_trait]
impl FanOut for RabbitFanOut {
    fn name(&self) -> &str {
        &self.options.name
    }

    async fn publish(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError> {
        if messages.is_empty() {
            return Ok(());
        }
        let published = match self.held_back() {
            // A channel could not even be opened.
            Some(reason) => Err(not_sent(BrokerTrouble::new(reason))),
            None => self.try_publish(messages).await,
        };
        self.is_in_doubt &= published.is_err();
        match published {
            Ok(()) => Ok(()),
            Err(stopped) if stopped.suspects > 0 => self.find_refused(messages, stopped).await,
            Err(stopped) => Err(self.publish_error(stopped)),
        }
    }

    async fn prepare(&mut self) -> Result<(), PublishError> {
        if self.channel.as_ref().is_some_and(|channel| channel.status().connected()) {
            return Ok(());
        }
        match self.open_channel().await {
            Ok(channel) => {
                self.channel = Some(channel);
                Ok(())
            }
            Err(why) => Err(self.publish_error(not_sent(why))),
        }
    }

    fn held_back(&self) -> Option<String> {
        self.link.as_ref().and_then(BrokerLink::blocked_reason).map(|reason| blocked_text(&reason))
    }

    fn is_in_doubt(&self) -> bool {
        let is_lost = |link: &BrokerLink| !link.is_connected() && link.is_left_blocked();
        self.is_in_doubt || self.link.as_ref().is_some_and(is_lost)
    }
}
