//! An engine behind HTTP: each call is one POST, whose body and answer are those of the worker protocol.
//!
//! ```text
//! POST <url>                                       {"id":7,"op":"run","snapshot":{…}}
//! Authorization: Bearer <token>, if there is one
//!
//! 200   {"engine":{"code_hash":"…","name":"…","version":"…"},"id":7,"ok":true,"protocol":1,"regime_output":{…}}
//!       {"engine":{…},"error_detail":"…","error_kind":"snapshot_build_failure","id":7,"ok":false,"protocol":1}
//! ```
//!
//! Every answer says who gave it, because behind one address the engine can be exchanged at any time. The first answer
//! decides: one of another engine is refused until this process starts again, as a worker of another engine is. So each
//! run record names the engine that answered, and a replay with another one is seen (REP-1).
//!
//! | what comes | becomes |
//! |---|---|
//! | 200 and an answer | the answer, or the engine's own error |
//! | 200 and anything else; more than `output_bytes_max`; no HTTP; an answer of another engine | `engine_failure` |
//! | 408, 429, 502, 503, 504; no connection; a connection that ends before the answer | `engine_unavailable` |
//! | every other status; redirects are not followed | `engine_failure` with the beginning of the body |
//! | nothing, or not all of it, within the deadline | `engine_timeout` |
//!
//! Nothing is sent again by itself: the run counts its attempts. Only a request of which no byte was written, because
//! the kept connection had just been closed, goes out on another one.

mod client;
mod options;
#[cfg(test)]
mod tests;

pub use client::HttpEngine;
pub use options::{HttpEngineError, HttpEngineOptions};
