//! Copies of what is no receipt, in the dead-letter queue beside what the broker put there, for people to look at.
//!
//! The record is the quarantine of the receipt log, so a copy that fails is only logged, unless the message is larger
//! than the quarantine keeps. Copies go over a connection of
//! their own: a broker short of memory stops reading from connections that publish, and that must not hold up
//! acknowledgements.

use std::time::Duration;

use futures_util::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use orchestrator_kernel::ports::source::{ItemFate, RawItem};
use tokio::time::{Instant, timeout};

use super::connection::{BrokerLink, BrokerTrouble, RabbitEndpoint, to_short_string};

/// Longest that the copies of one batch may take beside what their bytes need; its acknowledgement waits that long.
const COPY_MAX: Duration = Duration::from_secs(2);
/// What a slow network carries.
const BYTES_PER_MICROSECOND: usize = 10;
/// After a failure nothing is copied for so long.
const PAUSE: Duration = Duration::from_secs(10);
/// Bytes of a header; longer reasons are cut.
const REASON_BYTES_MAX: usize = 1024;

/// The way to the dead-letter exchange.
pub(super) struct DeadLetters {
    endpoint: RabbitEndpoint,
    source: String,
    exchange: String,
    open: Option<(Channel, BrokerLink)>,
    paused_until: Option<Instant>,
}

impl DeadLetters {
    /// Connects when there is the first copy.
    pub(super) fn new(endpoint: RabbitEndpoint, source: &str, exchange: String) -> Self {
        Self { endpoint, source: source.to_owned(), exchange, open: None, paused_until: None }
    }

    /// Publishes a copy of every item that was quarantined, as it came.
    ///
    /// # Errors
    ///
    /// Why no copy is there. It is logged.
    pub(super) async fn copy_quarantined(
        &mut self,
        items: &[RawItem],
        fates: &[ItemFate],
    ) -> Result<(), BrokerTrouble> {
        let bad: Vec<(&RawItem, &str)> = items.iter().zip(fates).filter_map(quarantined_item).collect();
        if bad.is_empty() {
            return Ok(());
        }
        if self.paused_until.is_some_and(|until| Instant::now() < until) {
            return Err(BrokerTrouble::new("copies to the dead-letter exchange failed a moment ago"));
        }
        let bytes: usize = bad.iter().map(|(item, _)| item.bytes.len()).sum();
        let limit = COPY_MAX + Duration::from_micros((bytes / BYTES_PER_MICROSECOND) as u64);
        // Taken: whatever fails, the channel is not used again.
        let open = self.open.take();
        let copied = match timeout(limit, self.publish_copies(open, &bad)).await {
            Ok(copied) => copied,
            Err(_) => Err(BrokerTrouble::new(format!("no confirm within {limit:?}"))),
        };
        self.open = Some(copied.inspect_err(|why| {
            self.paused_until = Some(Instant::now() + PAUSE);
            tracing::warn!(
                source = self.source, exchange = self.exchange, error_detail = %why, items = bad.len(),
                domain = "ingest", "quarantined items not copied to the dead-letter exchange"
            );
        })?);
        Ok(())
    }

    async fn publish_copies(
        &self,
        open: Option<(Channel, BrokerLink)>,
        bad: &[(&RawItem, &str)],
    ) -> Result<(Channel, BrokerLink), BrokerTrouble> {
        let (channel, link) = match open.filter(|(channel, _)| channel.status().connected()) {
            Some(open) => open,
            None => {
                let link = BrokerLink::open(&self.endpoint, &format!("{} dead letters", self.source)).await?;
                let channel = link.open_channel().await?;
                let confirms = channel.confirm_select(ConfirmSelectOptions::default());
                link.ask_in_time("asking for confirms", confirms).await?;
                (channel, link)
            }
        };
        let exchange = to_short_string(&self.exchange)?;
        let confirms = bad.iter().map(|(item, reason)| {
            let (channel, exchange) = (&channel, exchange.clone());
            async move {
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let properties = self.copy_properties(reason);
                channel.basic_publish(exchange, "".into(), options, &item.bytes, properties).await?.await
            }
        });
        for confirmation in try_join_all(confirms).await.map_err(BrokerTrouble::from)? {
            match confirmation {
                Confirmation::Ack(None) => {}
                Confirmation::Ack(Some(_)) => return Err(BrokerTrouble::new("returned: no queue is bound")),
                Confirmation::Nack(_) => return Err(BrokerTrouble::new("refused (nack): the queue is full")),
                Confirmation::NotRequested => {
                    return Err(BrokerTrouble::new("the channel gives no confirms"));
                }
            }
        }
        Ok((channel, link))
    }

    fn copy_properties(&self, reason: &str) -> BasicProperties {
        let end = reason.floor_char_boundary(REASON_BYTES_MAX);
        let mut headers = FieldTable::default();
        let text = |value: &str| AMQPValue::LongString(value.into());
        headers.insert("x-orchestrator-reason".into(), text(reason.get(..end).unwrap_or(reason)));
        headers.insert("x-orchestrator-source".into(), text(&self.source));
        BasicProperties::default()
            .with_delivery_mode(2)
            .with_app_id("orchestrator".into())
            .with_headers(headers)
    }
}

fn quarantined_item<'a>((item, fate): (&'a RawItem, &'a ItemFate)) -> Option<(&'a RawItem, &'a str)> {
    match fate {
        ItemFate::Quarantined(reason) => Some((item, reason)),
        ItemFate::Appended | ItemFate::Duplicate => None,
    }
}
