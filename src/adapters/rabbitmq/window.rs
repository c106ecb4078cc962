//! Messages on their way to the broker: published without waiting, confirmed in order.
//!
//! ```text
//!  0 … confirmed │ in flight: at most `window`, the oldest is waited for │ not sent yet
//! ```
//!
//! A message counts only when every confirm in flight was looked at: the library hands a returned message over with
//! *some* confirm of the same frame, in no order, so which one came back is known by its id alone.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use orchestrator_kernel::ports::fan_out::Remedy;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::connection::BrokerTrouble;

/// How long a blocked broker is waited for before the messages are handed back: whoever publishes can then say so.
const BLOCKED_MAX: Duration = Duration::from_millis(500);
/// How long the library is given to finish a frame that it is reading. It takes microseconds.
const FRAME_MAX: Duration = Duration::from_millis(20);

/// A message as the broker sees it.
pub(super) trait RabbitMessage: Sync {
    /// Whether one that no queue takes comes back, and so is not taken; else it is confirmed and gone.
    fn is_mandatory() -> bool;
    /// What it is routed by.
    fn routing_key(&self) -> ShortString;
    /// What it says beside its body. A function of the message alone, so that one that is sent again is the same.
    fn properties(&self) -> BasicProperties;
    /// Its body.
    fn body(&self) -> &[u8];
    /// What errors call it.
    fn message_name(&self) -> String;
    /// Whether a message that came back with these properties is this one.
    fn has_properties(&self, properties: &BasicProperties) -> bool;
}

/// End of publishing before all messages were taken, and its reason.
#[derive(Debug)]
pub(super) struct PublishStopped {
    /// How many are confirmed, from the first.
    pub(super) confirmed: usize,
    /// What happened to the next one.
    pub(super) why: BrokerTrouble,
    /// Whether the broker does not answer, so that its connection is of no more use.
    pub(super) is_silent: bool,
    /// Messages behind the confirmed ones of which the broker refuses one, and so closed the channel. Which one, it
    /// does not say: it has taken those before it, and none of those behind.
    pub(super) suspects: usize,
    /// What can help.
    pub(super) remedy: Remedy,
}

/// Reply codes with which a broker refuses one message, by closing its channel: no right to its routing key, or it is
/// larger than messages may be.
const REFUSES_A_MESSAGE: [u16; 2] = [403, 406];

/// Destination of messages, with the bounds of how many may be on their way for how long.
pub(super) struct ConfirmChannel<'a> {
    pub(super) channel: &'a Channel,
    pub(super) exchange: &'a ShortString,
    /// At least 1.
    pub(super) window: usize,
    /// Longest from the publishing of a message to its confirm, while the broker does not block.
    pub(super) confirm_timeout: Duration,
    /// Why the broker blocks, while it does.
    pub(super) blocking: watch::Receiver<Option<String>>,
}

/// What the library says about one message.
type Confirm = lapin::Result<Confirmation>;

struct InFlight<'a> {
    /// Which of the messages.
    index: usize,
    sent_at: Instant,
    confirm: BoxFuture<'a, Confirm>,
}

/// Reason for which the oldest message is not waited for any longer.
enum Wait {
    Silent,
    Blocked(String),
}

/// The messages of one call.
pub(super) struct InFlightWindow<'a, M> {
    lane: ConfirmChannel<'a>,
    messages: &'a [M],
    sent: usize,
    in_flight: VecDeque<InFlight<'a>>,
    /// The first message that is known not to be taken.
    bad: Option<(usize, BrokerTrouble)>,
    unblocked_at: Instant,
}

impl<'a, M: RabbitMessage> InFlightWindow<'a, M> {
    /// Publishes all messages and waits until each is confirmed.
    ///
    /// # Errors
    ///
    /// [`PublishStopped`]. The channel must not be used again: confirms of what was sent may still come.
    pub(super) async fn publish_all(
        lane: ConfirmChannel<'a>,
        messages: &'a [M],
    ) -> Result<(), PublishStopped> {
        let unblocked_at = Instant::now();
        let mut window =
            Self { lane, messages, sent: 0, in_flight: VecDeque::new(), bad: None, unblocked_at };
        loop {
            window.fill_window();
            let Some(mut oldest) = window.in_flight.pop_front() else { break };
            let (why, is_silent) = match window.wait_for(&mut oldest).await {
                Ok(Ok(confirmation)) => {
                    window.note_confirmation(oldest.index, confirmation);
                    continue;
                }
                Ok(Err(error)) => (error.into(), false),
                Err(Wait::Blocked(reason)) => (BrokerTrouble::new(blocked_text(&reason)), false),
                Err(Wait::Silent) => {
                    (BrokerTrouble::new(format!("no confirm within {:?}", window.lane.confirm_timeout)), true)
                }
            };
            let is_refusal = why.code.is_some_and(|code| REFUSES_A_MESSAGE.contains(&code));
            window.note_bad(oldest.index, why);
            window.note_what_came().await;
            return window.into_outcome(is_silent, is_refusal);
        }
        window.into_outcome(false, false)
    }

    /// Sends while there is room, unless a message is lost already: then what follows would only come twice.
    fn fill_window(&mut self) {
        while self.bad.is_none() && self.in_flight.len() < self.lane.window.max(1) {
            let Some(message) = self.messages.get(self.sent) else { break };
            let (channel, exchange) = (self.lane.channel, self.lane.exchange.clone());
            let mut confirm = async move {
                let options =
                    BasicPublishOptions { mandatory: M::is_mandatory(), ..BasicPublishOptions::default() };
                let (key, properties) = (message.routing_key(), message.properties());
                let sent = channel.basic_publish(exchange, key, options, message.body(), properties);
                sent.await?.await
            }
            .boxed();
            // The first poll hands the message over: the order on the wire is the order here, not that of waiting.
            let confirm = match confirm.as_mut().now_or_never() {
                Some(confirmed) => std::future::ready(confirmed).boxed(),
                None => confirm,
            };
            self.in_flight.push_back(InFlight { index: self.sent, sent_at: Instant::now(), confirm });
            self.sent += 1;
        }
    }

    async fn wait_for(&mut self, oldest: &mut InFlight<'_>) -> Result<Confirm, Wait> {
        let mut blocked_at = Instant::now();
        loop {
            let reason = self.lane.blocking.borrow_and_update().clone();
            let limit = match reason {
                None => oldest.sent_at.max(self.unblocked_at) + self.lane.confirm_timeout,
                Some(_) => blocked_at + BLOCKED_MAX,
            };
            tokio::select! {
                biased;
                confirmed = oldest.confirm.as_mut() => return Ok(confirmed),
                Ok(()) = self.lane.blocking.changed() => match reason {
                    None => blocked_at = Instant::now(),
                    Some(_) => self.unblocked_at = Instant::now(),
                },
                () = sleep_until(limit) => return Err(reason.map_or(Wait::Silent, Wait::Blocked)),
            }
        }
    }

    fn note_confirmation(&mut self, index: usize, confirmation: Confirmation) {
        match confirmation {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(returned)) => self.note_returned(&returned),
            Confirmation::Nack(returned) => {
                if let Some(returned) = returned {
                    self.note_returned(&returned);
                }
                self.note_bad(
                    index,
                    BrokerTrouble::new("refused by the broker (nack): a queue is full or failing"),
                );
            }
            Confirmation::NotRequested => {
                self.note_bad(index, BrokerTrouble::new("the channel gives no confirms"));
            }
        }
    }

    fn note_returned(&mut self, returned: &BasicReturnMessage) {
        let properties = &returned.delivery.properties;
        // Only what is earlier than the first bad one is of interest: a window full of returns costs no square of it.
        let before = self.bad.as_ref().map_or(self.sent, |(first, _)| *first);
        let before = self.messages.get(..before).unwrap_or_default();
        let index = before.iter().position(|message| message.has_properties(properties));
        if index.is_none() && self.bad.is_some() {
            return;
        }
        let why = BrokerTrouble {
            code: Some(returned.reply_code),
            detail: format!(
                "returned {} {} for routing key {}: no queue takes it, nor does an alternate exchange",
                returned.reply_code, returned.reply_text, returned.delivery.routing_key
            ),
        };
        // One that is none of ours may stand for any of them.
        self.note_bad(index.unwrap_or(0), why);
    }

    fn note_bad(&mut self, index: usize, why: BrokerTrouble) {
        if self.bad.as_ref().is_none_or(|(first, _)| index < *first) {
            self.bad = Some((index, why));
        }
    }

    /// Looks at the confirms behind one that did not come: they may hold what was returned of earlier messages.
    async fn note_what_came(&mut self) {
        sleep(FRAME_MAX).await;
        while let Some(InFlight { index, confirm, .. }) = self.in_flight.pop_front() {
            if let Some(Ok(confirmation)) = confirm.now_or_never() {
                self.note_confirmation(index, confirmation);
            }
        }
    }

    fn into_outcome(self, is_silent: bool, is_refusal: bool) -> Result<(), PublishStopped> {
        match self.bad {
            None => Ok(()),
            Some((confirmed, why)) => {
                let id = self.messages.get(confirmed).map(RabbitMessage::message_name).unwrap_or_default();
                let suspects = if is_refusal { self.sent.saturating_sub(confirmed) } else { 0 };
                let why = why.during(&format!("message {id}"));
                Err(PublishStopped { confirmed, why, is_silent, suspects, remedy: Remedy::Time })
            }
        }
    }
}

/// What a broker that blocks its publishers is said to do.
pub(super) fn blocked_text(reason: &str) -> String {
    format!("RabbitMQ blocks publishers: {reason}")
}
