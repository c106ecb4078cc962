//! Lines of bounded length from a pipe.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const READ_BYTES: usize = 16 * 1024;

/// Reason for which there is no next line.
#[derive(Debug)]
pub(super) enum LineError {
    /// The other side closed the pipe; a last line without its end does not count.
    Closed,
    /// The line is longer than allowed.
    TooLong,
    /// Reading failed.
    Io(io::Error),
}

/// Cuts a stream of bytes into lines.
pub(super) struct LineReader<R> {
    source: R,
    line_bytes_max: usize,
    read: Vec<u8>,
    /// Bytes of `read` that are known to hold no line end.
    searched: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    pub(super) fn new(source: R, line_bytes_max: usize) -> Self {
        Self { source, line_bytes_max, read: Vec::new(), searched: 0 }
    }

    /// Returns the next line without its end.
    ///
    /// Nothing is lost when the future is dropped: what was read stays for the next call.
    pub(super) async fn next_line(&mut self) -> Result<Vec<u8>, LineError> {
        loop {
            if let Some(at) = self.read[self.searched..].iter().position(|byte| *byte == b'\n') {
                return self.take_line(self.searched + at);
            }
            self.searched = self.read.len();
            if self.searched > self.line_bytes_max {
                return Err(LineError::TooLong);
            }
            self.read.reserve(READ_BYTES);
            match self.source.read_buf(&mut self.read).await {
                Ok(0) => return Err(LineError::Closed),
                Ok(_) => {}
                Err(error) => return Err(LineError::Io(error)),
            }
        }
    }

    fn take_line(&mut self, end: usize) -> Result<Vec<u8>, LineError> {
        if end > self.line_bytes_max {
            return Err(LineError::TooLong);
        }
        let rest = self.read.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.read, rest);
        line.pop();
        self.searched = 0;
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: a reader that gives one byte at a time, so that every split of the stream occurs.
    #[tokio::test]
    async fn lines_are_cut_at_any_split_of_the_stream() {
        let (mut writer, reader) = tokio::io::duplex(1);
        let mut lines = LineReader::new(reader, 5);
        let write = async {
            tokio::io::AsyncWriteExt::write_all(&mut writer, b"12345\n\nab\ncd").await.unwrap();
            drop(writer);
        };
        let read = async {
            assert_eq!(lines.next_line().await.unwrap(), b"12345");
            assert_eq!(lines.next_line().await.unwrap(), b"");
            assert_eq!(lines.next_line().await.unwrap(), b"ab");
            assert!(matches!(lines.next_line().await, Err(LineError::Closed)));
        };
        tokio::join!(write, read);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_refused_with_and_without_its_end() {
        for stream in [&b"123456\n"[..], b"123456"] {
            assert!(matches!(LineReader::new(stream, 5).next_line().await, Err(LineError::TooLong)));
        }
    }
}
