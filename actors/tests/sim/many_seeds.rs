//! Many seeds on all cores: first those that once found a bug, then a range; counted, and told how to repeat.
//!
//! Both simulations share this file; what is its own of each, numbers and what must be seen, stands in its `campaign`.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orchestrator_kernel::invariants::violation_count;

use crate::campaign::{COVERING, MUST_BE_SEEN, PACKAGE, RARE, RECORDED, SEEDS};
use crate::driver::{Flaw, simulate};
use crate::world::Coverage;

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
    seeds.filter(|seed| !seed.is_empty()).map(|seed| seed.parse().expect("a recorded seed")).collect()
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
                println!("SEED={seed} cargo test -p {PACKAGE} --test sim every_seed\n    {failure}");
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
