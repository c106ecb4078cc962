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

    /// A whole number from 1 on.
    pub(super) fn take_count(&mut self, name: &str, default: u32, max: u32) -> u32 {
        self.take_whole(name, 1, max).unwrap_or(default)
    }

    /// How many are passed over; none when it does not say.
    pub(super) fn take_offset(&mut self, name: &str) -> u32 {
        self.take_whole(name, 0, u32::MAX).unwrap_or(0)
    }

    /// Any text.
    pub(super) fn take_text(&mut self, name: &str) -> Option<String> {
        self.take(name)
    }

    /// A whole number within its range.
    fn take_whole(&mut self, name: &str, min: u32, max: u32) -> Option<u32> {
        let text = self.take(name)?;
        let digits = text.strip_prefix('-').unwrap_or(&text);
        let (kind, msg) = if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            ("int_parsing", "Input should be a valid integer".to_owned())
        } else {
            let is_negative = text.starts_with('-') && digits.bytes().any(|digit| digit != b'0');
            // What has more digits than fit is beyond every range.
            let number = (!is_negative).then(|| digits.parse::<u64>().unwrap_or(u64::MAX));
            let fitting = number.and_then(|number| u32::try_from(number).ok());
            match number {
                _ if fitting.is_some_and(|number| min <= number && number <= max) => return fitting,
                Some(number) if u64::from(min) <= number => {
                    ("less_than_equal", format!("Input should be less than or equal to {max}"))
                }
                Some(_) | None => {
                    ("greater_than_equal", format!("Input should be greater than or equal to {min}"))
                }
            }
        };
        self.object_to(name.to_owned(), kind, msg);
        None
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
