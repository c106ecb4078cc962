//! A redis-cli that an operator left open: commands by its standard input, one at a time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// The process, and the two ends of its pipes.
pub(crate) struct RedisCli {
    child: Child,
    commands: ChildStdin,
    replies: BufReader<ChildStdout>,
}

impl RedisCli {
    pub(crate) fn to(port: u16) -> Self {
        let mut child = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "--user", "inspector", "--no-auth-warning"])
            .args(["--pass", "any"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli comes with redis-server");
        let (commands, replies) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, commands, replies: BufReader::new(replies) }
    }

    /// Sets a key to a text without single quotes; returns when the server has said OK.
    pub(crate) fn set(&mut self, key: &str, value: &str) {
        writeln!(self.commands, "SET {key} '{value}'").unwrap();
        let mut reply = String::new();
        self.replies.read_line(&mut reply).unwrap();
        assert_eq!(reply, "OK\n");
    }
}

impl Drop for RedisCli {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
