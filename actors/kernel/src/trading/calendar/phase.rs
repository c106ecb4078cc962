//! Phases of a market's day: before, in, after its session, or closed.

use jiff::civil::Time;

use super::{CalendarError, MarketCalendar, MarketSession};
use crate::ids::TsMs;

/// Phase of a market's day, as specification 002 names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MarketPhase {
    /// Pre-market trading, before the session.
    Pre,
    /// The session itself.
    Regular,
    /// After-hours trading, behind the session.
    Post,
    /// None of them.
    Closed,
}

/// Lengths of the trading before and after a session.
///
/// They are kept as lengths, so that they move with a session that closes early: after a close at 13:00 trading from
/// 16:00 to 20:00 becomes trading from 13:00 to 17:00.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtendedHours {
    pre_market_ms: i64,
    after_hours_ms: i64,
}

/// Times of day that are not in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "pre-market {pre_market_start}, regular {regular_start} to {regular_end} and after hours until {after_hours_end} \
     are not in this order"
)]
pub struct ExtendedHoursError {
    /// As given.
    pub pre_market_start: Time,
    /// As given.
    pub regular_start: Time,
    /// As given.
    pub regular_end: Time,
    /// As given.
    pub after_hours_end: Time,
}

impl ExtendedHours {
    /// Takes the four times of specification 002, for example 04:00, 09:30, 16:00 and 20:00.
    ///
    /// # Errors
    ///
    /// [`ExtendedHoursError`] when they are not in this order.
    pub fn between_times(
        pre_market_start: Time,
        regular_start: Time,
        regular_end: Time,
        after_hours_end: Time,
    ) -> Result<Self, ExtendedHoursError> {
        let length_ms =
            |from: Time, to: Time| i64::try_from(from.duration_until(to).as_millis()).unwrap_or(0);
        if regular_start < pre_market_start || regular_end < regular_start || after_hours_end < regular_end {
            return Err(ExtendedHoursError { pre_market_start, regular_start, regular_end, after_hours_end });
        }
        Ok(Self {
            pre_market_ms: length_ms(pre_market_start, regular_start),
            after_hours_ms: length_ms(regular_end, after_hours_end),
        })
    }

    /// The whole trading around a session, from pre-market to after hours.
    pub(crate) fn around_session(self, session: MarketSession) -> MarketSession {
        let opens = session.opens.plus_ms(-self.pre_market_ms);
        MarketSession { opens, closes: session.closes.plus_ms(self.after_hours_ms), ..session }
    }
}

impl MarketCalendar {
    /// Finds the phase of a moment.
    ///
    /// # Errors
    ///
    /// [`CalendarError`] for a moment beyond the data.
    pub fn phase_at(&self, at: TsMs, extended: ExtendedHours) -> Result<MarketPhase, CalendarError> {
        if self.session_at(at)?.is_some() {
            return Ok(MarketPhase::Regular);
        }
        let today = self.zone().read_date(at)?;
        let Some(session) =
            self.find_session(today)?.filter(|session| extended.around_session(*session).contains(at))
        else {
            return Ok(MarketPhase::Closed);
        };
        Ok(if at < session.opens { MarketPhase::Pre } else { MarketPhase::Post })
    }
}
