//! The kill switch as configured: for the service, which may only read it, and for what an operator drives.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ports::kill_switch::{KillSwitchRead, KillSwitchStore};

use super::WiringError;
use crate::adapters::files::kill_switch::{KillFile, KillFileOptions};
use crate::adapters::redis::kill_switch::{KillRedis, KillRedisOptions};
use crate::api::OperatorDesk;
use crate::config::{Config, KillSwitchKind, SecretUrl};

/// The kill switch, for reading: all that the service may do with it.
pub(super) fn for_reading(config: &Config) -> Result<Arc<dyn KillSwitchRead>, WiringError> {
    Ok(match config.kill_switch.kind {
        KillSwitchKind::File => Arc::new(kill_file(config)),
        KillSwitchKind::Redis => Arc::new(kill_redis(config, "kill_switch.url", &config.kill_switch.url)?),
    })
}

/// The desk of operators who come over HTTP: with a store of its own, and its own login where there are logins.
pub(super) fn operator_desk(config: &Config) -> Result<OperatorDesk, WiringError> {
    let url = &config.kill_switch.operator_url;
    Ok(match config.kill_switch.kind {
        // Nobody is asked who he is, and no setting says that others may change the file.
        KillSwitchKind::File if !config.http.listen.ip().is_loopback() => OperatorDesk::closed(
            "http.listen can be reached by other machines; use `orchestrator kill-switch`, or listen on loopback",
        ),
        KillSwitchKind::File => OperatorDesk::open(Arc::new(kill_file(config))),
        KillSwitchKind::Redis if url.is_empty() => OperatorDesk::closed(
            "kill_switch.operator_url is not set: it is the login of operators; until then use `orchestrator kill-switch`",
        ),
        KillSwitchKind::Redis => {
            OperatorDesk::open(Arc::new(kill_redis(config, "kill_switch.operator_url", url)?))
        }
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
            let store = kill_redis(config, "kill_switch.url", config.kill_switch.url_of_operators())?;
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

fn kill_redis(config: &Config, setting: &'static str, url: &SecretUrl) -> Result<KillRedis, WiringError> {
    let kill_switch = &config.kill_switch;
    let options = KillRedisOptions {
        url: url.expose_url().to_owned(),
        key: kill_switch.key.clone(),
        history_key: kill_switch.history_key.clone(),
        read_timeout: kill_switch.read_timeout,
        command_timeout: KILL_SWITCH_COMMAND_MAX,
    };
    KillRedis::start(options).map_err(|source| WiringError::KillSwitch { setting, source })
}
