//! How far each origin has come: what makes a retransmission recognisable, and a restart resume where it stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Origin;

/// The least silence after which an origin may be forgotten. One that begins again at position 1 after it is taken for
/// a new one under the same name, also by whoever checks the log.
pub const FORGET_AFTER_MIN: Duration = Duration::from_secs(600);

/// Positions settled per origin: everything up to [`settled_up_to`](Self::settled_up_to) is durable, in the receipt log
/// or in the quarantine.
///
/// A batch's quarantined items become durable *before* its receipts. So a receipt at a position proves that all before
/// it are settled, while a quarantined item proves it only when nothing is missing before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions(BTreeMap<Origin, OriginProgress>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OriginProgress {
    settled: u64,
    quarantined_ahead: BTreeSet<u64>,
}

impl OriginProgress {
    fn settle_position(&mut self, position: u64) {
        self.settled = self.settled.max(position);
        while self.quarantined_ahead.remove(&(self.settled + 1)) {
            self.settled += 1;
        }
        self.quarantined_ahead = self.quarantined_ahead.split_off(&(self.settled + 1));
    }
}

impl Positions {
    /// The last position of `origin` up to which everything is durable; 0 when nothing is known of it.
    #[must_use]
    pub fn settled_up_to(&self, origin: &str) -> u64 {
        self.0.get(origin).map_or(0, |progress| progress.settled)
    }

    /// Whether an item at this position is in the quarantine already.
    #[must_use]
    pub fn is_quarantined_ahead(&self, origin: &str, position: u64) -> bool {
        self.0.get(origin).is_some_and(|progress| progress.quarantined_ahead.contains(&position))
    }

    /// Whether anything is known of `origin`.
    #[must_use]
    pub fn knows_origin(&self, origin: &str) -> bool {
        self.0.contains_key(origin)
    }

    /// Every origin that is known.
    pub fn origins(&self) -> impl ExactSizeIterator<Item = &Origin> {
        self.0.keys()
    }

    /// Forgets an origin: what it sends again is not recognised any more. The log still has what it sent, so the origin
    /// is known again to whoever derives its positions from there.
    pub fn forget_origin(&mut self, origin: &Origin) {
        self.0.remove(origin);
    }

    /// Takes over what `other` says of the same log and quarantine.
    pub fn absorb_positions(&mut self, other: &Self) {
        for (origin, progress) in &other.0 {
            let own = self.0.entry(origin.clone()).or_default();
            own.quarantined_ahead.extend(&progress.quarantined_ahead);
            own.settle_position(progress.settled);
        }
    }

    /// A receipt of this position is durable. Position 0 is an item without a number.
    pub fn note_receipt(&mut self, origin: &str, position: u64) {
        if position == 0 {
            return;
        }
        match self.0.get_mut(origin) {
            Some(progress) if progress.quarantined_ahead.is_empty() => {
                progress.settled = progress.settled.max(position);
            }
            Some(progress) => progress.settle_position(position),
            None => self.0.entry(Origin::from(origin)).or_default().settle_position(position),
        }
    }

    /// A quarantined item of this position is durable.
    pub fn note_quarantined(&mut self, origin: &str, position: u64) {
        if position == 0 {
            return;
        }
        let progress = self.0.entry(Origin::from(origin)).or_default();
        if progress.settled < position {
            progress.quarantined_ahead.insert(position);
            progress.settle_position(progress.settled);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_quarantined_item_counts_only_when_nothing_is_missing_before_it() {
        let mut positions = Positions::default();

        positions.note_quarantined("o", 3);
        assert_eq!(positions.settled_up_to("o"), 0);

        positions.note_receipt("o", 2);
        assert_eq!(positions.settled_up_to("o"), 3);
    }

    #[test]
    fn an_item_without_a_number_settles_nothing() {
        let mut positions = Positions::default();

        positions.note_receipt("o", 0);
        positions.note_quarantined("o", 0);

        assert_eq!(positions, Positions::default());
    }

    #[test]
    fn a_forgotten_origin_is_one_of_which_nothing_is_known() {
        let mut positions = Positions::default();
        positions.note_receipt("a", 7);
        positions.note_receipt("b", 8);

        positions.forget_origin(&Origin::from("a"));

        assert!(!positions.knows_origin("a") && positions.knows_origin("b"));
        assert_eq!((positions.settled_up_to("a"), positions.origins().len()), (0, 1));
    }

    proptest! {
        /// Method: a stream of good and bad items in batches; crash between any two durable steps; resume; nothing is
        /// skipped, and what is stored again is recognisable.
        #[test]
        fn resuming_after_any_crash_skips_nothing(bad in prop::collection::vec(any::<bool>(), 1..60), crash_after in 0..80usize) {
            let (mut receipts, mut quarantine) = (Vec::new(), Vec::new());
            let mut steps = 0;
            'crash: for (index, batch) in bad.chunks(7).enumerate() {
                let first = index * 7 + 1;
                let of = |kind: bool| batch.iter().zip(first as u64..).filter(move |(bad, _)| **bad == kind).map(|(_, at)| at);
                if steps == crash_after { break 'crash; }
                quarantine.extend(of(true));
                steps += 1;
                if steps == crash_after { break 'crash; }
                receipts.extend(of(false));
                steps += 1;
            }

            let mut positions = Positions::default();
            receipts.iter().for_each(|at| positions.note_receipt("o", *at));
            quarantine.iter().for_each(|at| positions.note_quarantined("o", *at));

            let settled = positions.settled_up_to("o");
            for at in 1..=settled {
                prop_assert!(receipts.contains(&at) || quarantine.contains(&at), "{at} is settled but nowhere");
            }
            prop_assert!(receipts.iter().all(|at| *at <= settled));
            for at in quarantine {
                prop_assert!(at <= settled || positions.is_quarantined_ahead("o", at));
            }
        }
    }
}
