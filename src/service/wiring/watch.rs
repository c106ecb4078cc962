//! A watch over the data directory while the service runs.
//!
//! Records that are synced into a directory that was removed, replaced or unmounted are lost with this process. Each
//! group commit checks its own log before anything is acknowledged; the watch also ends a service to which nothing
//! comes, and one whose lock does not keep a second service out any more.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::adapters::files::data_dir::DataDir;
use crate::adapters::files::log::EmbeddedLog;

/// Twice within the second in which it is to be noticed.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The data directory and the logs in it that are written.
pub struct PlaceWatch {
    data_dir: Arc<DataDir>,
    written: Vec<Arc<EmbeddedLog>>,
}

impl PlaceWatch {
    pub(super) const fn new(data_dir: Arc<DataDir>, written: Vec<Arc<EmbeddedLog>>) -> Self {
        Self { data_dir, written }
    }

    /// Ready when the directory, or a file in it that is written, is not there any more; says which.
    pub async fn wait_until_lost(&self) -> io::Error {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let (data_dir, written) = (Arc::clone(&self.data_dir), self.written.clone());
            // A disk that hangs must not hold up the runtime.
            let looked = tokio::task::spawn_blocking(move || check_files(&data_dir, &written)).await;
            if let Ok(Err(lost)) = looked {
                return lost;
            }
        }
    }
}

fn check_files(data_dir: &DataDir, written: &[Arc<EmbeddedLog>]) -> io::Result<()> {
    data_dir.check_place()?;
    written.iter().try_for_each(|log| log.check_place())
}
