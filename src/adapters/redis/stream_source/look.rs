//! What a server shows of entries that were removed before the group read them.
//!
//! ```text
//!   entries of the stream   1 … last delivered │ removed │ still there …… last
//! ```
//!
//! From version 7 on a server tells the newest id that was *deleted* (trimming does not count for it), how many entries
//! the stream ever had, and how many of them the group was given. An id that was deleted and is newer than the last one
//! delivered was never read by this group. What was trimmed follows from the numbers: when all that is there is newer
//! than the last one delivered, everything that is gone and was not given to the group lies between the two.

use redis::Value;

use super::entries::EntryId;

/// The facts, as far as the server tells them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct StreamLook {
    length: Option<u64>,
    entries_added: Option<u64>,
    newest_deleted: Option<EntryId>,
    first: Option<EntryId>,
    last_generated: Option<EntryId>,
    last_delivered: Option<EntryId>,
    entries_read: Option<u64>,
}

/// Evidence that the group will never see some entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removed {
    /// Nothing is left of what it has read, and so many entries are neither there nor were given to it, since it began.
    Counted(u64),
    /// This one is the newest of those that were deleted; how many there are does not follow.
    Newest(EntryId),
}

impl StreamLook {
    /// What was removed without having been read by the group; nothing when nothing shows it.
    pub(super) fn removed_unread(&self) -> Option<Removed> {
        let delivered = self.last_delivered?;
        if self.is_all_newer(delivered)
            && let (Some(left), Some(length)) = (self.not_given(), self.length)
        {
            let count = left.saturating_sub(length);
            return (0 < count).then_some(Removed::Counted(count));
        }
        self.newest_deleted.filter(|newest| delivered < *newest).map(Removed::Newest)
    }

    /// Entries that were not given to the group since it began, those included that wait for it.
    ///
    /// Older servers count on over what they have skipped, so that stays in it when the group has read on; for later
    /// ones it was given then.
    pub(super) fn not_given(&self) -> Option<u64> {
        Some(self.entries_added?.saturating_sub(self.entries_read?))
    }

    /// Whether nothing waits for the group.
    pub(super) fn is_read_up(&self) -> bool {
        self.last_generated.is_some_and(|last| self.last_delivered.is_some_and(|delivered| last <= delivered))
    }

    /// Whether what was delivered last is gone, and there was something behind it.
    fn is_all_newer(&self, delivered: EntryId) -> bool {
        match self.first {
            Some(first) => delivered < first,
            None => self.last_generated.is_some_and(|last| delivered < last),
        }
    }
}

/// Reads the answers of `XINFO STREAM` and `XINFO GROUPS`. What an older server does not tell stays unknown.
pub(super) fn parse_info(stream: &Value, groups: &Value, group: &str) -> StreamLook {
    let groups = match groups {
        Value::Array(groups) => groups.as_slice(),
        _ => &[],
    };
    let is_ours = |fields: &&Value| value_text(find_field(fields, "name")) == Some(group);
    let ours = groups.iter().find(is_ours);
    StreamLook {
        length: value_number(find_field(stream, "length")),
        entries_added: value_number(find_field(stream, "entries-added")),
        newest_deleted: value_entry_id(find_field(stream, "max-deleted-entry-id")),
        first: match find_field(stream, "first-entry") {
            Some(Value::Array(entry)) => value_entry_id(entry.first()),
            _ => None,
        },
        last_generated: value_entry_id(find_field(stream, "last-generated-id")),
        last_delivered: ours.and_then(|ours| value_entry_id(find_field(ours, "last-delivered-id"))),
        entries_read: ours.and_then(|ours| value_number(find_field(ours, "entries-read"))),
    }
}

/// The value behind `name` in a list of names and values, or in a map.
fn find_field<'a>(fields: &'a Value, name: &str) -> Option<&'a Value> {
    match fields {
        Value::Array(fields) => {
            let pairs = fields.as_chunks::<2>().0;
            pairs.iter().find(|[key, _]| value_text(Some(key)) == Some(name)).map(|[_, value]| value)
        }
        Value::Map(fields) => {
            fields.iter().find(|(key, _)| value_text(Some(key)) == Some(name)).map(|(_, value)| value)
        }
        _ => None,
    }
}

fn value_text(value: Option<&Value>) -> Option<&str> {
    match value {
        Some(Value::BulkString(text)) => std::str::from_utf8(text).ok(),
        Some(Value::SimpleString(text)) => Some(text),
        _ => None,
    }
}

fn value_number(value: Option<&Value>) -> Option<u64> {
    match value {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn value_entry_id(value: Option<&Value>) -> Option<EntryId> {
    value_text(value)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    /// A stream that had ten entries and has three, and a group that was given some.
    fn look_at(deleted: &str, first: &str, delivered: &str, read: Value) -> Option<Removed> {
        let stream = vec![
            text("length"),
            Value::Int(3),
            text("last-generated-id"),
            text("10-0"),
            text("max-deleted-entry-id"),
            text(deleted),
            text("entries-added"),
            Value::Int(10),
            text("first-entry"),
            Value::Array(vec![text(first), Value::Array(Vec::new())]),
        ];
        let group =
            ["name", "g", "last-delivered-id", delivered, "entries-read"].map(text).into_iter().chain([read]);
        let groups = Value::Array(vec![Value::Array(group.collect())]);
        parse_info(&Value::Array(stream), &groups, "g").removed_unread()
    }

    #[test]
    fn what_was_trimmed_behind_the_last_delivered_entry_is_counted() {
        let trimmed = look_at("0-0", "8-0", "4-0", Value::Int(4));
        assert_eq!(trimmed, Some(Removed::Counted(3)), "10 were added, 4 read, 3 are left");
        assert_eq!(look_at("7-0", "8-0", "4-0", Value::Int(4)), Some(Removed::Counted(3)), "or deleted");
        assert_eq!(look_at("0-0", "8-0", "7-0", Value::Int(7)), None, "it had read all that is gone");
        assert_eq!(look_at("0-0", "7-0", "9-0", Value::Int(6)), None, "what it has read is still there");
    }

    #[test]
    fn an_empty_stream_tells_what_was_trimmed_too() {
        let look = StreamLook {
            length: Some(0),
            entries_added: Some(6),
            last_generated: "6-0".parse().ok(),
            last_delivered: "3-0".parse().ok(),
            entries_read: Some(3),
            ..StreamLook::default()
        };

        assert_eq!(look.removed_unread(), Some(Removed::Counted(3)));
        assert_eq!(StreamLook { last_delivered: look.last_generated, ..look }.removed_unread(), None);
    }

    #[test]
    fn how_many_is_not_guessed() {
        let newest = |id: &str| Some(Removed::Newest(id.parse().unwrap()));
        assert_eq!(
            look_at("7-0", "3-0", "4-0", Value::Int(4)),
            newest("7-0"),
            "something read is still there"
        );
        assert_eq!(look_at("7-0", "8-0", "4-0", Value::Nil), newest("7-0"));
        assert_eq!(look_at("0-0", "8-0", "4-0", Value::Nil), None, "nothing shows it");
        assert_eq!(look_at("4-0", "3-0", "4-0", Value::Int(4)), None, "it was read before");
    }

    #[test]
    fn an_older_server_tells_nothing() {
        assert_eq!(
            parse_info(&Value::Array(vec![text("length"), Value::Int(3)]), &Value::Nil, "g").removed_unread(),
            None
        );
    }
}
