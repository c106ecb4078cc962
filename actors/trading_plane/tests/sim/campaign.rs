//! Many seeds on all cores: first those that once found a bug, then a range; counted, and told how to repeat.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestrator_kernel::invariants::violation_count;

use crate::driver::{Flaw, simulate};
use crate::world::Coverage;

/// Seeds of the default suite.
pub(crate) const SEEDS: u64 = 500;
/// Seeds that found a bug, one a line; what follows a `#` says which.
const RECORDED: &str = include_str!("../../../../tests/trading_seeds.txt");
/// Below so many seeds [rare events](RARE) may be missing by chance.
const COVERING: u64 = 2_000;

/// Events that the default suite's seeds may miss: fewer than ten of each in 280 seeds. All others they meet.
const RARE: [&str; 13] = [
    "agent in error",
    "checkpoint stale",
    "crash between two records of a batch",
    "cycle ends: degraded",
    "hook denies",
    "hook fails",
    "hook hangs",
    "hook narrows",
    "hook takes its time",
    "hook widens an order",
    "hook widens by a decision of nobody",
    "pause ended while the service was down",
    "stop that ran out of time",
];

/// What a campaign must have met, each at least once: a simulation in which nothing happens proves nothing.
const MUST_BE_SEEN: [&str; 68] = [
    "a command is repeated",
    "a command with another body",
    "agent in error",
    "agent pauses",
    "agent runs",
    "agent stops",
    "an actor or a cycle panics",
    "an event comes twice",
    "an order is intended",
    "append answered late",
    "append breaks the storage",
    "append hangs, then works",
    "append slow",
    "append unknown, done",
    "append unknown, not done",
    "append without room",
    "checkpoint damaged",
    "checkpoint lost",
    "checkpoint not saved",
    "checkpoint stale",
    "clean stop",
    "clock jumps ahead, large",
    "clock jumps ahead, small",
    "clock jumps back, large",
    "clock jumps back, small",
    "crash",
    "crash between two records of a batch",
    "crash during recovery",
    "cycle ends: blocked",
    "cycle ends: degraded",
    "cycle ends: failed",
    "cycle ends: ok",
    "fires skipped: agent not running",
    "fires skipped: already fired",
    "fires skipped: another reason",
    "fires skipped: misfire",
    "fires skipped: overlap",
    "fires skipped: too late",
    "hook denies",
    "hook fails",
    "hook hangs",
    "hook narrows",
    "hook takes its time",
    "hook widens an order",
    "hook widens by a decision of nobody",
    "kill switch engaged",
    "kill switch garbage",
    "kill switch hangs",
    "kill switch missing",
    "kill switch trading again",
    "latched",
    "overtaken by a second writer",
    "pause ended while the service was down",
    "plane ended: fenced",
    "plane ended: storage",
    "plane killed in its process",
    "stage answers at its deadline",
    "stage answers garbage",
    "stage answers late",
    "stage answers late as the process goes on",
    "stage answers too much",
    "stage fails",
    "stage hangs",
    "stage panics",
    "stage slow",
    "start finds open cycles",
    "stop that ran out of time",
    "the market is announced closed",
];

/// A number from the environment.
#[allow(clippy::disallowed_methods, reason = "how a test is steered, not a setting of the actors")]
pub(crate) fn env_u64(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|value| value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// The seeds that found a bug.
pub(crate) fn recorded() -> Vec<u64> {
    let seeds = RECORDED.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    seeds.filter(|seed| !seed.is_empty()).map(|seed| seed.parse().expect("tests/trading_seeds.txt")).collect()
}

/// The seeds to be simulated.
pub(crate) struct Campaign {
    recorded: Vec<u64>,
    range: Range<u64>,
    time: Option<Duration>,
}

/// What it came to.
pub(crate) struct Report {
    seeds: u64,
    coverage: Coverage,
    failures: Vec<u64>,
}

impl Campaign {
    /// The recorded seeds, then these.
    pub(crate) fn recorded_then(range: Range<u64>) -> Self {
        Self { recorded: recorded(), range, time: None }
    }

    /// Seeds behind those of the default suite, for so long.
    pub(crate) fn for_minutes(minutes: u64) -> Self {
        let time = Some(Duration::from_secs(60 * minutes));
        Self { time, ..Self::recorded_then(SEEDS..u64::MAX) }
    }

    pub(crate) fn run(self) -> Report {
        println!(
            "SEED={} and the following, at most {}",
            self.range.start,
            self.range.end - self.range.start
        );
        let since = tokio::time::Instant::now();
        let next = AtomicU64::new(0);
        let report = Mutex::new(Report { seeds: 0, coverage: Coverage::default(), failures: Vec::new() });
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| self.work(&next, since, &report));
            }
        });
        let report = report.into_inner().expect("no worker panicked");
        let each = since.elapsed().as_secs_f64() * 1e3 / report.seeds.max(1) as f64;
        println!("{} seeds on {cores} cores, {each:.2} ms a seed\n{}", report.seeds, report.coverage);
        report
    }

    fn work(&self, next: &AtomicU64, since: tokio::time::Instant, report: &Mutex<Report>) {
        let mut mine = Report { seeds: 0, coverage: Coverage::default(), failures: Vec::new() };
        while self.time.is_none_or(|time| since.elapsed() < time) && mine.failures.len() < 3 {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let known = self.recorded.len() as u64;
            let seed = match self.recorded.get(index as usize) {
                Some(seed) => *seed,
                None => self.range.start + (index - known),
            };
            if self.range.end <= seed && known <= index {
                break;
            }
            let outcome = simulate(seed, Flaw::None, false);
            mine.seeds += 1;
            mine.coverage.add(&outcome.coverage);
            if let Some(failure) = outcome.failure {
                // Told at once: a long campaign goes on for minutes.
                println!(
                    "SEED={seed} cargo test -p orchestrator-trading-plane --test sim every_seed\n    {failure}"
                );
                mine.failures.push(seed);
            }
        }
        let mut all = report.lock().expect("no worker panicked");
        all.seeds += mine.seeds;
        all.coverage.add(&mine.coverage);
        all.failures.extend(mine.failures);
    }
}

impl Report {
    /// Every seed passed, and together they met everything that they must meet.
    pub(crate) fn expect_all_pass_and_cover(self) {
        assert!(self.failures.is_empty(), "seeds that failed, see above: {:?}", self.failures);
        // An optimised build counts them instead of panicking.
        assert!(
            cfg!(debug_assertions) || violation_count() == 0,
            "{} checks of the kernel failed",
            violation_count()
        );
        let is_due = |what: &&str| COVERING <= self.seeds || (SEEDS <= self.seeds && !RARE.contains(what));
        let missing: BTreeSet<&str> =
            MUST_BE_SEEN.into_iter().filter(is_due).filter(|what| self.coverage.of(what) == 0).collect();
        assert!(missing.is_empty(), "never happened in {} seeds: {missing:?}", self.seeds);
    }
}
