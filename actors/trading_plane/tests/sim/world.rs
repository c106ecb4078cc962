//! What all ports of one simulation share: the chance of its faults, the trace, the counts, and the verdict so far.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orchestrator_kernel::random::Rng;
use orchestrator_runtime::fatal::FatalKind;
use orchestrator_trading_plane::view::TradingView;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::audit::Audit;

/// Calls of ports in one life beyond which something runs in circles without time passing.
const CALLS_MAX: u64 = 60_000;

/// Virtual time within which a record of a fair journal becomes durable.
const WINDOW: Duration = Duration::from_secs(1);

/// How likely the ports fail, in 1/1000 of their calls. All zero is fair weather.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) journal: u64,
    pub(crate) stages: u64,
    pub(crate) hooks: u64,
    pub(crate) checkpoints: u64,
    /// Reads of the clock that panic, in 1/10,000.
    pub(crate) panics: u64,
    /// Most times that a port gives way before it does anything.
    pub(crate) yields: u64,
}

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage(BTreeMap<&'static str, u64>);

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
    started: bool,
    violation: Option<String>,
    /// How the plane may end in this life.
    may_end: Vec<FatalKind>,
    /// Since when the kill switch's store has not said "trading".
    stopped_since: Option<Instant>,
    /// When the journal last took time or failed: what was decided before may be done after.
    journal_busy: Option<Instant>,
    /// Whether nothing of the kind, and no panic, has happened in this life.
    was_fair: bool,
    /// What the wall clock showed in the last moments of virtual time.
    walls: VecDeque<(Instant, i64)>,
    view: TradingView,
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
            dice: Rng::new(seed ^ 0x7ad1_0600),
            weather: Weather::default(),
            coverage: Coverage::default(),
            digest: Digest(0xcbf2_9ce4_8422_2325),
            calls: 0,
            life: 0,
            started: false,
            violation: None,
            may_end: Vec::new(),
            stopped_since: None,
            journal_busy: None,
            was_fair: true,
            walls: VecDeque::new(),
            view: TradingView::default(),
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

    fn count_call(&self) -> u64 {
        let mut inner = self.inner();
        inner.calls += 1;
        inner.calls
    }

    /// Gives way as often as the weather says; a port that is called without end is stopped here.
    pub(crate) async fn called(&self) {
        if CALLS_MAX < self.count_call() {
            self.violated("the ports are called without end while no time passes");
            std::future::pending::<()>().await;
        }
        let most = self.weather().yields;
        for _ in 0..if most == 0 { 0 } else { self.below(most + 1) } {
            tokio::task::yield_now().await;
        }
    }

    /// The clock was read. Whoever does nothing else is stopped by a panic; some are, by chance.
    pub(crate) fn read_the_clock(&self) {
        if CALLS_MAX < self.count_call() {
            self.violated("the clock is read without end while no time passes");
            panic!("ends the circle, as told");
        }
        let (panics, started) = (self.weather().panics, self.has_started());
        if started && panics > 0 && self.below(10_000) < panics {
            self.saw("an actor or a cycle panics");
            self.inner().was_fair = false;
            self.note(format_args!("the clock panics"));
            panic!("the clock panics, as told");
        }
    }

    /// Time has passed: what was called until now did not go in circles.
    pub(crate) fn time_passed(&self) {
        self.inner().calls = 0;
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

    /// From here on the plane may end like this.
    pub(crate) fn may_end_as(&self, kind: FatalKind) {
        self.inner().may_end.push(kind);
    }

    pub(crate) fn may_end(&self, kind: FatalKind) -> bool {
        self.inner().may_end.contains(&kind)
    }

    /// A new process begins: nothing was done to it yet. Its read model is returned.
    pub(crate) fn begin_life(&self, wall: i64) -> TradingView {
        let mut inner = self.inner();
        inner.may_end.clear();
        inner.calls = 0;
        inner.life += 1;
        inner.started = false;
        inner.was_fair = true;
        inner.walls = VecDeque::from([(Instant::now(), wall)]);
        // Each runtime has a virtual time of its own.
        inner.stopped_since = inner.stopped_since.map(|_| Instant::now());
        inner.journal_busy = None;
        inner.audit.begin_life();
        inner.view = TradingView::default();
        inner.view.clone()
    }

    /// The plane of this life is up.
    pub(crate) fn note_started(&self) {
        self.inner().started = true;
    }

    pub(crate) fn has_started(&self) -> bool {
        self.inner().started
    }

    pub(crate) fn life(&self) -> u64 {
        self.inner().life
    }

    /// The read model of this life.
    pub(crate) fn view(&self) -> TradingView {
        self.inner().view.clone()
    }

    /// The store of the kill switch says "trading" from now on, or does no longer.
    pub(crate) fn set_stopped(&self, is_stopped: bool) {
        let mut inner = self.inner();
        inner.stopped_since = match (is_stopped, inner.stopped_since) {
            (false, _) => None,
            (true, since) => Some(since.unwrap_or_else(Instant::now)),
        };
    }

    /// The journal took time or failed.
    pub(crate) fn note_journal_busy(&self) {
        let mut inner = self.inner();
        inner.journal_busy = Some(Instant::now());
        inner.was_fair = false;
    }

    /// The wall clock was set.
    pub(crate) fn note_wall(&self, wall: i64) {
        let now = Instant::now();
        let mut inner = self.inner();
        inner.walls.push_back((now, wall));
        // The first one that stays was in force when the window began.
        while inner.walls.get(1).is_some_and(|(at, _)| WINDOW < now.duration_since(*at)) {
            inner.walls.pop_front();
        }
    }

    /// The least that the wall clock showed while what is durable now was decided; nothing when that is not known.
    pub(crate) fn lowest_wall(&self) -> Option<i64> {
        let inner = self.inner();
        inner.walls.iter().map(|(_, wall)| *wall).min().filter(|_| inner.was_fair)
    }

    /// Whether the journal took everything at once in this life.
    pub(crate) fn was_fair(&self) -> bool {
        self.inner().was_fair
    }

    /// For how long trading is stopped while nothing kept a decision from being carried out.
    pub(crate) fn stopped_for(&self) -> Option<Duration> {
        let inner = self.inner();
        let since = inner.stopped_since?;
        Some(inner.journal_busy.map_or(since, |busy| busy.max(since)).elapsed())
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
