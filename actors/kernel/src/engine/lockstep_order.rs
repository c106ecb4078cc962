//! A canonical order for records that are made concurrently.
//!
//! Under a driven clock everything that belongs to one tick is appended symbol by symbol, whichever worker was first:
//! so that two runs of one recording, with one worker or eight, write the same bytes (REP-2). Under the wall clock
//! nothing waits for anything (ISO-1), and no round is opened.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::Symbol;

/// Collects one item from each member and releases them together, in the order of the symbols; again and again until
/// each member has given its last.
#[derive(Clone, Debug)]
pub struct Round<T> {
    members: BTreeSet<Symbol>,
    held: BTreeMap<Symbol, (T, Last)>,
}

/// Mark of a member's last item: whether it has no further one in this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It has.
    No,
    /// It has not: the others need not wait for it any more.
    Yes,
}

impl<T> Default for Round<T> {
    fn default() -> Self {
        Self { members: BTreeSet::new(), held: BTreeMap::new() }
    }
}

impl<T> Round<T> {
    /// Begins a round of these members; what an earlier one still held is released.
    pub fn open_round(&mut self, members: BTreeSet<Symbol>) -> Vec<T> {
        self.members = members;
        std::mem::take(&mut self.held).into_values().map(|(item, _)| item).collect()
    }

    /// Takes a member's item; returns what may be appended now. Items of strangers pass at once.
    pub fn submit_item(&mut self, symbol: &Symbol, item: T, last: Last) -> Vec<T> {
        if !self.members.contains(symbol) {
            return vec![item];
        }
        let replaced = self.held.insert(symbol.clone(), (item, last));
        replaced.map(|(item, _)| item).into_iter().chain(self.release_ready()).collect()
    }

    /// A member is gone: nobody waits for it.
    pub fn withdraw_member(&mut self, symbol: &Symbol) -> Vec<T> {
        if self.members.remove(symbol) { self.release_ready() } else { Vec::new() }
    }

    fn release_ready(&mut self) -> Vec<T> {
        // Fewer items than members cannot be all. Without this look each of n items would cost n comparisons.
        if self.held.len() < self.members.len() {
            return Vec::new();
        }
        if !self.members.iter().all(|member| self.held.contains_key(member)) {
            return Vec::new();
        }
        let released = std::mem::take(&mut self.held);
        for (symbol, (_, last)) in &released {
            if *last == Last::Yes {
                self.members.remove(symbol);
            }
        }
        released.into_values().map(|(item, _)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn symbols(names: &[&str]) -> BTreeSet<Symbol> {
        names.iter().map(|name| Symbol::from(*name)).collect()
    }

    #[test]
    fn items_wait_for_all_members_and_leave_in_symbol_order() {
        let mut round = Round::default();
        round.open_round(symbols(&["A", "B", "C"]));

        assert!(round.submit_item(&Symbol::from("C"), 3, Last::No).is_empty());
        assert_eq!(round.submit_item(&Symbol::from("X"), 9, Last::No), [9]);
        assert!(round.submit_item(&Symbol::from("A"), 1, Last::No).is_empty());
        assert_eq!(round.submit_item(&Symbol::from("B"), 2, Last::No), [1, 2, 3]);
    }

    #[test]
    fn a_member_that_is_gone_or_done_holds_nobody_up() {
        let mut round = Round::default();
        round.open_round(symbols(&["A", "B", "C"]));

        assert!(round.submit_item(&Symbol::from("A"), 1, Last::No).is_empty());
        assert!(round.submit_item(&Symbol::from("C"), 3, Last::Yes).is_empty());
        assert_eq!(round.withdraw_member(&Symbol::from("B")), [1, 3]);
        assert_eq!(round.submit_item(&Symbol::from("A"), 2, Last::No), [2]);
    }

    proptest! {
        /// Method: two items a member, submitted in any interleaving; the released order is always the same.
        #[test]
        fn order_does_not_depend_on_who_comes_first(order in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle()) {
            let names = ["A", "B", "C", "D", "E", "F", "G", "H"];
            let mut round = Round::default();
            round.open_round(symbols(&names));
            let mut released = Vec::new();
            for (phase, last) in [(0, Last::No), (1, Last::Yes)] {
                for member in &order {
                    released.extend(round.submit_item(&Symbol::from(names[*member]), (phase, *member), last));
                }
            }
            let expected: Vec<_> = (0..2).flat_map(|phase| (0..8).map(move |member| (phase, member))).collect();
            prop_assert_eq!(released, expected);
        }
    }
}
