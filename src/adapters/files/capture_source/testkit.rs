//! A door to the line cutter, for the fuzz targets.

use std::io::{self, BufReader};

use super::lines::{CaptureLine, Lines, Next};

/// A line and, when it is longer than allowed, its size.
pub type Cut = (Vec<u8>, Option<u64>);

/// The lines of `text`, read `read_bytes` at a time.
///
/// # Errors
///
/// None of a text in memory.
pub fn lines(text: &[u8], read_bytes: usize, bytes_max: usize) -> io::Result<Vec<Cut>> {
    let cut = |line: CaptureLine<'_>| (line.bytes.to_vec(), line.oversized);
    let mut lines = Lines::new(BufReader::with_capacity(read_bytes, text), bytes_max);
    let mut found = Vec::new();
    while let Next::Line(line) = lines.next_line()? {
        found.push(cut(line));
    }
    found.extend(lines.take_unfinished().map(cut));
    Ok(found)
}
