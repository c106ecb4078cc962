//! What stands around the first difference: the run, its receipts, its snapshot, and both answers.

use orchestrator_kernel::engine::contracts::engine_run::{RunFacts, RunRecord, RunStatus};
use orchestrator_kernel::engine::contracts::raw_market_event::normalized;
use orchestrator_kernel::engine::contracts::receipt::ReceiptRecord;
use orchestrator_kernel::engine::divergence::DivergencePlace;
use orchestrator_kernel::ids::{IngestSeq, Seq, TsMs};
use orchestrator_kernel::ports::engine::EngineAnswer;
use orchestrator_kernel::ports::log::{Log, ReadLimit, read_one};
use orchestrator_kernel::rfc3339::to_rfc3339;

use super::report::VerifyReport;
use super::text::{line_difference, pretty_json};
use crate::service::wiring::reading::Recorded;

/// Receipts shown at each end of a cut, and on each side of a receipt.
const SHOWN: usize = 3;

/// Writes what is known about the first difference into the report. What cannot be read is left out: that it cannot be
/// read is itself reported.
pub(super) async fn explain_first(recorded: &Recorded, report: &mut VerifyReport) {
    let context = match report.first_divergence().map(|first| first.place.clone()) {
        Some(DivergencePlace::Run { seq, .. }) => describe_run(recorded, report, seq.into()).await,
        Some(DivergencePlace::Receipt(seq)) => receipts_around(recorded.receipts.as_ref(), seq).await,
        Some(DivergencePlace::Other(_)) | None => String::new(),
    };
    report.context = context;
}

async fn describe_run(recorded: &Recorded, report: &VerifyReport, at: Seq) -> String {
    let stored = read_one(recorded.runs.as_ref(), at).await.ok().flatten().unwrap_or_default();
    let Ok(record) = RunRecord::decode(&stored) else { return String::new() };
    let facts = &record.facts;
    let mut text = facts_text(&record);
    text.push_str(&receipts_of(recorded.receipts.as_ref(), facts).await);
    if let Some(seq) = facts.snapshot_seq {
        text.push_str(&snapshot_text(recorded.receipts.as_ref(), seq).await);
    }
    if let Some(first) = report.first_run.as_ref().filter(|first| Seq::from(first.at) == at) {
        text.push_str(&answers_difference(&first.recorded, &first.replayed));
    }
    text
}

fn facts_text(record: &RunRecord) -> String {
    let facts = &record.facts;
    let time = |at: TsMs| format!("{} ({at})", to_rfc3339(at));
    let status = match &record.status {
        RunStatus::Started { attempts } => format!("started, attempts {attempts}"),
        RunStatus::Completed { attempts, answered, engine, .. } => format!(
            "completed by {} {}, attempts {attempts}, answered {answered}",
            engine.name, engine.version
        ),
        RunStatus::Failed { attempts, answered, error_kind, error_detail, .. } => {
            format!("failed with {error_kind} ({error_detail}), attempts {attempts}, answered {answered}")
        }
    };
    format!(
        "  run            {}\n  symbol         {}\n  engine time    {}\n  planned for    {}\n  mode           {}\n  \
         cut            {} … {} ({})\n  snapshot       {}\n  counts         {}\n  as recorded    {status}\n",
        facts.run_id,
        facts.symbol,
        time(facts.engine_timestamp_ms),
        time(facts.planned_ts_ms),
        facts.engine_mode.as_str(),
        facts.cut.start,
        facts.cut.end,
        facts.cut.kind.as_str(),
        facts.snapshot_seq.map_or_else(|| "none".to_owned(), |seq| format!("receipt {seq}")),
        facts
            .counts_by_event_type
            .iter()
            .map(|(kind, count)| format!("{kind} {count}"))
            .collect::<Vec<_>>()
            .join(", "),
    )
}

/// The first and the last receipts of the symbol in the cut, and the one that ended it.
async fn receipts_of(log: &dyn Log, facts: &RunFacts) -> String {
    let of_symbol = |record: &ReceiptRecord<'_>| record.symbol == facts.symbol.as_str();
    let first = receipt_lines(log, facts.cut.start, facts.cut.end, of_symbol).await;
    let late = IngestSeq(facts.cut.end.0.saturating_sub(4000).max(facts.cut.start.0));
    let last = receipt_lines(log, late, facts.cut.end, of_symbol).await;
    let next = receipt_lines(log, facts.cut.end.next(), facts.cut.end.next(), |_| true).await;
    let mut text = "  receipts of the cut, first and last:\n".to_owned();
    let first: Vec<_> = first.into_iter().take(SHOWN).collect();
    let shown_to = first.last().map(|(seq, _)| *seq);
    let last: Vec<_> = last.into_iter().filter(|(seq, _)| shown_to < Some(*seq)).collect();
    let skipped = last.len().saturating_sub(SHOWN);
    first.iter().for_each(|(_, line)| text.push_str(line));
    if skipped > 0 {
        text.push_str("      …\n");
    }
    last.iter().skip(skipped).for_each(|(_, line)| text.push_str(line));
    text.push_str("  the receipt after the cut:\n");
    match next.first() {
        Some((_, line)) => text.push_str(line),
        None => text.push_str("    none\n"),
    }
    text
}

async fn receipts_around(log: &dyn Log, at: IngestSeq) -> String {
    let from = IngestSeq(at.0.saturating_sub(SHOWN as u64).max(1));
    let lines = receipt_lines(log, from, IngestSeq(at.0 + SHOWN as u64), |_| true).await;
    format!("  receipts around it:\n{}", lines.into_iter().map(|(_, line)| line).collect::<String>())
}

/// One line for each receipt that is wanted; of one page.
async fn receipt_lines(
    log: &dyn Log,
    from: IngestSeq,
    to: IngestSeq,
    wanted: impl Fn(&ReceiptRecord<'_>) -> bool,
) -> Vec<(IngestSeq, String)> {
    let Ok(page) = log.read(from.into(), ReadLimit::default()).await else { return Vec::new() };
    let mut lines = Vec::new();
    for (seq, payload) in page.iter().take_while(|(seq, _)| *seq <= to.into()) {
        let Ok(record) = ReceiptRecord::decode(payload) else { break };
        if wanted(&record) {
            let line = format!(
                "    {seq:>10}  {}  {} {}{}{}\n",
                to_rfc3339(record.ingest_ts_ms),
                record.symbol,
                record.event_type,
                record.snapshot_ts_ms.map_or_else(String::new, |ts| format!(" for {}", to_rfc3339(ts))),
                if record.ingest_seq == seq.into() {
                    String::new()
                } else {
                    format!(" (says that it is {})", record.ingest_seq)
                },
            );
            lines.push((seq.into(), line));
        }
    }
    lines
}

async fn snapshot_text(log: &dyn Log, at: IngestSeq) -> String {
    let stored = read_one(log, at.into()).await.ok().flatten().unwrap_or_default();
    let Ok(record) = ReceiptRecord::decode(&stored) else { return String::new() };
    let inputs = normalized(record.event).map_or_else(|| "no usable object".to_owned(), pretty_json);
    format!("  the snapshot, receipt {at}:\n{}", indent_text(&inputs))
}

/// What was answered then, against what is answered now.
fn answers_difference(recorded: &RunRecord, replayed: &RunRecord) -> String {
    let (RunStatus::Completed { answer: then, .. }, RunStatus::Completed { answer: now, .. }) =
        (&recorded.status, &replayed.status)
    else {
        return String::new();
    };
    let parts = |answer: &EngineAnswer| match answer {
        EngineAnswer::Truth { regime_output } => vec![("regime output", regime_output.clone())],
        EngineAnswer::Hysteresis { decision, state } => {
            vec![("hysteresis decision", decision.clone()), ("hysteresis state", state.clone())]
        }
    };
    let mut text = String::new();
    for ((name, then), (_, now)) in parts(then).into_iter().zip(parts(now)) {
        if then != now {
            text.push_str(&format!("  the {name}:\n{}", indent_text(&line_difference(&then, &now))));
        }
    }
    text
}

fn indent_text(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
