//! The kill switch as configured: for the service, which may only read it, and for what an operator drives.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::kill_switch::{KillSwitchRead, KillSwitchStore};

use super::WiringError;
use crate::adapters::files::kill_switch::{KillFile, KillFileOptions};
use crate::adapters::redis::kill_switch::{KillRedis, KillRedisOptions};
use crate::config::{Config, KillSwitchKind};

/// The kill switch, for reading: all that the service may do with it.
pub(super) fn for_reading(config: &Config) -> Result<Arc<dyn KillSwitchRead>, WiringError> {
    Ok(match config.kill_switch.kind {
        KillSwitchKind::File => Arc::new(kill_file(config)),
        KillSwitchKind::Redis => Arc::new(kill_redis(config)?),
    })
}

/// The kill switch, for what an operator drives. Waits for a connection, but not for ever: without one, whatever is
/// asked of it says so.
///
/// # Errors
///
/// [`WiringError::KillSwitch`].
pub async fn open_store(config: &Config) -> Result<Arc<dyn KillSwitchStore>, WiringError> {
    Ok(match config.kill_switch.kind {
        KillSwitchKind::File => Arc::new(kill_file(config)),
        KillSwitchKind::Redis => {
            let store = kill_redis(config)?;
            if !store.wait_connected().await {
                tracing::debug!("the kill switch's Redis is not reached");
            }
            Arc::new(store)
        }
    })
}

/// How long an operator's command may take.
const KILL_SWITCH_COMMAND_MAX: Duration = Duration::from_secs(2);

fn kill_file(config: &Config) -> KillFile {
    KillFile::new(KillFileOptions { path: config.kill_switch_file(), lock_wait: KILL_SWITCH_COMMAND_MAX })
}

fn kill_redis(config: &Config) -> Result<KillRedis, WiringError> {
    let kill_switch = &config.kill_switch;
    Ok(KillRedis::start(KillRedisOptions {
        url: kill_switch.url.expose_url().to_owned(),
        key: kill_switch.key.clone(),
        history_key: kill_switch.history_key.clone(),
        read_timeout: kill_switch.read_timeout,
        command_timeout: KILL_SWITCH_COMMAND_MAX,
    })?)
}
