//! Entries as the server sends them, and what becomes of those that hold no event.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use redis::Value;

/// Bytes of a field's name that a message shows.
const NAME_BYTES_MAX: usize = 64;
/// Names of fields that it shows.
const SHOWN_FIELDS_MAX: usize = 8;

/// The name of an entry: milliseconds, and a number among those of one millisecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryId {
    ms: u64,
    number: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.number)
    }
}

impl FromStr for EntryId {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (ms, number) = text.split_once('-').ok_or(Malformed("an entry id"))?;
        let number_of = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().map_err(|_| Malformed("an entry id")),
            false => Err(Malformed("an entry id")), // `parse` would take a sign
        };
        Ok(Self { ms: number_of(ms)?, number: number_of(number)? })
    }
}

/// The server's answer has not the form of the command's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer lacks {0}; is this a Redis server of version 6.2 or later?")]
pub(super) struct Malformed(&'static str);

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StreamEntry {
    pub(super) id: EntryId,
    /// The event's bytes; or a description of an entry that has none, which cannot be taken for an event.
    pub(super) bytes: Bytes,
    /// The names of further fields, which are not kept.
    pub(super) further: Vec<String>,
}

/// Answer to `XAUTOCLAIM`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claimed {
    /// Where the next call goes on; zero at the end.
    pub(super) next: EntryId,
    pub(super) entries: Vec<StreamEntry>,
}

/// Reads the answer of `XREADGROUP` for one stream: nothing, or the stream with its entries.
pub(super) fn of_read(answer: Value, field: &str) -> Result<Vec<StreamEntry>, Malformed> {
    let entries = match answer {
        Value::Nil => return Ok(Vec::new()),
        Value::Array(streams) => streams.into_iter().next().and_then(|stream| match stream {
            Value::Array(parts) => parts.into_iter().nth(1),
            _ => None,
        }),
        Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries), // RESP3
        _ => None,
    };
    of_list(entries.ok_or(Malformed("the stream"))?, field)
}

/// Reads the answer of `XAUTOCLAIM`: where to go on, the entries, and from version 7 on those that were deleted.
pub(super) fn of_claim(answer: Value, field: &str) -> Result<Claimed, Malformed> {
    let Value::Array(parts) = answer else { return Err(Malformed("three parts")) };
    let mut parts = parts.into_iter();
    let next = id_of(parts.next().as_ref())?;
    let mut entries = of_list(parts.next().ok_or(Malformed("the entries"))?, field)?;
    if let Some(Value::Array(deleted)) = parts.next() {
        for id in &deleted {
            let id = id_of(Some(id))?;
            entries.push(StreamEntry::unusable_entry(id, "it was deleted before it was read", &[]));
        }
    }
    Ok(Claimed { next, entries })
}

fn of_list(entries: Value, field: &str) -> Result<Vec<StreamEntry>, Malformed> {
    let Value::Array(entries) = entries else { return Err(Malformed("the entries")) };
    // Version 6.2 has nothing in the place of a claimed entry that was deleted, not even its id.
    let known = entries.into_iter().filter(|entry| !matches!(entry, Value::Nil));
    known.map(|entry| of_entry(entry, field)).collect()
}

fn of_entry(entry: Value, field: &str) -> Result<StreamEntry, Malformed> {
    let Value::Array(parts) = entry else { return Err(Malformed("an entry")) };
    let mut parts = parts.into_iter();
    let id = id_of(parts.next().as_ref())?;
    let fields = match parts.next() {
        Some(Value::Array(fields)) => field_pairs(fields)?,
        Some(Value::Nil) => {
            return Ok(StreamEntry::unusable_entry(id, "it was deleted before it was read", &[]));
        }
        _ => return Err(Malformed("the fields of an entry")),
    };
    let is_event = |(name, _): &&Field| name == field.as_bytes();
    match fields.iter().filter(is_event).count() {
        1 => {}
        0 => return Ok(StreamEntry::unusable_entry(id, &format!("it has no field {field:?}"), &fields)),
        // Which of them is the receipt is not ours to guess, and none must be lost.
        times => {
            return Ok(StreamEntry::unusable_entry(
                id,
                &format!("it has the field {field:?} {times} times"),
                &fields,
            ));
        }
    }
    let (events, further): (Vec<Field>, Vec<Field>) = fields.into_iter().partition(|field| is_event(&field));
    let bytes = events.into_iter().next().map(|(_, bytes)| Bytes::from(bytes)).unwrap_or_default();
    let further = further.iter().take(SHOWN_FIELDS_MAX).map(|(name, _)| text_beginning(name)).collect();
    Ok(StreamEntry { id, bytes, further })
}

impl StreamEntry {
    fn unusable_entry(id: EntryId, why: &str, fields: &[Field]) -> Self {
        Self { id, bytes: describe_unusable(id, why, fields), further: Vec::new() }
    }
}

/// The beginning of a text, for people.
fn text_beginning(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..NAME_BYTES_MAX).unwrap_or(bytes)).into_owned()
}

/// Name and content of a field.
type Field = (Vec<u8>, Vec<u8>);

fn field_pairs(fields: Vec<Value>) -> Result<Vec<Field>, Malformed> {
    let mut texts = fields.into_iter().map(|text| match text {
        Value::BulkString(bytes) => Ok(bytes),
        _ => Err(Malformed("a field")),
    });
    let mut pairs = Vec::new();
    while let Some(name) = texts.next() {
        pairs.push((name?, texts.next().ok_or(Malformed("the content of a field"))??));
    }
    Ok(pairs)
}

fn id_of(id: Option<&Value>) -> Result<EntryId, Malformed> {
    match id {
        Some(Value::BulkString(text)) => {
            std::str::from_utf8(text).map_err(|_| Malformed("an entry id"))?.parse()
        }
        _ => Err(Malformed("an entry id")),
    }
}

/// What the quarantine keeps of an entry without an event: JSON that names no schema, so that it can be no receipt.
///
/// All of it is kept: a text as it is, other bytes in hexadecimal. It is acknowledged, so nobody else may have it
/// later.
fn describe_unusable(id: EntryId, why: &str, fields: &[Field]) -> Bytes {
    let kept = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::json!(text),
        Err(_) => {
            serde_json::json!({"hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()})
        }
    };
    let fields: Vec<_> = fields.iter().map(|(name, value)| [kept(name), kept(value)]).collect();
    let description = serde_json::json!({"entry": id.to_string(), "unusable": why, "fields": fields});
    Bytes::from(description.to_string())
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::engine::contracts::raw_market_event::{Names, NotAReceipt, decode};
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn entry(id: &str, fields: Value) -> Value {
        Value::Array(vec![text(id), fields])
    }

    fn check_read(entry: Value) -> StreamEntry {
        let answer = Value::Array(vec![Value::Array(vec![text("stream"), Value::Array(vec![entry])])]);
        let [entry] = of_read(answer, "event").unwrap().try_into().unwrap();
        entry
    }

    #[test]
    fn the_event_is_the_named_field_byte_for_byte() {
        let all = Value::BulkString((0..=255).collect());
        let fields = Value::Array(vec![text("other"), text("x"), text("event"), all]);

        let entry = check_read(entry("1768002660000-3", fields));

        assert_eq!(entry.id.to_string(), "1768002660000-3");
        assert_eq!(entry.bytes, (0..=255).collect::<Vec<u8>>());
        assert_eq!(entry.further, ["other"], "said, because it is not kept");
    }

    #[test]
    fn an_entry_that_is_not_exactly_one_receipt_is_kept_whole_and_none_is_taken() {
        let binary = Value::BulkString(vec![0xff; 2]);
        let fields =
            vec![text("event"), text("{\"a\":1}"), text("event"), text("{\"b\":2}"), text("x"), binary];

        let entry = check_read(entry("1-2", Value::Array(fields)));

        let described: serde_json::Value = serde_json::from_slice(&entry.bytes).unwrap();
        assert_eq!(described["unusable"], "it has the field \"event\" 2 times");
        let fields =
            serde_json::json!([["event", "{\"a\":1}"], ["event", "{\"b\":2}"], ["x", {"hex": "ffff"}]]);
        assert_eq!(described["fields"], fields);
    }

    #[test]
    fn an_entry_without_event_is_described_and_is_no_receipt() {
        let hostile =
            Value::Array(vec![text("schema"), text("RawMarketEvent"), text("e\"vent"), text("\u{1}")]);
        for (fields, why) in [(hostile, "it has no field"), (Value::Nil, "it was deleted")] {
            let entry = check_read(entry("1-2", fields));

            let described: serde_json::Value = serde_json::from_slice(&entry.bytes).unwrap();
            assert_eq!(described["entry"], "1-2");
            assert!(described["unusable"].as_str().unwrap().starts_with(why), "{described}");
            let decoded = decode(entry.bytes, &mut Names::default());
            assert!(matches!(decoded, Err(NotAReceipt::NotAnEnvelope { .. })), "{decoded:?}");
        }
    }

    #[test]
    fn a_description_keeps_everything() {
        let fields = (0..1000).flat_map(|_| [text("name"), text(&"x".repeat(1_000))]).collect();

        let entry = check_read(entry("1-2", Value::Array(fields)));

        assert!(1_000_000 < entry.bytes.len(), "what is acknowledged is nowhere else");
    }

    #[test]
    fn a_claim_tells_where_it_goes_on_and_what_was_deleted() {
        let kept = entry("2-0", Value::Array(vec![text("event"), text("e")]));
        let entries = Value::Array(vec![kept, Value::Nil]);
        let answer = |rest: Vec<Value>| {
            let parts = [vec![text("5-0"), entries.clone()], rest].concat();
            of_claim(Value::Array(parts), "event").unwrap()
        };

        let (old, new) = (answer(vec![]), answer(vec![Value::Array(vec![text("1-0")])]));

        assert_eq!(old.next.to_string(), "5-0");
        assert_eq!((old.entries.len(), new.entries.len()), (1, 2));
        assert_eq!(new.entries[1].id.to_string(), "1-0");
    }

    #[test]
    fn nothing_new_is_no_entry() {
        assert_eq!(of_read(Value::Nil, "event"), Ok(Vec::new()));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<i64>().prop_map(Value::Int),
            "[0-9]{0,3}-?[0-9]{0,3}".prop_map(|text| Value::BulkString(text.into_bytes())),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn whatever_the_server_answers_is_read_or_refused(answer in any_value()) {
            drop(of_read(answer.clone(), "event"));
            drop(of_claim(answer, "event"));
        }

        #[test]
        fn ids_are_read_as_they_are_written(ms in any::<u64>(), number in any::<u64>()) {
            let id = EntryId { ms, number };
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
