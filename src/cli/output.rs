//! What commands print: answers to standard output, complaints to standard error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use super::exit::Exit;

/// Prints an answer. A reader that went away (`| head`) has seen enough: that is no failure.
#[must_use]
pub fn print(answer: &str) -> Exit {
    let mut output = io::stdout().lock();
    match output.write_all(answer.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => Exit::Ok,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Exit::Ok,
        Err(error) => {
            complain(&format!("cannot write to standard output: {error}"));
            Exit::Io
        }
    }
}

/// Prints what went wrong.
pub fn complain(what: &dyn Display) {
    // When standard error cannot be written, nobody can be told; the exit code still says it.
    writeln!(io::stderr(), "orchestrator: {what}").unwrap_or_default();
}
