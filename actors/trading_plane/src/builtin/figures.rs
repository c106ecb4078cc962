//! Figures of a cycle, and the check that everything of it is on record.

use std::collections::{BTreeMap, BTreeSet};

use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::ports::market::MarketView;
use orchestrator_kernel::ports::stage::StageRequest;
use orchestrator_kernel::trading::decision::DecisionAction;
use orchestrator_kernel::trading::event::ServiceHealth;
use orchestrator_kernel::trading::journal::{StageError, StageErrorKind, StageOutput};
use orchestrator_kernel::trading::risk::{RiskOutcome, RiskVerdict};
use orchestrator_kernel::trading::stage::StageRole;
use rust_decimal::Decimal;
use serde_json::json;

use super::data_output;
use crate::view::TradingView;

/// FEAT: how far each symbol that has a price on record has moved.
pub(super) fn moves(request: &StageRequest, market: &dyn MarketView, prices_max: usize) -> StageOutput {
    let symbols: BTreeSet<Symbol> = request
        .outputs
        .iter()
        .filter_map(|(_, output)| serde_json::from_str::<serde_json::Value>(&output.data).ok())
        .filter_map(|data| {
            data.get("prices")?.as_object().map(|prices| prices.keys().cloned().collect::<Vec<_>>())
        })
        .flatten()
        .map(|symbol| Symbol::from(symbol.as_str()))
        .collect();
    let moved = |symbol: &Symbol| {
        let prices = market.last_prices(symbol, prices_max);
        let (first, last) = (prices.first()?.price, prices.last()?.price);
        (last - first).checked_div(first).map(|moved| moved.round_dp(6).to_string())
    };
    let moves: BTreeMap<&Symbol, String> =
        symbols.iter().filter_map(|symbol| Some((symbol, moved(symbol)?))).collect();
    data_output(&json!({ "moves": moves }))
}

fn verdicts_of(request: &StageRequest) -> impl Iterator<Item = &RiskVerdict> {
    request.outputs.iter().flat_map(|(_, output)| output.verdicts.iter())
}

/// PORT: what of the cycle's orders is to be booked. Nothing, as long as none is sent.
pub(super) fn bookings(request: &StageRequest) -> StageOutput {
    let allowed = verdicts_of(request).filter(|it| matches!(it.outcome, RiskOutcome::Allowed { .. })).count();
    data_output(&json!({ "booked": 0, "dry_run": request.started.dry_run, "intended": allowed }))
}

/// ANA: the cycle in numbers.
pub(super) fn cycle_figures(request: &StageRequest) -> StageOutput {
    let count = |action| request.decisions.iter().filter(|decision| decision.action == action).count();
    let (mut allowed, mut denied, mut notional) = (0_u32, BTreeMap::<&str, u32>::new(), Decimal::ZERO);
    for verdict in verdicts_of(request) {
        match &verdict.outcome {
            RiskOutcome::Allowed { quantity, price, .. } => {
                allowed += 1;
                notional = notional.saturating_add(quantity.saturating_mul(*price));
            }
            RiskOutcome::Denied(rule) => *denied.entry(rule.as_str()).or_default() += 1,
            RiskOutcome::Held => {}
        }
    }
    data_output(&json!({
        "allowed": allowed,
        "buys": count(DecisionAction::Buy),
        "denied": denied,
        "holds": count(DecisionAction::Hold),
        "notional": notional.to_string(),
        "sells": count(DecisionAction::Sell),
    }))
}

/// GOV: every decision is judged where risk is judged, and every stage before has left its output.
///
/// # Errors
///
/// [`StageError`]: what is missing.
pub(super) fn check_complete(request: &StageRequest) -> Result<StageOutput, StageError> {
    let stages = &request.started.pipeline.stages;
    let judges = stages.iter().any(|stage| stage.enabled && stage.role() == StageRole::Risk);
    let judged: BTreeSet<_> = verdicts_of(request).map(|verdict| &verdict.decision_id).collect();
    let missing = request.decisions.iter().find(|decision| judges && !judged.contains(&decision.decision_id));
    match missing {
        Some(decision) => {
            let detail = format!("decision {} was not judged", decision.decision_id);
            Err(StageError::new(StageErrorKind::Provider, &detail))
        }
        None => Ok(data_output(&json!({ "complete": true, "outputs": request.outputs.len() }))),
    }
}

/// The services that send heartbeats, and whether this one knows its own open work.
pub(super) fn service_health(view: &TradingView) -> StageOutput {
    let services = view.list_services();
    let unwell = services.iter().filter(|(_, health)| *health != ServiceHealth::Healthy).count();
    let services: BTreeMap<String, &str> =
        services.into_iter().map(|(name, health)| (name, health.as_str())).collect();
    data_output(&json!({ "catching_up": view.is_catching_up(), "services": services, "unwell": unwell }))
}

/// The agent and the counts, as a heartbeat notes them.
pub(super) fn agent_figures(view: &TradingView) -> StageOutput {
    let agent = view.agent();
    data_output(&json!({
        "agent": agent.state.status,
        "cycles": agent.tally.cycles,
        "decisions": agent.tally.decisions,
        "errors": agent.tally.errors,
        "orders": agent.tally.orders,
    }))
}
