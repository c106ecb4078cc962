//! Two records of the same runs: which differ, and how. The question behind it: may this engine be deployed?
//!
//! Runs are aligned by symbol and engine timestamp. Compared is what consumers see and what the next run begins with:
//! status, category of a failure, output, decision, state, and the cut. Times of the clock and the engine's name are
//! not.

mod align;
mod compare;
mod engine;
mod text;

use orchestrator_kernel::engine::contracts::engine_run::RunRecord;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::engine::EngineIdentity;
use serde::Serialize;

pub use align::{Align, Side};
pub use compare::RunFindings;
pub use engine::against_engine;
pub use text::render_differences;

/// Result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Differences {
    /// What it comes to.
    pub verdict: DiffVerdict,
    /// The first record of the runs.
    pub a: SideSummary,
    /// The second one.
    pub b: SideSummary,
    /// Runs of both that are equal.
    pub equal: u64,
    /// Runs of both that differ.
    pub different: u64,
    /// Runs that only the first has.
    pub only_in_a: Missing,
    /// Runs that only the second has.
    pub only_in_b: Missing,
    /// Runs with another regime, by what it was and became.
    pub regime_changes: Vec<RegimeChange>,
    /// Numbers that differ, by their place.
    pub drift: Vec<Drift>,
    /// What else differs, by its place.
    pub changed: Vec<Changed>,
    /// Where the logs contradict themselves, as far as a replay met it. Then nothing can be told.
    pub doubts_count: u64,
    /// The first of them.
    pub doubts: Vec<String>,
}

/// Verdict of a comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffVerdict {
    /// The same runs with the same results.
    Equal,
    /// Something differs.
    Different,
    /// There is no run that both have, or the logs contradict themselves.
    #[default]
    CannotTell,
}

/// One record of the runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SideSummary {
    /// Where it is from.
    pub name: String,
    /// Ended runs.
    pub runs: u64,
    /// Which engines answered, in the order in which they did.
    pub engines: Vec<EngineIdentity>,
}

/// Runs that the other side has not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// How many.
    pub count: u64,
    /// The one with the earliest timestamp.
    pub first: Option<RunName>,
}

impl Missing {
    fn note_record(&mut self, record: &RunRecord) {
        self.count += 1;
        let name = RunName::of_record(record);
        if self.first.as_ref().is_none_or(|first| name.sort_key() < first.sort_key()) {
            self.first = Some(name);
        }
    }
}

/// A run, as both sides name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunName {
    /// Its symbol.
    pub symbol: String,
    /// The timestamp that the engine got.
    pub engine_timestamp_ms: TsMs,
    /// Its id on the first side that has it.
    pub run_id: String,
}

impl RunName {
    fn of_record(record: &RunRecord) -> Self {
        let facts = &record.facts;
        Self {
            symbol: facts.symbol.as_str().to_owned(),
            engine_timestamp_ms: facts.engine_timestamp_ms,
            run_id: facts.run_id.to_string(),
        }
    }

    fn sort_key(&self) -> (TsMs, &str) {
        (self.engine_timestamp_ms, &self.symbol)
    }
}

/// Runs whose regime changed alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegimeChange {
    /// The regime on the first side; of a failed run its category in brackets.
    pub from: String,
    /// On the second side.
    pub to: String,
    /// How many runs.
    pub count: u64,
    /// The first of them.
    pub first: RunName,
}

/// A number that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Drift {
    /// Where it stands.
    pub path: String,
    /// In how many runs.
    pub count: u64,
    /// The largest difference.
    pub max_abs: f64,
    /// The largest difference as a part of the larger number: 0 to 2.
    pub max_rel: f64,
    /// The mean of second minus first, over the runs where they differ.
    pub mean: f64,
    /// The first run.
    pub first: RunName,
}

/// A value that differs and is not a number on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Where it stands.
    pub path: String,
    /// In how many runs.
    pub count: u64,
    /// The first run.
    pub first: RunName,
    /// There: the first side's value.
    pub a: String,
    /// There: the second side's value.
    pub b: String,
}
