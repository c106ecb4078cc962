//! The forms that a setting can have: how it is read, written and described.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::file::parse_list;
use super::tree::Value;
use super::violation::nearest_key;

/// Reads, writes and describes one kind of setting.
pub(crate) trait SettingForm<T> {
    /// Reads it. The error completes a sentence that begins with the value.
    fn parse_value(&self, value: &Value) -> Result<T, String>;
    /// Writes it as TOML.
    fn render_value(&self, value: &T) -> String;
    /// Says what it may be.
    fn allowed_text(&self) -> String;
    /// Whether a value that it refuses may hold a secret, and is not repeated in the message.
    fn hides_value(&self) -> bool {
        false
    }
}

/// A whole number in a range.
pub(crate) struct Count(pub(crate) RangeInclusive<u64>);

impl<T: TryFrom<i128> + Display> SettingForm<T> for Count {
    fn parse_value(&self, value: &Value) -> Result<T, String> {
        let number = match value {
            Value::Integer(number) => *number,
            Value::Word(word) => word.trim().parse().map_err(|_| "is not a whole number".to_owned())?,
            Value::Text(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::List(_)
            | Value::Table(_)
            | Value::DateTime(_) => {
                return Err("is not a whole number".to_owned());
            }
        };
        let range = i128::from(*self.0.start())..=i128::from(*self.0.end());
        match T::try_from(number) {
            Ok(number_typed) if range.contains(&number) => Ok(number_typed),
            Ok(_) | Err(_) => Err("is out of range".to_owned()),
        }
    }

    fn render_value(&self, value: &T) -> String {
        value.to_string()
    }

    fn allowed_text(&self) -> String {
        format!("whole number, {} to {}", self.0.start(), self.0.end())
    }
}

/// A size in bytes: `"64MiB"` or a whole number.
pub(crate) struct Bytes(pub(crate) RangeInclusive<u64>);

/// The units of a size, largest first.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Bytes {
    fn parse_text(text: &str) -> Option<i128> {
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let unit = match unit.trim_start() {
            "" => 1,
            unit => UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        number.parse::<i128>().ok()?.checked_mul(i128::from(unit))
    }

    fn bytes_text(bytes: u64) -> String {
        let (unit, size) =
            UNITS.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size)).unwrap_or(&("B", 1));
        format!("{}{unit}", bytes / size)
    }
}

impl SettingForm<u64> for Bytes {
    fn parse_value(&self, value: &Value) -> Result<u64, String> {
        let number = match value {
            Value::Integer(number) => Some(*number),
            Value::Text(text) | Value::Word(text) => Self::parse_text(text),
            Value::Float(_) | Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::DateTime(_) => None,
        };
        let bytes = u64::try_from(number.ok_or("is not a size")?).map_err(|_| "is out of range")?;
        if self.0.contains(&bytes) { Ok(bytes) } else { Err("is out of range".to_owned()) }
    }

    fn render_value(&self, value: &u64) -> String {
        format!("\"{}\"", Self::bytes_text(*value))
    }

    fn allowed_text(&self) -> String {
        format!("size, {} to {}", Self::bytes_text(*self.0.start()), Self::bytes_text(*self.0.end()))
    }
}

/// A duration such as `"3m"`, in whole milliseconds.
pub(crate) struct DurationForm(pub(crate) RangeInclusive<Duration>);

impl SettingForm<Duration> for DurationForm {
    fn parse_value(&self, value: &Value) -> Result<Duration, String> {
        let text = match value {
            Value::Text(text) | Value::Word(text) => text,
            Value::Integer(_) | Value::Float(_) => return Err("has no unit".to_owned()),
            Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::DateTime(_) => {
                return Err("is not a duration".to_owned());
            }
        };
        let duration = humantime::parse_duration(text).map_err(|_| "is not a duration")?;
        if !duration.subsec_nanos().is_multiple_of(1_000_000) {
            return Err("is not a whole number of milliseconds".to_owned());
        }
        if self.0.contains(&duration) { Ok(duration) } else { Err("is out of range".to_owned()) }
    }

    fn render_value(&self, value: &Duration) -> String {
        format!("\"{}\"", duration_text(*value))
    }

    fn allowed_text(&self) -> String {
        let (start, end) =
            (humantime::format_duration(*self.0.start()), humantime::format_duration(*self.0.end()));
        format!("duration, {start} to {end}")
    }
}

/// A duration as people write it. Whole days stay days: as months and years they would not be whole.
pub(crate) fn duration_text(duration: Duration) -> String {
    const DAY_SECONDS: u64 = 86_400;
    const MONTH_DAYS: u64 = 30;
    let days = duration.as_secs() / DAY_SECONDS;
    match MONTH_DAYS < days && duration == Duration::from_secs(days * DAY_SECONDS) {
        true => format!("{days}days"),
        false => humantime::format_duration(duration).to_string(),
    }
}

/// A number in a range.
pub(crate) struct Real(pub(crate) RangeInclusive<f64>);

impl SettingForm<f64> for Real {
    fn parse_value(&self, value: &Value) -> Result<f64, String> {
        let number = match value {
            Value::Float(number) => *number,
            // Integers beyond 2^53 are out of every range here, so the rounding does not matter.
            Value::Integer(number) => *number as f64,
            Value::Word(word) => word.trim().parse().map_err(|_| "is not a number".to_owned())?,
            Value::Text(_) | Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::DateTime(_) => {
                return Err("is not a number".to_owned());
            }
        };
        if self.0.contains(&number) { Ok(number) } else { Err("is out of range".to_owned()) }
    }

    fn render_value(&self, value: &f64) -> String {
        format!("{value:?}")
    }

    fn allowed_text(&self) -> String {
        format!("number, {} to {}", self.0.start(), self.0.end())
    }
}

/// `true` or `false`.
pub(crate) struct Flag;

impl SettingForm<bool> for Flag {
    fn parse_value(&self, value: &Value) -> Result<bool, String> {
        match value {
            Value::Bool(flag) => Ok(*flag),
            Value::Word(word) => word.trim().parse().map_err(|_| "is neither true nor false".to_owned()),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::List(_)
            | Value::Table(_)
            | Value::DateTime(_) => Err("is neither true nor false".to_owned()),
        }
    }

    fn render_value(&self, value: &bool) -> String {
        value.to_string()
    }

    fn allowed_text(&self) -> String {
        "true or false".to_owned()
    }
}

/// One of a few words.
pub(crate) struct OneOf<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> SettingForm<T> for OneOf<T> {
    fn parse_value(&self, value: &Value) -> Result<T, String> {
        let word = text_of(value).ok_or("is not one of the words")?;
        match self.0.iter().find(|(name, _)| *name == word) {
            Some((_, value)) => Ok(*value),
            None => Err(match nearest_key(word, self.0.iter().map(|(name, _)| *name)) {
                Some(meant) => format!("is not one of the words; did you mean `{meant}`?"),
                None => "is not one of the words".to_owned(),
            }),
        }
    }

    fn render_value(&self, value: &T) -> String {
        let name = self.0.iter().find(|(_, candidate)| candidate == value).map_or("", |(name, _)| name);
        quote_toml(name)
    }

    fn allowed_text(&self) -> String {
        self.0.iter().map(|(name, _)| quote_toml(name)).collect::<Vec<_>>().join(" or ")
    }
}

/// Text that `accepts` takes.
pub(crate) struct TextForm {
    pub(crate) accepts: fn(&str) -> bool,
    pub(crate) allowed: &'static str,
}

impl SettingForm<String> for TextForm {
    fn parse_value(&self, value: &Value) -> Result<String, String> {
        let text = text_of(value).ok_or("is not text")?;
        if (self.accepts)(text) { Ok(text.to_owned()) } else { Err("does not fit".to_owned()) }
    }

    fn render_value(&self, value: &String) -> String {
        quote_toml(value)
    }

    fn allowed_text(&self) -> String {
        self.allowed.to_owned()
    }
}

/// A path. Relative ones are relative to the working directory.
pub(crate) struct FilePath;

impl SettingForm<PathBuf> for FilePath {
    fn parse_value(&self, value: &Value) -> Result<PathBuf, String> {
        let text = text_of(value).ok_or("is not text")?;
        if text.is_empty() || text.contains('\0') {
            Err("is no path".to_owned())
        } else {
            Ok(PathBuf::from(text))
        }
    }

    fn render_value(&self, value: &PathBuf) -> String {
        quote_toml(&value.to_string_lossy())
    }

    fn allowed_text(&self) -> String {
        "path, not empty".to_owned()
    }
}

/// A path, or `""` for none.
pub(crate) struct OptionalPath;

impl SettingForm<Option<PathBuf>> for OptionalPath {
    fn parse_value(&self, value: &Value) -> Result<Option<PathBuf>, String> {
        match text_of(value).ok_or("is not text")? {
            "" => Ok(None),
            _ => FilePath.parse_value(value).map(Some),
        }
    }

    fn render_value(&self, value: &Option<PathBuf>) -> String {
        value.as_ref().map_or_else(|| "\"\"".to_owned(), |path| FilePath.render_value(path))
    }

    fn allowed_text(&self) -> String {
        "path, \"\" for none".to_owned()
    }
}

/// Address and port.
pub(crate) struct AddressForm;

impl SettingForm<SocketAddr> for AddressForm {
    fn parse_value(&self, value: &Value) -> Result<SocketAddr, String> {
        let text = text_of(value).ok_or("is not text")?;
        text.parse().map_err(|_| "is not a numeric address with a port".to_owned())
    }

    fn render_value(&self, value: &SocketAddr) -> String {
        format!("\"{value}\"")
    }

    fn allowed_text(&self) -> String {
        "address:port, for example \"127.0.0.1:8003\" or \"[::1]:8003\"".to_owned()
    }
}

/// A list of texts. In the environment: a TOML array, or the items with commas between.
pub(crate) struct Texts {
    pub(crate) item: TextForm,
    pub(crate) items_max: usize,
}

impl SettingForm<Vec<String>> for Texts {
    fn parse_value(&self, value: &Value) -> Result<Vec<String>, String> {
        let items = match value {
            Value::List(items) => items.clone(),
            Value::Word(word) if word.trim_start().starts_with('[') => {
                parse_list(word).ok_or("is not a TOML array")?
            }
            Value::Word(word) if word.is_empty() => Vec::new(),
            Value::Word(word) => word.split(',').map(|item| Value::Text(item.trim().to_owned())).collect(),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Bool(_)
            | Value::Table(_)
            | Value::DateTime(_) => return Err("is not a list".to_owned()),
        };
        if items.len() > self.items_max {
            return Err(format!("has {} items", items.len()));
        }
        items
            .iter()
            .map(|item| self.item.parse_value(item).map_err(|why| format!("holds {item}, which {why}")))
            .collect()
    }

    fn render_value(&self, value: &Vec<String>) -> String {
        format!("[{}]", value.iter().map(|item| quote_toml(item)).collect::<Vec<_>>().join(", "))
    }

    fn allowed_text(&self) -> String {
        format!("list of at most {} items, each {}", self.items_max, self.item.allowed)
    }
}

/// The text of a value that is text.
pub(crate) fn text_of(value: &Value) -> Option<&str> {
    match value {
        Value::Text(text) | Value::Word(text) => Some(text),
        Value::Integer(_)
        | Value::Float(_)
        | Value::Bool(_)
        | Value::List(_)
        | Value::Table(_)
        | Value::DateTime(_) => None,
    }
}

/// `text` as a TOML string.
pub(crate) fn quote_toml(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Any text without control characters.
pub(crate) fn is_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}
