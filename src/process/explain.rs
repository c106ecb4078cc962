//! The last line that a process writes: an error with its causes, and what people can do.

use std::io;

use orchestrator_runtime::fatal::Chain;

/// An error with its causes, for the last line that the process writes.
#[must_use]
pub fn explain_error(error: &(dyn std::error::Error + 'static)) -> String {
    Chain(error).to_string()
}

/// The same of a start that failed; what people can do about a medium that is full or cannot be written comes last.
#[must_use]
pub fn explain_start(error: &(dyn std::error::Error + 'static)) -> String {
    match medium_advice(error) {
        Some(advice) => format!("{}; {advice}", Chain(error)),
        None => Chain(error).to_string(),
    }
}

fn medium_advice(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut causes = std::iter::successors(Some(error), |error| error.source());
    causes.find_map(|cause| {
        let advice = match cause.downcast_ref::<io::Error>()?.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "make room, also of inodes (df -h, df -i); orchestrator log trim works without room, and nothing stored is lost"
            }
            io::ErrorKind::ReadOnlyFilesystem => "mount it writable; nothing was changed",
            io::ErrorKind::PermissionDenied => {
                "give this user the right to read and write there, or name another service.data_dir; nothing was changed"
            }
            _ => return None,
        };
        Some(advice)
    })
}
