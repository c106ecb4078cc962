//! What holds the actors of both planes up, and knows neither: supervision, the single writer of a log, readiness, and
//! the gate that a kill switch closes.

pub mod address;
pub mod fatal;
pub mod status;
pub mod supervisor;

pub mod act_log;
pub mod checkpoint;
pub mod group_commit;
pub mod log_copy;
pub mod log_health;
pub mod log_writer;
pub mod patient_log;

pub mod clock_watch;
pub mod kill_switch;

#[cfg(feature = "testkit")]
pub mod testkit;
