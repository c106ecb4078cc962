//! Readings for the gates of a cycle, taken right before they are asked.

use orchestrator_kernel::ids::{Symbol, TsMs};
use orchestrator_kernel::rfc3339::to_rfc3339;
use orchestrator_kernel::trading::calendar::{CalendarError, MarketCalendar, MarketPhase};
use orchestrator_kernel::trading::gate::{GateReadings, KillReading, SessionReading};
use orchestrator_kernel::trading::ids::StrategyName;
use orchestrator_kernel::trading::journal::KnownStrategy;
use orchestrator_kernel::trading::strategy::StrategyStatus;

use super::CyclesArgs;
use crate::settings::TradingHours;

impl CyclesArgs {
    /// The kill switch as gates read it. Where an effect may follow it is read from its store, else its lease counts.
    pub(super) async fn read_kill_switch(&self, is_effect_near: bool) -> KillReading {
        let gate = &self.ports.kill_gate;
        let permit = if is_effect_near { gate.fresh_permit().await } else { gate.try_permit() };
        KillReading::from_permit(&permit, self.view.agent().latched.as_deref())
    }

    /// Everything that the gates of a cycle of these strategies look at.
    pub(super) fn read_gates(
        &self,
        strategies: &[StrategyName],
        kill: KillReading,
        now: TsMs,
    ) -> GateReadings {
        let known: Vec<(StrategyName, Option<KnownStrategy>)> =
            strategies.iter().map(|name| (name.clone(), self.view.strategy(name))).collect();
        let symbols: Vec<Symbol> = known
            .iter()
            .filter_map(|(_, known)| known.as_ref())
            .flat_map(|known| known.definition.symbols.iter().cloned())
            .collect();
        GateReadings {
            now,
            kill,
            newest_input: self.ports.market.newest_input(&symbols),
            session: SessionReading {
                calendar_allows: self.calendars_allow(&known, now),
                announcement_allows: self.view.announced_session(),
            },
            agent: self.view.agent_reading(),
            strategies: known.iter().map(|(name, known)| (name.clone(), status_of(known.as_ref()))).collect(),
            last_cycle_degraded: known
                .iter()
                .any(|(_, known)| known.as_ref().is_some_and(|known| known.last_cycle_degraded)),
        }
    }

    /// Every market of these strategies has to be one to trade in now. One of which nothing is known is not.
    fn calendars_allow(&self, known: &[(StrategyName, Option<KnownStrategy>)], now: TsMs) -> bool {
        let named = known.iter().filter_map(|(_, known)| known.as_ref());
        let mut names: Vec<&str> = named.map(|known| known.definition.calendar.as_str()).collect();
        if names.is_empty() {
            names.push(&self.settings.default_calendar);
        }
        names.iter().all(|name| {
            let calendar = self.settings.calendars.get(*name);
            calendar
                .is_some_and(|calendar| allows_trading(calendar, self.settings.hours, now).unwrap_or(false))
        })
    }

    /// The exchange's date that a cycle of these strategies works for, planned for `at`. Where no calendar says it, the
    /// date is UTC's, and no gate allows anything.
    pub(super) fn as_of_date(&self, strategies: &[StrategyName], at: TsMs) -> String {
        let first = strategies.first().and_then(|name| self.view.strategy(name));
        let name = first.map_or_else(|| self.settings.default_calendar.clone(), |it| it.definition.calendar);
        let date = self.settings.calendars.get(&name).and_then(|calendar| calendar.trading_date(at).ok());
        date.map_or_else(|| to_rfc3339(at).chars().take(10).collect(), |date| date.to_string())
    }
}

fn status_of(known: Option<&KnownStrategy>) -> StrategyStatus {
    known.map_or(StrategyStatus::Stopped, |known| known.status)
}

fn allows_trading(calendar: &MarketCalendar, hours: TradingHours, now: TsMs) -> Result<bool, CalendarError> {
    Ok(match hours {
        TradingHours::Any => true,
        TradingHours::Session => calendar.session_at(now)?.is_some(),
        TradingHours::Extended(extended) => calendar.phase_at(now, extended)? != MarketPhase::Closed,
    })
}
