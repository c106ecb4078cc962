//! What the live tests share: private servers and the faults that are put on them.

pub(crate) mod ports;
pub(crate) mod redis_server;
