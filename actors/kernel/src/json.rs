//! The canonical form of JSON text, so that equal answers of an engine are equal bytes in the logs.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::value::RawValue;

use crate::error::bounded_detail_of;

/// Deepest nesting of arrays and objects that has a canonical form.
pub const DEPTH_MAX: usize = 64;

/// Reason for which a text has no canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not one JSON value (RFC 8259), or a string with half of a surrogate pair, which is no Unicode text.
    #[error("not a JSON value: {detail}")]
    Malformed {
        /// What serde_json says: the mistake and the column.
        detail: String,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels at byte {at}")]
    TooDeep {
        /// Where the level that is too deep begins.
        at: usize,
    },
}

/// Returns the canonical form of `text`.
///
/// Compact; the members of an object sorted by the code points of their keys, of equal keys the last one; strings
/// escaped only where JSON requires it; numbers digit by digit as they came, because a reader of another language must
/// see the engine's own number. Two texts that differ only in order, space and escapes have the same form.
///
/// The text's size is the caller's to bound. Memory is proportional to it, and so is time, except that unsorted members
/// are copied once for each level of unsorted objects around them.
///
/// # Errors
///
/// [`JsonError`]: not JSON, or too deep. Python's `NaN` and `Infinity` are not JSON.
pub fn canonical(text: &str) -> Result<String, JsonError> {
    // One pass of serde_json, which does not recurse, settles the syntax; the writer below relies on it.
    let checked: &RawValue = serde_json::from_str(text).map_err(|error| malformed_error(&error))?;
    let out = String::with_capacity(text.len());
    let mut writer = Writer { text: checked.get(), at: 0, depth: 0, out, members: Vec::new() };
    writer.write_value().map_err(|error| match error {
        // The checked text begins behind the white space.
        JsonError::TooDeep { at } => {
            JsonError::TooDeep { at: at + text.len() - text.trim_ascii_start().len() }
        }
        JsonError::Malformed { .. } => error,
    })?;
    Ok(writer.out)
}

fn malformed_error(error: &serde_json::Error) -> JsonError {
    JsonError::Malformed { detail: describe_mistake(error) }
}

/// What serde_json says of a text, as one bounded line that ends with the place: it quotes what it did not expect, and
/// that is as long as whoever wrote the text likes.
#[must_use]
pub fn describe_mistake(error: &serde_json::Error) -> String {
    let said = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match said.strip_suffix(&place) {
        Some(what) => bounded_detail_of(what, MISTAKE_BYTES_MAX) + &place,
        None => bounded_detail_of(&said, MISTAKE_BYTES_MAX),
    }
}

/// Bytes of a mistake without its place.
const MISTAKE_BYTES_MAX: usize = 200;

/// One member as it stands in the output: its key, and the bytes from the key's quote to the end of the value.
struct Member<'a> {
    key: Cow<'a, str>,
    written: Range<usize>,
}

/// Copies valid JSON to `out`, value by value.
struct Writer<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    out: String,
    /// The members so far of all objects that are open, the innermost one's last.
    members: Vec<Member<'a>>,
}

impl<'a> Writer<'a> {
    fn write_value(&mut self) -> Result<(), JsonError> {
        match self.peek_byte() {
            Some(b'{') => self.write_nested(Self::write_object),
            Some(b'[') => self.write_nested(Self::write_array),
            Some(b'"') => self.copy_string().map(|_| ()),
            Some(_) | None => {
                self.copy_scalar();
                Ok(())
            }
        }
    }

    fn write_nested(&mut self, contents: fn(&mut Self) -> Result<(), JsonError>) -> Result<(), JsonError> {
        if self.depth == DEPTH_MAX {
            return Err(JsonError::TooDeep { at: self.at });
        }
        self.depth += 1;
        let done = contents(self);
        self.depth -= 1;
        done
    }

    fn write_array(&mut self) -> Result<(), JsonError> {
        self.skip_bytes(1);
        self.out.push('[');
        let mut first = true;
        while !self.steps_over_closing(b']') {
            if !first {
                self.out.push(',');
            }
            first = false;
            self.write_value()?;
        }
        self.out.push(']');
        Ok(())
    }

    fn write_object(&mut self) -> Result<(), JsonError> {
        self.skip_bytes(1);
        self.out.push('{');
        let (out_start, first) = (self.out.len(), self.members.len());
        let mut sorted = true;
        while !self.steps_over_closing(b'}') {
            if first < self.members.len() {
                self.out.push(',');
            }
            let start = self.out.len();
            let key = self.copy_string()?;
            self.skip_past(b':');
            self.out.push(':');
            self.write_value()?;
            sorted = sorted && self.members[first..].last().is_none_or(|last| last.key < key);
            self.members.push(Member { key, written: start..self.out.len() });
        }
        // Most engines sort their keys already; then everything stands where it belongs.
        if !sorted {
            self.reorder_members(out_start, first);
        }
        self.members.truncate(first);
        self.out.push('}');
        Ok(())
    }

    /// Writes the members from number `first` on, which stand from `out_start` on, again: sorted, of equal keys only
    /// the last.
    fn reorder_members(&mut self, out_start: usize, first: usize) {
        let members = &mut self.members[first..];
        members.sort_by(|a, b| a.key.cmp(&b.key)); // stable: of equal keys the last one stays last
        let written = self.out.split_off(out_start);
        for (index, member) in members.iter().enumerate() {
            if members.get(index + 1).is_some_and(|next| next.key == member.key) {
                continue;
            }
            if self.out.len() > out_start {
                self.out.push(',');
            }
            self.out.push_str(&written[member.written.start - out_start..member.written.end - out_start]);
        }
    }

    /// Copies a string and returns its contents.
    fn copy_string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let (token, escapes) = self.string_token();
        if !escapes {
            self.out.push_str(token);
            return Ok(Cow::Borrowed(&token[1..token.len() - 1]));
        }
        let contents: String = serde_json::from_str(token).map_err(|error| malformed_error(&error))?;
        let escaped = serde_json::to_string(&contents).map_err(|error| malformed_error(&error))?;
        self.out.push_str(&escaped);
        Ok(Cow::Owned(contents))
    }

    /// Takes the next string with its quotes and tells whether it has escapes.
    fn string_token(&mut self) -> (&'a str, bool) {
        self.skip_space();
        let rest = &self.text[self.at..];
        let bytes = rest.as_bytes();
        let (mut end, mut escapes) = (1, false);
        while let Some(byte) = bytes.get(end) {
            match byte {
                b'"' => break,
                b'\\' => {
                    escapes = true;
                    end += 2;
                }
                _ => end += 1,
            }
        }
        let token = &rest[..=end];
        self.at += token.len();
        (token, escapes)
    }

    /// Copies a number, `true`, `false` or `null`.
    fn copy_scalar(&mut self) {
        let rest = &self.text[self.at..];
        let end =
            rest.bytes().position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\r' | b'\t'));
        let token = &rest[..end.unwrap_or(rest.len())];
        self.out.push_str(token);
        self.at += token.len();
    }

    /// Steps over the comma before the next element, or over `bracket`; tells whether it was the bracket.
    fn steps_over_closing(&mut self, bracket: u8) -> bool {
        match self.peek_byte() {
            Some(byte) if byte == bracket => {
                self.skip_bytes(1);
                true
            }
            Some(b',') => {
                self.skip_bytes(1);
                false
            }
            Some(_) => false,
            None => true, // cannot be: the syntax was checked
        }
    }

    fn skip_past(&mut self, byte: u8) {
        if self.peek_byte() == Some(byte) {
            self.skip_bytes(1);
        }
    }

    /// The next byte that is no white space.
    fn peek_byte(&mut self) -> Option<u8> {
        self.skip_space();
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.text.as_bytes().get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn skip_bytes(&mut self, bytes: usize) {
        self.at += bytes;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    #[test]
    fn canonical_form_is_compact_and_sorted_and_keeps_numbers_as_they_came() {
        let cases = [
            (
                " { \"b\" : 1.50 , \"a\" : [ 1e5 , -0 , true , null ] } ",
                r#"{"a":[1e5,-0,true,null],"b":1.50}"#,
            ),
            ("\r\n{}\t", "{}"),
            ("[ ]", "[]"),
            ("[[],{},\"\"]", "[[],{},\"\"]"),
            ("1234567890123456789012345678901234567890.5", "1234567890123456789012345678901234567890.5"),
            (r#""\u00e9\/\u0041\n\u001F\u2028\"\\""#, "\"é/A\\n\\u001f\u{2028}\\\"\\\\\""),
            (r#"{"a":1,"\u0061":2}"#, r#"{"a":2}"#),
            (r##"{"#":1,"\"":2}"##, r##"{"\"":2,"#":1}"##),
            (r#"{"z":{"y":1,"x":[{"b":0,"a":0}]},"":0}"#, r#"{"":0,"z":{"x":[{"a":0,"b":0}],"y":1}}"#),
            (r#"{"\ud83d\ude00":1,"ￜ":2}"#, r#"{"ￜ":2,"😀":1}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(canonical(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in
            ["", "{", "[1,]", "{\"a\"}", "nul", "1 2", "NaN", "01", "\"\u{1}\"", r#""\ud800""#, r#"["\x"]"#]
        {
            assert!(matches!(canonical(text), Err(JsonError::Malformed { .. })), "{text}");
        }
    }

    #[test]
    fn nesting_beyond_the_limit_is_refused_without_deep_recursion() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));

        assert_eq!(canonical(&nested(DEPTH_MAX)), Ok(nested(DEPTH_MAX)));
        assert_eq!(canonical(&nested(DEPTH_MAX + 1)), Err(JsonError::TooDeep { at: DEPTH_MAX }));
        assert_eq!(canonical(&nested(1_000_000)), Err(JsonError::TooDeep { at: DEPTH_MAX }));
        let behind_space = format!(" \n{}", nested(DEPTH_MAX + 1));
        assert_eq!(canonical(&behind_space), Err(JsonError::TooDeep { at: DEPTH_MAX + 2 }));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1.0e9..1.0e9).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            "[\"\\\\\n\u{7f}é#]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let object = prop::collection::vec(
                (prop_oneof!["[a-c\"#\\\\]{0,2}", any::<String>()], inner.clone()),
                0..6,
            );
            prop_oneof![
                prop::collection::vec(inner, 0..6).prop_map(Value::from),
                object.prop_map(|members| Value::from(members.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// Writes `value` with its members backwards, space everywhere, and every character escaped.
    fn disguised(value: &Value) -> String {
        let text = |text: &str| {
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect::<String>();
            format!("\"{units}\"")
        };
        match value {
            Value::String(contents) => text(contents),
            Value::Array(items) => {
                format!("[ {} ]", items.iter().map(disguised).collect::<Vec<_>>().join(" ,\n"))
            }
            Value::Object(members) => {
                let members =
                    members.iter().rev().map(|(key, value)| format!("{} : {}", text(key), disguised(value)));
                format!("{{\t{} }}", members.collect::<Vec<_>>().join(" ,\r"))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// serde_json's map is sorted by key bytes and its writer compact: the form is what it writes.
        #[test]
        fn canonical_form_equals_what_serde_json_writes(value in any_json()) {
            prop_assert_eq!(canonical(&disguised(&value)), Ok(value.to_string()));
        }

        #[test]
        fn canonical_form_is_its_own_canonical_form(value in any_json()) {
            let once = canonical(&disguised(&value)).unwrap();

            prop_assert_eq!(canonical(&once), Ok(once));
        }

        #[test]
        fn any_text_is_refused_exactly_when_serde_json_refuses_it(text in "[\\[\\]{}:,\" a0-9\\\\uDd8.e+-]{0,24}") {
            let same: Result<Value, _> = serde_json::from_str(&text);

            // A number out of the range of a double is JSON all the same.
            let out_of_range = same.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            prop_assert_eq!(canonical(&text).is_ok(), same.is_ok() || out_of_range);
        }
    }
}
