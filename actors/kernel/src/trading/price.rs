//! The worth of a price reading: there is no fallback price, so a reading that is not good is a reason to skip.

use std::time::Duration;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::wire_values::{
    NotAnAmount, decimal_of_json, decimal_of_text, is_within_bounds, moment_of_text, read_object,
};
use crate::error::bounded_detail;
use crate::ids::{Symbol, TsMs};

/// Age beyond which a price is not used, unless configured otherwise.
pub const PRICE_AGE_MAX: Duration = Duration::from_secs(30);

/// Reason for which there is no price. Shown behind `price_unavailable: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceUnavailable {
    /// Nobody has one.
    #[error("no price")]
    Missing,
    /// The source did not answer.
    #[error("source is down: {0}")]
    SourceDown(String),
    /// The source has something that is no price.
    #[error("unreadable")]
    Unreadable,
    /// It is of another symbol.
    #[error("is of {0}")]
    WrongSymbol(String),
    /// NaN or infinite.
    #[error("not finite")]
    NotFinite,
    /// Zero or less.
    #[error("not more than zero")]
    NotPositive,
    /// Larger than any price.
    #[error("too large")]
    TooLarge,
    /// Observed after now.
    #[error("from the future")]
    InFuture,
    /// Observed too long ago.
    #[error("{age_ms} ms old")]
    TooOld {
        /// Its age.
        age_ms: i64,
    },
}

/// Returns `price` when it is one that may be traded on: observed at `at`, not after `now` and not more than `age_max`
/// before it.
///
/// # Errors
///
/// [`PriceUnavailable`]: why not.
pub fn usable_price(
    price: Decimal,
    at: TsMs,
    now: TsMs,
    age_max: Duration,
) -> Result<Decimal, PriceUnavailable> {
    if price <= Decimal::ZERO {
        return Err(PriceUnavailable::NotPositive);
    }
    if !is_within_bounds(price) {
        return Err(PriceUnavailable::TooLarge);
    }
    if now < at {
        return Err(PriceUnavailable::InFuture);
    }
    let age_ms = now.0.saturating_sub(at.0);
    if age_max.as_millis() < u128::from(age_ms.unsigned_abs()) {
        return Err(PriceUnavailable::TooOld { age_ms });
    }
    Ok(price)
}

/// Reads the `mid` of a price cache's entry for `symbol`, or of a quote service's answer of the same shape.
///
/// Source: CONTRACTS §5: `price:{SYMBOL}` {"symbol","bid","ask","mid","bid_size","ask_size","timestamp","exchange"}.
///
/// # Errors
///
/// [`PriceUnavailable`]: why it is worth nothing.
pub fn read_quote(
    entry: &[u8],
    symbol: &Symbol,
    now: TsMs,
    age_max: Duration,
) -> Result<Decimal, PriceUnavailable> {
    #[derive(Deserialize)]
    struct Quote {
        symbol: String,
        mid: Box<RawValue>,
        timestamp: String,
    }
    let quote: Quote = read_object(entry).map_err(|_| unreadable_entry(entry))?;
    if quote.symbol != symbol.as_str() {
        return Err(PriceUnavailable::WrongSymbol(bounded_detail(&quote.symbol)));
    }
    let price = decimal_of_json(&quote.mid).map_err(|error| match error {
        NotAnAmount::NotFinite => PriceUnavailable::NotFinite,
        NotAnAmount::NotANumber => PriceUnavailable::Unreadable,
        NotAnAmount::TooLarge => PriceUnavailable::TooLarge,
    })?;
    let at = moment_of_text(&quote.timestamp).ok_or(PriceUnavailable::Unreadable)?;
    usable_price(price, at, now, age_max)
}

/// An entry that is no JSON: Python writes a `mid` that is not finite as a bare word.
fn unreadable_entry(entry: &[u8]) -> PriceUnavailable {
    let text = std::str::from_utf8(entry).unwrap_or_default();
    let behind = text.split_once("\"mid\"").map_or("", |(_, behind)| behind.trim_start_matches([' ', ':']));
    let word = behind.split([',', '}']).next().unwrap_or_default().trim_end();
    match decimal_of_text(word) {
        Err(NotAnAmount::NotFinite) => PriceUnavailable::NotFinite,
        Ok(_) | Err(NotAnAmount::NotANumber | NotAnAmount::TooLarge) => PriceUnavailable::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2025-01-02T15:00:30Z.
    const NOW: TsMs = TsMs(1_735_830_030_000);

    fn read(entry: &str) -> Result<Decimal, String> {
        let read = read_quote(entry.as_bytes(), &Symbol::from("AAPL"), NOW, PRICE_AGE_MAX);
        read.map_err(|why| why.to_string())
    }

    fn quote(symbol: &str, mid: &str, at: &str) -> String {
        format!(
            r#"{{"symbol":"{symbol}","bid":149.9,"ask":150.1,"mid":{mid},"timestamp":"{at}","exchange":"V"}}"#
        )
    }

    #[test]
    fn a_fresh_mid_is_the_price_that_its_digits_say() {
        for (mid, at, price) in [
            ("150.005", "2025-01-02T15:00:00Z", "150.005"),
            ("\"150.10\"", "2025-01-02T15:00:30+00:00", "150.10"),
            ("0.1", "2025-01-02T16:00:00.000001+01:00", "0.1"),
        ] {
            assert_eq!(read(&quote("AAPL", mid, at)), Ok(price.parse().unwrap()), "{mid} {at}");
        }
    }

    #[test]
    fn a_reading_that_is_worth_nothing_says_why() {
        const GOOD: &str = "2025-01-02T15:00:00Z";
        for (entry, why) in [
            (quote("AAPLX", "150", GOOD), "is of AAPLX"),
            (quote("aapl", "150", GOOD), "is of aapl"),
            (quote("AAPL", "\"NaN\"", GOOD), "not finite"),
            (quote("AAPL", "\"-inf\"", GOOD), "not finite"),
            (quote("AAPL", "NaN", GOOD), "not finite"),
            (quote("AAPL", " -Infinity ", GOOD), "not finite"),
            (quote("AAPL", "150,", GOOD), "unreadable"),
            (quote("AAPL", "1e400", GOOD), "too large"),
            (quote("AAPL", "1e13", GOOD), "too large"),
            (quote("AAPL", "0", GOOD), "not more than zero"),
            (quote("AAPL", "-150", GOOD), "not more than zero"),
            (quote("AAPL", "0.00", GOOD), "not more than zero"),
            (quote("AAPL", "null", GOOD), "unreadable"),
            (quote("AAPL", "\"\"", GOOD), "unreadable"),
            (quote("AAPL", "150", "2025-01-02T15:00:00"), "unreadable"),
            (quote("AAPL", "150", "2025-01-02T15:00:30.001Z"), "from the future"),
            (quote("AAPL", "150", "2025-01-02T14:59:59.999Z"), "30001 ms old"),
            (quote("AAPL", "150", "2024-01-02T15:00:00Z"), "31622430000 ms old"),
            (String::new(), "unreadable"),
            ("{}".to_owned(), "unreadable"),
            ("[]".to_owned(), "unreadable"),
        ] {
            assert_eq!(read(&entry), Err(why.to_owned()), "{entry}");
        }
    }

    #[test]
    fn an_age_of_exactly_the_limit_is_good() {
        let at = |ms: i64| usable_price(Decimal::ONE, NOW.plus_ms(-ms), NOW, PRICE_AGE_MAX);

        assert!(at(30_000).is_ok());
        assert_eq!(at(30_001), Err(PriceUnavailable::TooOld { age_ms: 30_001 }));
        assert_eq!(usable_price(Decimal::ONE, TsMs(i64::MIN), NOW, PRICE_AGE_MAX).ok(), None);
    }
}
