//! The made-up market: one close per symbol and weekday, a pure function of the seed. No float anywhere.

use orchestrator_kernel::random::Rng;
use orchestrator_kernel::trading::order::id::UtcDate;
use rust_decimal::Decimal;

/// The first day that has a bar: Friday, 2015-01-02.
const FIRST_DAY: i64 = 16_437;
/// Weekdays over which momentum looks back.
pub(super) const LOOK_BACK: usize = 20;
/// Closes stay between these, in cents: no made-up share becomes worthless or beyond all sizes.
const CENTS: std::ops::RangeInclusive<u64> = 500..=200_000;
/// Largest change of a close from one weekday to the next, in millionths.
const STEP_MILLIONTHS_MAX: u64 = 25_000;

/// Closes of every symbol that the paper services know.
#[derive(Clone, Debug)]
pub(super) struct PaperBars {
    seed: u64,
}

impl PaperBars {
    /// The market of `seed`.
    #[must_use]
    pub(super) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// The last closes up to and including `date`, oldest first; nothing when `date` is no weekday with enough weekdays
    /// before it.
    #[must_use]
    pub(super) fn closes_until(&self, symbol: &str, date: UtcDate) -> Option<[Decimal; LOOK_BACK + 1]> {
        if !is_weekday(date) {
            return None;
        }
        let mut last = [Decimal::ZERO; LOOK_BACK + 1];
        let mut bars = 0;
        self.walk(symbol, date, |cents| {
            last.rotate_left(1);
            last[LOOK_BACK] = in_dollars(cents);
            bars += 1;
        });
        (LOOK_BACK < bars).then_some(last)
    }

    /// The price on `date`: the close of its last weekday, or of the first bar for dates before it.
    #[must_use]
    pub(super) fn price_on(&self, symbol: &str, date: UtcDate) -> Decimal {
        let mut price = in_dollars(first_close(self.seed, symbol));
        self.walk(symbol, date, |cents| price = in_dollars(cents));
        price
    }

    fn walk(&self, symbol: &str, until: UtcDate, mut on_close: impl FnMut(u64)) {
        let stream = mix(self.seed ^ hash_of(symbol));
        let mut cents = first_close(self.seed, symbol);
        for day in (FIRST_DAY..=until.0).filter(|day| is_weekday(UtcDate(*day))) {
            let dice = mix(stream ^ day.unsigned_abs());
            let step = dice % (STEP_MILLIONTHS_MAX + 1);
            let goes_up = if cents <= *CENTS.start() * 2 {
                true
            } else if *CENTS.end() / 2 <= cents {
                false
            } else {
                dice >> 40 & 1 == 1
            };
            let change = cents * step / 1_000_000;
            cents = if goes_up { cents + change } else { cents - change };
            on_close(cents);
        }
    }
}

/// The last weekday that is not after `date`.
#[must_use]
pub(super) fn weekday_until(date: UtcDate) -> UtcDate {
    (0..3).map(|back| UtcDate(date.0 - back)).find(|date| is_weekday(*date)).unwrap_or(date)
}

/// 1970-01-01 was a Thursday.
fn is_weekday(date: UtcDate) -> bool {
    (1..=5).contains(&(date.0 + 4).rem_euclid(7))
}

fn in_dollars(cents: u64) -> Decimal {
    Decimal::new(i64::try_from(cents).unwrap_or(i64::MAX), 2)
}

/// Between 20 and 420 dollars.
fn first_close(seed: u64, symbol: &str) -> u64 {
    2_000 + mix(seed.rotate_left(17) ^ hash_of(symbol)) % 40_000
}

/// FNV-1a.
pub(super) fn hash_of(text: &str) -> u64 {
    text.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A number that looks random and follows from `value`.
pub(super) const fn mix(value: u64) -> u64 {
    Rng::new(value).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Thursday, 2025-01-02.
    const DATE: UtcDate = UtcDate(20_090);

    #[test]
    fn closes_follow_from_the_seed_alone() {
        let closes = |seed, symbol| PaperBars::new(seed).closes_until(symbol, DATE).unwrap();

        assert_eq!(closes(7, "AAPL"), closes(7, "AAPL"));
        assert_ne!(closes(7, "AAPL"), closes(8, "AAPL"));
        assert_ne!(closes(7, "AAPL"), closes(7, "MSFT"));
        assert_eq!(PaperBars::new(7).price_on("AAPL", DATE), closes(7, "AAPL")[LOOK_BACK]);
    }

    #[test]
    fn closes_are_whole_cents_within_their_bounds() {
        let bars = PaperBars::new(1);
        for symbol in ["AAPL", "MSFT", "TSLA", "X", "ZZZZ"] {
            for date in (FIRST_DAY + 40..DATE.0).step_by(97) {
                let price = bars.price_on(symbol, UtcDate(date));
                assert!(
                    Decimal::new(500, 2) <= price && price <= Decimal::new(200_000, 2),
                    "{symbol} {price}"
                );
                assert_eq!(price, price.round_dp(2));
            }
        }
    }

    #[test]
    fn days_without_a_bar_have_no_closes() {
        let bars = PaperBars::new(1);
        let (saturday, sunday, first) = (UtcDate(20_092), UtcDate(20_093), UtcDate(FIRST_DAY));

        for date in [saturday, sunday, first, UtcDate(0)] {
            assert_eq!(bars.closes_until("AAPL", date), None, "{date}");
        }
        assert_eq!(weekday_until(sunday), UtcDate(20_091));
        assert_eq!(weekday_until(DATE), DATE);
        assert_eq!(bars.price_on("AAPL", sunday), bars.price_on("AAPL", UtcDate(20_091)));
    }
}
