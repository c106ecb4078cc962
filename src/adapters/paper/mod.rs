//! Signal Service and Execution Gateway with a paper broker: the real HTTP contracts, and faults that are switched on
//! while they run.
//!
//! ```text
//! request ─▶ server ─▶ PaperWorld::plan_request ─▶ (wait, swallowed, reset) ─▶ PaperWorld::answer_request ─▶ (held, cut …)
//!                        │ faults                                                │ auth, gates, record
//!                        └ ledger                                                └ PaperBroker, PaperLedger
//! ```
//!
//! All but `server` is pure: the same requests at the same times give the same answers. Amounts are decimals read from
//! their text.

mod answers;
mod auth;
mod bars;
mod broker;
mod faults;
mod ledger;
mod momentum;
mod positions;
mod request;
mod server;
mod world;

pub use faults::FaultRefused;
pub use request::PaperRole;
pub use server::{PaperShared, serve_paper};
pub use world::{PaperSettings, PaperWorld};
