//! What a pull source has handed over and not yet seen settled: the part of its acknowledgement that needs no I/O.

use std::collections::VecDeque;

use super::source::{RawItem, Settlement, SourceBatch, SourceError};
use crate::ids::Origin;

/// Next step of a source that is asked for its next batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Hand over this batch: its items were refused before.
    Again(SourceBatch),
    /// Read new items and hand them over with [`Unsettled::hand_over`].
    Fresh,
    /// Nothing until a settlement came: the window is full, or a refusal waits for the batches behind it.
    Wait,
}

/// The window of unsettled batches of one origin, bounded and in order.
///
/// ```text
/// fresh ──hand_over──▶ in flight ──Durable──▶ gone
///                         │ Refused, Gap
///                         ▼
///                      refused ──(nothing in flight any more)──▶ again ──▶ in flight
/// ```
///
/// After a refusal nothing new is handed over until every batch in flight is settled: those behind the refused one
/// would only skip its positions. So items reach the log in the order of their positions whatever is refused.
#[derive(Debug)]
pub struct Unsettled {
    origin: Origin,
    batches_max: usize,
    next_id: u64,
    in_flight: VecDeque<SourceBatch>,
    refused: VecDeque<Vec<RawItem>>,
    again: VecDeque<Vec<RawItem>>,
}

impl Unsettled {
    /// An empty window for `batches_max` batches (at least one) of `origin`.
    #[must_use]
    pub const fn new(origin: Origin, batches_max: usize) -> Self {
        Self {
            origin,
            batches_max: if batches_max == 0 { 1 } else { batches_max },
            next_id: 1,
            in_flight: VecDeque::new(),
            refused: VecDeque::new(),
            again: VecDeque::new(),
        }
    }

    /// Tells what to do next. [`Turn::Again`] counts as handed over.
    pub fn next_turn(&mut self) -> Turn {
        if !self.refused.is_empty() || self.in_flight.len() >= self.batches_max {
            return Turn::Wait;
        }
        match self.again.pop_front() {
            Some(items) => Turn::Again(self.hand_over(items)),
            None => Turn::Fresh,
        }
    }

    /// Names a batch of `items` and remembers it until it is settled. Only after [`Turn::Fresh`].
    pub fn hand_over(&mut self, items: Vec<RawItem>) -> SourceBatch {
        let batch = SourceBatch { id: self.next_id, origin: self.origin.clone(), items };
        self.next_id += 1;
        self.in_flight.push_back(batch.clone());
        batch
    }

    /// Whether every batch was settled as durable: only then may a source say that it has ended.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty() && self.refused.is_empty() && self.again.is_empty()
    }

    /// Takes the settlement of the oldest batch in flight.
    ///
    /// # Errors
    ///
    /// [`SourceError::Lost`] when `id` is not that batch, or when the log wants items from before everything held
    /// here: opening the source again starts where the log is.
    pub fn settle_oldest(&mut self, id: u64, settlement: &Settlement) -> Result<(), SourceError> {
        let batch = match self.in_flight.pop_front() {
            Some(batch) if batch.id == id => batch,
            Some(oldest) => {
                let detail = format!("batch {id} was settled, but the oldest in flight is {}", oldest.id);
                self.in_flight.push_front(oldest);
                return Err(SourceError::Lost { detail });
            }
            None => {
                return Err(SourceError::Lost {
                    detail: format!("batch {id} was settled, but none is in flight"),
                });
            }
        };
        match settlement {
            Settlement::Durable(_) => {}
            Settlement::Refused { .. } | Settlement::Denied { .. } => self.refused.push_back(batch.items),
            Settlement::Gap { expected } => {
                self.refused.push_back(batch.items);
                self.check_holds(*expected)?;
            }
        }
        if self.in_flight.is_empty() {
            self.refused.append(&mut self.again);
            std::mem::swap(&mut self.refused, &mut self.again);
        }
        Ok(())
    }

    /// Checks that position `expected` is among the refused items.
    fn check_holds(&self, expected: u64) -> Result<(), SourceError> {
        let first = self.refused.front().and_then(|items| items.first()).and_then(|item| item.position);
        match first {
            Some(first) if expected < first => Err(SourceError::Lost {
                detail: format!(
                    "the log goes on from position {expected} of {}, this source already is at {first}",
                    self.origin
                ),
            }),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn items(positions: std::ops::RangeInclusive<u64>) -> Vec<RawItem> {
        positions
            .map(|at| RawItem { position: Some(at), bytes: Bytes::new(), oversized: None, topic: None })
            .collect()
    }

    fn refused() -> Settlement {
        Settlement::Refused { reason: "full".to_owned(), retry_after_ms: 0 }
    }

    fn durable() -> Settlement {
        Settlement::Durable(Vec::new())
    }

    fn again(window: &mut Unsettled) -> SourceBatch {
        match window.next_turn() {
            Turn::Again(batch) => batch,
            other @ (Turn::Fresh | Turn::Wait) => panic!("expected a batch again, got {other:?}"),
        }
    }

    #[test]
    fn the_window_holds_no_more_batches_than_its_bound() {
        let mut window = Unsettled::new(Origin::from("f"), 2);
        let first = window.hand_over(items(1..=2));
        window.hand_over(items(3..=4));

        assert_eq!(window.next_turn(), Turn::Wait);
        window.settle_oldest(first.id, &durable()).unwrap();
        assert_eq!(window.next_turn(), Turn::Fresh);
        assert!(!window.is_empty());
    }

    #[test]
    fn refused_items_come_again_in_order_and_before_new_ones() {
        let mut window = Unsettled::new(Origin::from("f"), 3);
        let ids: Vec<u64> = [1..=2, 3..=4, 5..=6].map(|range| window.hand_over(items(range)).id).into();

        window.settle_oldest(ids[0], &durable()).unwrap();
        window.settle_oldest(ids[1], &refused()).unwrap();
        assert_eq!(window.next_turn(), Turn::Wait, "the batch behind the refused one is still in flight");
        window.settle_oldest(ids[2], &Settlement::Gap { expected: 3 }).unwrap();

        let third = again(&mut window);
        assert_eq!(third.items, items(3..=4));
        assert!(third.id > ids[2], "a batch handed over again has a new name");
        // Refused once more while 5..=6 still waits: it must stay behind.
        window.settle_oldest(third.id, &refused()).unwrap();
        assert_eq!(again(&mut window).items, items(3..=4));
        assert_eq!(again(&mut window).items, items(5..=6));
        assert_eq!(window.next_turn(), Turn::Fresh);
    }

    #[test]
    fn a_settlement_out_of_order_is_refused_and_changes_nothing() {
        let mut window = Unsettled::new(Origin::from("f"), 3);
        let first = window.hand_over(items(1..=1));
        let second = window.hand_over(items(2..=2));

        assert!(matches!(window.settle_oldest(second.id, &durable()), Err(SourceError::Lost { .. })));
        window.settle_oldest(first.id, &durable()).unwrap();
        window.settle_oldest(second.id, &durable()).unwrap();
        assert!(matches!(window.settle_oldest(second.id, &durable()), Err(SourceError::Lost { .. })));
        assert!(window.is_empty());
    }

    #[test]
    fn a_log_that_wants_earlier_items_makes_the_source_open_again() {
        let mut window = Unsettled::new(Origin::from("f"), 3);
        let batch = window.hand_over(items(10..=12));

        let error = window.settle_oldest(batch.id, &Settlement::Gap { expected: 4 }).unwrap_err();
        assert!(error.to_string().contains("position 4"), "{error}");
    }

    proptest! {
        /// Method: a log model that takes only the next position, refuses at random, and settles in order while
        /// batches are pipelined up to the bound.
        #[test]
        fn every_item_becomes_durable_once_and_in_order(refusals in prop::collection::vec(any::<bool>(), 0..200), max in 1_usize..5) {
            let mut window = Unsettled::new(Origin::from("f"), max);
            let mut refusals = refusals.into_iter();
            let (mut fresh, mut log) = (0_u64, 0_u64);
            let mut pipeline: VecDeque<SourceBatch> = VecDeque::new();
            for _ in 0..2000 {
                match window.next_turn() {
                    Turn::Again(batch) => pipeline.push_back(batch),
                    Turn::Fresh if fresh < 60 => {
                        pipeline.push_back(window.hand_over(items(fresh + 1..=fresh + 3)));
                        fresh += 3;
                    }
                    Turn::Fresh | Turn::Wait => {
                        let Some(batch) = pipeline.pop_front() else { break };
                        let first = batch.items[0].position.unwrap();
                        let settlement = if refusals.next() == Some(true) {
                            refused()
                        } else if first == log + 1 {
                            log += batch.items.len() as u64;
                            durable()
                        } else {
                            prop_assert!(first > log, "handed over twice after it was durable");
                            Settlement::Gap { expected: log + 1 }
                        };
                        window.settle_oldest(batch.id, &settlement).unwrap();
                    }
                }
                prop_assert!(pipeline.len() <= max);
            }
            prop_assert_eq!(log, 60);
            prop_assert!(window.is_empty());
        }
    }
}
