//! The history in SQL: SQLite in a file, or PostgreSQL by its address. Both hold the same rows.
//!
//! ```text
//! HistoryStore ─▶ SqlHistory ─▶ statements, from the tables as data ─▶ SqlBackend ─▶ sqlite │ postgres
//!                    rows ◀── cells ◀──────────────────────────────────────┘
//! ```
//!
//! What differs is small and stands in `tables.rs`: how a value of each kind is bound and read. Values go as texts and
//! whole numbers, so that neither database rounds or reorders one.

mod backend;
mod cells;
mod history;
pub mod postgres;
pub mod sqlite;
mod statements;
mod tables;

pub use tables::{SCHEMA_NAME_BYTES_MAX, SchemaName};
