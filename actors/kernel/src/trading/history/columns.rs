//! Columns: what each can hold, and the value that is nearest to one that it cannot.
//!
//! The history is a copy for people and reports; the journal keeps the exact value. So nothing here fails: a text is
//! cut, a number stops at its column's end, and a moment at the first or the last one that both databases hold.
//!
//! | column | holds | a value beyond it |
//! |---|---|---|
//! | `VARCHAR(n)`, `TEXT` | n characters, none of them U+0000 | U+FFFD for U+0000, then cut |
//! | `INTEGER` | 0 to 2³¹ − 1 of what is counted here | 2³¹ − 1 |
//! | `BIGINT` | 0 to 2⁶³ − 1 | 2⁶³ − 1 |
//! | `TIMESTAMP WITH TIME ZONE` | the years 1970 to 9999, in milliseconds | the nearer end |
//! | `DATE` | the days of the years 1 to 9999 | the first day of 1970 |
//! | `JSONB` | any JSON without U+0000 in it | U+FFFD; beyond the bound a note of its size |

use serde_json::{Map, Value, json};

use crate::ids::TsMs;

/// Characters of a status, a type, a mode.
pub const WORD_CHARS_MAX: usize = 20;
/// Characters of a log line's level.
pub const LEVEL_CHARS_MAX: usize = 10;
/// Characters of a schedule's value.
pub const SCHEDULE_VALUE_CHARS_MAX: usize = 100;
/// Bytes of the JSON that stands beside a log line or a cycle.
pub const CONTEXT_BYTES_MAX: usize = 1 << 20;
/// Bytes of an artifact.
pub const ARTIFACT_BYTES_MAX: usize = 16 << 20;

const FIRST_MOMENT: TsMs = TsMs(0);
/// 9999-12-31T23:59:59.999Z.
const LAST_MOMENT: TsMs = TsMs(253_402_300_799_999);
const NUL: char = '\0';
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// The text as a text column holds it.
#[must_use]
pub fn fit_text(text: &str) -> String {
    text.chars().map(|letter| if letter == NUL { REPLACEMENT } else { letter }).collect()
}

/// The text as a column of so many characters holds it.
#[must_use]
pub fn fit_word(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).map(|letter| if letter == NUL { REPLACEMENT } else { letter }).collect()
}

/// The count as an `INTEGER` holds it.
#[must_use]
pub fn fit_count(count: u64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The position as a `BIGINT` holds it.
#[must_use]
pub fn fit_position(position: u64) -> i64 {
    i64::try_from(position).unwrap_or(i64::MAX)
}

/// The moment as both databases hold it.
#[must_use]
pub fn fit_moment(at: TsMs) -> TsMs {
    at.clamp(FIRST_MOMENT, LAST_MOMENT)
}

/// The day `YYYY-MM-DD` as a `DATE` holds it.
#[must_use]
pub fn fit_date(day: &str) -> String {
    const NO_DAY: &str = "1970-01-01";
    let is_day =
        day.len() == NO_DAY.len() && day.parse::<jiff::civil::Date>().is_ok_and(|day| 0 < day.year());
    if is_day { day } else { NO_DAY }.to_owned()
}

/// The value as a `JSONB` of at most `bytes_max` bytes holds it.
#[must_use]
pub fn fit_json(value: Value, bytes_max: usize) -> Value {
    let value = without_nul(value);
    let bytes = value.to_string().len();
    if bytes <= bytes_max {
        return value;
    }
    json!({ "bytes": bytes, "omitted": "larger than the history keeps; the journal has it" })
}

/// As deep as what `serde_json` reads or this code makes, so that recursion is bounded.
fn without_nul(value: Value) -> Value {
    match value {
        Value::String(text) if text.contains(NUL) => Value::String(fit_text(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nul).collect()),
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| (fit_text(&key), without_nul(value)));
            Value::Object(members.collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_column_cannot_hold_becomes_the_nearest_that_it_can() {
        assert_eq!(fit_text("a\0b"), "a\u{fffd}b");
        assert_eq!(fit_word(&"é".repeat(30), WORD_CHARS_MAX), "é".repeat(20));
        assert_eq!(fit_word("a\0b", 2), "a\u{fffd}");
        assert_eq!((fit_count(7), fit_count(u64::MAX)), (7, i32::MAX));
        assert_eq!((fit_position(7), fit_position(u64::MAX)), (7, i64::MAX));
        assert_eq!(fit_moment(TsMs(i64::MIN)), FIRST_MOMENT);
        assert_eq!(fit_moment(TsMs(i64::MAX)), LAST_MOMENT);
        assert_eq!(fit_moment(TsMs(1_768_002_660_123)), TsMs(1_768_002_660_123));
        assert_eq!(fit_date("2024-02-29"), "2024-02-29");
        for bad in ["2025-02-29", "0000-01-01", "20250101", "2025-1-1", "", "\0", "+02025-01-02"] {
            assert_eq!(fit_date(bad), "1970-01-01", "{bad:?}");
        }
        assert_eq!(fit_json(json!({ "a\0": ["\0"] }), 100), json!({ "a\u{fffd}": ["\u{fffd}"] }));
        assert_eq!(fit_json(json!("x".repeat(99)), 100)["bytes"], 101);
    }

    proptest! {
        #[test]
        fn whatever_comes_fits_its_column(text in any::<String>(), count in any::<u64>(), at in any::<i64>()) {
            let word = fit_word(&text, WORD_CHARS_MAX);
            let moment = fit_moment(TsMs(at));

            prop_assert!(word.chars().count() <= WORD_CHARS_MAX && !word.contains('\0'));
            prop_assert!(!fit_json(Value::String(text), CONTEXT_BYTES_MAX).to_string().contains("\\u0000"));
            prop_assert!(0 <= fit_count(count) && 0 <= fit_position(count));
            // What one database writes as text, both read again.
            let written = crate::rfc3339::to_rfc3339(moment);
            prop_assert_eq!(crate::rfc3339::moment_of_people(&written), Some(moment));
        }
    }
}
