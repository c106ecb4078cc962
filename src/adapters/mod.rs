//! One module a technology, one file or folder in it a role. Adapters of two technologies import neither each other nor
//! actors; only the service's wiring names them.

pub mod clock;
pub mod demo;
pub mod files;
pub mod fixed_stages;
pub mod http;
pub mod paper;
pub mod process;
pub mod rabbitmq;
pub mod recorded_log;
pub mod recorded_market;
pub mod redis;
pub mod sql;
pub mod standing_permit;
pub mod tiered;
pub mod unopened_log;
