//! Engaging on a server that takes the scripts no more: full, of a cluster, with fewer rights, unable to save.
//!
//! ```text
//! script (value, then history; asks for no memory) ──refused──▶ SET key ──refused──▶ DEL key (absent blocks)
//!                                                                  └─▶ RPUSH history, if it can be had
//! ```

use std::time::Duration;

use fred::clients::Client;
use fred::interfaces::{ClientLike, KeysInterface, ListInterface};
use fred::types::{ClusterHash, CustomCommand, Value};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{
    Applied, HISTORY_MAX, KillSwitchReadError, OperatorCommand, Shortfall, Stored, decide,
};
use orchestrator_kernel::ports::kill_switch::ApplyError;
use tokio::time::{Instant, sleep};

use super::KillRedis;

/// How often a key that is being moved within a cluster is tried again, for as long as a command may take.
const MOVING_PAUSE: Duration = Duration::from_millis(20);

impl KillRedis {
    /// Carries out a stop.
    pub(super) async fn engage_stop(
        &self,
        command: &OperatorCommand,
        now: TsMs,
    ) -> Result<Applied, ApplyError> {
        let why = match self.apply_by_script(command, now).await {
            Err(ApplyError::Unchanged(why)) => why,
            answer @ (Ok(_) | Err(ApplyError::Refused(_) | ApplyError::Unknown(_))) => return answer,
        };
        if !self.route.current_link().client.is_connected() {
            return Err(ApplyError::Unchanged(why));
        }
        tracing::debug!(error_detail = %why, "the stop is written without a script");
        let deadline = Instant::now() + self.options.command_timeout;
        // What cannot be read can still be overwritten.
        let stored = self.read_by(deadline).await.unwrap_or(Stored::NotText);
        let mut applied = Applied::in_full(decide(&stored, command, now)?);
        applied.shortfalls.extend(self.set_or_delete(&applied.change.value).await?);
        // Two slots are not written as one step: permission could not be recorded there, so the lines would tell half.
        let unwritten = if why.contains("CROSSSLOT") {
            Some(why)
        } else {
            self.append_history(&applied.change.entry).await.err().map(|error| with_advice(error.to_string()))
        };
        applied.shortfalls.extend(unwritten.map(Shortfall::Unrecorded));
        Ok(applied)
    }

    async fn set_or_delete(&self, value: &str) -> Result<Option<Shortfall>, ApplyError> {
        let refused = match self.set_value(value).await {
            Ok(()) => return Ok(None),
            Err(KillSwitchReadError::NoAnswer(why)) => return Err(ApplyError::Unknown(why)),
            Err(KillSwitchReadError::Refused(why)) => why,
        };
        if refused.starts_with("MISCONF") && self.set_past_failed_save(value).await.is_ok() {
            return Ok(None);
        }
        let key = self.options.key.as_str();
        let delete = |client: Client| async move { client.del::<i64, _>(key).await };
        match self.send_to_owner(delete).await {
            Ok(_) => Ok(Some(Shortfall::Removed(format!("cannot write it: {refused}")))),
            Err(KillSwitchReadError::NoAnswer(why)) => Err(ApplyError::Unknown(why)),
            Err(KillSwitchReadError::Refused(why)) => {
                let both = format!("cannot write the value: {refused}; nor remove it: {why}");
                Err(ApplyError::Unchanged(with_advice(both)))
            }
        }
    }

    async fn set_value(&self, value: &str) -> Result<(), KillSwitchReadError> {
        let key = self.options.key.as_str();
        let deadline = Instant::now() + self.options.command_timeout;
        loop {
            let set =
                |client: Client| async move { client.set::<(), _, _>(key, value, None, None, false).await };
            match self.send_to_owner(set).await {
                // The slot is on its way to another server, which will have it in a moment.
                Err(KillSwitchReadError::Refused(why))
                    if (why.starts_with("ASK ") || why.starts_with("TRYAGAIN"))
                        && Instant::now() < deadline =>
                {
                    sleep(MOVING_PAUSE).await;
                }
                answer => return answer,
            }
        }
    }

    /// Sets the value on a server that refuses writes because its last snapshot failed, where this user may tell it not
    /// to.
    ///
    /// The setting guards data that could not be saved; a stop that is lost when the server dies is absent, which
    /// blocks.
    async fn set_past_failed_save(&self, value: &str) -> Result<(), KillSwitchReadError> {
        self.refuse_writes_after_failed_save("no").await?;
        let set = self.set_value(value).await;
        if let Err(error) = self.refuse_writes_after_failed_save("yes").await {
            tracing::error!(
                error_detail = %error,
                "stop-writes-on-bgsave-error was set to no for the stop, and could not be set to yes again"
            );
        }
        set
    }

    async fn refuse_writes_after_failed_save(&self, word: &'static str) -> Result<(), KillSwitchReadError> {
        let config = |client: Client| async move {
            let command = CustomCommand::new_static("CONFIG", ClusterHash::FirstKey, false);
            client.custom::<Value, _>(command, vec!["SET", "stop-writes-on-bgsave-error", word]).await
        };
        self.send_to_owner(config).await.map(|_| ())
    }

    /// Appends to the history, on the server that has the value and nowhere else.
    async fn append_history(&self, entry: &str) -> Result<(), KillSwitchReadError> {
        let (link, history) = (self.route.current_link(), self.options.history_key.as_str());
        self.send_over(&link, link.client.rpush::<i64, _, _>(history, entry)).await?;
        self.send_over(&link, link.client.ltrim::<(), _>(history, -(HISTORY_MAX as i64), -1)).await
    }
}

/// What the server said, and what to do about it.
pub(super) fn with_advice(said: String) -> String {
    let advice = if said.contains("CROSSSLOT") || said.contains("MOVED ") {
        "on a Redis Cluster kill_switch.key and kill_switch.history_key need one hash tag, \
         for example {kill_switch}:state and {kill_switch}:history"
    } else if said.contains("READONLY") {
        "this server is a replica: engage it on the server that it follows"
    } else if said.contains("MISCONF") {
        "the server cannot save and refuses every write: make room on its disk, or shut it down, \
         since a server that does not answer blocks within kill_switch.lease"
    } else {
        return said;
    };
    format!("{said}; {advice}")
}
