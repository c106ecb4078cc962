//! Values as other services write them: decimals and moments, from their text.
//!
//! A number never goes through a float: `0.1` of a weight and `300.505` of a price are what their digits say.

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::ids::TsMs;

/// Longest text of a number that is looked at, in bytes. The longest double has 24.
const NUMBER_BYTES_MAX: usize = 64;
/// Longest exponent that is looked at: a double ends at 308.
const EXPONENT_MAX: i32 = 400;
/// Decimal places that a [`Decimal`] can hold.
const PLACES_MAX: i32 = 28;

/// Largest price, quantity or capital that is worked with: a million millions. Products and sums of such amounts cannot
/// overflow a decimal.
pub const AMOUNT_MAX: Decimal = Decimal::from_parts(3_567_587_328, 232, 0, false, 0);

/// Tells whether an amount, of either sign, is not larger than [`AMOUNT_MAX`].
#[must_use]
pub fn is_within_bounds(amount: Decimal) -> bool {
    amount.abs() <= AMOUNT_MAX
}

/// A text that is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAmount {
    /// `NaN`, `Infinity`, or a word of the same meaning.
    #[error("not finite")]
    NotFinite,
    /// No number in the notation of JSON.
    #[error("not a number")]
    NotANumber,
    /// Larger than a decimal of 28 digits.
    #[error("too large")]
    TooLarge,
}

/// Returns the decimal that `text` writes, in the notation of a JSON number (`-12.50`, `3e-1`), at most 64 bytes.
///
/// Digits behind the 28th decimal place are cut off, towards zero: an amount never gets larger by being read.
///
/// # Errors
///
/// [`NotAnAmount`]: not finite, no number, or too large.
pub fn decimal_of_text(text: &str) -> Result<Decimal, NotAnAmount> {
    if is_not_finite(text) {
        return Err(NotAnAmount::NotFinite);
    }
    if text.len() > NUMBER_BYTES_MAX || serde_json::from_str::<&RawValue>(text).is_err() {
        return Err(NotAnAmount::NotANumber);
    }
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse().map_err(|_| NotAnAmount::NotANumber)?),
        None => (text, 0),
    };
    let (digits, places) = significant_digits(mantissa)?;
    let exponent: i32 = exponent;
    let scaled = scale_by(digits, exponent.clamp(-EXPONENT_MAX, EXPONENT_MAX) - places)?;
    Ok(if mantissa.starts_with('-') { -scaled } else { scaled })
}

/// The words that Python, JavaScript and C write for what is not finite.
fn is_not_finite(text: &str) -> bool {
    let word = text.trim_start_matches(['-', '+']);
    ["nan", "inf", "infinity"].iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// The digits of a mantissa without its sign and point, and how many stand behind the point.
fn significant_digits(mantissa: &str) -> Result<(i128, i32), NotAnAmount> {
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut digits: i128 = 0;
    let mut places = 0;
    for (byte, behind) in whole.bytes().map(|byte| (byte, 0)).chain(fraction.bytes().map(|byte| (byte, 1))) {
        if !byte.is_ascii_digit() {
            return Err(NotAnAmount::NotANumber);
        }
        match digits.checked_mul(10).and_then(|digits| digits.checked_add(i128::from(byte - b'0'))) {
            Some(more) => {
                digits = more;
                places += behind;
            }
            // Digits behind the point that no decimal has room for are cut off.
            None if behind == 1 => return Ok((digits, places)),
            None => return Err(NotAnAmount::TooLarge),
        }
    }
    Ok((digits, places))
}

/// `digits` × 10^`exponent`.
fn scale_by(mut digits: i128, mut exponent: i32) -> Result<Decimal, NotAnAmount> {
    while 0 < exponent && digits != 0 {
        digits = digits.checked_mul(10).ok_or(NotAnAmount::TooLarge)?;
        exponent -= 1;
    }
    let mut places = -exponent.min(0);
    loop {
        if places <= PLACES_MAX {
            let scale = u32::try_from(places).unwrap_or_default();
            if let Ok(decimal) = Decimal::try_from_i128_with_scale(digits, scale) {
                return Ok(decimal);
            }
            if places == 0 {
                return Err(NotAnAmount::TooLarge);
            }
        }
        digits /= 10;
        places -= 1;
        if digits == 0 {
            return Ok(Decimal::ZERO);
        }
    }
}

/// Returns the decimal that a JSON value is: a number, or a string of one (services write amounts either way).
///
/// # Errors
///
/// [`NotAnAmount`]: see [`decimal_of_text`]; any other JSON value is [`NotAnAmount::NotANumber`].
pub fn decimal_of_json(value: &RawValue) -> Result<Decimal, NotAnAmount> {
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) => decimal_of_text(&text),
        Err(_) => decimal_of_text(value.get()),
    }
}

/// Reads a JSON object. A derived reader alone would take an array of the same values as well.
///
/// # Errors
///
/// The mistake, as serde_json says it; also for JSON that is no object.
pub fn read_object<'a, T: Deserialize<'a>>(text: &'a [u8]) -> serde_json::Result<T> {
    match text.trim_ascii_start().first() {
        Some(b'{') => serde_json::from_slice(text),
        Some(_) | None => Err(serde_json::Error::custom("not a JSON object")),
    }
}

/// Returns the moment of an RFC 3339 text with an offset, to the millisecond; `None` for any other text.
///
/// A text without an offset is refused: nobody can say when it was.
#[must_use]
pub fn moment_of_text(text: &str) -> Option<TsMs> {
    text.parse::<Timestamp>().ok().map(|moment| TsMs(moment.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn numbers_are_what_their_digits_say() {
        for (text, expected) in [
            ("0", "0"),
            ("-0.333", "-0.333"),
            ("0.1", "0.1"),
            ("300.50", "300.50"),
            ("1e3", "1000"),
            ("2.5E-3", "0.0025"),
            ("-1.25e+2", "-125"),
            ("79228162514264337593543950335", "79228162514264337593543950335"),
            ("0.12345678901234567890123456789", "0.1234567890123456789012345678"),
            ("0.33333333333333333333333333333333333333333333", "0.3333333333333333333333333333"),
            ("9.9e-29", "0"),
            ("5e-324", "0"),
            ("0e400", "0"),
        ] {
            assert_eq!(decimal_of_text(text), Ok(decimal(expected)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_the_reason() {
        let long = "1".repeat(65);
        for (text, why) in [
            ("NaN", NotAnAmount::NotFinite),
            ("-Infinity", NotAnAmount::NotFinite),
            ("inf", NotAnAmount::NotFinite),
            ("", NotAnAmount::NotANumber),
            (" 1", NotAnAmount::NotANumber),
            ("1,5", NotAnAmount::NotANumber),
            ("01", NotAnAmount::NotANumber),
            (".5", NotAnAmount::NotANumber),
            ("+1", NotAnAmount::NotANumber),
            ("true", NotAnAmount::NotANumber),
            ("null", NotAnAmount::NotANumber),
            ("1e99999999999", NotAnAmount::NotANumber),
            (long.as_str(), NotAnAmount::NotANumber),
            ("79228162514264337593543950336", NotAnAmount::TooLarge),
            ("1e29", NotAnAmount::TooLarge),
            ("1e308", NotAnAmount::TooLarge),
        ] {
            assert_eq!(decimal_of_text(text), Err(why), "{text}");
        }
    }

    #[test]
    fn the_largest_amount_is_a_million_millions() {
        assert_eq!(AMOUNT_MAX, decimal("1000000000000"));
        assert!(is_within_bounds(-AMOUNT_MAX) && !is_within_bounds(AMOUNT_MAX + Decimal::ONE));
        assert!(AMOUNT_MAX.checked_mul(AMOUNT_MAX).is_some());
    }

    #[test]
    fn amounts_of_json_are_numbers_or_their_texts() {
        let of = |text: &str| decimal_of_json(&serde_json::from_str::<Box<RawValue>>(text).unwrap());

        assert_eq!(of("\"21\""), Ok(decimal("21")));
        assert_eq!(of("21.5"), Ok(decimal("21.5")));
        assert_eq!(of("\"NaN\""), Err(NotAnAmount::NotFinite));
        assert_eq!(of("null"), Err(NotAnAmount::NotANumber));
        assert_eq!(of("{\"a\":1}"), Err(NotAnAmount::NotANumber));
    }

    #[test]
    fn an_array_is_no_object() {
        #[derive(Deserialize)]
        struct One {
            value: u8,
        }
        let read = |text: &str| read_object::<One>(text.as_bytes()).map(|one| one.value).ok();

        assert_eq!(read(" {\"value\":1}"), Some(1));
        for text in ["[1]", "1", "", "null", "{}"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_moment_has_an_offset() {
        assert_eq!(moment_of_text("2026-01-01T00:00:00+00:00"), Some(TsMs(1_767_225_600_000)));
        assert_eq!(moment_of_text("2026-01-01T01:00:00.0019+01:00"), Some(TsMs(1_767_225_600_001)));
        assert_eq!(moment_of_text("2026-01-01T00:00:00Z"), Some(TsMs(1_767_225_600_000)));
        assert_eq!(moment_of_text("2026-01-01T00:00:00"), None);
        assert_eq!(moment_of_text("yesterday"), None);
    }

    proptest! {
        #[test]
        fn a_decimal_is_read_as_it_is_written(digits in any::<i64>(), scale in 0..=18u32) {
            let written = Decimal::new(digits, scale);

            prop_assert_eq!(decimal_of_text(&written.to_string()), Ok(written));
        }

        #[test]
        fn a_number_never_gets_larger_by_being_read(value in any::<f64>()) {
            if let Ok(read) = decimal_of_text(&format!("{value:e}")) {
                let exact: f64 = read.to_string().parse().unwrap();
                prop_assert!(exact.abs() <= value.abs(), "{value:e} was read as {read}");
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.eE]{0,40}") {
            let _ignored = decimal_of_text(&text).is_ok();
        }
    }
}
