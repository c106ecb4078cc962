//! `[trading.hours]`: when gated cycles may trade.

use orchestrator_kernel::trading::calendar::ExtendedHours;
use orchestrator_kernel::trading::schedule::ScheduleHours;
use orchestrator_trading_plane::settings::TradingHours;

use super::forms::{CLOCK_TIME, ZONE};
use crate::config::reader::forms::Flag;
use crate::config::reader::section::Section;

/// `[trading.hours]`.
///
/// The session itself is the calendar's, with its holidays and early closes. The four times say how long the trading
/// before and after it is.
///
/// Source: specification 002, "Configuration", `trading`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TradingHoursConfig {
    /// Whether gated cycles trade while the strategy's market is open, and only then.
    pub market_hours_only: bool,
    /// Whether the market counts as open before and after its session too.
    pub extended: bool,
    /// Beginning of the trading before the session, `HH:MM`.
    pub pre_market_start: String,
    /// Beginning of the usual session.
    pub regular_start: String,
    /// Its end.
    pub regular_end: String,
    /// End of the trading after it.
    pub after_hours_end: String,
    /// Zone of schedules that name none.
    pub zone: String,
}

impl Default for TradingHoursConfig {
    fn default() -> Self {
        Self {
            market_hours_only: true,
            extended: false,
            pre_market_start: "04:00".to_owned(),
            regular_start: "09:30".to_owned(),
            regular_end: "16:00".to_owned(),
            after_hours_end: "20:00".to_owned(),
            zone: "America/New_York".to_owned(),
        }
    }
}

impl TradingHoursConfig {
    pub(super) fn from_section(section: &mut Section<'_>) -> Self {
        let mut config = Self::default();
        section.read_value("market_hours_only", &mut config.market_hours_only, &Flag);
        section.read_value("extended", &mut config.extended, &Flag);
        section.read_value("pre_market_start", &mut config.pre_market_start, &CLOCK_TIME);
        section.read_value("regular_start", &mut config.regular_start, &CLOCK_TIME);
        section.read_value("regular_end", &mut config.regular_end, &CLOCK_TIME);
        section.read_value("after_hours_end", &mut config.after_hours_end, &CLOCK_TIME);
        section.read_value("zone", &mut config.zone, &ZONE);
        config
    }

    /// The lengths of the trading before and after a session; nothing when the four times are not in their order.
    #[must_use]
    pub fn extended_hours(&self) -> Option<ExtendedHours> {
        ExtendedHours::between_times(
            self.pre_market_start.parse().ok()?,
            self.regular_start.parse().ok()?,
            self.regular_end.parse().ok()?,
            self.after_hours_end.parse().ok()?,
        )
        .ok()
    }

    /// When gated cycles may trade.
    #[must_use]
    pub fn trading_hours(&self) -> TradingHours {
        match (self.market_hours_only, self.extended) {
            (false, _) => TradingHours::Any,
            (true, false) => TradingHours::Session,
            (true, true) => TradingHours::Extended(self.extended_hours().unwrap_or_default()),
        }
    }

    /// Hours of fires in a schedule that names none: those in which its cycles may trade.
    pub(super) const fn default_fire_hours(&self) -> FireHours {
        match (self.market_hours_only, self.extended) {
            (false, _) => FireHours::Any,
            (true, false) => FireHours::Session,
            (true, true) => FireHours::Extended,
        }
    }
}

/// Hours in which a schedule's fires count, by their word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FireHours {
    /// At any time.
    Any,
    /// While the calendar's market has its session.
    Session,
    /// The same, and before and after it.
    Extended,
}

impl FireHours {
    /// The word in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "any",
            Self::Session => "session",
            Self::Extended => "extended",
        }
    }

    /// The hours, with the lengths of `hours`.
    pub(super) fn schedule_hours(self, hours: &TradingHoursConfig) -> ScheduleHours {
        match self {
            Self::Any => ScheduleHours::Any,
            Self::Session => ScheduleHours::Session,
            Self::Extended => ScheduleHours::Extended(hours.extended_hours().unwrap_or_default()),
        }
    }
}
