//! Publisher: messages to one exchange, in order and each confirmed, over a connection that is made again after each
//! loss. The outputs of runs and the events of the trading plane go out through it.
//!
//! A broker refuses a message for good by closing the channel; which of those on their way it was, it does not say. So
//! the suspects are published again one at a time, and the one that is refused alone is named.
//!
//! After an error the channel is given up with everything on it, and the caller offers again what follows the confirmed
//! prefix.

use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use orchestrator_kernel::ports::fan_out::{PublishError, Remedy};

use super::connection::{BrokerLink, BrokerTrouble, RabbitEndpoint, to_short_string};
use super::topology::{Topology, TopologyMode};
use super::window::{ConfirmChannel, InFlightWindow, PublishStopped, RabbitMessage, blocked_text};

/// Destination and bounds of a publisher.
#[derive(Clone, Debug)]
pub(super) struct PublisherOptions {
    /// Its name in logs, errors and the broker's list of connections.
    pub(super) name: String,
    /// The exchange.
    pub(super) exchange: String,
    /// What has to be on the broker.
    pub(super) needs: Topology,
    /// Who declares it.
    pub(super) topology: TopologyMode,
    /// The setting by which that is decided, for people.
    pub(super) topology_setting: &'static str,
    /// Messages on their way at a time, at least 1.
    pub(super) window: usize,
    /// Longest for the confirm of one message. Does not run while the broker blocks publishers. More than zero.
    pub(super) confirm_timeout: Duration,
}

/// A publisher. Connects when it is to make ready or to publish, and again after each loss.
pub(super) struct RabbitPublisher {
    endpoint: RabbitEndpoint,
    options: PublisherOptions,
    link: Option<BrokerLink>,
    /// The connection was lost while the broker took nothing: a new one is told so with its first output only.
    is_in_doubt: bool,
    /// Taken while it is in use: a call that is dropped takes the channel with it, and late confirms count for nothing.
    channel: Option<Channel>,
}

impl RabbitPublisher {
    /// Does not connect yet.
    pub(super) const fn new(endpoint: RabbitEndpoint, options: PublisherOptions) -> Self {
        Self { endpoint, options, link: None, is_in_doubt: false, channel: None }
    }

    /// Publishes in order; `Ok` means that every message is confirmed.
    pub(super) async fn publish<M: RabbitMessage>(&mut self, messages: &[M]) -> Result<(), PublishError> {
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

    /// Makes ready to publish: what subscribers bind to exists.
    pub(super) async fn prepare(&mut self) -> Result<(), PublishError> {
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

    /// Why the broker takes nothing now although it is reached.
    pub(super) fn held_back(&self) -> Option<String> {
        self.link.as_ref().and_then(BrokerLink::blocked_reason).map(|reason| blocked_text(&reason))
    }

    /// Whether it may still be held back although it does not say so.
    pub(super) fn is_in_doubt(&self) -> bool {
        let is_lost = |link: &BrokerLink| !link.is_connected() && link.is_left_blocked();
        self.is_in_doubt || self.link.as_ref().is_some_and(is_lost)
    }

    /// Publishes over a channel that is not used again after an error.
    async fn try_publish<M: RabbitMessage>(&mut self, messages: &[M]) -> Result<(), PublishStopped> {
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
    async fn find_refused<M: RabbitMessage>(
        &mut self,
        messages: &[M],
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

async fn open_channel(link: &BrokerLink, options: &PublisherOptions) -> Result<Channel, BrokerTrouble> {
    let channel = link.open_channel().await?;
    match options.needs.ensure_all(link, &channel, options.topology).await {
        Ok(()) => {}
        Err(why) if why.code == Some(406) => {
            return Err(BrokerTrouble {
                detail: format!(
                    "{}: somebody declared it otherwise. Delete it, and it is declared again with what is received here; or \
                     set {} to passive to use it is",
                    why.detail, options.topology_setting
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
