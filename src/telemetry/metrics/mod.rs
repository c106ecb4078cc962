//! The metrics: every observation of the kernel's port, counted and written for a scrape.
//!
//! One lock covers observing and encoding, so that the conservation laws of
//! [`metric_names`](orchestrator_kernel::metric_names) hold in every scrape and not only between two of them.
//! Observations are made per batch and per run, not per receipt.

mod exposition;
mod registers;
#[cfg(test)]
mod tests;
mod trading;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::clock::Clock;
use orchestrator_kernel::ports::observer::{Observation, Observer};

use crate::process::version::BuildIdentity;
pub use exposition::CONTENT_TYPE;

use registers::{OUTCOME_OK, Registers};
use trading::TradingRegisters;

/// Counts observations. Share it: the actors observe, the HTTP interface encodes.
pub struct Metrics {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    registers: Registers,
    /// While the trading plane is on.
    trading: Option<TradingRegisters>,
    totals: Totals,
    last_ingest_ts: Option<TsMs>,
}

/// The terms of the conservation laws.
#[derive(Default)]
struct Totals {
    received: u64,
    settled: u64,
    ingested: Ingested,
    runs_started: u64,
    runs_ended: u64,
    outputs_due: u64,
    outputs_skipped: u64,
    outputs_held: u64,
    outputs_published: u64,
    backlog_known: bool,
}

/// Items that were settled since the start of the process, by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ingested {
    /// Receipts that became durable.
    pub appended: u64,
    /// Retransmissions that were recognised.
    pub duplicate: u64,
    /// Items that are no receipts, kept in the quarantine.
    pub quarantined: u64,
}

impl Metrics {
    /// Nothing observed yet. `clock` stamps the receipts: the age of the buffer is taken by it. `started_at` is the
    /// wall clock's time at the start of the process, `build` says what the binary is.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, started_at: TsMs, build: BuildIdentity) -> Self {
        let registers = Registers::new(started_at, build);
        let state = State { registers, trading: None, totals: Totals::default(), last_ingest_ts: None };
        Self { clock, state: Mutex::new(state) }
    }

    /// The same with the trading plane's metrics.
    #[must_use]
    pub fn with_trading(self) -> Self {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.trading = Some(TradingRegisters::new(&mut state.registers.registry));
        drop(state);
        self
    }

    /// What became of the items so far.
    #[must_use]
    pub fn ingested_totals(&self) -> Ingested {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).totals.ingested
    }

    /// Writes all metrics in the text format of Prometheus; serve it as [`CONTENT_TYPE`].
    ///
    /// # Errors
    ///
    /// [`fmt::Error`] when a value cannot be written, which the types rule out.
    pub fn encode_text(&self) -> Result<String, fmt::Error> {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.derive_gauges(now);
        let mut text = String::new();
        prometheus_client::encoding::text::encode_registry(&mut text, &state.registers.registry)?;
        drop(state);
        Ok(exposition::to_prometheus_text(&text))
    }
}

impl Observer for Metrics {
    fn observe(&self, observation: &Observation<'_>) {
        // A panic while observing leaves at worst one count missing: go on counting.
        self.state.lock().unwrap_or_else(PoisonError::into_inner).count_observation(observation);
    }
}

impl State {
    /// Sets the gauges that follow from others.
    fn derive_gauges(&mut self, now: Option<TsMs>) {
        let totals = &self.totals;
        self.registers.in_flight.set(gauge_difference(totals.received, totals.settled));
        self.registers.runs_in_flight.set(gauge_difference(totals.runs_started, totals.runs_ended));
        // Not what the publisher said last: runs end and outputs are confirmed between two of its reports.
        let elsewhere = totals.outputs_published + totals.outputs_skipped + totals.outputs_held;
        self.registers.backlog.set(gauge_difference(totals.outputs_due, elsewhere));
        let age = match (now, self.last_ingest_ts) {
            (Some(now), Some(last)) => now.0.saturating_sub(last.0).max(0) as f64 / 1000.0,
            (None, _) | (_, None) => f64::NAN,
        };
        self.registers.buffer_age.set(age);
        if let Some(trading) = &self.trading {
            trading.derive_gauges(now);
        }
    }

    fn count_observation(&mut self, observation: &Observation<'_>) {
        let registers = &mut self.registers;
        match *observation {
            Observation::ItemsReceived { count } => {
                self.totals.received += count;
                registers.received.inc_by(count);
            }
            Observation::ItemsRefused { count } => {
                self.totals.settled += count;
                registers.refused.inc_by(count);
            }
            Observation::ReceiptsAppended { source_id, event_type, count } => {
                self.totals.settled += count;
                self.totals.ingested.appended += count;
                registers.appended.add_count([source_id.as_str(), event_type.as_str()], count);
            }
            Observation::ItemsDuplicate { count } => {
                self.totals.settled += count;
                self.totals.ingested.duplicate += count;
                registers.duplicate.inc_by(count);
            }
            Observation::ItemQuarantined { reason } => {
                self.totals.settled += 1;
                self.totals.ingested.quarantined += 1;
                registers.quarantined.add_count([reason], 1);
            }
            Observation::ProducersKnown { count } => drop(registers.producers.set(to_gauge(count))),
            Observation::ProducerDenied => drop(registers.producers_denied.inc()),
            Observation::ProducerForgotten => drop(registers.producers_forgotten.inc()),
            Observation::SourceOddity { word, count } => registers.oddities.add_count([word], count),
            Observation::ReceiptsFlushed { seconds, records } => {
                registers.flush_duration.observe(seconds);
                registers.flush_records.observe(records as f64);
            }
            Observation::BufferDepth { records, bytes, last_ingest_ts } => {
                registers.buffer_records.set(to_gauge(records));
                registers.buffer_bytes.set(to_gauge(bytes));
                self.last_ingest_ts = Some(last_ingest_ts);
            }
            Observation::LogTrimmed { log, records } => registers.trimmed.add_count([log.as_str()], records),
            Observation::RetentionFailed => drop(registers.retention_failures.inc()),
            Observation::CheckpointDamaged { name } => registers.checkpoints_damaged.add_count([name], 1),
            Observation::AppendFailed { log } => registers.append_failures.add_count([log.as_str()], 1),
            Observation::Tick { lag_seconds, runs } => {
                registers.ticks.inc();
                registers.lag.observe(lag_seconds);
                registers.runs_planned.inc_by(runs);
            }
            Observation::TickSkipped { reason, count } => {
                registers.runs_skipped.add_count([reason.as_str()], count)
            }
            Observation::RunStarted => {
                self.totals.runs_started += 1;
                registers.runs_started.inc();
            }
            Observation::RunEnded { error, seconds, outputs } => self.run_ended(error, seconds, outputs),
            Observation::EngineCalled { error, seconds } => {
                registers.engine_calls.add_count([error.map_or(OUTCOME_OK, ErrorKind::as_str)], 1);
                registers.engine_call_duration.observe(seconds);
            }
            Observation::OutputsPublished { event_type, count } => {
                self.totals.outputs_published += count;
                registers.outputs_published.add_count([event_type], count);
            }
            Observation::OutputsSkipped { count } => {
                self.totals.outputs_skipped += count;
                registers.outputs_skipped.inc_by(count);
            }
            Observation::OutputsHeld { outputs, symbols } => {
                self.totals.outputs_held = outputs;
                registers.held.set(to_gauge(outputs));
                registers.held_symbols.set(to_gauge(symbols));
            }
            Observation::PublishLatency { seconds } => registers.publish_latency.observe(seconds),
            Observation::PublishBacklog { outputs } => self.note_backlog(outputs),
            Observation::PublishBlocked { seconds } => {
                registers.publish_blocked.inc_by(seconds);
            }
            Observation::KillSwitch { state, age_seconds } => {
                registers.kill_switch_state.set_state(state);
                registers.kill_switch_age.set(age_seconds.unwrap_or(f64::NAN));
            }
            Observation::KillSwitchEntered { state } => {
                registers.kill_switch_transitions.add_count([state], 1)
            }
            Observation::KillSwitchReadFailed => {
                registers.kill_switch_read_failures.inc();
            }
            Observation::EffectRefused { reason } => registers.kill_switch_refusals.add_count([reason], 1),
            Observation::Trading(_)
            | Observation::HistoryLag { .. }
            | Observation::HistoryFailed
            | Observation::HistoryRecordSkipped
            | Observation::EventsPublished { .. }
            | Observation::EventsLag { .. }
            | Observation::EventsFailed
            | Observation::EventTaken { .. } => {
                if let Some(trading) = &mut self.trading {
                    trading.count_observation(observation);
                }
            }
            Observation::ActorExited { actor, verdict } => {
                registers.actor_exits.add_count([actor, verdict], 1)
            }
            Observation::SymbolHalted { symbol } => registers.symbols_halted.add_count([symbol.as_str()], 1),
            Observation::Failure { domain } => registers.failures.add_count([domain.as_str()], 1),
        }
    }

    fn run_ended(&mut self, error: Option<ErrorKind>, seconds: f64, outputs: u64) {
        let registers = &mut self.registers;
        self.totals.runs_ended += 1;
        match error {
            None => {
                registers.runs_completed.inc();
            }
            Some(kind) => registers.runs_failed.add_count([kind.as_str()], 1),
        }
        registers.run_duration.observe(seconds);
        self.totals.outputs_due += outputs;
        registers.outputs_due.inc_by(outputs);
    }

    fn note_backlog(&mut self, outputs: u64) {
        let totals = &mut self.totals;
        if !totals.backlog_known {
            // What an earlier process left to be published is due as well, but no run of this one tells of it.
            let there = totals.outputs_published + totals.outputs_held + outputs;
            let left = there.saturating_sub(totals.outputs_due);
            self.registers.outputs_due.inc_by(left);
            totals.outputs_due += left;
            totals.backlog_known = true;
        }
    }
}

/// What is left. Negative when more ended than began: that is a miscount, and must be seen.
fn gauge_difference(began: u64, ended: u64) -> i64 {
    to_gauge(began).saturating_sub(to_gauge(ended))
}

fn to_gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
