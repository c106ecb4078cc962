//! Strategies: what they are made of, and what may be done with them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::cycle::CYCLE_DECISIONS_MAX;
use super::ids::{PipelineName, ScheduleName, StageName, StrategyName, StrategyUuid};
use super::risk::RiskMode;
use crate::ids::Symbol;

/// Symbols that a strategy may have.
pub const STRATEGY_SYMBOLS_MAX: usize = 1000;
/// Symbols that the strategies of one cycle may have together, each counted once a strategy: there is room for a
/// decision about each.
pub const CYCLE_SYMBOLS_MAX: usize = CYCLE_DECISIONS_MAX;
/// A cycle of one strategy always fits.
const _: () = assert!(STRATEGY_SYMBOLS_MAX <= CYCLE_SYMBOLS_MAX, "a strategy fits a cycle");
/// Schedules that a strategy may have.
pub const STRATEGY_SCHEDULES_MAX: usize = 32;

/// A strategy's status, in the words of specification 002.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StrategyStatus {
    /// Its cycles run.
    Active,
    /// Its cycles wait.
    Paused,
    /// It has none. So it begins, unless its configuration says otherwise.
    #[default]
    Stopped,
}

impl StrategyStatus {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// Definition of a strategy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrategyDefinition {
    /// Its name, from which its [id](StrategyDefinition::id) derives.
    pub name: StrategyName,
    /// The kind of its signals: `momentum`, `regime`, or one of a user's.
    pub kind: StageName,
    /// What it trades, 1 to [`STRATEGY_SYMBOLS_MAX`], each once.
    pub symbols: Vec<Symbol>,
    /// How careful it is; the agent's mode can only make it stricter.
    pub risk_mode: RiskMode,
    /// What its cycles do.
    pub pipeline: PipelineName,
    /// When they begin, at most [`STRATEGY_SCHEDULES_MAX`].
    pub schedules: Vec<ScheduleName>,
    /// The calendar of its market.
    pub calendar: String,
}

/// A rule that a definition breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct StrategyViolation {
    /// The field.
    pub path: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl StrategyDefinition {
    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> StrategyUuid {
        StrategyUuid::derive(&self.name)
    }

    /// Everything that makes this no strategy.
    #[must_use]
    pub fn find_violations(&self) -> Vec<StrategyViolation> {
        let mut found = Vec::new();
        let mut check = |holds: bool, path, problem: String| {
            if !holds {
                found.push(StrategyViolation { path, problem });
            }
        };
        let (symbols, schedules) = (self.symbols.len(), self.schedules.len());
        let limit = format!("1 to {STRATEGY_SYMBOLS_MAX}, there are {symbols}");
        check((1..=STRATEGY_SYMBOLS_MAX).contains(&symbols), "symbols", limit);
        let unique: BTreeSet<_> = self.symbols.iter().collect();
        check(unique.len() == symbols, "symbols", "one stands there twice".to_owned());
        if let Some(bad) = self.symbols.iter().find(|symbol| !Symbol::is_valid(symbol.as_str())) {
            check(false, "symbols", format!("{:?} is no symbol", bad.as_str()));
        }
        let limit = format!("at most {STRATEGY_SCHEDULES_MAX}, there are {schedules}");
        check(schedules <= STRATEGY_SCHEDULES_MAX, "schedules", limit);
        let unique: BTreeSet<_> = self.schedules.iter().collect();
        check(unique.len() == schedules, "schedules", "one stands there twice".to_owned());
        found
    }
}

/// Strategies that have more symbols together than a cycle decides about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "strategies {strategies} have {symbols} symbols together, and one cycle decides about at most {CYCLE_SYMBOLS_MAX}"
)]
pub struct CycleSymbolsExceeded {
    /// The strategies, or the first of them.
    pub strategies: String,
    /// Their symbols, each counted once a strategy.
    pub symbols: usize,
}

/// Strategies that a message names; of more it says how many there are.
const NAMED_MAX: usize = 8;

/// Checks that a cycle of these strategies has room for a decision about each symbol of each of them.
///
/// # Errors
///
/// [`CycleSymbolsExceeded`] names them.
pub fn check_cycle_symbols<'a>(
    strategies: impl Iterator<Item = &'a StrategyDefinition> + Clone,
) -> Result<(), CycleSymbolsExceeded> {
    let symbols = strategies.clone().map(|definition| definition.symbols.len()).sum();
    if symbols <= CYCLE_SYMBOLS_MAX {
        return Ok(());
    }
    let more = strategies.clone().count().saturating_sub(NAMED_MAX);
    let mut named: Vec<String> =
        strategies.take(NAMED_MAX).map(|definition| definition.name.to_string()).collect();
    named.extend((0 < more).then(|| format!("{more} more")));
    Err(CycleSymbolsExceeded { strategies: named.join(", "), symbols })
}

/// Command that changes a strategy's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrategyCommand {
    /// Run its cycles.
    Activate,
    /// Stop them.
    Deactivate {
        /// Whether its positions are to be closed.
        close_positions: bool,
    },
    /// Let them wait.
    Pause,
}

/// Change of a strategy, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrategyChanged {
    /// It exists, or is another since.
    Defined {
        /// What it is.
        definition: StrategyDefinition,
        /// Its status.
        status: StrategyStatus,
    },
    /// Its status changed.
    Moved {
        /// The strategy.
        name: StrategyName,
        /// The status before.
        from: StrategyStatus,
        /// The status since.
        to: StrategyStatus,
        /// Why.
        command: StrategyCommand,
    },
    /// It exists no more.
    Removed {
        /// The strategy.
        name: StrategyName,
    },
}

/// A command that makes no sense now: 409.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the strategy is {}", .0.as_str())]
pub struct StrategyConflict(pub StrategyStatus);

/// The status that `command` leads to.
///
/// | from | activate | deactivate | pause |
/// |---|---|---|---|
/// | active | 409 | stopped | paused |
/// | paused | active | stopped | 409 |
/// | stopped | active | 409 | 409 |
///
/// # Errors
///
/// [`StrategyConflict`]: nothing changes.
///
/// Source: specification 002, "Strategy Management".
pub const fn move_strategy(
    from: StrategyStatus,
    command: StrategyCommand,
) -> Result<StrategyStatus, StrategyConflict> {
    use StrategyStatus::{Active, Paused, Stopped};
    match (command, from) {
        (StrategyCommand::Activate, Paused | Stopped) => Ok(Active),
        (StrategyCommand::Deactivate { .. }, Active | Paused) => Ok(Stopped),
        (StrategyCommand::Pause, Active) => Ok(Paused),
        (StrategyCommand::Activate, Active)
        | (StrategyCommand::Deactivate { .. }, Stopped)
        | (StrategyCommand::Pause, Paused | Stopped) => Err(StrategyConflict(from)),
    }
}

#[cfg(test)]
mod tests {
    use super::StrategyStatus::{Active, Paused, Stopped};
    use super::*;
    use crate::trading::testkit::strategy;

    #[test]
    fn every_command_in_every_status_does_what_the_table_says() {
        const CLOSE: StrategyCommand = StrategyCommand::Deactivate { close_positions: true };
        for (from, row) in [
            (Active, [None, Some(Stopped), Some(Paused)]),
            (Paused, [Some(Active), Some(Stopped), None]),
            (Stopped, [Some(Active), None, None]),
        ] {
            for (command, to) in
                [StrategyCommand::Activate, CLOSE, StrategyCommand::Pause].into_iter().zip(row)
            {
                assert_eq!(
                    move_strategy(from, command),
                    to.ok_or(StrategyConflict(from)),
                    "{from:?} {command:?}"
                );
            }
        }
    }

    #[test]
    fn every_violation_of_a_definition_is_named_at_once() {
        assert_eq!(strategy("momentum").find_violations(), []);
        let mut bad = strategy("momentum");
        bad.symbols = vec![Symbol::from("A"), Symbol::from("A"), Symbol::from("")];
        bad.schedules = vec![ScheduleName::new("s").unwrap(); 33];

        let paths: Vec<_> = bad.find_violations().into_iter().map(|violation| violation.path).collect();

        assert_eq!(paths, ["symbols", "symbols", "schedules", "schedules"]);
        bad.symbols.clear();
        assert_eq!(bad.find_violations()[0].problem, "1 to 1000, there are 0");
    }

    #[test]
    fn strategies_of_one_cycle_have_room_for_a_decision_about_each_symbol() {
        let of = |name: &str, symbols: usize| StrategyDefinition {
            symbols: (0..symbols).map(|number| Symbol::from(format!("S{number}").as_str())).collect(),
            ..strategy(name)
        };

        assert_eq!(check_cycle_symbols([of("a", 400), of("b", 600)].iter()), Ok(()));
        assert_eq!(check_cycle_symbols([of("a", STRATEGY_SYMBOLS_MAX)].iter()), Ok(()));
        let both = check_cycle_symbols([of("a", 600), of("b", 600)].iter()).unwrap_err();
        assert_eq!(
            both.to_string(),
            "strategies a, b have 1200 symbols together, and one cycle decides about at most 1000"
        );
        let many: Vec<_> = (0..10).map(|number| of(&format!("s{number}"), 101)).collect();
        assert!(check_cycle_symbols(many.iter()).unwrap_err().strategies.ends_with("s7, 2 more"));
    }
}
