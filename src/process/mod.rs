//! What belongs to the process and to no plane: how it ends and says why, its version and wall clock, TLS, files of
//! people.

pub mod exit;
pub mod explain;
pub mod files;
pub mod time;
pub mod tls;
pub mod version;
