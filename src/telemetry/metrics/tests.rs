//! The metrics obey their laws, are bounded, and are what Prometheus reads.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use orchestrator_kernel::error::FailureDomain;
use orchestrator_kernel::ids::{EventType, SourceId, Symbol};
use orchestrator_kernel::metric_names::{self as names, ALL, MetricKind};
use orchestrator_kernel::ports::log::LogName;
use orchestrator_kernel::ports::observer::{TickSkipReason, TradingObservation};
use proptest::prelude::*;

use super::*;

/// A wall clock that the test sets.
struct Set(AtomicI64);

#[async_trait]
impl Clock for Set {
    fn now(&self) -> Option<TsMs> {
        Some(TsMs(self.0.load(Ordering::Relaxed)))
    }
    async fn wait_started(&self) -> TsMs {
        TsMs(0)
    }
    async fn sleep_until(&self, _: TsMs) {}
    fn armed_deadline(&self) -> Option<TsMs> {
        None
    }
    fn is_driven(&self) -> bool {
        false
    }
    async fn advance(&self, _: TsMs) {}
}

const BUILD: BuildIdentity = BuildIdentity { version: "1.2.3", revision: "0a1b2c" };

fn metrics_at(now: i64) -> Metrics {
    Metrics::new(Arc::new(Set(AtomicI64::new(now))), TsMs(1_700_000_000_500), BUILD).with_trading()
}

/// Samples by name with labels.
fn check_scrape(metrics: &Metrics) -> BTreeMap<String, f64> {
    let text = metrics.encode_text().unwrap();
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

/// The sum over all labels.
fn total(samples: &BTreeMap<String, f64>, metric: &names::MetricName) -> f64 {
    let with_labels = format!("{}{{", metric.name);
    samples
        .iter()
        .filter(|(name, _)| **name == metric.name || name.starts_with(&with_labels))
        .map(|(_, value)| value)
        .sum()
}

/// One of each.
fn everything<'a>(
    source_id: &'a SourceId,
    event_type: &'a EventType,
    symbol: &'a Symbol,
) -> Vec<Observation<'a>> {
    vec![
        Observation::ItemsReceived { count: 10 },
        Observation::ReceiptsAppended { source_id, event_type, count: 6 },
        Observation::ItemsDuplicate { count: 1 },
        Observation::ItemQuarantined { reason: "not_json" },
        Observation::ItemsRefused { count: 1 },
        Observation::ProducersKnown { count: 3 },
        Observation::ProducerDenied,
        Observation::ProducerForgotten,
        Observation::SourceOddity { word: "missing", count: 4 },
        Observation::ReceiptsFlushed { seconds: 0.0003, records: 6 },
        Observation::BufferDepth { records: 6, bytes: 2400, last_ingest_ts: TsMs(40_000) },
        Observation::AppendFailed { log: LogName::Runs },
        Observation::LogTrimmed { log: LogName::Runs, records: 7 },
        Observation::RetentionFailed,
        Observation::CheckpointDamaged { name: "published" },
        Observation::Tick { lag_seconds: 0.001, runs: 2 },
        Observation::TickSkipped { reason: TickSkipReason::Missed, count: 3 },
        Observation::RunStarted,
        Observation::RunStarted,
        Observation::EngineCalled { error: None, seconds: 0.0001 },
        Observation::RunEnded { error: Some(ErrorKind::EngineTimeout), seconds: 2.0, outputs: 2 },
        Observation::OutputsHeld { outputs: 4, symbols: 1 },
        Observation::PublishBacklog { outputs: 2 },
        Observation::OutputsPublished { event_type: "EngineRunStarted", count: 1 },
        Observation::OutputsHeld { outputs: 1, symbols: 1 },
        Observation::OutputsSkipped { count: 2 },
        Observation::PublishLatency { seconds: 0.002 },
        Observation::PublishBacklog { outputs: 1 },
        Observation::PublishBlocked { seconds: 0.5 },
        Observation::KillSwitch { state: "halted", age_seconds: Some(0.05) },
        Observation::KillSwitchEntered { state: "halted" },
        Observation::KillSwitchReadFailed,
        Observation::Trading(TradingObservation::CycleEnded {
            pipeline: "canonical",
            status: "degraded",
            seconds: 0.002,
            decisions: 3,
            intents: 2,
        }),
        Observation::Trading(TradingObservation::CycleFailed { code: "E_ORCH_TIMEOUT" }),
        Observation::Trading(TradingObservation::StageEnded {
            stage: "ANA",
            error: Some("E_ORCH_STAGE_FAILED"),
            seconds: 0.001,
        }),
        Observation::Trading(TradingObservation::ScheduleFired { lag_seconds: 0.004 }),
        Observation::Trading(TradingObservation::FiresSkipped { reason: "misfire", count: 59 }),
        Observation::Trading(TradingObservation::AgentKnown {
            running_since: Some(TsMs(40_000)),
            strategies_active: 2,
        }),
        Observation::HistoryLag { records: 7 },
        Observation::HistoryFailed,
        Observation::HistoryRecordSkipped,
        Observation::EventsPublished { count: 3 },
        Observation::EventsLag { records: 2 },
        Observation::EventsFailed,
        Observation::EventTaken { fate: "dead_letter" },
        Observation::EffectRefused { reason: "stale" },
        Observation::ActorExited { actor: "buffer", verdict: "escalated" },
        Observation::SymbolHalted { symbol },
        Observation::Failure { domain: FailureDomain::Engine },
    ]
}

fn observe_everything(metrics: &Metrics) {
    // A hostile name: labels must be escaped.
    let (source, event, symbol) =
        (SourceId::from("a\"b\\c\nd"), EventType::from("TradeTick"), Symbol::from("BTCUSDT"));
    for observation in everything(&source, &event, &symbol) {
        metrics.observe(&observation);
    }
}

#[test]
fn every_declared_metric_is_scraped_as_declared_and_no_other() {
    let metrics = metrics_at(42_500);
    observe_everything(&metrics);

    let text = metrics.encode_text().unwrap();

    let mut declared: Vec<String> = ALL
        .iter()
        .chain(names::trading::ALL)
        .map(|metric| {
            let kind = match metric.kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
                MetricKind::Histogram => "histogram",
            };
            format!("# TYPE {} {kind}", metric.name)
        })
        .collect();
    let mut scraped: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    declared.sort_unstable();
    scraped.sort_unstable();
    assert_eq!(scraped, declared);
    assert!(
        text.contains(
            "orch_ingest_receipts_appended_total{source_id=\"a\\\"b\\\\c\\nd\",event_type=\"TradeTick\"} 6\n"
        ),
        "{text}"
    );
}

#[test]
fn samples_say_what_was_observed() {
    let metrics = metrics_at(42_500);
    observe_everything(&metrics);

    let samples = check_scrape(&metrics);

    for (name, value) in [
        ("orch_build_info{version=\"1.2.3\",revision=\"0a1b2c\"}", 1.0),
        ("orch_process_start_time_seconds", 1_700_000_000.5),
        ("orch_ingest_items_in_flight", 1.0),
        ("orch_buffer_age_seconds", 2.5),
        ("orch_buffer_size_bytes", 2400.0),
        ("orch_buffer_flush_duration_seconds_bucket{le=\"0.00025\"}", 0.0),
        ("orch_buffer_flush_duration_seconds_bucket{le=\"0.0005\"}", 1.0),
        ("orch_append_failures_total{log=\"runs\"}", 1.0),
        ("orch_log_trimmed_records_total{log=\"runs\"}", 7.0),
        ("orch_log_trimmed_records_total{log=\"receipts\"}", 0.0),
        ("orch_retention_failures_total", 1.0),
        ("orch_append_failures_total{log=\"receipts\"}", 0.0),
        ("orch_schedule_runs_skipped_total{reason=\"missed\"}", 3.0),
        ("orch_runs_in_flight", 1.0),
        ("orch_runs_failed_total{error_kind=\"engine_timeout\"}", 1.0),
        ("orch_engine_calls_total{outcome=\"ok\"}", 1.0),
        ("orch_publish_blocked_seconds_total", 0.5),
        ("orch_kill_switch_state{state=\"halted\"}", 1.0),
        ("orch_kill_switch_state{state=\"unknown\"}", 0.0),
        ("orch_kill_switch_age_seconds", 0.05),
        ("orch_kill_switch_transitions_total{state=\"halted\"}", 1.0),
        ("orch_kill_switch_refusals_total{reason=\"stale\"}", 1.0),
        ("orch_kill_switch_refusals_total{reason=\"halted\"}", 0.0),
        ("orch_kill_switch_read_failures_total", 1.0),
        ("orch_cycle_total{status=\"degraded\"}", 1.0),
        ("orch_cycle_total{status=\"ok\"}", 0.0),
        ("orch_cycle_latency_ms_sum", 2.0),
        ("orch_cycle_duration_seconds_sum", 0.002),
        ("orchestrator_cycle_duration_ms_count", 1.0),
        ("orchestrator_cycles_total{type=\"canonical\"}", 1.0),
        ("orchestrator_decisions_total", 3.0),
        ("orchestrator_errors_total{type=\"E_ORCH_TIMEOUT\"}", 1.0),
        ("orch_order_intents_total", 2.0),
        ("orch_stage_fail_total{stage=\"ANA\",error_code=\"E_ORCH_STAGE_FAILED\"}", 1.0),
        ("orch_stage_latency_ms_sum{stage=\"ANA\"}", 1.0),
        ("orch_cadence_fires_skipped_total{reason=\"misfire\"}", 59.0),
        ("orch_cadence_lag_seconds_count", 1.0),
        ("orchestrator_agent_uptime", 2.5),
        ("orchestrator_strategies_active", 2.0),
        ("orch_history_lag_records", 7.0),
        ("orch_history_failures_total", 1.0),
        ("orch_history_records_skipped_total", 1.0),
        ("orch_actor_exits_total{actor=\"buffer\",verdict=\"escalated\"}", 1.0),
        ("orch_symbols_halted_total{symbol=\"BTCUSDT\"}", 1.0),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}");
    }
}

#[test]
fn age_is_unknown_before_the_first_receipt_and_never_negative() {
    let metrics = metrics_at(10_000);

    assert!(check_scrape(&metrics)[names::BUFFER_AGE.name].is_nan());

    metrics.observe(&Observation::BufferDepth { records: 1, bytes: 1, last_ingest_ts: TsMs(10_001) });
    assert_eq!(check_scrape(&metrics)[names::BUFFER_AGE.name], 0.0);
}

#[test]
fn label_values_are_bounded_and_the_rest_is_counted_as_other() {
    let metrics = metrics_at(0);
    for source in 0..200_u32 {
        for event in 0..70_u32 {
            let (source, event) = (format!("s{source}"), format!("e{event}"));
            let (source_id, event_type) =
                (&SourceId::from(source.as_str()), &EventType::from(event.as_str()));
            metrics.observe(&Observation::ReceiptsAppended { source_id, event_type, count: 1 });
        }
    }

    let samples = check_scrape(&metrics);

    assert_eq!(total(&samples, &names::INGEST_APPENDED), 14_000.0);
    let series = samples.keys().filter(|name| name.starts_with(names::INGEST_APPENDED.name)).count();
    assert_eq!(series, 65 * 65);
    assert_eq!(
        samples["orch_ingest_receipts_appended_total{source_id=\"other\",event_type=\"other\"}"],
        136.0 * 6.0
    );
}

#[test]
fn a_long_label_value_is_counted_as_other() {
    let metrics = metrics_at(0);
    let source_id = &SourceId::from("s");
    for bytes in [128, 129, 10_000] {
        let event_type = &EventType::from("x".repeat(bytes).as_str());
        metrics.observe(&Observation::ReceiptsAppended { source_id, event_type, count: 1 });
    }

    let samples = check_scrape(&metrics);

    let series =
        |event| format!("orch_ingest_receipts_appended_total{{source_id=\"s\",event_type=\"{event}\"}}");
    assert_eq!(samples[&series("other".to_owned())], 2.0);
    assert_eq!(samples[&series("x".repeat(128))], 1.0);
}

#[test]
fn the_backlog_of_an_earlier_process_is_due_once() {
    let metrics = metrics_at(0);
    metrics.observe(&Observation::PublishBacklog { outputs: 7 });
    metrics.observe(&Observation::RunStarted);
    metrics.observe(&Observation::RunEnded { error: None, seconds: 0.1, outputs: 2 });
    metrics.observe(&Observation::PublishBacklog { outputs: 9 });

    let samples = check_scrape(&metrics);

    assert_eq!(total(&samples, &names::OUTPUTS_DUE), 9.0);
}

/// Method: Debian's package `prometheus` brings promtool; its linter knows the naming rules too.
#[test]
fn promtool_has_no_complaint() {
    let metrics = metrics_at(42_500);
    observe_everything(&metrics);
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = spawned else {
        println!("skipped: promtool is not on PATH (Debian package prometheus)");
        return;
    };

    promtool.stdin.take().unwrap().write_all(metrics.encode_text().unwrap().as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();

    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Names of the specifications that count milliseconds are kept. About nothing else may be complained.
    let in_ms = || names::trading::ALL.iter().filter(|metric| metric.name.ends_with("_ms"));
    let is_given = |line: &str| in_ms().any(|metric| line.starts_with(&format!("{} ", metric.name)));
    let complaints: Vec<&str> = said.lines().filter(|line| !is_given(line)).collect();
    assert!(complaints.is_empty(), "{said}");
}

/// One step of a service that keeps books itself.
#[derive(Clone, Debug)]
enum Step {
    Receive(u64),
    Append(u64),
    Duplicate(u64),
    Quarantine,
    Refuse(u64),
    Start,
    End(Option<usize>),
    Publish(u64),
}

/// The books: what is open.
#[derive(Default)]
struct Books {
    items: u64,
    runs: u64,
    outputs: u64,
}

impl Books {
    fn step(&mut self, step: &Step, metrics: &Metrics) {
        let (source_id, event_type) = (&SourceId::from("s"), &EventType::from("TradeTick"));
        match *step {
            Step::Receive(count) => {
                self.items += count;
                metrics.observe(&Observation::ItemsReceived { count });
            }
            Step::Append(count) => {
                metrics.observe(&Observation::ReceiptsAppended {
                    source_id,
                    event_type,
                    count: self.settle(count),
                });
            }
            Step::Duplicate(count) => {
                metrics.observe(&Observation::ItemsDuplicate { count: self.settle(count) })
            }
            Step::Refuse(count) => metrics.observe(&Observation::ItemsRefused { count: self.settle(count) }),
            Step::Quarantine => {
                if self.settle(1) == 1 {
                    metrics.observe(&Observation::ItemQuarantined { reason: "not_json" });
                }
            }
            Step::Start => {
                self.runs += 1;
                metrics.observe(&Observation::RunStarted);
            }
            Step::End(error) if self.runs > 0 => {
                self.runs -= 1;
                self.outputs += 2;
                let error = error.map(|kind| ErrorKind::ALL[kind]);
                metrics.observe(&Observation::RunEnded { error, seconds: 0.01, outputs: 2 });
                metrics.observe(&Observation::PublishBacklog { outputs: self.outputs });
            }
            Step::End(_) => {}
            Step::Publish(count) => {
                let count = count.min(self.outputs);
                self.outputs -= count;
                metrics.observe(&Observation::OutputsPublished { event_type: "EngineRunStarted", count });
                metrics.observe(&Observation::PublishBacklog { outputs: self.outputs });
            }
        }
    }

    fn settle(&mut self, count: u64) -> u64 {
        let count = count.min(self.items);
        self.items -= count;
        count
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..50_u64).prop_map(Step::Receive),
        (0..50_u64).prop_map(Step::Append),
        (0..5_u64).prop_map(Step::Duplicate),
        Just(Step::Quarantine),
        (0..5_u64).prop_map(Step::Refuse),
        Just(Step::Start),
        prop::option::of(0..ErrorKind::ALL.len()).prop_map(Step::End),
        (0..9_u64).prop_map(Step::Publish),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_conservation_laws_hold_in_every_scrape(steps in steps()) {
        let (metrics, mut books) = (metrics_at(0), Books::default());
        for step in &steps {
            books.step(step, &metrics);

            let samples = check_scrape(&metrics);
            let sum = |metrics: &[names::MetricName]| metrics.iter().map(|metric| total(&samples, metric)).sum::<f64>();

            prop_assert_eq!(sum(&[names::INGEST_IN_FLIGHT]), books.items as f64);
            let settled = [
                names::INGEST_APPENDED, names::INGEST_DUPLICATE, names::INGEST_QUARANTINED, names::INGEST_REFUSED, names::INGEST_IN_FLIGHT,
            ];
            prop_assert_eq!(sum(&[names::INGEST_RECEIVED]), sum(&settled));
            prop_assert_eq!(sum(&[names::RUNS_IN_FLIGHT]), books.runs as f64);
            let ended = [names::RUNS_COMPLETED, names::RUNS_FAILED, names::RUNS_IN_FLIGHT];
            prop_assert_eq!(sum(&[names::RUNS_STARTED]), sum(&ended));
            let outputs = [names::OUTPUTS_PUBLISHED, names::OUTPUTS_SKIPPED, names::PUBLISH_HELD, names::PUBLISH_BACKLOG];
            prop_assert_eq!(sum(&[names::OUTPUTS_DUE]), sum(&outputs));
        }
    }
}

/// Those who do not trade scrape what they did before.
#[test]
fn metrics_of_trading_are_there_while_it_is_on() {
    let metrics = Metrics::new(Arc::new(Set(AtomicI64::new(1))), TsMs(1), BUILD);
    observe_everything(&metrics);

    let text = metrics.encode_text().unwrap();

    assert!(names::trading::ALL.iter().all(|metric| !text.contains(metric.name)), "{text}");
}
