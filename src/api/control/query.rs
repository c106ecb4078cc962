//! Queries of pages: each parameter known, once, and in its range.

use super::refusal::{ControlError, SchemaObjection};

/// The parameters of a query that is being read.
pub(super) struct PageParameters {
    pairs: Vec<(String, String)>,
    objections: Vec<SchemaObjection>,
}

impl PageParameters {
    pub(super) const fn of_pairs(pairs: Vec<(String, String)>) -> Self {
        Self { pairs, objections: Vec::new() }
    }

    fn object_to(&mut self, name: String, kind: &'static str, msg: impl Into<String>) {
        self.objections.push(SchemaObjection {
            place: "query",
            field: vec![name.into()],
            kind,
            msg: msg.into(),
        });
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(key, _)| key == name)?;
        Some(self.pairs.remove(at).1)
    }

    /// A whole number within its range.
    pub(super) fn take_count(&mut self, name: &str, default: u32, max: u32) -> u32 {
        let Some(text) = self.take(name) else { return default };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<u32>() {
            _ if !is_number => {
                self.object_to(name.to_owned(), "int_parsing", "Input should be a valid integer");
            }
            Ok(0) => {
                let msg = "Input should be greater than or equal to 1";
                self.object_to(name.to_owned(), "greater_than_equal", msg);
            }
            Ok(count) if count <= max => return count,
            Ok(_) | Err(_) => {
                let msg = format!("Input should be less than or equal to {max}");
                self.object_to(name.to_owned(), "less_than_equal", msg);
            }
        }
        default
    }

    /// A word that `read` knows.
    pub(super) fn take_word<T>(
        &mut self,
        name: &str,
        words: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.take(name)?;
        let found = read(&text);
        if found.is_none() {
            self.object_to(name.to_owned(), "literal_error", format!("Input should be {words}"));
        }
        found
    }

    /// Ends the reading: what nobody took is unknown, or there twice.
    ///
    /// # Errors
    ///
    /// 422 with every objection.
    pub(super) fn finish(mut self) -> Result<(), ControlError> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            self.object_to(name, "extra_forbidden", "Extra inputs are not permitted");
        }
        if self.objections.is_empty() { Ok(()) } else { Err(ControlError::of_schema(&self.objections)) }
    }
}
