//! The trading plane's actors. One folder an actor: `messages.rs` is what the others may know of it.
//!
//! ```text
//! Cadence   decides which cycles are due; every fire is a cycle or a recorded skip
//! Agent     carries out commands; keeps the agent's and the strategies' states
//! Cycles    runs cycles: gates, stages within their budgets, one end each
//! builtin   the stages that need nothing but the record and the market
//! Journal   the only writer of the journal: chains, makes durable, and says what the records add up to
//! History   a reader of the journal that keeps the tables of a database behind it
//! Retention trims the journal as far as nobody needs it
//! Outbox    a reader of the journal that publishes its events
//! intake    takes events of others to the actors, and decides nothing
//! ```
//!
//! Nothing here names the engine plane: what is known of the market comes through a port, and nothing that the engine
//! plane does waits for a cycle. What goes wrong here stops trading, visibly, and nothing else. An actor keeps only
//! what it can rebuild from the journal in `pre_start`; a restart therefore loses nothing.

pub mod plane;
pub mod saved;
pub mod settings;

pub mod command;
pub mod view;

pub mod cadence;

pub mod agent;

pub mod cycle;

pub mod builtin;

pub mod journal;

pub mod history;

pub mod outbox;
pub mod retention;

pub mod intake;

#[cfg(feature = "testkit")]
#[doc(hidden)]
pub mod testkit;
