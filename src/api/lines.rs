//! From a body to items: framing only, never meaning.
//!
//! A line ends with `\n` or `\r\n`; the terminator is framing and no part of the item, everything else is kept byte for
//! byte (LOG-4). Blank lines are no items and have no position. The last line needs no terminator.

use bytes::Bytes;
use orchestrator_kernel::ports::source::RawItem;
use serde::de::IgnoredAny;

use super::content::BodyForm;

/// The items of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Items {
    /// The items in order, without positions.
    pub(super) items: Vec<RawItem>,
    /// The line of each item, counted from 1 with blank lines included.
    pub(super) lines: Vec<u64>,
}

/// Reason for which a body is not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NotTaken {
    /// It has more items than it may have.
    TooMany,
    /// An item is longer than the quarantine keeps: acknowledged, its rest would be gone.
    TooLong {
        /// Its line, counted from 1.
        line: u64,
        /// Its bytes.
        bytes: usize,
    },
}

/// Splits `body` into at most `items_max` items of at most `item_bytes_max` bytes.
///
/// # Errors
///
/// [`NotTaken`].
pub(super) fn split_body(
    body: &Bytes,
    form: BodyForm,
    items_max: usize,
    item_bytes_max: usize,
) -> Result<Items, NotTaken> {
    let mut found = Items { items: Vec::new(), lines: Vec::new() };
    if form == BodyForm::Json && is_one_value_over_lines(body) {
        found.push_item(body.slice_ref(body.trim_ascii()), 1, item_bytes_max)?;
        return Ok(found);
    }
    for (number, line) in (1..).zip(body.split_inclusive(|byte| *byte == b'\n')) {
        let line = match line.strip_suffix(b"\n") {
            Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
            None => line,
        };
        if line.trim_ascii().is_empty() {
            continue;
        }
        if found.items.len() == items_max {
            return Err(NotTaken::TooMany);
        }
        found.push_item(body.slice_ref(line), number, item_bytes_max)?;
    }
    Ok(found)
}

impl Items {
    fn push_item(&mut self, bytes: Bytes, line: u64, bytes_max: usize) -> Result<(), NotTaken> {
        if bytes_max < bytes.len() {
            return Err(NotTaken::TooLong { line, bytes: bytes.len() });
        }
        self.items.push(RawItem { position: None, bytes, oversized: None, topic: None });
        self.lines.push(line);
        Ok(())
    }

    /// Gives consecutive positions from `first` on; `None` when they would not fit into 64 bits.
    pub(super) fn number_from(&mut self, first: u64) -> Option<()> {
        first.checked_add(self.items.len() as u64)?;
        for (item, position) in self.items.iter_mut().zip(first..) {
            item.position = Some(position);
        }
        Some(())
    }
}

/// A line that is a whole value needs no look; a batch shows itself right after its first line.
fn is_one_value_over_lines(body: &[u8]) -> bool {
    body.trim_ascii().contains(&b'\n') && serde_json::from_slice::<IgnoredAny>(body).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_split(body: &'static str, form: BodyForm) -> Vec<(u64, &'static str)> {
        let found = split_body(&Bytes::from_static(body.as_bytes()), form, 100, 100).unwrap();
        let texts = found.items.iter().map(|item| {
            let at = item.bytes.as_ptr() as usize - body.as_ptr() as usize;
            &body[at..at + item.bytes.len()]
        });
        found.lines.iter().copied().zip(texts).collect()
    }

    #[test]
    fn terminators_and_blank_lines_are_framing_and_everything_else_is_kept() {
        assert_eq!(
            check_split("{\"a\":1} \r\n\n \t\r\n{\"é\":\"\u{2028}\"}\r\r\n x", BodyForm::Lines),
            [(1, "{\"a\":1} "), (4, "{\"é\":\"\u{2028}\"}\r"), (5, " x")]
        );
        assert_eq!(check_split("a\r", BodyForm::Lines), [(1, "a\r")]);
        assert_eq!(check_split("\n\r\n", BodyForm::Lines), []);
    }

    #[test]
    fn one_value_over_several_lines_is_one_item_only_as_json() {
        let text = "{\n \"a\": 1\n}\n";

        assert_eq!(check_split(text, BodyForm::Json), [(1, "{\n \"a\": 1\n}")]);
        assert_eq!(check_split(text, BodyForm::Lines).len(), 3);
        assert_eq!(check_split("{\"a\":1}\n{\"a\":2}", BodyForm::Json), [(1, "{\"a\":1}"), (2, "{\"a\":2}")]);
    }

    #[test]
    fn an_item_that_cannot_be_kept_whole_and_too_many_are_refused() {
        let long = split_body(&Bytes::from_static(b"12345\n123456\n"), BodyForm::Lines, 2, 5);

        assert_eq!(long, Err(NotTaken::TooLong { line: 2, bytes: 6 }));
        assert_eq!(
            split_body(&Bytes::from_static(b"1\n2\n\n3\n"), BodyForm::Lines, 2, 5),
            Err(NotTaken::TooMany)
        );
        assert!(split_body(&Bytes::from_static(b"1\n2\n\n\n"), BodyForm::Lines, 2, 5).is_ok());
    }

    #[test]
    fn positions_are_consecutive_and_fit_into_64_bits() {
        let mut found = split_body(&Bytes::from_static(b"1\n2"), BodyForm::Lines, 2, 5).unwrap();

        assert_eq!(found.number_from(7), Some(()));
        assert_eq!(found.items.iter().map(|item| item.position).collect::<Vec<_>>(), [Some(7), Some(8)]);
        assert_eq!(found.number_from(u64::MAX - 1), None);
    }

    proptest! {
        /// Method: the same rule, written over text instead of bytes.
        #[test]
        fn any_text_gives_the_lines_of_the_rule(text in "[ab \r\n]{0,40}") {
            let body = Bytes::from(text.clone());
            let mut rest = text.as_str();
            let mut expected = Vec::new();
            while !rest.is_empty() {
                let (line, next) = match rest.split_once('\n') {
                    Some((line, next)) => (line.strip_suffix('\r').unwrap_or(line), next),
                    None => (rest, ""),
                };
                if !line.trim_ascii().is_empty() {
                    expected.push(line.as_bytes().to_vec());
                }
                rest = next;
            }

            let found = split_body(&body, BodyForm::Lines, 100, 100).unwrap();

            let found: Vec<_> = found.items.iter().map(|item| item.bytes.to_vec()).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
