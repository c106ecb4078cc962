//! The trading plane's metrics: registered while it is on.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::metric_names::{LABEL_VALUES_MAX, MetricName, OTHER, trading as names};
use orchestrator_kernel::ports::observer::{Observation, TradingObservation};
use orchestrator_kernel::trading::cycle::CycleStatus;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::registers::{CounterBy, SECONDS, register_metric, value_number};

/// The bounds of [`SECONDS`] in milliseconds, for names that count in them.
const MILLISECONDS: [f64; SECONDS.len()] = {
    let mut bounds = SECONDS;
    let mut at = 0;
    while at < bounds.len() {
        bounds[at] *= 1000.0;
        at += 1;
    }
    bounds
};

/// Every metric of [`names::ALL`].
pub(super) struct TradingRegisters {
    cycles_by_status: CounterBy<1>,
    cycles_by_type: CounterBy<1>,
    cycle_latency_ms: Histogram,
    cycle_duration_ms: Histogram,
    cycle_duration: Histogram,
    stage_latency_ms: HistogramBy,
    stage_duration: HistogramBy,
    stage_failures: CounterBy<2>,
    decisions: Counter,
    intents: Counter,
    errors: CounterBy<1>,
    agent_uptime: Gauge<f64, AtomicU64>,
    strategies_active: Gauge,
    cadence_lag: Histogram,
    fires_skipped: CounterBy<1>,
    history_lag: Gauge,
    history_failures: Counter,
    history_skipped: Counter,
    events_published: Counter,
    events_lag: Gauge,
    events_failures: Counter,
    events_taken: CounterBy<1>,
    running_since: Option<TsMs>,
}

impl TradingRegisters {
    /// All at zero.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let statuses = CycleStatus::ALL.map(CycleStatus::as_str);
        Self {
            cycles_by_status: CounterBy::register(registry, &names::CYCLES_BY_STATUS).with_zeros(statuses),
            cycle_latency_ms: register_metric(
                registry,
                &names::CYCLE_LATENCY_MS,
                Histogram::new(MILLISECONDS),
            ),
            stage_latency_ms: HistogramBy::register(registry, &names::STAGE_LATENCY_MS, || {
                Histogram::new(MILLISECONDS)
            }),
            stage_failures: CounterBy::register(registry, &names::STAGE_FAILURES),
            cycles_by_type: CounterBy::register(registry, &names::CYCLES_BY_TYPE),
            cycle_duration_ms: register_metric(
                registry,
                &names::CYCLE_DURATION_MS,
                Histogram::new(MILLISECONDS),
            ),
            decisions: register_metric(registry, &names::DECISIONS, Counter::default()),
            errors: CounterBy::register(registry, &names::ERRORS),
            agent_uptime: register_metric(registry, &names::AGENT_UPTIME, Gauge::default()),
            strategies_active: register_metric(registry, &names::STRATEGIES_ACTIVE, Gauge::default()),
            cycle_duration: register_metric(registry, &names::CYCLE_DURATION, Histogram::new(SECONDS)),
            stage_duration: HistogramBy::register(registry, &names::STAGE_DURATION, || {
                Histogram::new(SECONDS)
            }),
            intents: register_metric(registry, &names::INTENTS, Counter::default()),
            cadence_lag: register_metric(registry, &names::CADENCE_LAG, Histogram::new(SECONDS)),
            fires_skipped: CounterBy::register(registry, &names::FIRES_SKIPPED),
            history_lag: register_metric(registry, &names::HISTORY_LAG, Gauge::default()),
            history_failures: register_metric(registry, &names::HISTORY_FAILURES, Counter::default()),
            history_skipped: register_metric(registry, &names::HISTORY_SKIPPED, Counter::default()),
            events_published: register_metric(registry, &names::EVENTS_PUBLISHED, Counter::default()),
            events_lag: register_metric(registry, &names::EVENTS_LAG, Gauge::default()),
            events_failures: register_metric(registry, &names::EVENTS_FAILURES, Counter::default()),
            events_taken: CounterBy::register(registry, &names::EVENTS_TAKEN).with_zeros([
                "taken",
                "refused",
                "dead_letter",
            ]),
            running_since: None,
        }
    }

    /// Counts what is the trading plane's; all else is not.
    pub(super) fn count_observation(&mut self, observation: &Observation<'_>) {
        match observation {
            Observation::Trading(fact) => self.count_fact(fact),
            Observation::HistoryLag { records } => {
                self.history_lag.set(i64::try_from(*records).unwrap_or(i64::MAX));
            }
            Observation::HistoryFailed => drop(self.history_failures.inc()),
            Observation::HistoryRecordSkipped => drop(self.history_skipped.inc()),
            Observation::EventsPublished { count } => drop(self.events_published.inc_by(*count)),
            Observation::EventsLag { records } => {
                self.events_lag.set(i64::try_from(*records).unwrap_or(i64::MAX));
            }
            Observation::EventsFailed => drop(self.events_failures.inc()),
            Observation::EventTaken { fate } => self.events_taken.add_count([fate], 1),
            _ => {}
        }
    }

    fn count_fact(&mut self, fact: &TradingObservation<'_>) {
        match *fact {
            TradingObservation::CycleEnded { pipeline, status, seconds, decisions, intents } => {
                self.cycles_by_status.add_count([status], 1);
                self.cycles_by_type.add_count([pipeline], 1);
                self.cycle_duration.observe(seconds);
                self.cycle_latency_ms.observe(seconds * 1000.0);
                self.cycle_duration_ms.observe(seconds * 1000.0);
                self.decisions.inc_by(decisions);
                self.intents.inc_by(intents);
            }
            TradingObservation::CycleFailed { code } => self.errors.add_count([code], 1),
            TradingObservation::StageEnded { stage, error, seconds } => {
                self.stage_duration.observe(stage, seconds);
                self.stage_latency_ms.observe(stage, seconds * 1000.0);
                if let Some(code) = error {
                    self.stage_failures.add_count([stage, code], 1);
                }
            }
            TradingObservation::ScheduleFired { lag_seconds } => self.cadence_lag.observe(lag_seconds),
            TradingObservation::FiresSkipped { reason, count } => {
                self.fires_skipped.add_count([reason], count);
            }
            TradingObservation::AgentKnown { running_since, strategies_active } => {
                self.running_since = running_since;
                self.strategies_active.set(i64::try_from(strategies_active).unwrap_or(i64::MAX));
            }
        }
    }

    /// Sets the gauges that follow from the time.
    pub(super) fn derive_gauges(&self, now: Option<TsMs>) {
        let running_ms = match (now, self.running_since) {
            (Some(now), Some(since)) => now.0.saturating_sub(since.0).max(0),
            (None, _) | (_, None) => 0,
        };
        self.agent_uptime.set(running_ms as f64 / 1000.0);
    }
}

/// A histogram with one label, of at most [`LABEL_VALUES_MAX`] values and [`OTHER`].
struct HistogramBy {
    family: Family<[(&'static str, String); 1], Histogram>,
    label: &'static str,
    known: BTreeMap<Box<str>, usize>,
}

impl HistogramBy {
    fn register(registry: &mut Registry, name: &MetricName, make: fn() -> Histogram) -> Self {
        let family = register_metric(registry, name, Family::new_with_constructor(make));
        let label = name.labels.first().copied().unwrap_or_default();
        Self { family, label, known: BTreeMap::new() }
    }

    fn observe(&mut self, value: &str, observed: f64) {
        let number = value_number(&mut self.known, value);
        let value = if number == LABEL_VALUES_MAX { OTHER } else { value };
        self.family.get_or_create(&[(self.label, value.to_owned())]).observe(observed);
    }
}
