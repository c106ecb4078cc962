//! The strategies: what there is, activate, deactivate, and a cycle now.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_kernel::trading::ids::{StrategyName, StrategyUuid};
use orchestrator_kernel::trading::journal::KnownStrategy;
use orchestrator_kernel::trading::strategy::StrategyCommand;
use orchestrator_trading_plane::command::TradingCommand;
use serde_json::{Value, json};

use super::Control;
use super::refusal::{ControlError, quote_start};

type Answer = Result<Json<Value>, ControlError>;
type StrategyPath = Result<Path<String>, PathRejection>;

/// `GET /api/v1/strategies`.
pub(super) async fn list_strategies(State(control): State<Arc<Control>>) -> Answer {
    let strategies = control.plane()?.view.list_strategies();
    Ok(Json(json!({ "strategies": strategies.iter().map(strategy_wire).collect::<Vec<_>>() })))
}

/// A strategy as specification 002 lists it.
pub(super) fn strategy_wire(known: &KnownStrategy) -> Value {
    let definition = &known.definition;
    json!({
        "id": definition.id().to_string(),
        "name": definition.name,
        "type": definition.kind,
        "status": known.status.as_str(),
        "symbols": definition.symbols,
        "riskMode": definition.risk_mode.as_str(),
        "lastRun": known.last_run.map(to_rfc3339),
        // From fills, and as long as no order is sent there are none.
        "performance": { "pnl": 0, "trades": 0, "winRate": 0 },
        "pipeline": definition.pipeline,
        "schedules": definition.schedules,
    })
}

/// `POST /api/v1/strategies/:strategyId/activate`.
pub(super) async fn post_activate(
    State(control): State<Arc<Control>>,
    path: StrategyPath,
    request: Request,
) -> Answer {
    let (head, body) = control.read_command(request).await?;
    body.finish()?;
    let command = TradingCommand::Strategy(control.strategy_at(path)?, StrategyCommand::Activate);
    Ok(Json(control.execute_command(head, command).await?.to_wire()))
}

/// `POST /api/v1/strategies/:strategyId/deactivate`.
pub(super) async fn post_deactivate(
    State(control): State<Arc<Control>>,
    path: StrategyPath,
    request: Request,
) -> Answer {
    let (head, mut body) = control.read_command(request).await?;
    let deactivate = StrategyCommand::Deactivate { close_positions: body.take_flag("closePositions") };
    body.finish()?;
    let command = TradingCommand::Strategy(control.strategy_at(path)?, deactivate);
    Ok(Json(control.execute_command(head, command).await?.to_wire()))
}

/// `POST /api/v1/strategies/:strategyId/analyze`: a cycle of the strategy, now.
pub(super) async fn post_analyze(
    State(control): State<Arc<Control>>,
    path: StrategyPath,
    request: Request,
) -> Answer {
    let (head, mut body) = control.read_command(request).await?;
    let named = body.take_texts("symbols").unwrap_or_default();
    body.finish()?;
    let strategy = control.strategy_at(path)?;
    if let Some(bad) = named.iter().find(|symbol| !Symbol::is_valid(symbol)) {
        return Err(ControlError::bad_value(format!("symbols: {} is no symbol", quote_start(bad))));
    }
    let symbols = named.iter().map(|symbol| Symbol::from(symbol.as_str())).collect();
    let command = TradingCommand::AnalyzeStrategy { strategy, symbols };
    Ok(Json(control.execute_command(head, command).await?.to_wire()))
}

impl Control {
    fn strategy_at(&self, path: StrategyPath) -> Result<StrategyName, ControlError> {
        let Ok(Path(id)) = path else { return Err(ControlError::not_found("there is no such strategy")) };
        let found = self.find_strategy(&id)?;
        found.ok_or_else(|| ControlError::not_found(format!("there is no strategy {id:.64}")))
    }

    /// The strategies of these names or identifiers.
    ///
    /// # Errors
    ///
    /// 400: one of them is none.
    pub(super) fn find_strategies(&self, ids: &[String]) -> Result<Vec<StrategyName>, ControlError> {
        let find = |id: &String| {
            let unknown = || ControlError::bad_value(format!("strategies: there is no strategy {id:.64}"));
            self.find_strategy(id)?.ok_or_else(unknown)
        };
        ids.iter().map(find).collect()
    }

    /// The strategy of this name or, where no name is so, of this identifier.
    fn find_strategy(&self, id: &str) -> Result<Option<StrategyName>, ControlError> {
        let view = self.plane()?.view;
        let named = StrategyName::new(id).filter(|name| view.strategy(name).is_some());
        let by_uuid = |uuid: StrategyUuid| {
            let known = view.list_strategies().into_iter().map(|known| known.definition);
            known.into_iter().find(|definition| definition.id() == uuid).map(|definition| definition.name)
        };
        Ok(named.or_else(|| StrategyUuid::parse(id).and_then(by_uuid)))
    }
}
