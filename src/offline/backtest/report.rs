//! The report as data: what `report.json` holds and the page shows.

use std::collections::BTreeMap;

use orchestrator_engine_plane::recorded_times::OddTimes;
use orchestrator_kernel::engine::cadence::Cadence;
use orchestrator_kernel::ids::EngineMode;
use orchestrator_kernel::ports::engine::EngineIdentity;
use orchestrator_kernel::ports::log::ReadError;
use serde::Serialize;

use super::cycles::{CycleFigures, read_cycle_figures};
use super::figures::{self, Answerer, ReceiptFigures, RunFigures};
use super::latency::Class;
use super::over_time::{ReceiptCounts, RunCounts, Steps};
use super::regimes::Regimes;
use super::run::{End, Played};
use crate::config::Config;
use crate::process::version::VERSION;
use crate::service::manifest;

/// The whole report. Two backtests of one capture, configuration and engine differ in `performance` only.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BacktestReport {
    /// `orchestrator_backtest_report`.
    pub schema: &'static str,
    /// `1`; a field that goes or changes its meaning makes it `2`.
    pub schema_version: &'static str,
    /// Whether the capture was read to its end.
    pub complete: bool,
    /// Why not.
    pub incomplete_because: Option<String>,
    /// What was wrong at the end, for example a halted symbol.
    pub conditions: Vec<ReportedCondition>,
    /// What it was made with.
    pub manifest: Provenance,
    /// What went in.
    pub capture: CaptureReport,
    /// What was run.
    pub runs: RunFigures,
    /// The cycles; only where the backtest had some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trading: Option<CycleFigures>,
    /// Both along recorded time.
    pub over_time: OverTimeReport,
    /// What the engine said.
    pub regimes: Regimes,
    /// How fast it was, on this machine this time.
    pub performance: Performance,
}

/// Something that was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReportedCondition {
    /// The stable word.
    pub condition: String,
    /// Its details.
    pub detail: String,
}

/// Provenance of a backtest: program, settings and engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// Version of the binary.
    pub orchestrator_version: &'static str,
    /// Hash of the settings that decide what comes out; a service that wrote these logs would record the same.
    pub config_hash: String,
    /// Those settings, by path.
    pub settings: BTreeMap<String, String>,
    /// Version of the time zone database that decisions used.
    pub tz_database: String,
    /// What of the configuration the backtest replaced.
    pub replaced: Vec<String>,
    /// Which engine entry point.
    pub engine_mode: EngineMode,
    /// Who answered.
    pub engines: Vec<Answerer>,
    /// When runs happen.
    pub schedule: ScheduleReport,
}

/// The cadence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ScheduleReport {
    /// `boundary` or `timer`.
    pub mode: &'static str,
    /// Between two runs of one symbol.
    pub interval_ms: i64,
    /// In boundary mode: from the boundary to the cut.
    pub delay_ms: Option<i64>,
    /// In timer mode: what engine timestamps are multiples of.
    pub align_ms: Option<i64>,
}

/// Capture of a backtest, and what it holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaptureReport {
    /// What it is called, without secrets.
    pub name: String,
    /// Whose time counts: `receive` or `ingest`.
    pub time: &'static str,
    /// What is odd about its times: each of it changed which runs were made.
    pub odd_times: OddTimes,
    /// What it holds.
    #[serde(flatten)]
    pub receipts: ReceiptFigures,
}

/// Counts along recorded time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OverTimeReport {
    /// Receipts.
    pub receipts: Steps<ReceiptCounts>,
    /// Runs and their outputs, in steps of whole intervals of the schedule.
    pub runs: Steps<RunCounts>,
}

/// Speed of a backtest.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Performance {
    /// From the start of the tree, with the engine up, to its ordered end.
    pub wall_seconds: f64,
    /// Receipts in one second of it.
    pub receipts_per_second: f64,
    /// Recorded time in one second of it; how often faster than live.
    pub speed_up: f64,
    /// Cycles in one second of it; only where the backtest had some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles_per_second: Option<f64>,
    /// The engine's calls.
    pub engine_calls: EngineCalls,
}

/// Latency of the engine calls.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EngineCalls {
    /// How many were made.
    pub calls: u64,
    /// How many of them gave no answer.
    pub failed: u64,
    /// Half took no longer, in milliseconds; as the other quantiles at most 4.5 % too large.
    pub p50_ms: f64,
    /// 95 of 100 took no longer.
    pub p95_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// How many took how long, by doublings.
    pub histogram: Vec<Class>,
}

/// Facts that a report is made from, besides the logs.
pub struct Input<'a> {
    /// The configuration as it was staged.
    pub config: &'a Config,
    /// What of it was replaced.
    pub replaced: Vec<String>,
    /// What the capture is called.
    pub capture: String,
    /// Whose time counts.
    pub time: &'static str,
}

impl BacktestReport {
    /// Reads the logs of a backtest.
    ///
    /// # Errors
    ///
    /// A log cannot be read.
    pub async fn from_logs(input: Input<'_>, played: &Played) -> Result<Self, ReadError> {
        // Who answered is taken from the runs.
        let manifest = manifest::manifest_of(input.config, EngineIdentity::default());
        let schedule = schedule_report(input.config.schedule.cadence);
        let Played { receipts, runs, quarantine, .. } = played;
        let figures = figures::read_figures(
            receipts.as_ref(),
            runs.as_ref(),
            quarantine.as_ref(),
            schedule.interval_ms,
        )
        .await?;
        let trading = match &played.journal {
            Some(journal) => Some(read_cycle_figures(journal.as_ref()).await?),
            None => None,
        };
        let (complete, incomplete_because) = match &played.end {
            End::Complete => (true, None),
            End::Unreadable(detail) => (false, Some(detail.clone())),
            End::Interrupted => (false, Some("it was interrupted".to_owned())),
        };
        let conditions = played.conditions.iter();
        let conditions = conditions.map(|(condition, detail)| ReportedCondition {
            condition: condition.clone(),
            detail: detail.clone(),
        });
        Ok(Self {
            schema: "orchestrator_backtest_report",
            schema_version: "1",
            complete,
            incomplete_because,
            conditions: conditions.collect(),
            manifest: Provenance {
                orchestrator_version: VERSION,
                config_hash: manifest.config_hash(),
                settings: manifest.settings,
                tz_database: manifest.tz_database,
                replaced: input.replaced,
                engine_mode: input.config.engine.mode,
                engines: figures.engines,
                schedule,
            },
            performance: performance_report(played, &figures.receipts, trading.as_ref()),
            capture: CaptureReport {
                name: input.capture,
                time: input.time,
                odd_times: played.times.clone(),
                receipts: figures.receipts,
            },
            runs: figures.runs,
            trading,
            over_time: OverTimeReport {
                receipts: figures.receipts_over_time.to_steps(),
                runs: figures.runs_over_time.to_steps(),
            },
            regimes: figures.regimes,
        })
    }
}

impl ReceiptFigures {
    /// From the first to the last receipt, in milliseconds.
    #[must_use]
    pub fn span_ms(&self) -> i64 {
        match (self.first_ts_ms, self.last_ts_ms) {
            (Some(first), Some(last)) => last.0.saturating_sub(first.0),
            (None, _) | (_, None) => 0,
        }
    }
}

const fn schedule_report(cadence: Cadence) -> ScheduleReport {
    match cadence {
        Cadence::Boundary { interval_ms, delay_ms } => {
            ScheduleReport { mode: "boundary", interval_ms, delay_ms: Some(delay_ms), align_ms: None }
        }
        Cadence::Timer { interval_ms, align_ms } => {
            ScheduleReport { mode: "timer", interval_ms, delay_ms: None, align_ms: Some(align_ms) }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates for people to look at")]
fn performance_report(
    played: &Played,
    receipts: &ReceiptFigures,
    cycles: Option<&CycleFigures>,
) -> Performance {
    let wall_seconds = played.took.as_secs_f64();
    let a_second = |amount: f64| if wall_seconds > 0.0 { amount / wall_seconds } else { 0.0 };
    let latency = &played.latency;
    Performance {
        wall_seconds,
        receipts_per_second: a_second(receipts.receipts as f64),
        speed_up: a_second(receipts.span_ms() as f64 / 1e3),
        cycles_per_second: cycles.map(|cycles| a_second(cycles.ended_total() as f64)),
        engine_calls: EngineCalls {
            calls: latency.calls_total(),
            failed: latency.failed_total(),
            p50_ms: latency.quantile_ms(500),
            p95_ms: latency.quantile_ms(950),
            p99_ms: latency.quantile_ms(990),
            max_ms: latency.max_ms(),
            histogram: latency.to_histogram(),
        },
    }
}
