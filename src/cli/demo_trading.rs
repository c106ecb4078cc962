//! The trading part of `demo --trading`: the acts of an operator that it needs, and its cycles as they end.

use std::collections::BTreeSet;

use orchestrator_kernel::kill_switch::OperatorCommand;
use orchestrator_kernel::ports::kill_switch::ApplyError;
use orchestrator_kernel::trading::agent::AgentCommand;
use orchestrator_kernel::trading::ids::{CommandId, CycleId};
use orchestrator_trading_plane::command::{CommandOrigin, CommandRefused, TradingCommand};
use orchestrator_trading_plane::plane::TradingHandle;

use super::cycle_lines::describe_cycle;
use crate::config::Config;
use crate::process::time::wall_now;
use crate::service::trading::TradingDoor;
use crate::service::wiring::kill_switch::open_store;

/// Who does what the demo does in an operator's place.
const OPERATOR: &str = "demo";
/// Cycles that are looked through for new ones.
const LOOKED_THROUGH: usize = 100;

/// Says that trading is allowed, where nobody has said anything yet: a kill switch that an operator engaged stays so.
pub(super) async fn set_up_kill_switch(config: &Config) -> Result<(), String> {
    let store = open_store(config).await.map_err(|error| error.to_string())?;
    match store.apply_command(&OperatorCommand::Init { operator: OPERATOR.to_owned() }, wall_now()).await {
        Ok(_) | Err(ApplyError::Refused(_)) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Cycles of a plane, as they end.
pub(super) struct CycleTally {
    door: TradingDoor,
    is_started: bool,
    shown: BTreeSet<CycleId>,
    cycles: u64,
    intents: u64,
}

impl CycleTally {
    pub(super) const fn new(door: TradingDoor) -> Self {
        Self { door, is_started: false, shown: BTreeSet::new(), cycles: 0, intents: 0 }
    }

    /// Starts the agent once the plane runs, and shows the cycles that have ended since the last call.
    pub(super) async fn follow_cycles(&mut self, mut show: impl FnMut(&str)) {
        let Some(handle) = self.door.borrow().clone() else { return };
        if !self.is_started {
            self.is_started = true;
            match start_agent(&handle).await {
                // It was running when the last demo on these data ended.
                Ok(()) | Err(CommandRefused::Conflict(_)) => show("The agent runs; schedules fire."),
                Err(refused) => show(&format!("The agent was not started: {refused}")),
            }
        }
        let mut ended = handle.view.last_cycles(LOOKED_THROUGH, |cycle| {
            cycle.state.ended().is_some() && !self.shown.contains(&cycle.state.started().cycle_id)
        });
        ended.reverse();
        // What has left the list of cycles will not come again.
        let known = handle.view.last_cycles(LOOKED_THROUGH, |_| true);
        let known: BTreeSet<CycleId> = known.iter().map(|cycle| cycle.state.started().cycle_id).collect();
        self.shown.retain(|cycle| known.contains(cycle));
        for cycle in ended {
            self.shown.insert(cycle.state.started().cycle_id);
            self.cycles += 1;
            self.intents += cycle.state.ended().map_or(0, |ended| u64::from(ended.counts.intents));
            show("");
            describe_cycle(&cycle).iter().for_each(|line| show(line));
        }
    }

    /// One line about all of them.
    pub(super) fn summary_line(&self) -> String {
        let Self { cycles, intents, .. } = self;
        format!("{cycles} cycles, {intents} order intents; every step of them is a record of the journal")
    }
}

async fn start_agent(handle: &TradingHandle) -> Result<(), CommandRefused> {
    let origin = CommandOrigin {
        id: CommandId::derive(&format!("demo {}", wall_now().0)),
        operator: OPERATOR.to_owned(),
        from: "orchestrator demo".to_owned(),
    };
    let start = TradingCommand::Agent(AgentCommand::Start { strategies: None, mode: None });
    handle.execute_command(start, origin).await.map(drop)
}
