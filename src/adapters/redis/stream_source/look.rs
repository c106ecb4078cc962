//! What a server shows of entries that were removed before the group read them.
//!
//! ```text
//!   entries of the stream   1 … last delivered │ removed │ still there …… last
//!                                              └ newest removed id
//! ```
//!
//! From version 7 on a server tells the newest id that it removed and how many entries it ever had. An id that is newer than
//! the last one delivered was never read by this group. How many those are follows when all that was removed is older
//! than all that is there, as it is after trimming.

use redis::Value;

use super::entries::EntryId;

/// The facts, as far as the server tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    length: Option<u64>,
    entries_added: Option<u64>,
    newest_removed: Option<EntryId>,
    first: Option<EntryId>,
    last_delivered: Option<EntryId>,
    entries_read: Option<u64>,
}

/// Entries that the group will never see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Removed {
    /// The newest of them.
    pub(super) newest: EntryId,
    /// How many, when that follows.
    pub(super) count: Option<u64>,
}

impl Look {
    /// What was removed without having been read by the group; nothing when nothing shows it.
    pub(super) fn removed(&self) -> Option<Removed> {
        let (newest, delivered) = (self.newest_removed?, self.last_delivered?);
        if newest <= delivered {
            return None;
        }
        let is_trimmed = self.first.is_none_or(|first| newest < first);
        let count = match (self.entries_added, self.entries_read, self.length) {
            (Some(added), Some(read), Some(length)) if is_trimmed => {
                Some(added.saturating_sub(read).saturating_sub(length)).filter(|count| *count > 0)
            }
            _ => None,
        };
        Some(Removed { newest, count })
    }
}

/// Reads the answers of `XINFO STREAM` and `XINFO GROUPS`. What an older server does not tell stays unknown.
pub(super) fn of(stream: &Value, groups: &Value, group: &str) -> Look {
    let groups = match groups {
        Value::Array(groups) => groups.as_slice(),
        _ => &[],
    };
    let is_ours = |fields: &&Value| text(field(fields, "name")) == Some(group);
    let ours = groups.iter().find(is_ours);
    Look {
        length: number(field(stream, "length")),
        entries_added: number(field(stream, "entries-added")),
        newest_removed: id(field(stream, "max-deleted-entry-id")),
        first: match field(stream, "first-entry") {
            Some(Value::Array(entry)) => id(entry.first()),
            _ => None,
        },
        last_delivered: ours.and_then(|ours| id(field(ours, "last-delivered-id"))),
        entries_read: ours.and_then(|ours| number(field(ours, "entries-read"))),
    }
}

/// The value behind `name` in a list of names and values, or in a map.
fn field<'a>(fields: &'a Value, name: &str) -> Option<&'a Value> {
    match fields {
        Value::Array(fields) => {
            let pairs = fields.as_chunks::<2>().0;
            pairs.iter().find(|[key, _]| text(Some(key)) == Some(name)).map(|[_, value]| value)
        }
        Value::Map(fields) => {
            fields.iter().find(|(key, _)| text(Some(key)) == Some(name)).map(|(_, value)| value)
        }
        _ => None,
    }
}

fn text(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::BulkString(text)) => std::str::from_utf8(text).ok(),
        Some(Value::SimpleString(text)) => Some(text),
        _ => None,
    }
}

fn number(value: Option<&Value>) -> Option<u64> {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn id(value: Option<&Value>) -> Option<EntryId> {
    text(value)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn check_look(
        removed: &str,
        first: Option<&str>,
        delivered: &str,
        read: Value,
    ) -> Option<(String, Option<u64>)> {
        let first =
            first.map_or(Value::Nil, |first| Value::Array(vec![text(first), Value::Array(Vec::new())]));
        let stream = vec![
            text("length"),
            Value::Int(3),
            text("entries-added"),
            Value::Int(10),
            text("max-deleted-entry-id"),
            text(removed),
            text("first-entry"),
            first,
        ];
        let group = vec![
            text("name"),
            text("g"),
            text("last-delivered-id"),
            text(delivered),
            text("entries-read"),
            read,
        ];
        let look = of(&Value::Array(stream), &Value::Array(vec![Value::Array(group)]), "g");
        look.removed().map(|removed| (removed.newest.to_string(), removed.count))
    }

    #[test]
    fn only_what_was_removed_behind_the_last_delivered_entry_is_missing() {
        assert_eq!(check_look("4-0", Some("8-0"), "4-0", Value::Int(4)), None);
        let missing = check_look("7-0", Some("8-0"), "4-0", Value::Int(4));
        assert_eq!(missing, Some(("7-0".to_owned(), Some(3))), "10 were added, 4 read, 3 are left");
    }

    #[test]
    fn how_many_is_not_guessed() {
        let in_the_middle = check_look("7-0", Some("6-0"), "4-0", Value::Int(4));
        assert_eq!(in_the_middle, Some(("7-0".to_owned(), None)));
        assert_eq!(check_look("7-0", Some("8-0"), "4-0", Value::Nil), Some(("7-0".to_owned(), None)));
    }

    #[test]
    fn an_older_server_tells_nothing() {
        assert_eq!(of(&Value::Array(vec![text("length"), Value::Int(3)]), &Value::Nil, "g").removed(), None);
    }
}
