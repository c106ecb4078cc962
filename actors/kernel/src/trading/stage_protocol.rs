//! Protocol of stages and hooks whose work others do, whatever carries it: one JSON object asks, one answers.
//!
//! ```text
//! ask     {"op":"stage","stage":"SIG","strategy":"momentum","attempt":1,"cycle_id":"…","outputs":[…],"decisions":[…],…}
//! answer  {"ok":true,"data":{…},"decisions":[…],"verdicts":[…],"failures":[…]}      │  {"ok":false,"error_detail":"…"}
//!
//! ask     {"op":"hook","hook":"compliance","component_id":"RISK","action":"before","cycle_id":"…","decisions":[…],…}
//! answer  {"ok":true,"decision":"allow│deny│modify","reasons":["…"],"patch":[{"decisionId":"…","quantity":"5"},…]}
//! ```
//!
//! | carrier | ask | answer |
//! |---|---|---|
//! | HTTP | the body of a POST, its `idempotency_key` also as the header `Idempotency-Key` | the body of a response 200 |
//! | a worker's pipes | a line on stdin, with an `id` | a line on stdout, with the same `id` |
//! | a fixed answer | – | the configured text; `ok` may be left out |
//!
//! Asked is in canonical form. Unknown members of an answer are ignored, so that a newer provider can say more; those
//! of a patch are not: a part of it that is not understood must not be left out.

mod answer;
mod request;
#[cfg(test)]
mod tests;

pub use answer::{check_answer, read_fixed_answer, read_hook_answer, read_stage_answer};
pub use request::{hook_request_json, stage_request_json};

/// Version of what is asked, as all events of the trading plane carry it.
pub const STAGE_SCHEMA_VERSION: &str = "1.0.0";

/// Name of the requests for a stage's work, in `op` and in a worker's hello.
pub const STAGE_OP: &str = "stage";
/// Name of the questions to a hook.
pub const HOOK_OP: &str = "hook";
