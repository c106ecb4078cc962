//! A door to the reader of a worker's lines, for the fuzz targets.

use futures_util::FutureExt as _;
use tokio::io::AsyncReadExt as _;

use super::lines::{LineError, LineReader};

/// The lines of `stream`, which comes in two pieces, and whether a line that is too long ended it.
pub fn lines(stream: &[u8], first_piece: usize, line_bytes_max: usize) -> (Vec<Vec<u8>>, bool) {
    let (first, second) = stream.split_at_checked(first_piece).unwrap_or((stream, &[]));
    let mut reader = LineReader::new(first.chain(second), line_bytes_max);
    let mut lines = Vec::new();
    // Bytes in memory are always ready.
    while let Some(next) = reader.next_line().now_or_never() {
        match next {
            Ok(line) => lines.push(line),
            Err(LineError::TooLong) => return (lines, true),
            Err(LineError::Closed | LineError::Io(_)) => break,
        }
    }
    (lines, false)
}
