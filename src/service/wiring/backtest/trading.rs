//! Cycles of a backtest: what of the trading plane's configuration a recording can have, and what begins them.

use std::time::Duration;

use orchestrator_kernel::trading::agent::AgentCommand;
use orchestrator_kernel::trading::ids::CommandId;
use orchestrator_kernel::trading::journal::TradingMode;
use orchestrator_kernel::trading::stage::StageProvider;
use orchestrator_trading_plane::command::{CommandOrigin, TradingCommand};

use super::super::trading::OpeningCommand;
use crate::config::trading::{
    TradingBacktestsConfig, TradingConfig, TradingEventsConfig, TradingHistoryConfig,
};

/// Who does what an operator does in a service.
const OPERATOR: &str = "backtest";
/// From this time on an append counts as one that is not answered: a busy disk decides nothing.
const SLOW_AFTER: Duration = Duration::from_secs(60);

/// Finds what keeps cycles over a recording from meaning anything: each line names a setting.
#[must_use]
pub fn find_trading_faults(trading: &TradingConfig) -> Vec<String> {
    let mut faults = Vec::new();
    if !trading.schedules.values().any(|schedule| schedule.enabled) {
        faults.push(
            "trading.schedules: none of them is enabled, so no cycle would begin; \
             for example set trading.schedules.analysis.enabled = true"
                .to_owned(),
        );
    }
    for (name, config) in &trading.pipelines {
        for stage in config.pipeline.stages.iter().filter(|stage| stage.provider == StageProvider::Event) {
            faults.push(format!(
                "trading.pipelines.{name}.stage.{}.provider: is \"event\", and a recording has no event bus that \
                 could answer; name another provider",
                stage.name
            ));
        }
    }
    faults
}

/// What of `trading` a backtest leaves out, for people.
pub(super) fn replaced_trading(trading: &TradingConfig) -> Vec<String> {
    let mut replaced = vec!["trading kill switch: nothing has an effect, so nothing is stopped".to_owned()];
    if !trading.events.connection.url.is_empty() {
        replaced.push("trading events: neither published nor consumed".to_owned());
    }
    if trading.history.enabled {
        replaced.push("trading history: the journal".to_owned());
    }
    let by_event = trading.schedules.iter().filter(|(_, it)| it.enabled && !it.trigger.topics.is_empty());
    replaced.extend(by_event.map(|(name, _)| format!("schedule {name}: no events, so it fires by none")));
    replaced
}

/// The configuration of cycles that have no effect beyond the journal.
pub(super) fn stage_trading(trading: &mut TradingConfig) {
    trading.enabled = true;
    trading.mode = TradingMode::Backtest;
    trading.dry_run = true;
    trading.events = TradingEventsConfig {
        on_foreign_error: trading.events.on_foreign_error,
        ..TradingEventsConfig::default()
    };
    trading.history = TradingHistoryConfig { enabled: false, ..TradingHistoryConfig::default() };
    // None begins another one.
    trading.backtests = TradingBacktestsConfig::default();
    trading.journal.age_max = Duration::ZERO;
    trading.journal.bytes_max = 0;
    trading.journal.slow_after = SLOW_AFTER;
}

/// The agent's start, which is an operator's act in a service.
pub(super) fn start_agent() -> OpeningCommand {
    let command = TradingCommand::Agent(AgentCommand::Start { strategies: None, mode: None });
    let origin = CommandOrigin {
        id: CommandId::derive(OPERATOR),
        operator: OPERATOR.to_owned(),
        from: "orchestrator backtest".to_owned(),
    };
    (command, origin)
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::trading::ids::{PipelineName, ScheduleName};

    use super::*;
    use crate::config::SecretUrl;

    #[test]
    fn what_is_shipped_would_begin_no_cycle_and_what_waits_for_a_bus_is_named() {
        let mut trading = TradingConfig::default();
        let faults = find_trading_faults(&trading);
        assert!(faults.len() == 1 && faults[0].starts_with("trading.schedules: "), "{faults:?}");

        let (schedule, pipeline) =
            (ScheduleName::new("analysis").unwrap(), PipelineName::new("analysis").unwrap());
        trading.schedules.get_mut(&schedule).unwrap().enabled = true;
        assert!(find_trading_faults(&trading).is_empty());
        trading.pipelines.get_mut(&pipeline).unwrap().pipeline.stages[2].provider = StageProvider::Event;
        let faults = find_trading_faults(&trading);
        let place = "trading.pipelines.analysis.stage.generate_decisions.provider: ";
        assert!(faults.len() == 1 && faults[0].starts_with(place), "{faults:?}");
    }

    /// Nothing of a backtest leaves the machine, whatever the service does.
    #[test]
    fn neither_bus_nor_database_nor_money_is_left() {
        let mut trading = TradingConfig::default();
        trading.events.connection.url = SecretUrl::from("amqp://localhost/v");
        trading.events.consume = vec!["ai.decision.*".to_owned()];
        trading.history.required = true;
        assert_eq!(replaced_trading(&trading).len(), 3);

        stage_trading(&mut trading);

        assert!(trading.events.connection.url.is_empty() && trading.events.consume.is_empty());
        assert!(!trading.history.enabled && !trading.history.required && trading.dry_run);
        assert_eq!((trading.enabled, trading.mode), (true, TradingMode::Backtest));
    }
}
