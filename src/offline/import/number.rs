//! Numbers and times as other systems write them, turned into ours without a detour over floating point.

use clap::ValueEnum;
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::input_time::{InputTimes, TimeUnit, describe_implausible};

/// The decimal number `text` as JSON: its exact value, without superfluous zeros, always with a fraction (`7` is
/// `7.0`).
///
/// What has an exponent keeps its digits. Spaces around are ignored; a thousands separator, NaN and Infinity are no
/// number.
pub(super) fn json_decimal(text: &str) -> Option<String> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.parse::<i16>().ok()?)),
        None => (digits, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole = or_zero(whole.trim_start_matches('0'));
    let fraction = or_zero(fraction.trim_end_matches('0'));
    Some(match exponent {
        None => format!("{sign}{whole}.{fraction}"),
        Some(exponent) => format!("{sign}{whole}.{fraction}e{exponent}"),
    })
}

fn or_zero(digits: &str) -> &str {
    if digits.is_empty() { "0" } else { digits }
}

/// Unit of a table's times, counted since 1970 in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Unit {
    /// Seconds; a fraction is allowed, here and in the others.
    S,
    /// Milliseconds.
    #[default]
    Ms,
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

impl Unit {
    const fn to_kernel_unit(self) -> TimeUnit {
        match self {
            Self::S => TimeUnit::Seconds,
            Self::Ms => TimeUnit::Milliseconds,
            Self::Us => TimeUnit::Microseconds,
            Self::Ns => TimeUnit::Nanoseconds,
        }
    }

    /// The time `ms`, which was given in this unit, if an exchange's clock can have shown it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, with the likely unit.
    pub(super) fn check_plausible(self, ms: i64) -> Result<i64, String> {
        let number = i128::from(ms) * self.to_kernel_unit().per_second() / 1_000;
        match InputTimes::PLAUSIBLE.check_time(TsMs(ms), None) {
            Ok(()) => Ok(ms),
            Err(_) => Err(describe_implausible(number, self.to_kernel_unit())),
        }
    }

    const fn to_nanoseconds(self) -> i128 {
        match self {
            Self::S => 1_000_000_000,
            Self::Ms => 1_000_000,
            Self::Us => 1_000,
            Self::Ns => 1,
        }
    }
}

/// The time `text` in whole milliseconds, rounded down.
pub(super) fn parse_milliseconds(text: &str, unit: Unit) -> Option<i64> {
    let text = text.trim();
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || 18 < fraction.len() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let parts = format!("{whole}{fraction}").parse::<i128>().ok()?.checked_mul(unit.to_nanoseconds())?;
    let signed = if is_negative { -parts } else { parts };
    i64::try_from(signed.div_euclid(scale.checked_mul(1_000_000)?)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_keep_their_exact_value() {
        for (text, json) in [
            ("61800.30", "61800.3"),
            ("60000.00", "60000.0"),
            ("7", "7.0"),
            ("0.00001000", "0.00001"),
            ("-0.0125", "-0.0125"),
            ("+.5", "0.5"),
            ("5.", "5.0"),
            ("007.10", "7.1"),
            (" 1 ", "1.0"),
            ("1.50E-8", "1.5e-8"),
            ("123456789012345678901234567890.10", "123456789012345678901234567890.1"),
        ] {
            assert_eq!(json_decimal(text).as_deref(), Some(json), "{text}");
        }
        for text in ["", ".", "-", "1,5", "1 5", "NaN", "inf", "0x1", "1e", "1e99999", "--1", "1.2.3", "١"] {
            assert_eq!(json_decimal(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_whole_milliseconds_rounded_down() {
        for (text, unit, ms) in [
            ("1723161255", Unit::S, 1_723_161_255_000),
            ("1723161255.0309", Unit::S, 1_723_161_255_030),
            ("1723161255030", Unit::Ms, 1_723_161_255_030),
            ("1723161255030.9", Unit::Ms, 1_723_161_255_030),
            ("1723161255030999", Unit::Us, 1_723_161_255_030),
            ("1723161255030999999", Unit::Ns, 1_723_161_255_030),
            ("-1", Unit::Us, -1),
        ] {
            assert_eq!(parse_milliseconds(text, unit), Some(ms), "{text}");
        }
        for text in ["", ".5", "1e9", "noon", "99999999999999999999999", "1.0000000000000000000"] {
            assert_eq!(parse_milliseconds(text, Unit::S), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_decimal_is_json_of_the_same_value(text in "[+-]?[0-9]{1,12}(\\.[0-9]{0,12})?(e-?[0-9])?") {
            let json = json_decimal(&text).unwrap();

            prop_assert!(serde_json::from_str::<serde_json::Number>(&json).is_ok());
            prop_assert_eq!(json.parse::<f64>().unwrap(), text.parse::<f64>().unwrap());
            prop_assert_eq!(json_decimal(&json), Some(json));
        }
    }
}
