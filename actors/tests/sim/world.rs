//! What all ports of one simulation share: the chance of its faults, the trace, the counts, and the verdict so far.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrator_kernel::random::Rng;
use orchestrator_runtime::fatal::FatalKind;
use tokio::sync::Notify;

use crate::audit::Audit;

/// Calls of ports in one life beyond which something runs in circles without time passing.
const CALLS_MAX: u64 = 60_000;

/// How likely the ports fail, in 1/1000 of their calls. All zero is fair weather.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) log: u64,
    pub(crate) engine: u64,
    pub(crate) fan_out: u64,
    pub(crate) source: u64,
    pub(crate) checkpoint: u64,
    /// Most times that a port gives way before it does anything.
    pub(crate) yields: u64,
}

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage(pub(crate) BTreeMap<&'static str, u64>);

impl Coverage {
    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub(crate) fn of(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, count) in &self.0 {
            write!(f, "{what} {count}; ")?;
        }
        Ok(())
    }
}

/// FNV-1a of the trace: equal traces have equal digests.
#[derive(Clone, Copy, Debug)]
struct Digest(u64);

impl Write for Digest {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

struct Inner {
    dice: Rng,
    weather: Weather,
    coverage: Coverage,
    digest: Digest,
    calls: u64,
    life: u64,
    /// The tree of this life was up.
    started: bool,
    violation: Option<String>,
    /// Exits of actors that were provoked in this life, by kind.
    causes: BTreeMap<&'static str, u64>,
    /// How the tree may end in this life.
    may_end: Vec<FatalKind>,
    audit: Audit,
}

/// Shared by the ports and the driver of one simulation.
pub(crate) struct World {
    inner: Mutex<Inner>,
    verbose: bool,
    /// Rung at the first violation.
    pub(crate) alarm: Notify,
}

impl World {
    pub(crate) fn new(seed: u64, verbose: bool) -> Arc<Self> {
        let inner = Inner {
            dice: Rng::new(seed ^ 0x0fa1_7500),
            weather: Weather::default(),
            coverage: Coverage::default(),
            digest: Digest(0xcbf2_9ce4_8422_2325),
            calls: 0,
            life: 0,
            started: false,
            violation: None,
            causes: BTreeMap::new(),
            may_end: Vec::new(),
            audit: Audit::default(),
        };
        Arc::new(Self { inner: Mutex::new(inner), verbose, alarm: Notify::new() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.inner().weather = weather;
    }

    pub(crate) fn weather(&self) -> Weather {
        self.inner().weather
    }

    /// A number below `bound`.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.inner().dice.next_below(bound)
    }

    /// Whether something of this likelihood happens now.
    pub(crate) fn happens(&self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1000) < per_mille
    }

    /// Gives way as often as the weather says; a port that is called without end is stopped here.
    pub(crate) async fn called(&self) {
        let (calls, yields) = {
            let mut inner = self.inner();
            inner.calls += 1;
            let most = inner.weather.yields;
            (inner.calls, if most == 0 { 0 } else { inner.dice.next_below(most + 1) })
        };
        if CALLS_MAX < calls {
            self.violated("the ports are called without end while no time passes");
            std::future::pending::<()>().await;
        }
        for _ in 0..yields {
            tokio::task::yield_now().await;
        }
    }

    /// The clock was read. Actors that do nothing else are stopped by a panic.
    pub(crate) fn read_the_clock(&self) {
        let calls = {
            let mut inner = self.inner();
            inner.calls += 1;
            inner.calls
        };
        if CALLS_MAX < calls {
            self.violated("the clock is read without end while no time passes");
            panic!("ends the circle, as told");
        }
    }

    /// Counts an event of a kind that the campaign must have seen.
    pub(crate) fn saw(&self, what: &'static str) {
        *self.inner().coverage.0.entry(what).or_default() += 1;
    }

    /// One line of the trace.
    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        if writeln!(self.inner().digest, "{line}").is_err() {
            self.violated("a trace line cannot be written");
        }
        if self.verbose {
            println!("  {line}");
        }
    }

    /// Something that must not be. The first one counts.
    pub(crate) fn violated(&self, what: impl Into<String>) {
        self.inner().violation.get_or_insert(what.into());
        self.alarm.notify_one();
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.inner().violation.clone()
    }

    pub(crate) fn coverage(&self) -> Coverage {
        self.inner().coverage.clone()
    }

    pub(crate) fn digest(&self) -> u64 {
        self.inner().digest.0
    }

    /// An actor of this kind was made to end once.
    pub(crate) fn caused(&self, kind: &'static str) {
        *self.inner().causes.entry(kind).or_default() += 1;
    }

    pub(crate) fn causes_of(&self, kind: &'static str) -> u64 {
        self.inner().causes.get(kind).copied().unwrap_or(0)
    }

    /// From here on the tree may end like this.
    pub(crate) fn may_end_as(&self, kind: FatalKind) {
        self.inner().may_end.push(kind);
    }

    pub(crate) fn may_end(&self, kind: FatalKind) -> bool {
        self.inner().may_end.contains(&kind)
    }

    /// A new process begins: nothing was done to it yet.
    pub(crate) fn begin_life(&self) {
        let mut inner = self.inner();
        inner.causes.clear();
        inner.may_end.clear();
        inner.calls = 0;
        inner.life += 1;
        inner.started = false;
        inner.audit.begin_life();
    }

    /// The tree of this life is up.
    pub(crate) fn note_started(&self) {
        self.inner().started = true;
    }

    /// Whether the tree of this life was up.
    pub(crate) fn has_started(&self) -> bool {
        self.inner().started
    }

    /// Processes begun so far.
    pub(crate) fn life(&self) -> u64 {
        self.inner().life
    }

    /// Asks or tells the audit; what it objects to is a violation.
    pub(crate) fn audit<T: Default>(&self, check: impl FnOnce(&mut Audit) -> Result<T, String>) -> T {
        let result = crate::audit::as_it_should_be(|| check(&mut self.inner().audit));
        result.unwrap_or_else(|objection| {
            self.violated(objection);
            T::default()
        })
    }
}
