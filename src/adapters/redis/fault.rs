//! What an error of the server or of the way to it means for the caller.

use std::io;
use std::time::Duration;

use orchestrator_kernel::ports::away::ServerFault;
use redis::{ErrorKind, RedisError};

/// A command that was not done, or of which that is not known.
#[derive(Debug)]
pub(super) enum RedisFault {
    /// Surely not done: the server has no room, and says so before it changes anything.
    Full(String),
    /// Perhaps done. The connection must not be used again.
    Unknown(io::Error),
}

impl RedisFault {
    /// Reads `error` of a command on the server at `place`.
    pub(super) fn from_error(place: &str, error: &RedisError) -> Self {
        let code = match error.kind() {
            ErrorKind::AuthenticationFailed => Some("WRONGPASS"),
            _ => error.code(),
        };
        let said = error.to_string();
        let unknown = |kind, advice: &str| {
            Self::Unknown(ServerFault(format!("redis at {place}: {said}; {advice}")).into_io(kind))
        };
        let refused = io::ErrorKind::PermissionDenied;
        match code.unwrap_or_default() {
            "OOM" => {
                Self::Full(format!("redis at {place} has reached its maxmemory: raise it, or free memory"))
            }
            "MISCONF" => Self::Full(format!("redis at {place} cannot write to its disk ({said})")),
            "READONLY" => {
                unknown(io::ErrorKind::ReadOnlyFilesystem, "it is a replica: the URL must lead to the master")
            }
            "LOADING" => unknown(io::ErrorKind::WouldBlock, "it is still reading its files"),
            "BUSY" => unknown(io::ErrorKind::WouldBlock, "a script of somebody keeps it busy"),
            "CLUSTERDOWN" | "MASTERDOWN" | "TRYAGAIN" => {
                unknown(io::ErrorKind::WouldBlock, "it waits for its peers")
            }
            "MOVED" | "ASK" => {
                unknown(io::ErrorKind::NotFound, "the URL must lead to the node that holds these keys")
            }
            "NOAUTH" | "WRONGPASS" => unknown(refused, "user and password in the URL must be valid"),
            "NOPERM" => unknown(refused, "its ACL must allow this user the command and its keys"),
            _ => Self::of_connection(place, error),
        }
    }

    fn of_connection(place: &str, error: &RedisError) -> Self {
        let kind = if error.is_timeout() {
            io::ErrorKind::TimedOut
        } else if error.is_connection_refusal() {
            io::ErrorKind::ConnectionRefused
        } else if error.is_connection_dropped() {
            io::ErrorKind::ConnectionReset
        } else {
            io::ErrorKind::Other
        };
        Self::Unknown(ServerFault(format!("redis at {place}: {error}")).into_io(kind))
    }

    /// Nothing came within `limit`.
    pub(super) fn timed_out(place: &str, limit: Duration) -> Self {
        let text = format!("redis at {place} did not answer within {} ms", limit.as_millis());
        Self::Unknown(ServerFault(text).into_io(io::ErrorKind::TimedOut))
    }

    /// The same as an error for callers whom the difference does not concern.
    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::Full(detail) => ServerFault(detail).into_io(io::ErrorKind::StorageFull),
            Self::Unknown(error) => error,
        }
    }
}
