//! A cycle that ended, as lines for a person: why it fired, what the gates said, what was decided and ordered, where it
//! stands on record, how it ended.

use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_kernel::trading::decision::{DecisionAction, TradeDecision};
use orchestrator_kernel::trading::gate::{GateDecided, GateKind, GateReadings, KillReading};
use orchestrator_kernel::trading::journal::{
    CycleCause, CycleEnded, IntentEnd, IntentSide, JournalFact, OrderIntended, StageEnded, StageOutcome,
};
use orchestrator_kernel::trading::risk::{RiskOutcome, RiskVerdict};
use orchestrator_trading_plane::view::CycleView;

/// Lines about an ended cycle; none about one that runs.
pub(super) fn describe_cycle(cycle: &CycleView) -> Vec<String> {
    let Some(ended) = cycle.state.ended() else { return Vec::new() };
    let started = cycle.state.started();
    let strategies: Vec<&str> = started.strategies.iter().map(|name| name.as_str()).collect();
    let mut lines = vec![
        format!("cycle {}  {}", started.cycle_id, started.pipeline.name),
        format!("  why      {}, for {}", describe_cause(cycle), strategies.join(" ")),
        format!("  gates    {}", describe_gates(cycle)),
    ];
    lines.extend(cycle.state.decisions().iter().map(|decision| {
        let verdict = find_verdict(cycle, decision);
        format!("  decided  {}", describe_decision(decision, verdict))
    }));
    lines.push(format!("  orders   {}", describe_orders(cycle)));
    let records = format!("  records  {} in the journal", cycle.facts.len() + 1);
    lines.push(match cycle.first_seq {
        Some(first) => format!("{records}, from position {first} on"),
        None => records,
    });
    lines.push(format!("  result   {}", describe_end(cycle, ended)));
    lines
}

fn describe_cause(cycle: &CycleView) -> String {
    let started = cycle.state.started();
    match &started.cause {
        CycleCause::Fire { schedule, fire } => {
            let planned = cycle.planned.unwrap_or(started.started_at);
            let late = started.started_at.0.saturating_sub(planned.0).max(0);
            format!("fire {fire} of schedule {schedule}, planned for {}, {late} ms late", to_rfc3339(planned))
        }
        CycleCause::Command(command) => format!("asked for by command {command}"),
    }
}

/// The gates that were asked, and either what they looked at last or the one that denied.
fn describe_gates(cycle: &CycleView) -> String {
    let decided: Vec<&GateDecided> = facts(cycle)
        .filter_map(|fact| if let JournalFact::GateDecided(decided) = fact { Some(&**decided) } else { None })
        .collect();
    let asked = format!("asked at {} places", decided.len());
    if let Some((gate, why)) = decided.iter().find_map(|decided| decided.first_denial()) {
        let gate = match gate {
            GateKind::Hook(name) => format!("hook {name}"),
            gate => gate.gate_word().to_owned(),
        };
        return format!("{asked}; {gate} denied: {why}");
    }
    match decided.iter().rev().find_map(|decided| decided.readings.as_ref()) {
        Some(readings) => format!("{asked}, all open: {}", describe_readings(readings)),
        None => asked,
    }
}

fn describe_readings(readings: &GateReadings) -> String {
    let kill = match &readings.kill {
        KillReading::Permit { age_ms, .. } => format!("kill switch Trading, read {age_ms} ms ago"),
        KillReading::Refused(why) | KillReading::Latched(why) => format!("kill switch {why}"),
    };
    let input = match readings.newest_input {
        Some(newest) => format!("newest input {} ms old", readings.now.0.saturating_sub(newest.0).max(0)),
        None => "no input".to_owned(),
    };
    let session = if readings.session.calendar_allows { "market open" } else { "market closed" };
    format!("{kill}; {input}; {session}; agent {}", readings.agent.status.as_str())
}

fn find_verdict<'c>(cycle: &'c CycleView, decision: &TradeDecision) -> Option<&'c RiskVerdict> {
    let outputs = stages(cycle).filter_map(|ended| match &ended.outcome {
        StageOutcome::Done(output) => Some(output),
        StageOutcome::Failed(_) => None,
    });
    outputs.flat_map(|output| &output.verdicts).find(|verdict| verdict.decision_id == decision.decision_id)
}

fn describe_decision(decision: &TradeDecision, verdict: Option<&RiskVerdict>) -> String {
    let action = match decision.action {
        DecisionAction::Buy => "BUY",
        DecisionAction::Sell => "SELL",
        DecisionAction::Hold => "HOLD",
    };
    let said = format!(
        "{} {action} {}, confidence {:.2}: {}",
        decision.strategy,
        decision.symbol,
        decision.confidence.get(),
        decision.reasoning
    );
    match verdict.map(|verdict| &verdict.outcome) {
        Some(RiskOutcome::Allowed { quantity, price, lowered_by }) => {
            let lowered: Vec<&str> = lowered_by.iter().map(|rule| rule.as_str()).collect();
            let lowered = if lowered.is_empty() {
                String::new()
            } else {
                format!(", lowered by {}", lowered.join(" "))
            };
            format!("{said}; RISK allows {quantity} at {price}{lowered}")
        }
        Some(RiskOutcome::Denied(rule)) => format!("{said}; RISK denies: {}", rule.as_str()),
        Some(RiskOutcome::Held) | None => said,
    }
}

fn describe_orders(cycle: &CycleView) -> String {
    let orders: Vec<String> = facts(cycle)
        .filter_map(|fact| match fact {
            JournalFact::OrderIntended(order) => Some(describe_order(order)),
            _ => None,
        })
        .collect();
    if orders.is_empty() { "none".to_owned() } else { orders.join("; ") }
}

fn describe_order(order: &OrderIntended) -> String {
    let side = match order.side {
        IntentSide::Buy => "BUY",
        IntentSide::Sell => "SELL",
    };
    let end = match order.end {
        IntentEnd::DryRun => "dry run",
        IntentEnd::HandedOn => "handed on",
    };
    format!("{side} {} {} at {} ({end})", order.quantity, order.symbol, order.price)
}

fn describe_end(cycle: &CycleView, ended: &CycleEnded) -> String {
    let stages: Vec<String> = stages(cycle)
        .map(|stage| match &stage.outcome {
            StageOutcome::Done(_) => stage.name.to_string(),
            StageOutcome::Failed(error) => format!("{} ({})", stage.name, error.error_code().as_str()),
        })
        .collect();
    let reason = ended.reason.to_line();
    format!("{} in {} ms ({reason}): {}", ended.status.as_str(), ended.spent_ms, stages.join(" "))
}

fn facts(cycle: &CycleView) -> impl Iterator<Item = &JournalFact> {
    cycle.facts.iter().map(|shown| &*shown.fact)
}

fn stages(cycle: &CycleView) -> impl Iterator<Item = &StageEnded> {
    facts(cycle).filter_map(|fact| match fact {
        JournalFact::StageEnded(ended) => Some(&**ended),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use orchestrator_kernel::trading::ids::CycleId;
    use orchestrator_trading_plane::command::{CommandAnswer, TradingCommand};
    use orchestrator_trading_plane::testkit::{
        PlaneRig, origin, pipeline_name, stage_failure, start_agent, strategy_name, trading_settings,
    };

    use super::*;

    /// The lines of one cycle, without what every run has another value of.
    async fn lines_of(rig: &PlaneRig) -> Vec<String> {
        let plane = rig.start().await;
        start_agent(plane.handle(), "start").await.unwrap();
        let run = TradingCommand::RunCycle {
            pipeline: pipeline_name("canonical"),
            strategies: vec![strategy_name("a"), strategy_name("b")],
            trigger_event: None,
        };
        let begun = plane.handle().execute_command(run, origin("run")).await;
        let Ok(CommandAnswer::CycleBegun { cycle_id }) = begun else { panic!("{begun:?}") };
        let cycle: CycleId = cycle_id;
        let waited =
            tokio::time::timeout(Duration::from_secs(60), plane.handle().wait_for_cycle(cycle)).await;
        let lines = describe_cycle(&waited.unwrap().unwrap());
        plane.kill().await;
        lines.iter().map(|line| without_times(line)).collect()
    }

    /// Milliseconds and the age of inputs are this run's.
    fn without_times(line: &str) -> String {
        let words = line.split(' ').collect::<Vec<_>>();
        let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let of_ms =
            |at: usize| is_number(words[at]) && words.get(at + 1).is_some_and(|next| next.starts_with("ms"));
        words
            .iter()
            .enumerate()
            .map(|(at, word)| if of_ms(at) { "N" } else { word })
            .collect::<Vec<_>>()
            .join(" ")
    }

    fn by_hand() -> PlaneRig {
        let mut settings = trading_settings();
        settings.schedules.clear();
        PlaneRig::new(settings)
    }

    #[tokio::test]
    async fn a_cycle_says_why_it_fired_what_gates_said_what_was_ordered_and_how_it_ended() {
        let lines = lines_of(&by_hand()).await;

        let expected = include_str!("cycle_lines/golden.txt");
        assert_eq!(lines.join("\n"), expected.trim_end(), "\n{}", lines.join("\n"));
    }

    #[tokio::test]
    async fn a_cycle_that_was_stopped_says_by_what() {
        let rig = by_hand();
        rig.kill_switch.memory.put_value(Some(b"on"));
        let lines = lines_of(&rig).await.join("\n");
        assert!(lines.contains("kill_switch denied") && lines.contains("  orders   none"), "{lines}");

        let rig = by_hand();
        rig.stages.always("ANA", stage_failure("no figures"));
        let lines = lines_of(&rig).await.join("\n");
        assert!(
            lines.contains("  result   degraded") && lines.contains("ANA (E_ORCH_STAGE_FAILED)"),
            "{lines}"
        );
    }
}
