//! The trading plane's part of `/health`: the fields of specification 002.

use std::collections::BTreeMap;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::trading::agent::AgentStatus;
use orchestrator_kernel::trading::ids::PipelineName;
use orchestrator_runtime::status::{Condition, Lifecycle, Status};
use serde::Serialize;

use super::agent::running_cycle;
use super::{TradingFaces, agent_status};

/// What `/health` has beside the engine plane's fields while trading is on.
#[derive(Debug, Serialize)]
pub(in crate::api) struct TradingHealth {
    checks: HealthChecks,
    agent: AgentHealth,
    /// Whether something of it is not well; told by the service's `status`.
    #[serde(skip)]
    is_degraded: bool,
}

impl TradingHealth {
    /// Whether something of the plane is not well.
    pub(in crate::api) const fn is_degraded(&self) -> bool {
        self.is_degraded
    }

    /// Whether its database takes rows as they come.
    pub(in crate::api) fn is_database_connected(&self) -> bool {
        self.checks.database == "connected"
    }
}

#[derive(Debug, Serialize)]
struct HealthChecks {
    /// The history's database: `connected`, `behind`, or `disabled`.
    database: &'static str,
    /// `connected`, `disconnected`, or `disabled`.
    #[serde(rename = "eventBus")]
    event_bus: &'static str,
    /// Services that send heartbeats.
    services: BTreeMap<String, &'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct AgentHealth {
    status: &'static str,
    /// Seconds.
    uptime: u64,
    /// The type of the cycle that runs.
    current_cycle: Option<PipelineName>,
}

/// The trading plane as it is now.
pub(in crate::api) fn trading_health(faces: &TradingFaces, status: &Status, now: TsMs) -> TradingHealth {
    let neighbours = (faces.neighbours)();
    let plane = faces.plane();
    let agent = agent_status(faces, status.conditions.contains_key(&Condition::TradingStopped));
    let is_degraded = status.lifecycle == Lifecycle::Degraded
        || agent == AgentStatus::Error
        || neighbours.event_bus == Some(false)
        || neighbours.services.values().any(|is_healthy| !is_healthy);
    let health = |is_healthy: bool| if is_healthy { "healthy" } else { "unhealthy" };
    let running = plane.as_ref().and_then(running_cycle);
    TradingHealth {
        is_degraded,
        checks: HealthChecks {
            database: match plane.as_ref().and_then(|plane| plane.history.as_ref()) {
                Some(_) if status.conditions.contains_key(&Condition::HistoryBehind) => "behind",
                Some(_) => "connected",
                None => "disabled",
            },
            event_bus: match neighbours.event_bus {
                Some(true) => "connected",
                Some(false) => "disconnected",
                None => "disabled",
            },
            services: neighbours.services.into_iter().map(|(name, it)| (name, health(it))).collect(),
        },
        agent: AgentHealth {
            status: agent.as_str(),
            uptime: plane.as_ref().map_or(0, |plane| plane.view.agent().state.uptime_ms(now) / 1000),
            current_cycle: running.map(|running| running.state.started().pipeline.name.clone()),
        },
    }
}
