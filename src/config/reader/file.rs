//! The file layer: TOML with the line of every value.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::tree::{Node, Origin, Table, Value};
use super::violation::Violation;

/// Largest configuration file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Reads the file at `path`.
pub(crate) fn read_file(path: &Path) -> Result<Table, Vec<Violation>> {
    let refuse = |what: String| {
        vec![Violation {
            path: path.display().to_string(),
            what,
            allowed: "a readable TOML file of at most 4MiB".to_owned(),
            origin: Origin::Default,
        }]
    };
    let text = read_text(path, FILE_BYTES_MAX).map_err(|error| refuse(format!("cannot be read: {error}")))?;
    parse_text(&text, path)
}

/// The text of a file of at most `bytes_max` bytes.
pub(crate) fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    // One byte more than allowed tells "too large" apart, also for what has no size, such as a pipe.
    File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {bytes_max} bytes"),
        ));
    }
    Ok(text)
}

/// Parses `text`, which stands in the file `path`. Reports every syntax error.
pub(crate) fn parse_text(text: &str, path: &Path) -> Result<Table, Vec<Violation>> {
    let place = Place { path: Arc::from(path), text };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return place.to_table(table.get_ref());
    }
    let violation = |error: &toml::de::Error| Violation {
        path: path.display().to_string(),
        what: error.message().trim().replace('\n', ", "),
        allowed: "TOML 1.1".to_owned(),
        origin: place.origin_of_byte(error.span().map_or(0, |span| span.start)),
    };
    Err(errors.iter().map(violation).collect())
}

/// The file being read.
struct Place<'a> {
    path: Arc<Path>,
    text: &'a str,
}

impl Place<'_> {
    fn origin_of_byte(&self, byte: usize) -> Origin {
        let before = self.text.as_bytes().iter().take(byte);
        Origin::File { path: Arc::clone(&self.path), line: 1 + before.filter(|byte| **byte == b'\n').count() }
    }

    fn to_table(&self, table: &DeTable<'_>) -> Result<Table, Vec<Violation>> {
        let (mut nodes, mut violations) = (Table::new(), Vec::new());
        for (key, value) in table {
            let origin = self.origin_of_byte(key.span().start);
            match self.to_value(value) {
                Ok(value) => {
                    nodes.insert(key.get_ref().clone().into_owned(), Node { value, origin });
                }
                Err(inner) => violations.extend(inner.into_iter().map(|mut violation: Violation| {
                    let below = if violation.path.is_empty() { "" } else { "." };
                    violation.path = format!("{}{below}{}", key.get_ref(), violation.path);
                    violation
                })),
            }
        }
        if violations.is_empty() { Ok(nodes) } else { Err(violations) }
    }

    fn to_value(&self, value: &Spanned<DeValue<'_>>) -> Result<Value, Vec<Violation>> {
        let unreadable = |number: &str| {
            vec![Violation {
                path: String::new(),
                what: format!("{number} is not a number that can be represented"),
                allowed: String::new(),
                origin: self.origin_of_byte(value.span().start),
            }]
        };
        Ok(match value.get_ref() {
            DeValue::String(text) => Value::Text(text.clone().into_owned()),
            DeValue::Integer(number) => Value::Integer(
                i128::from_str_radix(number.as_str(), number.radix())
                    .map_err(|_| unreadable(number.as_str()))?,
            ),
            DeValue::Float(number) => {
                Value::Float(number.as_str().parse().map_err(|_| unreadable(number.as_str()))?)
            }
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(moment) => Value::DateTime(moment.to_string()),
            DeValue::Array(items) => {
                Value::List(items.iter().map(|item| self.to_value(item)).collect::<Result<_, _>>()?)
            }
            DeValue::Table(table) => Value::Table(self.to_table(table)?),
        })
    }
}

/// Parses the items of a TOML array that an environment variable or flag holds.
pub(crate) fn parse_list(text: &str) -> Option<Vec<Value>> {
    let document = format!("list = {text}\n");
    let mut entries = parse_text(&document, Path::new("")).ok()?.into_iter();
    match (entries.next()?, entries.next()) {
        ((_, Node { value: Value::List(items), .. }), None) => Some(items),
        // A line end in the text has begun another key.
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_one_array_and_nothing_else() {
        assert_eq!(parse_list("[\"A\",\n \"B\"]").map(|items| items.len()), Some(2));
        for text in ["", "1", "[", "[1]\nother = 2", "[1]\n[section]", "1\nlist = [1]"] {
            assert!(parse_list(text).is_none(), "{text:?}");
        }
    }
}
