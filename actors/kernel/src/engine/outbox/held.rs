//! Symbols whose outputs wait because a fan-out refuses one of them for good.
//!
//! ```text
//!  outputs of one symbol, by number    1 ······ first-1 | first ······ passed | passed+1 ······
//!  at the fan-out that refuses         confirmed        | held                | not offered yet
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Skips;
use crate::engine::contracts::manifest::OutputsAct;
use crate::ids::{RunSeq, Symbol, TsMs};
use crate::mutant;
use crate::ports::fan_out::OutputMessage;

/// Bytes of a reason that are kept.
const REASON_BYTES_MAX: usize = 512;

/// Outputs of one symbol that wait at one fan-out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Number of the output that is refused, among those of its symbol.
    pub first: u64,
    /// The last number that the cursor went over; `first - 1` when it has not come to the refused one yet.
    pub passed: u64,
    /// Run record from which on waiting outputs are found.
    pub from: RunSeq,
    /// When it was refused; `None` where the process has no clock of its own.
    pub since: Option<TsMs>,
    /// What the fan-out said.
    pub reason: String,
    /// Whether it is being offered again. Not stored: every start offers everything once more.
    #[serde(skip)]
    pub is_retried: bool,
}

impl Hold {
    /// Outputs that wait here.
    #[must_use]
    pub const fn waiting_outputs(&self) -> u64 {
        (self.passed + 1).saturating_sub(self.first)
    }

    /// Number of the last output that is known to wait: at least the refused one.
    #[must_use]
    pub fn last_waiting(&self) -> u64 {
        self.passed.max(self.first)
    }
}

/// Fate of an output at one fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is offered.
    Offer,
    /// It waits behind one that is refused for good.
    Held,
    /// An operator let it go.
    Skipped,
}

/// Choice of an operator for a held symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldChoice {
    /// Offer what waits again.
    Retry,
    /// Let the refused output go, and offer what waits behind it again.
    SkipFirst,
    /// Let everything go that waits now.
    SkipAll,
}

/// Refusal of an output for good, at one fan-out.
#[derive(Clone, Copy, Debug)]
pub struct OutputRefusal<'a> {
    /// Who refuses it.
    pub fan_out: &'a str,
    /// The output.
    pub refused: &'a OutputMessage,
    /// Why, in the words of the fan-out.
    pub reason: &'a str,
    /// When; `None` where the process has no wall clock of its own.
    pub since: Option<TsMs>,
}

/// As many symbols are held as may be: one more would grow what is saved without end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{max} symbols are held already, as many as publish.held_symbols_max allows")]
pub struct TooManyHeld {
    /// The limit.
    pub max: usize,
}

/// Every symbol whose outputs wait, by fan-out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holds(BTreeMap<Symbol, BTreeMap<String, Hold>>);

impl Holds {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Symbols that are held.
    #[must_use]
    pub fn symbol_count(&self) -> usize {
        self.0.len()
    }

    /// Whether outputs of this symbol wait.
    #[must_use]
    pub fn holds_symbol(&self, symbol: &str) -> bool {
        self.0.contains_key(symbol)
    }

    /// Every hold with its symbol and fan-out, in a fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (&Symbol, &str, &Hold)> {
        let of_symbol = self.0.iter();
        of_symbol.flat_map(|(symbol, holds)| {
            holds.iter().map(move |(fan_out, hold)| (symbol, fan_out.as_str(), hold))
        })
    }

    /// Outputs before the cursor that wait at some fan-out.
    #[must_use]
    pub fn waiting_outputs(&self) -> u64 {
        self.0.values().map(|holds| holds.values().map(Hold::waiting_outputs).max().unwrap_or(0)).sum()
    }

    /// The first run record that a waiting output is made from.
    #[must_use]
    pub fn needed_from(&self) -> Option<RunSeq> {
        self.iter().map(|(_, _, hold)| hold.from).min()
    }

    /// What becomes of an output at `fan_out`.
    #[must_use]
    pub fn fate_of_output(&self, skips: &Skips, fan_out: &str, message: &OutputMessage) -> Fate {
        if skips.covers_output(&message.symbol, fan_out, message.symbol_seq) {
            return Fate::Skipped;
        }
        match self.get(&message.symbol, fan_out) {
            Some(hold) if mutant!(HeldIsOvertaken) && hold.first < message.symbol_seq => Fate::Offer,
            Some(hold) if hold.first <= message.symbol_seq => Fate::Held,
            Some(_) | None => Fate::Offer,
        }
    }

    /// Whether an output waits at some fan-out.
    #[must_use]
    pub fn holds_back(&self, message: &OutputMessage) -> bool {
        let holds = self.0.get(&message.symbol);
        holds.is_some_and(|holds| holds.values().any(|hold| hold.first <= message.symbol_seq))
    }

    /// Holds the symbol of a refused output at that fan-out, from the output on.
    ///
    /// # Errors
    ///
    /// [`TooManyHeld`]: `max` other symbols are held. Nothing has changed.
    pub fn hold_symbol(&mut self, refusal: OutputRefusal<'_>, max: usize) -> Result<(), TooManyHeld> {
        let OutputRefusal { fan_out, refused, reason, since } = refusal;
        if !self.0.contains_key(&refused.symbol) && max <= self.0.len() {
            return Err(TooManyHeld { max });
        }
        let end = reason.floor_char_boundary(REASON_BYTES_MAX);
        let holds = self.0.entry(refused.symbol.clone()).or_default();
        let passed = holds.get(fan_out).map_or(0, |hold| hold.passed).max(refused.symbol_seq - 1);
        let reason = reason.get(..end).unwrap_or(reason).to_owned();
        let (first, from) = (refused.symbol_seq, refused.run_seq);
        holds.insert(fan_out.to_owned(), Hold { first, passed, from, since, reason, is_retried: false });
        Ok(())
    }

    /// The cursor goes over an output.
    pub fn pass_output(&mut self, message: &OutputMessage) {
        for hold in self.0.get_mut(&message.symbol).into_iter().flat_map(BTreeMap::values_mut) {
            if hold.first <= message.symbol_seq {
                hold.passed = hold.passed.max(message.symbol_seq);
            }
        }
    }

    /// The acts that a choice comes to, one for each fan-out where the symbol is held; none when it is not held.
    #[must_use]
    pub fn acts_for_choice(&self, symbol: &Symbol, choice: HeldChoice) -> Vec<OutputsAct> {
        let act = |(fan_out, hold): (&String, &Hold)| {
            let (symbol, fan_out, first) = (symbol.clone(), fan_out.clone(), hold.first);
            match choice {
                HeldChoice::Retry => OutputsAct::Retry { symbol, fan_out },
                HeldChoice::SkipFirst => OutputsAct::Skip { symbol, fan_out, first, last: first },
                HeldChoice::SkipAll => OutputsAct::Skip { symbol, fan_out, first, last: hold.last_waiting() },
            }
        };
        self.0.get(symbol).into_iter().flatten().map(act).collect()
    }

    /// Offers what waits of `symbol` again; says whether anything does.
    pub fn retry_symbol(&mut self, symbol: &Symbol) -> bool {
        let holds = self.0.get_mut(symbol);
        holds.into_iter().flat_map(BTreeMap::values_mut).map(|hold| hold.is_retried = true).count() > 0
    }

    /// Offers everything that waits again.
    pub fn retry_all(&mut self) {
        self.0.values_mut().flat_map(BTreeMap::values_mut).for_each(|hold| hold.is_retried = true);
    }

    /// A hold that is to be offered again at one of these fan-outs.
    #[must_use]
    pub fn next_retry(&self, may: impl Fn(&str) -> bool) -> Option<(Symbol, String, Hold)> {
        let mut retried = self.iter().filter(|(_, fan_out, hold)| hold.is_retried && may(fan_out));
        retried.next().map(|(symbol, fan_out, hold)| (symbol.clone(), fan_out.to_owned(), hold.clone()))
    }

    /// The outputs of a held symbol up to this one were confirmed or let go.
    pub fn note_taken(&mut self, symbol: &Symbol, fan_out: &str, number: u64) {
        if let Some(hold) = self.get_mut(symbol, fan_out) {
            hold.first = hold.first.max(number + 1);
        }
    }

    /// Every run record up to `through` was looked through for a symbol that is offered again. Once that is the cursor,
    /// nothing of it waits any more.
    pub fn note_read(&mut self, symbol: &Symbol, fan_out: &str, through: RunSeq, cursor: RunSeq) {
        let Some(hold) = self.get_mut(symbol, fan_out) else { return };
        hold.from = hold.from.max(through.next());
        let reaches = if mutant!(ReleasesTooEarly) { true } else { cursor < hold.from };
        if !reaches {
            return;
        }
        self.retain(|held, at, _| held != symbol || at != fan_out);
    }

    /// Ends the holds that are not wanted.
    pub fn retain(&mut self, is_wanted: impl Fn(&Symbol, &str, &Hold) -> bool) {
        self.0.retain(|symbol, holds| {
            holds.retain(|fan_out, hold| is_wanted(symbol, fan_out, hold));
            !holds.is_empty()
        });
    }

    /// Retention let the run records up to `gone` go, so nothing waits there any more, whatever an older save says.
    /// `outputs` tells how many outputs each symbol had made by then.
    pub fn release_trimmed(&mut self, gone: RunSeq, outputs: impl Fn(&Symbol) -> u64) {
        for (symbol, holds) in &mut self.0 {
            for hold in holds.values_mut().filter(|hold| hold.from <= gone) {
                hold.from = gone.next();
                hold.first = hold.first.max(outputs(symbol) + 1);
            }
        }
    }

    /// The hold of a symbol at one fan-out.
    #[must_use]
    pub fn get(&self, symbol: &Symbol, fan_out: &str) -> Option<&Hold> {
        self.0.get(symbol)?.get(fan_out)
    }

    fn get_mut(&mut self, symbol: &Symbol, fan_out: &str) -> Option<&mut Hold> {
        self.0.get_mut(symbol)?.get_mut(fan_out)
    }
}
