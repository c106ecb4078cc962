//! Numbers and times as people read them.

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::to_rfc3339;

/// `1234567` as `1,234,567`.
pub(super) fn group_digits(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A measure with as many digits as tell something: three.
pub(super) fn three_digits(value: f64) -> String {
    let size = value.abs();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; saturates")]
    let whole = || group_digits(value.max(0.0).round() as u64);
    match size {
        _ if size >= 100.0 => whole(),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 0.995 => format!("{value:.2}"),
        _ if size == 0.0 => "0".to_owned(),
        _ => format!("{value:.3}"),
    }
}

/// A time span.
pub(super) fn span_text(ms: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for people to look at")]
    let seconds = ms as f64 / 1e3;
    let (value, unit) = match seconds {
        _ if seconds < 1.0 => return format!("{ms} ms"),
        _ if seconds < 120.0 => (seconds, "s"),
        _ if seconds < 7_200.0 => (seconds / 60.0, "min"),
        _ if seconds < 172_800.0 => (seconds / 3_600.0, "h"),
        _ => (seconds / 86_400.0, "days"),
    };
    let value = if value.fract() == 0.0 { format!("{value:.0}") } else { three_digits(value) };
    format!("{value} {unit}")
}

/// The moment, UTC, to the second.
pub(super) fn moment_text(at: TsMs) -> String {
    let text = to_rfc3339(TsMs(at.0.div_euclid(1000).saturating_mul(1000)));
    text.trim_end_matches("+00:00").replace('T', " ")
}

/// The moment on an axis that spans `span_ms`: the date only where the time of day does not tell enough.
pub(super) fn tick_label(at: TsMs, span_ms: i64) -> String {
    const DAY_MS: i64 = 86_400_000;
    let text = moment_text(at);
    let Some((date, time)) = text.rsplit_once(' ') else { return text };
    let without_seconds = || time.rsplit_once(':').map_or(time, |(minutes, _)| minutes).to_owned();
    match span_ms {
        _ if span_ms < 30 * 60_000 => time.to_owned(),
        _ if span_ms < DAY_MS => without_seconds(),
        _ if span_ms < 3 * DAY_MS => format!("{} {}", date.get(5..).unwrap_or(date), without_seconds()),
        _ => date.to_owned(),
    }
}

/// The smallest readable number that is not below `value`: 1, 2, 4, 5, 6 or 8 times a power of ten.
pub(super) fn axis_ceiling(value: u64) -> u64 {
    let powers = (0..19).map(|exponent| 10_u64.pow(exponent));
    let readable = powers.flat_map(|power| [1, 2, 4, 5, 6, 8].map(|digit| power.saturating_mul(digit)));
    readable.filter(|readable| value <= *readable).min().unwrap_or(value).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_measures_have_three_digits() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(group_digits), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.0, 0.0123, 1.0, 9.999, 12.34, 40_446.4].map(three_digits),
            ["0", "0.012", "1.00", "10.00", "12.3", "40,446"]
        );
    }

    #[test]
    fn times_say_what_is_needed() {
        let at = TsMs(1_723_161_255_030);

        assert_eq!(moment_text(at), "2024-08-08 23:54:15");
        assert_eq!(tick_label(at, 60_000), "23:54:15");
        assert_eq!(tick_label(at, 3_600_000), "23:54");
        assert_eq!(tick_label(at, 100_000_000), "08-08 23:54");
        assert_eq!(tick_label(at, 1_000_000_000), "2024-08-08");
        assert_eq!(
            [500, 15_000, 344_851, 10_800_000, 604_800_000].map(span_text),
            ["500 ms", "15 s", "5.75 min", "3 h", "7 days"]
        );
    }

    #[test]
    fn the_top_of_an_axis_is_readable_and_not_below_its_data() {
        assert_eq!([0, 1, 3, 7, 9, 11, 92, 1_471].map(axis_ceiling), [1, 1, 4, 8, 10, 20, 100, 2_000]);
        assert_eq!(axis_ceiling(u64::MAX), u64::MAX);
    }
}
