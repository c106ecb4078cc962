//! One module a neighbour. Adapters import neither each other nor actors; only the wiring names them.

pub mod capture;
pub mod clock;
pub mod demo;
pub mod embedded;
pub mod http_engine;
pub mod http_source;
pub mod kill_file;
pub mod kill_redis;
pub mod mark_file;
pub mod process;
pub mod rabbitmq;
pub mod recorded_log;
pub mod redis;
pub mod tiered;
