//! One cycle of the trading plane, as the journal has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::log::{Log, LogName};
use orchestrator_kernel::trading::decision::TradeDecision;
use orchestrator_kernel::trading::gate::{GateDecided, GateKind, GatePlace, GateVerdict};
use orchestrator_kernel::trading::ids::{CommandId, CycleId, JournalSeq};
use orchestrator_kernel::trading::journal::{
    CommandReceived, CycleCause, CycleEnded, CycleStarted, JournalEntry, JournalFact, OrderIntended,
    ScheduleFired, SealedEntry, StageEnded, StageOutcome,
};
use orchestrator_kernel::trading::risk::{RiskOutcome, RiskVerdict};
use serde::Serialize;
use serde_json::Value;

use super::InspectError;
use super::text::{InspectPage, moment_text};
use crate::offline::recorded::{LogCursor, LogError};

/// Cycles of an ambiguous beginning that are named.
const EXAMPLES_MAX: usize = 5;

/// A cycle and everything that is on record of it.
#[derive(Debug, Serialize)]
pub struct RecordedCycle {
    /// The cycle.
    pub cycle_id: CycleId,
    /// `started` while it has not ended, then `ok`, `degraded`, `blocked` or `failed`.
    pub status: &'static str,
    /// Whether its first records are not in the journal any more.
    pub is_trimmed: bool,
    /// The fire that it is the cycle of.
    pub fired: Option<ScheduleFired>,
    /// The command that it began for.
    pub command: Option<CommandReceived>,
    /// How it began.
    pub started: Option<Box<CycleStarted>>,
    /// What was recorded of it, in order.
    pub records: Vec<CycleRecord>,
    /// Decisions that it began with or made, in order.
    pub decisions: Vec<TradeDecision>,
    /// What RISK said of them.
    pub verdicts: Vec<RiskVerdict>,
    /// Orders that it intended.
    pub orders: Vec<OrderIntended>,
    /// How it ended.
    pub ended: Option<Box<CycleEnded>>,
}

/// One record of a cycle.
#[derive(Debug, Serialize)]
pub struct CycleRecord {
    /// Its position in the journal.
    pub seq: JournalSeq,
    /// When it was made.
    pub at_ms: TsMs,
    /// What kind.
    pub kind: &'static str,
    /// What it says.
    pub fact: Value,
    /// The same as a line for people.
    #[serde(skip)]
    line: Option<String>,
}

impl RecordedCycle {
    const fn new(cycle_id: CycleId) -> Self {
        Self {
            cycle_id,
            status: "started",
            is_trimmed: false,
            fired: None,
            command: None,
            started: None,
            records: Vec::new(),
            decisions: Vec::new(),
            verdicts: Vec::new(),
            orders: Vec::new(),
            ended: None,
        }
    }

    fn take_entry(&mut self, seq: JournalSeq, entry: &JournalEntry) {
        let mut line = None;
        match &entry.fact {
            JournalFact::ScheduleFired(fired) => self.fired = Some(fired.clone()),
            JournalFact::CycleStarted(started) => {
                self.decisions.extend(started.decisions.iter().cloned());
                self.started = Some(started.clone());
            }
            JournalFact::GateDecided(decided) => line = Some(self.gates_line(decided)),
            JournalFact::StageEnded(ended) => {
                line = Some(stage_line(ended));
                if let StageOutcome::Done(output) = &ended.outcome {
                    self.decisions.extend(output.decisions.iter().cloned());
                    self.verdicts.extend(output.verdicts.iter().cloned());
                }
            }
            JournalFact::OrderIntended(intent) => self.orders.push((**intent).clone()),
            JournalFact::CycleEnded(ended) => {
                self.status = ended.status.as_str();
                self.ended = Some(ended.clone());
            }
            JournalFact::CommandReceived(_)
            | JournalFact::CommandEnded(_)
            | JournalFact::AgentChanged(_)
            | JournalFact::StrategyChanged(_)
            | JournalFact::ScheduleSkipped(_)
            | JournalFact::AlertRaised(_)
            | JournalFact::AlertCleared(_)
            | JournalFact::ConfigurationSnapshot(_)
            | JournalFact::KillLatched(_) => {}
        }
        let (kind, fact) = (entry.fact.kind_word(), entry.fact.to_body());
        self.records.push(CycleRecord { seq, at_ms: entry.at_ms, kind, fact, line });
    }

    /// The name of the stage at this place of the pipeline.
    fn stage_name(&self, index: u16) -> String {
        let pipeline = self.started.as_ref().map(|started| &started.pipeline);
        let stage = pipeline.and_then(|pipeline| pipeline.stages.get(usize::from(index)));
        stage.map_or_else(|| format!("stage {index}"), |stage| stage.name.to_string())
    }

    fn gates_line(&self, decided: &GateDecided) -> String {
        let place = match &decided.place {
            GatePlace::Before(stage) => format!("before {}", self.stage_name(*stage)),
            GatePlace::After(stage) => format!("after {}", self.stage_name(*stage)),
            GatePlace::BeforeIntent(decision) => format!("before the order of {decision}"),
        };
        let mut line = match decided.first_denial() {
            Some((gate, why)) => format!("gates {place}: denied by {}: {why}", gate_name(gate)),
            None => format!("gates {place}: allowed ({})", gate_names(decided)),
        };
        let noted = decided.checks.iter().filter_map(|check| match &check.verdict {
            GateVerdict::Noted(why) => Some((&check.gate, why)),
            GateVerdict::Allow | GateVerdict::Deny(_) => None,
        });
        for (gate, why) in noted {
            // Writing to a string has no way to fail.
            write!(line, "; {} would deny: {why}", gate_name(gate)).unwrap_or_default();
        }
        line
    }
}

fn gate_name(gate: &GateKind) -> String {
    match gate {
        GateKind::Hook(name) => format!("hook {name}"),
        GateKind::RiskMissing
        | GateKind::KillSwitch
        | GateKind::Agent
        | GateKind::Strategy
        | GateKind::Session
        | GateKind::Staleness
        | GateKind::Degraded => gate.gate_word().to_owned(),
    }
}

fn gate_names(decided: &GateDecided) -> String {
    decided.checks.iter().map(|check| gate_name(&check.gate)).collect::<Vec<_>>().join(", ")
}

fn stage_line(ended: &StageEnded) -> String {
    let StageEnded { name, attempts, took_ms, outcome, .. } = ended;
    let outcome = match outcome {
        StageOutcome::Done(output) => {
            let mut parts = vec!["done".to_owned()];
            let counts = [
                (output.decisions.len(), "decisions"),
                (output.verdicts.len(), "verdicts"),
                (output.failures.len(), "strategies failed"),
            ];
            parts.extend(
                counts.iter().filter(|(count, _)| 0 < *count).map(|(count, of)| format!("{count} {of}")),
            );
            parts.join(", ")
        }
        StageOutcome::Failed(error) => format!("failed: {error}"),
    };
    format!("stage {name}: {outcome} ({took_ms} ms, attempts {attempts})")
}

/// The only cycle whose id begins with `prefix`.
///
/// # Errors
///
/// [`InspectError`]; [`InspectError::NotFound`] also where there is no journal.
pub(super) async fn find_cycle(
    journal: Option<&dyn Log>,
    prefix: &str,
) -> Result<RecordedCycle, InspectError> {
    let Some(journal) = journal else {
        return Err(InspectError::NotFound("there is no journal, so there are no cycles".to_owned()));
    };
    let prefix = prefix.to_ascii_lowercase();
    let mut commands: BTreeMap<CommandId, CommandReceived> = BTreeMap::new();
    let mut found: Option<RecordedCycle> = None;
    let mut ids = BTreeSet::new();
    let mut records = LogCursor::over_all(journal, LogName::Journal);
    while let Some((seq, payload)) = records.next().await? {
        let sealed = SealedEntry::decode(payload);
        let SealedEntry { entry, .. } =
            sealed.map_err(|error| LogError::corrupt_record(LogName::Journal, seq, &error))?;
        note_commands(&mut commands, &entry.fact);
        let Some(id) = cycle_of(&entry.fact).filter(|id| id.to_string().starts_with(&prefix)) else {
            continue;
        };
        ids.insert(id);
        if EXAMPLES_MAX < ids.len() {
            break;
        }
        let cycle = found.get_or_insert_with(|| RecordedCycle::new(id));
        if cycle.cycle_id == id {
            if let JournalFact::CycleStarted(started) = &entry.fact
                && let CycleCause::Command(command) = &started.cause
            {
                cycle.command = commands.get(command).cloned();
            }
            cycle.take_entry(seq.into(), &entry);
        }
    }
    match found {
        None => Err(InspectError::NotFound(format!("no cycle of this journal begins with {prefix}"))),
        Some(_) if 1 < ids.len() => {
            let examples = ids.into_iter().take(EXAMPLES_MAX).map(|id| id.to_string()).collect();
            Err(InspectError::AmbiguousCycle { prefix, examples })
        }
        Some(mut cycle) => {
            let begins = cycle.started.is_some() || cycle.fired.is_some();
            cycle.is_trimmed = !begins || (cycle.started.is_none() && cycle.ended.is_some());
            Ok(cycle)
        }
    }
}

/// The cycle that a record belongs to; a fire belongs to the cycle that it leads to.
const fn cycle_of(fact: &JournalFact) -> Option<CycleId> {
    match fact {
        JournalFact::ScheduleFired(fired) => Some(fired.cycle_id),
        other => other.cycle_id(),
    }
}

/// Remembers the commands that have no result yet: a cycle begins for one of them.
fn note_commands(commands: &mut BTreeMap<CommandId, CommandReceived>, fact: &JournalFact) {
    match fact {
        JournalFact::CommandReceived(received) => {
            commands.insert(received.command_id, received.clone());
        }
        JournalFact::CommandEnded(ended) => {
            commands.remove(&ended.command_id);
        }
        _ => {}
    }
}

impl InspectPage {
    /// The cycle for people: why it fired, what happened in it, what was decided, what came out.
    pub(super) fn push_cycle(&mut self, cycle: &RecordedCycle) {
        self.push_title(&format!("cycle {}", cycle.cycle_id));
        if let Some(started) = &cycle.started {
            let orders = if started.dry_run { ", dry run" } else { "" };
            let mode = serde_json::to_value(started.mode).ok();
            let mode = mode.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
            self.push_item("type", &format!("{}, {mode}{orders}", started.pipeline.name));
            self.push_item("exchange's date", &started.as_of_date);
            let names: Vec<&str> = started.strategies.iter().map(|name| name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            self.push_item("strategies", &names);
        }
        if cycle.is_trimmed {
            self.push_item("beginning", "no longer in the journal");
        }
        self.push_why(cycle);
        self.push_title("\nwhat happened");
        for record in &cycle.records {
            if let Some(line) = &record.line {
                self.push_line(&format!("{} {line}", record.seq));
            }
        }
        self.push_title("\nwhat was decided");
        if cycle.decisions.is_empty() {
            self.push_item("nothing", "");
        }
        for decision in &cycle.decisions {
            self.push_decision(decision, cycle);
        }
        self.push_orders(cycle);
        self.push_result(cycle);
    }

    fn push_why(&mut self, cycle: &RecordedCycle) {
        self.push_title("\nwhy it fired");
        if let Some(fired) = &cycle.fired {
            let trigger = fired.trigger.to_text();
            self.push_item("schedule", &format!("{}, fire {}, {trigger}", fired.schedule, fired.fire));
            self.push_item("planned", &moment_text(fired.planned_ts_ms));
        }
        if let Some(command) = &cycle.command {
            self.push_item("command", &format!("{} from {}: {}", command.name, command.from, command.body));
        }
        if let Some(started) = &cycle.started {
            if let (CycleCause::Command(id), None) = (&started.cause, &cycle.command) {
                self.push_item("command", &format!("{id}, which is no longer in the journal"));
            }
            self.push_item("started", &moment_text(started.started_at));
        }
    }

    fn push_decision(&mut self, decision: &TradeDecision, cycle: &RecordedCycle) {
        let TradeDecision { decision_id, symbol, strategy, action, confidence, reasoning, .. } = decision;
        let quantity =
            decision.suggested_quantity.map_or_else(String::new, |quantity| format!(" {quantity}"));
        let verdict = cycle.verdicts.iter().rfind(|verdict| verdict.decision_id == *decision_id);
        let risk = match verdict.map(|verdict| &verdict.outcome) {
            None => "RISK has said nothing".to_owned(),
            Some(RiskOutcome::Allowed { quantity, price, .. }) => {
                format!("RISK allows {quantity} at {price}")
            }
            Some(RiskOutcome::Held) => "it wants nothing".to_owned(),
            Some(RiskOutcome::Denied(rule)) => format!("RISK denies: {}", rule.as_str()),
        };
        let what = format!("{}{quantity} {symbol}", action.as_str());
        self.push_line(&format!(
            "{decision_id}: {what} for {strategy}, confidence {}, \"{reasoning}\"; {risk}",
            confidence.get()
        ));
    }

    fn push_orders(&mut self, cycle: &RecordedCycle) {
        self.push_title("\norders");
        if cycle.orders.is_empty() {
            self.push_item("none", "");
        }
        for order in &cycle.orders {
            let word = |value: Result<Value, serde_json::Error>| {
                value.ok().as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let (side, end) = (word(serde_json::to_value(order.side)), word(serde_json::to_value(order.end)));
            self.push_line(&format!(
                "{}: {side} {} {} at {} for {}: {end}",
                order.decision_id, order.quantity, order.symbol, order.price, order.strategy
            ));
        }
    }

    fn push_result(&mut self, cycle: &RecordedCycle) {
        self.push_title("\nresult");
        self.push_item("status", cycle.status);
        let Some(ended) = &cycle.ended else {
            self.push_item("end", "it has not ended");
            return;
        };
        self.push_item("reason", &ended.reason.to_line());
        self.push_item("ended", &format!("{}, after {} ms", moment_text(ended.finished_at), ended.spent_ms));
        let counts = ended.counts;
        let counted = format!(
            "{} strategies, {} decisions, {} orders",
            counts.strategies_processed, counts.decisions, counts.intents
        );
        self.push_item("counts", &counted);
        for error in &ended.errors {
            let stage = error.stage.as_ref().map_or_else(String::new, |stage| format!("{stage}: "));
            self.push_item("error", &format!("{stage}{} {}", error.code.as_str(), error.detail));
        }
        if ended.audit_failed {
            self.push_item("audit", "failed: the agent went to error");
        }
    }
}
