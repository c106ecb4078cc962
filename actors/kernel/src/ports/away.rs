//! Failures of storage that is elsewhere: the server may serve later, whereas a medium that fails does not mend itself.

use std::io;

/// Refusal or silence of a server, as the inner error of an [`io::Error`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ServerFault(pub String);

impl ServerFault {
    /// The same as an error of input and output.
    #[must_use]
    pub fn into_io(self, kind: io::ErrorKind) -> io::Error {
        io::Error::new(kind, self)
    }
}

/// Tells a storage that may serve later from a medium that failed.
#[must_use]
pub fn may_serve_later(error: &io::Error) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown,
        NetworkUnreachable, NotConnected, TimedOut, WouldBlock,
    };
    let is_of_a_connection = match error.kind() {
        BrokenPipe | ConnectionAborted | ConnectionRefused | ConnectionReset | HostUnreachable
        | NetworkDown | NetworkUnreachable | NotConnected | TimedOut | WouldBlock => true,
        _else => false,
    };
    is_of_a_connection || error.get_ref().is_some_and(|inner| inner.is::<ServerFault>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_serve_later_whatever_it_said_and_a_medium_does_not() {
        for kind in [io::ErrorKind::Other, io::ErrorKind::PermissionDenied, io::ErrorKind::StorageFull] {
            let fault = ServerFault("redis is full".to_owned()).into_io(kind);
            assert!(may_serve_later(&fault), "{kind:?}");
            assert_eq!(fault.to_string(), "redis is full");
            assert!(!may_serve_later(&io::Error::from(kind)), "{kind:?}");
        }
        assert!(may_serve_later(&io::Error::from(io::ErrorKind::ConnectionReset)));
    }
}
