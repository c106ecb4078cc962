//! Counts what the journal of a backtest says of its cycles.

use std::collections::BTreeMap;

use orchestrator_kernel::ids::{Seq, Symbol};
use orchestrator_kernel::ports::log::{Log, ReadError};
use orchestrator_kernel::trading::ids::PipelineName;
use orchestrator_kernel::trading::journal::{IntentSide, JournalFact, SealedEntry};
use serde::Serialize;

use super::figures::{corrupt_record, scan_log};

/// Figures of the journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CycleFigures {
    /// Records of the journal.
    pub records: u64,
    /// The hash that its chain ends with: equal journals have equal ones.
    pub chain_hash: String,
    /// Cycles that began.
    pub started: u64,
    /// Cycles that ended, by status.
    pub ended: BTreeMap<&'static str, u64>,
    /// Cycles that began, by pipeline.
    pub by_pipeline: BTreeMap<PipelineName, u64>,
    /// Decisions of cycles that ended.
    pub decisions: u64,
    /// Order intents. None was sent.
    pub intents: u64,
    /// Order intents by symbol and side.
    pub intents_by_symbol: BTreeMap<Symbol, IntentCounts>,
    /// Errors of cycles, by code.
    pub errors: BTreeMap<&'static str, u64>,
    /// Fires that began no cycle, by reason.
    pub fires_skipped: BTreeMap<&'static str, u64>,
}

/// Order intents of a symbol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IntentCounts {
    /// To buy.
    pub buy: u64,
    /// To sell.
    pub sell: u64,
}

impl CycleFigures {
    /// Cycles that ended.
    #[must_use]
    pub fn ended_total(&self) -> u64 {
        self.ended.values().sum()
    }

    fn add_record(&mut self, seq: Seq, payload: &[u8]) -> Result<(), ReadError> {
        let SealedEntry { entry, hash } =
            SealedEntry::decode(payload).map_err(|error| corrupt_record(seq, &error))?;
        self.records += 1;
        self.chain_hash = hash.to_string();
        match entry.fact {
            JournalFact::CycleStarted(started) => {
                self.started += 1;
                *self.by_pipeline.entry(started.pipeline.name).or_default() += 1;
            }
            JournalFact::CycleEnded(ended) => {
                *self.ended.entry(ended.status.as_str()).or_default() += 1;
                self.decisions += u64::from(ended.counts.decisions);
                for error in &ended.errors {
                    *self.errors.entry(error.code.as_str()).or_default() += 1;
                }
            }
            JournalFact::OrderIntended(intent) => {
                self.intents += 1;
                let of_symbol = self.intents_by_symbol.entry(intent.symbol.clone()).or_default();
                match intent.side {
                    IntentSide::Buy => of_symbol.buy += 1,
                    IntentSide::Sell => of_symbol.sell += 1,
                }
            }
            JournalFact::ScheduleSkipped(skipped) => {
                *self.fires_skipped.entry(skipped.reason.as_str()).or_default() += skipped.fires;
            }
            JournalFact::CommandReceived(_)
            | JournalFact::CommandEnded(_)
            | JournalFact::AgentChanged(_)
            | JournalFact::StrategyChanged(_)
            | JournalFact::ScheduleFired(_)
            | JournalFact::GateDecided(_)
            | JournalFact::StageEnded(_)
            | JournalFact::AlertRaised(_)
            | JournalFact::AlertCleared(_)
            | JournalFact::ConfigurationSnapshot(_)
            | JournalFact::KillLatched(_) => {}
        }
        Ok(())
    }
}

/// Counts what the journal holds.
pub(super) async fn read_cycle_figures(journal: &dyn Log) -> Result<CycleFigures, ReadError> {
    let mut figures = CycleFigures::default();
    scan_log(journal, |seq, payload| figures.add_record(seq, payload)).await?;
    Ok(figures)
}
