//! Outputs that an operator let go unpublished, as the records of his acts say.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::engine::contracts::manifest::OutputsAct;
use crate::ids::Symbol;

/// Of each symbol and fan-out, the numbers of the outputs that are not offered there any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips(BTreeMap<Symbol, BTreeMap<String, BTreeMap<u64, u64>>>);

impl Skips {
    /// What these acts let go.
    #[must_use]
    pub fn from_acts<'a>(acts: impl IntoIterator<Item = &'a OutputsAct>) -> Self {
        let mut skips = Self::default();
        acts.into_iter().for_each(|act| skips.note_act(act));
        skips
    }

    /// Takes one more act.
    pub fn note_act(&mut self, act: &OutputsAct) {
        match act {
            OutputsAct::Skip { symbol, fan_out, first, last } => {
                self.add_range(symbol, fan_out, *first, *last)
            }
            OutputsAct::Retry { .. } => {}
        }
    }

    /// Lets the outputs `first` to `last` of a symbol go at one fan-out. Ranges that touch become one, so that the
    /// memory is that of the gaps between an operator's acts.
    pub fn add_range(&mut self, symbol: &Symbol, fan_out: &str, first: u64, last: u64) {
        if last < first {
            return;
        }
        let ranges = self.0.entry(symbol.clone()).or_default().entry(fan_out.to_owned()).or_default();
        let (mut from, mut to) = (first, last);
        let touching: Vec<(u64, u64)> = ranges
            .range(..=last.saturating_add(1))
            .filter(|(_, end)| first <= end.saturating_add(1))
            .map(|(begin, end)| (*begin, *end))
            .collect();
        for (begin, end) in touching {
            ranges.remove(&begin);
            (from, to) = (from.min(begin), to.max(end));
        }
        ranges.insert(from, to);
    }

    /// Whether this output is let go.
    #[must_use]
    pub fn covers_output(&self, symbol: &Symbol, fan_out: &str, number: u64) -> bool {
        self.covers_all(symbol, fan_out, number..=number)
    }

    /// Whether all of these outputs are let go.
    #[must_use]
    pub fn covers_all(&self, symbol: &Symbol, fan_out: &str, numbers: RangeInclusive<u64>) -> bool {
        let ranges = self.0.get(symbol).and_then(|fan_outs| fan_outs.get(fan_out));
        let before = ranges.and_then(|ranges| ranges.range(..=numbers.start()).next_back());
        before.is_some_and(|(_, end)| numbers.end() <= end)
    }

    /// Whether this output is let go at some fan-out.
    #[must_use]
    pub fn covers_anywhere(&self, symbol: &Symbol, number: u64) -> bool {
        let fan_outs = self.0.get(symbol);
        fan_outs.is_some_and(|fan_outs| fan_outs.keys().any(|name| self.covers_output(symbol, name, number)))
    }

    /// Whether nothing was ever let go.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
