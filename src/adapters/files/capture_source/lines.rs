//! Cuts a text into lines without ever holding more of one than allowed.

use std::io::{self, BufRead, Read};

use super::file::CaptureText;

/// Bytes that are kept of a line that is too long.
pub(super) const KEPT_BYTES: usize = 4 << 10;

/// A line without its terminator.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CaptureLine<'a> {
    /// The bytes; of an oversized line its beginning.
    pub(super) bytes: &'a [u8],
    /// The size of a line that is longer than allowed.
    pub(super) oversized: Option<u64>,
}

/// Answer of a line reader to its caller.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A whole line.
    Line(CaptureLine<'a>),
    /// No whole line is there now. More may come when the text grows.
    Exhausted,
}

/// Reads lines and remembers an unfinished one, so that reading can go on when the text has grown.
pub(super) struct Lines<R> {
    text: R,
    bytes_max: usize,
    /// The line so far; only its beginning once it is too long.
    line: Vec<u8>,
    /// The line is handed out: the next one starts anew.
    is_taken: bool,
    /// Set once the line is too long to be held.
    skipped: Option<Skipped>,
}

impl Lines<Box<dyn CaptureText>> {
    /// Whether the next line can be had without waiting.
    pub(super) fn has_line_here(&self) -> bool {
        self.text.buffered_bytes().contains(&b'\n')
    }
}

/// A line that is not held as a whole.
#[derive(Clone, Copy)]
struct Skipped {
    bytes: u64,
    last: u8,
}

impl<R: BufRead> Lines<R> {
    /// Lines of `text`, each of at most `bytes_max` bytes.
    pub(super) const fn new(text: R, bytes_max: usize) -> Self {
        Self { text, bytes_max, line: Vec::new(), is_taken: false, skipped: None }
    }

    /// The next whole line.
    ///
    /// # Errors
    ///
    /// What the text's reader says. The lines before it have all been returned.
    pub(super) fn next_line(&mut self) -> io::Result<Next<'_>> {
        if std::mem::take(&mut self.is_taken) {
            self.line.clear();
            self.skipped = None;
        }
        let is_whole = match self.skipped {
            Some(_) => self.skip_to_end()?,
            None => self.read_to_end()?,
        };
        if !is_whole {
            return Ok(Next::Exhausted);
        }
        self.is_taken = true;
        Ok(Next::Line(self.line_without(true)))
    }

    /// Whether a line has begun that has no terminator yet.
    pub(super) fn has_unfinished(&self) -> bool {
        !self.is_taken && !self.line.is_empty()
    }

    /// The last line of a text that has ended without a terminator.
    pub(super) fn take_unfinished(&mut self) -> Option<CaptureLine<'_>> {
        if !self.has_unfinished() {
            return None;
        }
        self.is_taken = true;
        Some(self.line_without(false))
    }

    /// Reads up to the terminator. One byte more than fits (and its terminator) tells that the line is too long.
    fn read_to_end(&mut self) -> io::Result<bool> {
        let room = self.bytes_max.saturating_add("\r\n".len()) - self.line.len();
        (&mut self.text).take(room as u64).read_until(b'\n', &mut self.line)?;
        if self.line.last() == Some(&b'\n') {
            return Ok(true);
        }
        match self.line.last() {
            Some(last) if self.line.len() >= self.bytes_max.saturating_add("\r\n".len()) => {
                self.skipped = Some(Skipped { bytes: self.line.len() as u64, last: *last });
                self.skip_to_end()
            }
            Some(_) | None => Ok(false),
        }
    }

    fn skip_to_end(&mut self) -> io::Result<bool> {
        let Some(mut skipped) = self.skipped else { return Ok(false) };
        loop {
            let chunk = match self.text.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let content = end.unwrap_or(chunk.len());
            if let Some(last) = chunk.get(..content).and_then(<[u8]>::last) {
                skipped.last = *last;
            }
            skipped.bytes += content as u64;
            self.skipped = Some(skipped);
            let (is_end, consumed) = (end.is_some(), content + usize::from(end.is_some()));
            self.text.consume(consumed);
            if is_end || consumed == 0 {
                return Ok(is_end);
            }
        }
    }

    fn line_without(&self, terminator: bool) -> CaptureLine<'_> {
        let mut bytes = self.line.as_slice();
        let size = match self.skipped {
            Some(skipped) => skipped.bytes - u64::from(terminator && skipped.last == b'\r'),
            None => {
                if terminator {
                    bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                    bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
                }
                bytes.len() as u64
            }
        };
        let oversized = (size > self.bytes_max as u64).then_some(size);
        if oversized.is_some() {
            let kept = usize::try_from(size).unwrap_or(usize::MAX).min(KEPT_BYTES);
            bytes = bytes.get(..kept).unwrap_or(bytes);
        }
        CaptureLine { bytes, oversized }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use proptest::prelude::*;

    use super::*;

    type Seen = (Vec<u8>, Option<u64>);

    fn check_lines(text: impl BufRead, bytes_max: usize) -> Vec<Seen> {
        let mut lines = Lines::new(text, bytes_max);
        let mut seen = Vec::new();
        while let Next::Line(line) = lines.next_line().unwrap() {
            assert!(line.bytes.len() <= bytes_max.max(KEPT_BYTES));
            seen.push((line.bytes.to_vec(), line.oversized));
        }
        seen.extend(lines.take_unfinished().map(|line| (line.bytes.to_vec(), line.oversized)));
        seen
    }

    fn whole(lines: &[&str]) -> Vec<Seen> {
        lines.iter().map(|line| (line.as_bytes().to_vec(), None)).collect()
    }

    #[test]
    fn terminators_are_framing_and_everything_else_is_content() {
        assert_eq!(
            check_lines(&b"a\nb\r\n\n\r\nc\r\r\nd\re"[..], 9),
            whole(&["a", "b", "", "", "c\r", "d\re"])
        );
        assert_eq!(check_lines(&b"a\r"[..], 9), whole(&["a\r"]));
        assert_eq!(check_lines(&b""[..], 9), whole(&[]));
    }

    #[test]
    fn a_line_of_exactly_the_limit_is_whole_and_one_byte_more_is_not() {
        assert_eq!(check_lines(&b"12345\n12345\r\n12345"[..], 5), whole(&["12345", "12345", "12345"]));

        let long = vec![(b"123456".to_vec(), Some(6)); 3];
        assert_eq!(check_lines(&b"123456\n123456\r\n123456"[..], 5), long);
    }

    #[test]
    fn an_endless_line_is_skipped_without_being_held() {
        let text = io::repeat(b'x').take(50_000_000).chain(&b"\r\nnext"[..]);
        let mut lines = Lines::new(BufReader::new(text), 10_000);

        let expected = CaptureLine { bytes: &[b'x'; KEPT_BYTES], oversized: Some(50_000_000) };
        assert_eq!(lines.next_line().unwrap(), Next::Line(expected));
        assert!(lines.line.capacity() < 40_000, "held {} bytes", lines.line.capacity());
        assert_eq!(lines.next_line().unwrap(), Next::Exhausted);
        assert_eq!(lines.take_unfinished().unwrap().bytes, b"next");
        assert_eq!(lines.take_unfinished(), None);
    }

    /// A text that grows by one byte at each read of its end.
    struct Growing<'a> {
        text: &'a [u8],
        is_paused: bool,
    }

    impl Read for Growing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let byte = self.fill_buf()?;
            let read = (&byte[..byte.len().min(buffer.len())]).read(buffer)?;
            self.consume(read);
            Ok(read)
        }
    }

    impl BufRead for Growing<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            self.is_paused = !self.is_paused;
            Ok(if self.is_paused { &[] } else { &self.text[..self.text.len().min(1)] })
        }

        fn consume(&mut self, amount: usize) {
            self.text = &self.text[amount..];
        }
    }

    proptest! {
        /// Method: the reference splits the whole text at once; the reader sees it byte by byte with an end after each.
        #[test]
        fn a_growing_text_gives_the_same_lines(text in "[ab\r\n]{0,60}", bytes_max in 1_usize..6) {
            let mut reference: Vec<Seen> = Vec::new();
            let mut rest = text.as_bytes();
            while !rest.is_empty() {
                let end = rest.iter().position(|byte| *byte == b'\n');
                let mut line = &rest[..end.unwrap_or(rest.len())];
                if end.is_some() {
                    line = line.strip_suffix(b"\r").unwrap_or(line);
                }
                reference.push((line.to_vec(), (line.len() > bytes_max).then_some(line.len() as u64)));
                rest = &rest[end.map_or(rest.len(), |end| end + 1)..];
            }
            // Of a long line only a beginning is kept; how much, the limit says.
            let shorten = |seen: Vec<Seen>| -> Vec<Seen> {
                seen.into_iter().map(|(bytes, size)| (bytes[..bytes.len().min(bytes_max)].to_vec(), size)).collect()
            };

            prop_assert_eq!(shorten(check_lines(text.as_bytes(), bytes_max)), shorten(reference.clone()));

            let mut lines = Lines::new(Growing { text: text.as_bytes(), is_paused: false }, bytes_max);
            let mut seen = Vec::new();
            for _ in 0..200 {
                if let Next::Line(line) = lines.next_line().unwrap() {
                    seen.push((line.bytes.to_vec(), line.oversized));
                }
            }
            seen.extend(lines.take_unfinished().map(|line| (line.bytes.to_vec(), line.oversized)));
            prop_assert_eq!(shorten(seen), shorten(reference));
        }
    }
}
