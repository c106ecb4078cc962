//! Bodies of commands: objects whose every field is known, read one by one, with every objection told at once.

use std::collections::BTreeSet;
use std::fmt;

use orchestrator_kernel::json::describe_mistake;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::refusal::{ControlError, SchemaObjection};

/// Objections that one answer names.
const OBJECTIONS_MAX: usize = 100;

/// A body that is being read.
pub(super) struct CommandBody {
    members: Map<String, Value>,
    objections: Vec<SchemaObjection>,
}

/// An object without a key that stands there twice: readers do not agree which of them counts.
struct OwnedMembers(Map<String, Value>);

impl<'de> Deserialize<'de> for OwnedMembers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = OwnedMembers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<OwnedMembers, A::Error> {
                let mut members = Map::new();
                while let Some((key, value)) = access.next_entry::<String, Value>()? {
                    if members.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format!("the field {key:?} stands there twice")));
                    }
                }
                Ok(OwnedMembers(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl CommandBody {
    /// Reads the text. An empty one is an object without fields: all of them are optional in most commands.
    ///
    /// # Errors
    ///
    /// 422: no JSON, no object, or a field that stands there twice.
    pub(super) fn read_text(text: &[u8]) -> Result<Self, ControlError> {
        let text = text.trim_ascii();
        let read = if text.is_empty() { Ok(OwnedMembers(Map::new())) } else { serde_json::from_slice(text) };
        match read {
            Ok(OwnedMembers(members)) => Ok(Self { members, objections: Vec::new() }),
            Err(error) => {
                let kind = if error.is_data() { "dict_type" } else { "json_invalid" };
                let msg = describe_mistake(&error);
                Err(ControlError::of_schema(&[SchemaObjection { place: "body", field: vec![], kind, msg }]))
            }
        }
    }

    fn object_to(&mut self, field: Vec<Value>, kind: &'static str, msg: impl Into<String>) {
        self.objections.push(SchemaObjection { place: "body", field, kind, msg: msg.into() });
    }

    /// Takes a field; `null` is one that is not given.
    fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name).filter(|value| !value.is_null())
    }

    /// A text.
    pub(super) fn take_text(&mut self, name: &str) -> Option<String> {
        match self.take(name)? {
            Value::String(text) => Some(text),
            _ => {
                self.object_to(vec![name.into()], "string_type", "Input should be a valid string");
                None
            }
        }
    }

    /// A text that has to be there. Without it nothing comes of the body.
    pub(super) fn require_text(&mut self, name: &str) -> String {
        let is_given = self.members.contains_key(name);
        if !is_given {
            self.object_to(vec![name.into()], "missing", "Field required");
        } else if self.members.get(name) == Some(&Value::Null) {
            self.object_to(vec![name.into()], "string_type", "Input should be a valid string");
        }
        self.take_text(name).unwrap_or_default()
    }

    /// One of these words.
    pub(super) fn take_word<T: Copy>(&mut self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.take(name)?;
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        if found.is_none() {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("'{word}'")).collect();
            let msg = match words.split_last() {
                Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
                Some(_) | None => words.concat(),
            };
            self.object_to(vec![name.into()], "literal_error", format!("Input should be {msg}"));
        }
        found.map(|(_, value)| *value)
    }

    /// Yes or no; no when it is not given.
    pub(super) fn take_flag(&mut self, name: &str) -> bool {
        match self.take(name) {
            None => false,
            Some(Value::Bool(flag)) => flag,
            Some(_) => {
                self.object_to(vec![name.into()], "bool_type", "Input should be a valid boolean");
                false
            }
        }
    }

    /// A whole number.
    pub(super) fn take_whole(&mut self, name: &str) -> Option<i64> {
        let value = self.take(name)?;
        // JSON does not tell 5 from 5.0.
        let whole = value.as_i64().or_else(|| {
            let float = value.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 9.0e15);
            float.map(|float| float as i64)
        });
        if whole.is_none() {
            self.object_to(vec![name.into()], "int_type", "Input should be a valid integer");
        }
        whole
    }

    /// A list of texts with at least one in it, each once.
    pub(super) fn take_texts(&mut self, name: &str) -> Option<Vec<String>> {
        let Value::Array(items) = self.take(name)? else {
            self.object_to(vec![name.into()], "list_type", "Input should be a valid list");
            return None;
        };
        if items.is_empty() {
            let msg = "List should have at least 1 item after validation, not 0";
            self.object_to(vec![name.into()], "too_short", msg);
        }
        let (mut texts, mut known) = (Vec::new(), BTreeSet::new());
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::String(text) if known.insert(text.clone()) => texts.push(text),
                Value::String(_) => {}
                _ => {
                    let field = vec![name.into(), index.into()];
                    self.object_to(field, "string_type", "Input should be a valid string");
                }
            }
        }
        Some(texts)
    }

    /// An object, as JSON text.
    pub(super) fn take_object(&mut self, name: &str) -> Option<String> {
        self.take_members(name).map(|members| Value::Object(members).to_string())
    }

    /// An object.
    pub(super) fn take_members(&mut self, name: &str) -> Option<Map<String, Value>> {
        match self.take(name)? {
            Value::Object(members) => Some(members),
            _ => {
                self.object_to(vec![name.into()], "dict_type", "Input should be a valid dictionary");
                None
            }
        }
    }

    /// An object that has to be there, as JSON text. Without it nothing comes of the body.
    pub(super) fn require_object(&mut self, name: &str) -> String {
        match self.members.get(name) {
            None => self.object_to(vec![name.into()], "missing", "Field required"),
            Some(Value::Null) => {
                self.object_to(vec![name.into()], "dict_type", "Input should be a valid dictionary");
            }
            Some(_) => {}
        }
        self.take_object(name).unwrap_or_default()
    }

    /// Ends the reading: fields that nobody took are unknown.
    ///
    /// # Errors
    ///
    /// 422 with every objection.
    pub(super) fn finish(mut self) -> Result<(), ControlError> {
        for name in std::mem::take(&mut self.members).into_iter().map(|(name, _)| name) {
            self.object_to(vec![name.into()], "extra_forbidden", "Extra inputs are not permitted");
        }
        self.finish_open()
    }

    /// Ends the reading of a body that may have further fields.
    ///
    /// # Errors
    ///
    /// 422 with every objection.
    pub(super) fn finish_open(mut self) -> Result<(), ControlError> {
        self.objections.truncate(OBJECTIONS_MAX);
        if self.objections.is_empty() { Ok(()) } else { Err(ControlError::of_schema(&self.objections)) }
    }
}
