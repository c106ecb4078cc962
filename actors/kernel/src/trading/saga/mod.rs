//! Sagas: steps with compensations, as data; the next step is a pure function of the records.
//!
//! ```text
//! PENDING ─▶ RUNNING ─▶ COMPLETED
//!               │ refused, out of retries, out of time
//!               ▼
//!          COMPENSATING ─▶ FAILED
//!               │ ▲ a compensation fails for good, or is not known
//!               ▼ │ operator: retry, resolve, adopt (forward again)
//!        MANUAL_REQUIRED
//! ```

pub mod definition;
pub mod next;
pub mod progress;
pub mod records;
#[cfg(any(test, feature = "testkit"))]
pub mod suite;

#[cfg(test)]
mod tests;
