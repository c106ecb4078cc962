//! Offering a batch to the fan-outs: each one gets what it has not dealt with yet, without what is held or let go
//! there.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::engine::outbox::Fate;
use orchestrator_kernel::mutant;
use orchestrator_kernel::ports::fan_out::{FanOut, OutputMessage, PublishError, Remedy};

use super::{FanOuts, PublisherState};

/// Lead of each fan-out over the cursor.
pub(super) struct Offers {
    names: Vec<String>,
    /// Per fan-out, how many messages after the cursor it has dealt with while another one has not.
    prefixes: Vec<usize>,
    /// Messages offered at a time: all of a batch, unless a fan-out did not confirm so many in time.
    part_max: usize,
}

impl Offers {
    /// Nothing was offered yet.
    pub(super) async fn for_fan_outs(fan_outs: &FanOuts) -> Self {
        let names: Vec<String> =
            fan_outs.lock().await.iter().map(|fan_out| fan_out.name().to_owned()).collect();
        Self { prefixes: vec![0; names.len()], names, part_max: usize::MAX }
    }

    /// Where a fan-out stands in the order, if it has dealt with nothing behind the cursor: only then what is held
    /// there may go again, or it would meet what the batch in hand passed over.
    pub(super) fn place_at_cursor(&self, fan_out: &str) -> Option<usize> {
        let at = self.names.iter().position(|name| name == fan_out)?;
        self.prefixes.get(at).filter(|prefix| **prefix == 0).map(|_| at)
    }

    /// Whether outputs go there.
    pub(super) fn has_fan_out(&self, fan_out: &str) -> bool {
        self.names.iter().any(|name| name == fan_out)
    }

    /// Offers a fan-out everything behind the cursor once more.
    fn begin_again(&mut self, fan_out: &str) {
        for (_, prefix) in self.names.iter().zip(&mut self.prefixes).filter(|(name, _)| *name == fan_out) {
            *prefix = 0;
        }
    }
}

/// Messages of a batch that a fan-out is offered together.
struct Part<'a> {
    messages: Cow<'a, [OutputMessage]>,
    /// Where each stands in the batch; empty when they stand there one after the other.
    places: Vec<usize>,
    /// Messages of the batch that are dealt with once these are confirmed.
    covers: usize,
}

impl Part<'_> {
    /// Messages of the batch that are dealt with when so many of these are confirmed.
    fn dealt_with(&self, confirmed: usize) -> usize {
        if self.messages.len() <= confirmed {
            return self.covers;
        }
        self.places.get(confirmed).copied().unwrap_or(confirmed)
    }
}

impl PublisherState {
    /// Offers each fan-out what it has not dealt with yet of these messages.
    pub(super) async fn offer_messages(&mut self, messages: &[OutputMessage]) -> Result<(), PublishError> {
        if messages.is_empty() {
            return Ok(());
        }
        let fan_outs = Arc::clone(&self.args.fan_outs);
        for (at, fan_out) in fan_outs.lock().await.iter_mut().enumerate() {
            let mut prefix = self.offers.prefixes.get(at).copied().unwrap_or(0);
            let offered = self.offer_to(fan_out.as_mut(), messages, &mut prefix).await;
            if let Some(known) = self.offers.prefixes.get_mut(at) {
                *known = prefix;
            }
            offered?;
        }
        self.offers.part_max = self.offers.part_max.saturating_mul(2);
        let prefixes = self.offers.prefixes.iter_mut();
        prefixes.for_each(|prefix| *prefix = prefix.saturating_sub(messages.len()));
        Ok(())
    }

    async fn offer_to(
        &mut self,
        fan_out: &mut dyn FanOut,
        messages: &[OutputMessage],
        prefix: &mut usize,
    ) -> Result<(), PublishError> {
        while let Some(rest) = messages.get(*prefix..).filter(|rest| !rest.is_empty()) {
            let part = self.next_part(fan_out.name(), rest);
            match self.attempt_publish(fan_out, &part.messages).await {
                Ok(()) => *prefix += part.covers,
                Err(error) => {
                    *prefix += part.dealt_with(error.confirmed) + usize::from(mutant!(SkipsAnOutputOnError));
                    match part.messages.get(error.confirmed) {
                        Some(refused) if error.remedy == Remedy::NoneForThisOutput => {
                            self.hold_symbol(fan_out.name(), refused, error)?;
                        }
                        Some(_) | None => return Err(error),
                    }
                }
            }
        }
        Ok(())
    }

    /// The next messages of `rest` for this fan-out, and what is passed over with them.
    fn next_part<'a>(&self, fan_out: &str, rest: &'a [OutputMessage]) -> Part<'a> {
        let max = self.offers.part_max;
        if self.progress.holds.is_empty() && self.skips.is_empty() {
            let messages = rest.get(..max).unwrap_or(rest);
            return Part { messages: Cow::Borrowed(messages), places: Vec::new(), covers: messages.len() };
        }
        let offered = |message: &OutputMessage| {
            self.progress.holds.fate_of_output(&self.skips, fan_out, message) == Fate::Offer
        };
        let places: Vec<usize> =
            (0..).zip(rest).filter(|(_, message)| offered(message)).map(|(at, _)| at).collect();
        let covers = places.get(max).copied().unwrap_or(rest.len());
        let places: Vec<usize> = places.into_iter().take(max).collect();
        let messages: Vec<OutputMessage> = places.iter().filter_map(|at| rest.get(*at).cloned()).collect();
        Part { messages: Cow::Owned(messages), places, covers }
    }

    /// Offers messages within the time of one attempt; none is no attempt.
    pub(super) async fn attempt_publish(
        &mut self,
        fan_out: &mut dyn FanOut,
        messages: &[OutputMessage],
    ) -> Result<(), PublishError> {
        if messages.is_empty() {
            return Ok(());
        }
        let limit = self.args.settings.attempt_max;
        match tokio::time::timeout(limit, fan_out.publish(messages)).await {
            Ok(published) => {
                if published.is_ok() && self.failing.as_deref() == Some(fan_out.name()) {
                    self.failing = None;
                }
                published
            }
            Err(_) => {
                // What it has confirmed of this is not known: with less at a time the cursor moves at all.
                self.offers.part_max = (messages.len() / 2).max(1);
                Err(PublishError {
                    fan_out: fan_out.name().to_owned(),
                    detail: format!("not confirmed within {limit:?}"),
                    confirmed: 0,
                    remedy: Remedy::Time,
                })
            }
        }
    }

    /// Messages that are offered at a time.
    pub(super) const fn part_max(&self) -> usize {
        self.offers.part_max
    }

    /// Whether what is offered again goes before the batch in hand, which waits for the place of a held symbol. What
    /// the batch has passed over at that fan-out is offered again with it.
    pub(super) fn makes_room(&mut self) -> bool {
        if !self.wants_room || self.drain.is_some() {
            return false;
        }
        let retried = self.progress.holds.next_retry(|fan_out| self.offers.has_fan_out(fan_out));
        self.wants_room = retried.is_some();
        if let Some((_, fan_out, _)) = retried {
            self.offers.begin_again(&fan_out);
        }
        self.wants_room
    }

    /// Lets every fan-out make ready, within `limit` or the time of an attempt.
    pub(super) async fn prepare_fan_outs(&self, limit: Duration) -> Result<(), PublishError> {
        let limit = limit.min(self.args.settings.attempt_max);
        for fan_out in self.args.fan_outs.lock().await.iter_mut() {
            let prepared = tokio::time::timeout(limit, fan_out.prepare()).await;
            prepared.unwrap_or_else(|_| {
                let detail = format!("not ready within {limit:?}");
                let (fan_out, remedy) = (fan_out.name().to_owned(), Remedy::Time);
                Err(PublishError { fan_out, detail, confirmed: 0, remedy })
            })?;
        }
        Ok(())
    }
}
