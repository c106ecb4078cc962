//! What commands print: answers to standard output, complaints to standard error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use crate::process::exit::ProcessExit;
use crate::telemetry::logs;

/// Prints an answer. A reader that went away (`| head`) has seen enough: that is no failure.
#[must_use]
pub fn print_answer(answer: &str) -> ProcessExit {
    let mut output = io::stdout().lock();
    match output.write_all(answer.as_bytes()).and_then(|()| output.flush()) {
        Ok(()) => ProcessExit::Ok,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ProcessExit::Ok,
        Err(error) => {
            print_complaint(&format!("cannot write to standard output: {error}"));
            ProcessExit::Io
        }
    }
}

/// Prints what went wrong, without the login of any URL in it.
pub fn print_complaint(what: &dyn Display) {
    logs::write_line(&format!("orchestrator: {}", without_logins(&what.to_string())));
}

/// `text` without what stands between the scheme of a URL and its host. A password may hold any character, so up to the
/// last `@` of the word.
pub(super) fn without_logins(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let word = after.split(|c: char| c.is_whitespace() || "\"'`".contains(c)).next().unwrap_or_default();
        let login = word.rfind('@').map_or(0, |at| at + 1);
        rest = after.get(login..).unwrap_or_default();
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_of_urls_are_left_out_and_nothing_else() {
        for (text, shown) in [
            ("redis://u:p@host:1/0 is down", "redis://host:1/0 is down"),
            ("'redis://u:p@/ss@host' and rediss://:q@a", "'redis://host' and rediss://a"),
            ("see http://host/a, me@host", "see http://host/a, me@host"),
            ("nothing", "nothing"),
            ("ends with ://", "ends with ://"),
        ] {
            assert_eq!(without_logins(text), shown);
        }
    }
}
