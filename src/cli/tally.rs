//! What the demo shows of the run log: lines as runs end, counts, a summary.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator_kernel::engine::contracts::engine_run::{RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::orchestrator_event::{outputs_of, selected_output};
use orchestrator_kernel::error::ErrorKind;
use orchestrator_kernel::ids::{Seq, Symbol, TsMs};
use orchestrator_kernel::ports::engine::EngineAnswer;
use orchestrator_kernel::ports::log::{Log, ReadError, ReadLimit};
use serde::Deserialize;

/// Counts of the run log up to a position.
#[derive(Debug, Default)]
pub(super) struct Tally {
    seen: Seq,
    completed: u64,
    failed: BTreeMap<ErrorKind, u64>,
    regimes: BTreeMap<String, u64>,
    outputs: u64,
    /// The symbols that have a column; the first few that come.
    columns: Vec<Symbol>,
    /// What the current tick gave for each symbol.
    row: Option<(TsMs, BTreeMap<Symbol, String>)>,
}

/// Columns that fit a terminal of 80 characters.
const COLUMNS_MAX: usize = 4;
/// Width of the longest regime, and a space.
const COLUMN_WIDTH: usize = 17;

#[derive(Deserialize)]
struct Output<'a> {
    regime: &'a str,
}

impl Tally {
    /// Reads what was added to the run log; shows one line a tick.
    pub(super) async fn follow_run_log(
        &mut self,
        runs: &dyn Log,
        mut show: impl FnMut(&str),
    ) -> Result<(), ReadError> {
        loop {
            let batch = runs.read(self.seen.next(), ReadLimit::default()).await?;
            if batch.is_empty() {
                return Ok(());
            }
            for (seq, payload) in batch.iter() {
                self.seen = seq;
                if let Ok(record) = RunRecord::decode(payload) {
                    self.take_record(&record, &mut show);
                }
            }
        }
    }

    fn take_record(&mut self, record: &RunRecord, show: &mut impl FnMut(&str)) {
        self.outputs += outputs_of(record);
        let word = match &record.status {
            RunStatus::Started { .. } => return,
            RunStatus::Failed { error_kind, .. } => {
                *self.failed.entry(*error_kind).or_default() += 1;
                match error_kind {
                    ErrorKind::MissingSnapshotInputs => "(no snapshot)".to_owned(),
                    ErrorKind::SnapshotBuildFailure
                    | ErrorKind::EngineFailure
                    | ErrorKind::EngineTimeout
                    | ErrorKind::EngineUnavailable
                    | ErrorKind::HysteresisMonotonicityViolation
                    | ErrorKind::Shutdown => "(failed)".to_owned(),
                }
            }
            RunStatus::Completed { answer, .. } => {
                self.completed += 1;
                self.regime_text(answer)
            }
        };
        let at = record.facts.engine_timestamp_ms;
        if self.row.as_ref().is_some_and(|(tick, _)| *tick != at) {
            self.last_tick(&mut *show);
        }
        let (_, row) = self.row.get_or_insert_with(|| (at, BTreeMap::new()));
        row.insert(record.facts.symbol.clone(), word);
    }

    /// Shows the current tick, which no later one has completed.
    pub(super) fn last_tick(&mut self, mut show: impl FnMut(&str)) {
        let Some((at, row)) = self.row.take() else { return };
        if self.columns.is_empty() {
            self.columns = row.keys().take(COLUMNS_MAX).cloned().collect();
            show("");
            show(&table_row("time, UTC", self.columns.iter().map(Symbol::as_str)));
        }
        let cells = self.columns.iter().map(|symbol| row.get(symbol).map_or("", String::as_str));
        show(&table_row(&clock_time(at), cells));
    }

    fn regime_text(&mut self, answer: &EngineAnswer) -> String {
        let output = match answer {
            EngineAnswer::Truth { regime_output } => Some(regime_output.as_str()),
            EngineAnswer::Hysteresis { decision, .. } => {
                selected_output(decision).ok().map(serde_json::value::RawValue::get)
            }
        };
        match output.and_then(|output| serde_json::from_str::<Output<'_>>(output).ok()) {
            Some(Output { regime }) => {
                *self.regimes.entry(regime.to_owned()).or_default() += 1;
                regime.to_owned()
            }
            None => "answered".to_owned(),
        }
    }

    fn failures_total(&self) -> u64 {
        self.failed.values().sum()
    }

    /// The live line.
    pub(super) fn live_line(&self, elapsed: Duration, receipts: Seq) -> String {
        let seconds = elapsed.as_secs_f64();
        format!(
            "{seconds:>4.0} s   {} receipts durable   {} runs completed, {} failed   {} outputs",
            receipts.0,
            self.completed,
            self.failures_total(),
            self.outputs,
        )
    }

    /// What happened in all.
    pub(super) fn summary_text(&mut self, elapsed: Duration, receipts: Seq, quarantined: Seq) -> String {
        let mut text = format!(
            "In {:.0} s: {} receipts made durable, {} undecodable ones kept in the quarantine,\n{} runs completed, {} failed, {} outputs published in order.\n",
            elapsed.as_secs_f64(),
            receipts.0,
            quarantined.0,
            self.completed,
            self.failures_total(),
            self.outputs,
        );
        for (kind, count) in &self.failed {
            let why = match kind {
                ErrorKind::MissingSnapshotInputs => {
                    "  (the feed leaves a snapshot out now and then, to show it)"
                }
                ErrorKind::SnapshotBuildFailure
                | ErrorKind::EngineFailure
                | ErrorKind::EngineTimeout
                | ErrorKind::EngineUnavailable
                | ErrorKind::HysteresisMonotonicityViolation
                | ErrorKind::Shutdown => "",
            };
            text.push_str(&format!("  {count:>5}  {kind}{why}\n"));
        }
        for (regime, count) in &self.regimes {
            text.push_str(&format!("  {count:>5}  {regime}\n"));
        }
        text
    }
}

fn table_row<'a>(first: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let mut line = format!("{first:<10}");
    for cell in cells {
        line.extend(cell.chars().chain(std::iter::repeat(' ')).take(COLUMN_WIDTH - 1));
        line.push(' ');
    }
    line.trim_end().to_owned()
}

/// Hours, minutes and seconds of a moment, UTC.
fn clock_time(at: TsMs) -> String {
    let seconds = at.0.div_euclid(1000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
