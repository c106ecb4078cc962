//! The ids that ended last: whether one comes again is told without keeping all that ever were.

use std::collections::{BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

/// Ended cycles that are remembered, to tell that one comes again.
pub const AUDIT_REMEMBERED_MAX: usize = 1 << 14;

/// The last `MAX` ids of a kind. Stored as a list, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "Vec<T>",
    into = "Vec<T>",
    bound(serialize = "T: Ord + Copy + Serialize", deserialize = "T: Ord + Copy + Deserialize<'de>")
)]
pub(super) struct RecentIds<T: Ord, const MAX: usize = AUDIT_REMEMBERED_MAX> {
    known: BTreeSet<T>,
    order: VecDeque<T>,
}

impl<T: Ord + Copy, const MAX: usize> RecentIds<T, MAX> {
    pub(super) const fn new() -> Self {
        Self { known: BTreeSet::new(), order: VecDeque::new() }
    }

    pub(super) fn push_id(&mut self, id: T) {
        if self.known.insert(id) {
            self.order.push_back(id);
        }
        if MAX < self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    pub(super) fn contains(&self, id: &T) -> bool {
        self.known.contains(id)
    }
}

impl<T: Ord + Copy, const MAX: usize> From<Vec<T>> for RecentIds<T, MAX> {
    fn from(ids: Vec<T>) -> Self {
        let mut recent = Self::new();
        ids.into_iter().for_each(|id| recent.push_id(id));
        recent
    }
}

impl<T: Ord, const MAX: usize> From<RecentIds<T, MAX>> for Vec<T> {
    fn from(recent: RecentIds<T, MAX>) -> Self {
        recent.order.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ids_are_remembered_and_no_more() {
        let mut recent = RecentIds::<_>::new();
        for id in 0..=AUDIT_REMEMBERED_MAX {
            recent.push_id(id);
            recent.push_id(id);
        }

        assert!(!recent.contains(&0) && recent.contains(&1) && recent.contains(&AUDIT_REMEMBERED_MAX));
        assert_eq!((recent.order.len(), recent.known.len()), (AUDIT_REMEMBERED_MAX, AUDIT_REMEMBERED_MAX));
    }
}
