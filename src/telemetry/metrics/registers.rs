//! The counters, gauges and histograms themselves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64};

use orchestrator_kernel::error::{ErrorKind, FailureDomain};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::metric_names::{self as names, LABEL_VALUES_MAX, MetricKind, MetricName, OTHER};
use orchestrator_kernel::ports::log::LogName;
use orchestrator_kernel::ports::observer::TickSkipReason;
use orchestrator_kernel::ports::source::SourceOddity;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use crate::process::version::BuildIdentity;
use crate::telemetry::logs;

/// The `outcome` of an engine call that was answered.
pub(super) const OUTCOME_OK: &str = "ok";

/// From one group commit on a fast disk to the longest engine call that makes sense.
pub(super) const SECONDS: [f64; 18] = [
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
];
/// Up to the largest batch that can be configured.
const RECORDS: [f64; 9] = [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0];

/// The logs whose failures and trims are counted.
const COUNTED_LOGS: [LogName; 3] = [LogName::Receipts, LogName::Runs, LogName::Quarantine];

/// Every metric of [`names::ALL`].
pub(super) struct Registers {
    pub(super) registry: Registry,
    pub(super) received: Counter,
    pub(super) appended: CounterBy<2>,
    pub(super) duplicate: Counter,
    pub(super) quarantined: CounterBy<1>,
    pub(super) refused: Counter,
    pub(super) in_flight: Gauge,
    pub(super) buffer_records: Gauge,
    pub(super) buffer_bytes: Gauge,
    pub(super) buffer_age: Gauge<f64, AtomicU64>,
    pub(super) flush_duration: Histogram,
    pub(super) flush_records: Histogram,
    pub(super) trimmed: CounterBy<1>,
    pub(super) retention_failures: Counter,
    pub(super) checkpoints_damaged: CounterBy<1>,
    pub(super) append_failures: CounterBy<1>,
    pub(super) ticks: Counter,
    pub(super) lag: Histogram,
    pub(super) runs_planned: Counter,
    pub(super) runs_skipped: CounterBy<1>,
    pub(super) runs_started: Counter,
    pub(super) runs_completed: Counter,
    pub(super) runs_failed: CounterBy<1>,
    pub(super) runs_in_flight: Gauge,
    pub(super) run_duration: Histogram,
    pub(super) engine_calls: CounterBy<1>,
    pub(super) engine_call_duration: Histogram,
    pub(super) outputs_due: Counter,
    pub(super) outputs_published: CounterBy<1>,
    pub(super) backlog: Gauge,
    pub(super) held: Gauge,
    pub(super) held_symbols: Gauge,
    pub(super) outputs_skipped: Counter,
    pub(super) publish_latency: Histogram,
    pub(super) publish_blocked: Counter<f64, AtomicU64>,
    pub(super) oddities: CounterBy<1>,
    pub(super) producers: Gauge,
    pub(super) producers_denied: Counter,
    pub(super) producers_forgotten: Counter,
    pub(super) kill_switch_state: StateGauge,
    pub(super) kill_switch_age: Gauge<f64, AtomicU64>,
    pub(super) kill_switch_transitions: CounterBy<1>,
    pub(super) kill_switch_refusals: CounterBy<1>,
    pub(super) kill_switch_read_failures: Counter,
    pub(super) failures: CounterBy<1>,
    pub(super) actor_exits: CounterBy<2>,
    pub(super) symbols_halted: CounterBy<1>,
}

impl Registers {
    /// All at zero. Labels whose values are known from the start have them: a rate needs the zero before the first one.
    pub(super) fn new(started_at: TsMs, build: BuildIdentity) -> Self {
        let mut registry = Registry::default();
        let registry_mut = &mut registry;
        register_process(registry_mut, started_at, build);
        let kinds = || ErrorKind::ALL.into_iter().map(ErrorKind::as_str);
        let reasons = [TickSkipReason::PublishBlocked, TickSkipReason::SymbolBusy, TickSkipReason::Missed]
            .map(TickSkipReason::as_str);
        let domains =
            [FailureDomain::Ingest, FailureDomain::Buffer, FailureDomain::Engine, FailureDomain::Publish]
                .map(FailureDomain::as_str);
        Self {
            received: register_metric(registry_mut, &names::INGEST_RECEIVED, Counter::default()),
            appended: CounterBy::register(registry_mut, &names::INGEST_APPENDED),
            duplicate: register_metric(registry_mut, &names::INGEST_DUPLICATE, Counter::default()),
            quarantined: CounterBy::register(registry_mut, &names::INGEST_QUARANTINED),
            refused: register_metric(registry_mut, &names::INGEST_REFUSED, Counter::default()),
            in_flight: register_metric(registry_mut, &names::INGEST_IN_FLIGHT, Gauge::default()),
            oddities: CounterBy::register(registry_mut, &names::INGEST_ODDITIES)
                .with_zeros(SourceOddity::WORDS),
            producers: register_metric(registry_mut, &names::INGEST_PRODUCERS, Gauge::default()),
            producers_denied: register_metric(
                registry_mut,
                &names::INGEST_PRODUCERS_DENIED,
                Counter::default(),
            ),
            producers_forgotten: register_metric(
                registry_mut,
                &names::INGEST_PRODUCERS_FORGOTTEN,
                Counter::default(),
            ),
            buffer_records: register_metric(registry_mut, &names::BUFFER_RECORDS, Gauge::default()),
            buffer_bytes: register_metric(registry_mut, &names::BUFFER_BYTES, Gauge::default()),
            buffer_age: register_metric(registry_mut, &names::BUFFER_AGE, Gauge::default()),
            flush_duration: register_metric(
                registry_mut,
                &names::BUFFER_FLUSH_DURATION,
                Histogram::new(SECONDS),
            ),
            flush_records: register_metric(
                registry_mut,
                &names::BUFFER_FLUSH_RECORDS,
                Histogram::new(RECORDS),
            ),
            trimmed: CounterBy::register(registry_mut, &names::LOG_TRIMMED)
                .with_zeros(COUNTED_LOGS.map(LogName::as_str)),
            retention_failures: register_metric(registry_mut, &names::RETENTION_FAILURES, Counter::default()),
            checkpoints_damaged: CounterBy::register(registry_mut, &names::CHECKPOINTS_DAMAGED).with_zeros([
                "receipts",
                "runs",
                "published",
            ]),
            append_failures: CounterBy::register(registry_mut, &names::APPEND_FAILURES)
                .with_zeros(COUNTED_LOGS.map(LogName::as_str)),
            ticks: register_metric(registry_mut, &names::SCHEDULE_TICKS, Counter::default()),
            lag: register_metric(registry_mut, &names::SCHEDULE_LAG, Histogram::new(SECONDS)),
            runs_planned: register_metric(registry_mut, &names::SCHEDULE_RUNS, Counter::default()),
            runs_skipped: CounterBy::register(registry_mut, &names::SCHEDULE_SKIPPED).with_zeros(reasons),
            runs_started: register_metric(registry_mut, &names::RUNS_STARTED, Counter::default()),
            runs_completed: register_metric(registry_mut, &names::RUNS_COMPLETED, Counter::default()),
            runs_failed: CounterBy::register(registry_mut, &names::RUNS_FAILED).with_zeros(kinds()),
            runs_in_flight: register_metric(registry_mut, &names::RUNS_IN_FLIGHT, Gauge::default()),
            run_duration: register_metric(registry_mut, &names::RUN_DURATION, Histogram::new(SECONDS)),
            engine_calls: CounterBy::register(registry_mut, &names::ENGINE_CALLS)
                .with_zeros(kinds().chain([OUTCOME_OK])),
            engine_call_duration: register_metric(
                registry_mut,
                &names::ENGINE_CALL_DURATION,
                Histogram::new(SECONDS),
            ),
            outputs_due: register_metric(registry_mut, &names::OUTPUTS_DUE, Counter::default()),
            outputs_published: CounterBy::register(registry_mut, &names::OUTPUTS_PUBLISHED),
            backlog: register_metric(registry_mut, &names::PUBLISH_BACKLOG, Gauge::default()),
            held: register_metric(registry_mut, &names::PUBLISH_HELD, Gauge::default()),
            held_symbols: register_metric(registry_mut, &names::PUBLISH_HELD_SYMBOLS, Gauge::default()),
            outputs_skipped: register_metric(registry_mut, &names::OUTPUTS_SKIPPED, Counter::default()),
            publish_latency: register_metric(registry_mut, &names::PUBLISH_LATENCY, Histogram::new(SECONDS)),
            publish_blocked: register_metric(registry_mut, &names::PUBLISH_BLOCKED, Counter::default()),
            kill_switch_state: StateGauge::register(registry_mut, &names::KILL_SWITCH_STATE),
            kill_switch_age: unknown_age(registry_mut),
            kill_switch_transitions: CounterBy::register(registry_mut, &names::KILL_SWITCH_TRANSITIONS)
                .with_zeros(KILL_SWITCH_STATES),
            kill_switch_refusals: CounterBy::register(registry_mut, &names::KILL_SWITCH_REFUSALS)
                .with_zeros(["halted", "unknown", "stale"]),
            kill_switch_read_failures: register_metric(
                registry_mut,
                &names::KILL_SWITCH_READ_FAILURES,
                Counter::default(),
            ),
            failures: CounterBy::register(registry_mut, &names::FAILURES).with_zeros(domains),
            actor_exits: CounterBy::register(registry_mut, &names::ACTOR_EXITS),
            symbols_halted: CounterBy::register(registry_mut, &names::SYMBOLS_HALTED),
            registry,
        }
    }
}

/// What never changes.
fn register_process(registry: &mut Registry, started_at: TsMs, build: BuildIdentity) {
    let info: Family<[(&'static str, &'static str); 2], Gauge<i64, AtomicI64>> = Family::default();
    info.get_or_create(&[("version", build.version), ("revision", build.revision)]).set(1);
    register_metric(registry, &names::BUILD_INFO, info);
    register_metric(registry, &names::LOG_LINES_DROPPED, logs::dropped_lines());
    let start: Gauge<f64, AtomicU64> = Gauge::default();
    start.set(started_at.0 as f64 / 1000.0);
    register_metric(registry, &names::PROCESS_START, start);
}

/// The states of the kill switch.
const KILL_SWITCH_STATES: [&str; 3] = ["trading", "halted", "unknown"];

/// One gauge a state: 1 for the one that holds.
pub(super) struct StateGauge([(&'static str, Gauge); 3]);

impl StateGauge {
    fn register(registry: &mut Registry, name: &MetricName) -> Self {
        let family: Family<[(&'static str, &'static str); 1], Gauge> =
            register_metric(registry, name, Family::default());
        let [label] = name.labels else {
            return Self(KILL_SWITCH_STATES.map(|state| (state, Gauge::default())));
        };
        let this =
            Self(KILL_SWITCH_STATES.map(|state| (state, family.get_or_create_owned(&[(*label, state)]))));
        this.set_state("unknown");
        this
    }

    /// Says which one holds.
    pub(super) fn set_state(&self, holds: &str) {
        for (state, gauge) in &self.0 {
            gauge.set(i64::from(*state == holds));
        }
    }
}

fn unknown_age(registry: &mut Registry) -> Gauge<f64, AtomicU64> {
    let age: Gauge<f64, AtomicU64> = register_metric(registry, &names::KILL_SWITCH_AGE, Gauge::default());
    age.set(f64::NAN);
    age
}

/// Registers `metric` and returns a handle to it.
pub(super) fn register_metric<M: Metric + Clone>(registry: &mut Registry, name: &MetricName, metric: M) -> M {
    let stem = match name.kind {
        // The library appends it again.
        MetricKind::Counter => name.name.trim_end_matches("_total"),
        MetricKind::Gauge | MetricKind::Histogram => name.name,
    };
    registry.register(stem, name.help, metric.clone());
    metric
}

/// A counter with `N` labels, each of at most [`LABEL_VALUES_MAX`] values and [`OTHER`].
pub(super) struct CounterBy<const N: usize> {
    family: Family<[(&'static str, String); N], Counter>,
    labels: &'static [&'static str],
    values: [BTreeMap<Box<str>, usize>; N],
    // Handles by the numbers of the values: adding to a known one allocates nothing.
    handles: BTreeMap<[usize; N], Counter>,
}

impl<const N: usize> CounterBy<N> {
    pub(super) fn register(registry: &mut Registry, name: &MetricName) -> Self {
        Self {
            family: register_metric(registry, name, Family::default()),
            labels: name.labels,
            values: std::array::from_fn(|_| BTreeMap::new()),
            handles: BTreeMap::new(),
        }
    }

    /// Adds `count` to the counter with these label values.
    pub(super) fn add_count(&mut self, values: [&str; N], count: u64) {
        let mut key = [0; N];
        for ((slot, known), value) in key.iter_mut().zip(&mut self.values).zip(values) {
            *slot = value_number(known, value);
        }
        let handle = self.handles.entry(key).or_insert_with(|| {
            let labels = std::array::from_fn(|at| {
                let value = if key[at] == LABEL_VALUES_MAX { OTHER } else { values[at] };
                (self.labels[at], value.to_owned())
            });
            self.family.get_or_create_owned(&labels)
        });
        handle.inc_by(count);
    }
}

impl CounterBy<1> {
    /// Begins these values at zero.
    pub(super) fn with_zeros(mut self, values: impl IntoIterator<Item = &'static str>) -> Self {
        for value in values {
            self.add_count([value], 0);
        }
        self
    }
}

/// Longest value of a label, in bytes: every scrape carries it, and a producer chooses it.
pub(super) const LABEL_BYTES_MAX: usize = 128;

/// The number of `value` among the known ones; [`LABEL_VALUES_MAX`] when there are too many, or it is too long.
pub(super) fn value_number(known: &mut BTreeMap<Box<str>, usize>, value: &str) -> usize {
    match known.get(value) {
        Some(number) => *number,
        None if known.len() < LABEL_VALUES_MAX && value.len() <= LABEL_BYTES_MAX => {
            let number = known.len();
            known.insert(Box::from(value), number);
            number
        }
        None => LABEL_VALUES_MAX,
    }
}
