//! Whether the server still knows after a restart what an operator's command has written.
//!
//! A command writes the value and its history in one script, which stands in the append-only file as a transaction.
//! Redis below 8.6 and Valkey replay it with the rights of their user `default`, and leave it out when those are not
//! enough: an engaged switch would be what it was before. (Upstream: redis/redis#14541, valkey-io/valkey#3983.) So a
//! reading of such a server is no reading. A server without that file comes back with its last snapshot, which may be
//! older than the last stop: that is told.

use std::sync::{Mutex, MutexGuard, PoisonError};

use fred::error::Error;
use fred::interfaces::ClientLike;
use fred::types::{ClusterHash, CustomCommand, Value};

use super::connection::{error_text, is_reply};

/// The first Redis that replays without asking for rights. Of Valkey no release is known to.
const FREE_SINCE: (u32, u32) = (8, 6);

/// Effect of a restart of the server on what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RestartReplay {
    /// Everything comes back, as far as it depends on settings and rights; or nothing does, which blocks.
    Whole,
    /// What was written is left out; the text says what to do.
    Short(String),
    /// What was written last may be left out; the text says what to do.
    Stale(String),
    /// It did not tell; the text says what to grant.
    Untold(String),
}

/// Latest knowledge of that effect, on one connection after the other.
#[derive(Debug, Default)]
pub(super) struct ReplayKnown(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Of the server that is connected now.
    found: Option<RestartReplay>,
    /// What people were told last.
    told: Option<RestartReplay>,
}

impl ReplayKnown {
    fn lock_known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the server that is connected now said, if it was asked.
    pub(super) fn found_replay(&self) -> Option<RestartReplay> {
        self.lock_known().found.clone()
    }

    /// Another server may be there now.
    pub(super) fn forget_found(&self) {
        self.lock_known().found = None;
    }

    /// Asks the server of these two keys. What is new in its answer is told once.
    ///
    /// # Errors
    ///
    /// It did not answer.
    pub(super) async fn ask_and_tell(
        &self,
        client: &impl ClientLike,
        keys: &[String; 2],
    ) -> Result<RestartReplay, Error> {
        let found = ask_server(client, keys).await?;
        let mut known = self.lock_known();
        known.found = Some(found.clone());
        if known.told.as_ref().unwrap_or(&RestartReplay::Whole) != &found {
            tell_found(&found);
        }
        known.told = Some(found.clone());
        Ok(found)
    }
}

fn tell_found(found: &RestartReplay) {
    match found {
        RestartReplay::Whole => tracing::info!("the kill switch's Redis brings back what is written"),
        RestartReplay::Short(why) => {
            tracing::error!(error_detail = why, "the kill switch cannot be trusted to this Redis")
        }
        RestartReplay::Stale(why) => {
            tracing::warn!(error_detail = why, "the kill switch's Redis may forget a stop")
        }
        RestartReplay::Untold(why) => {
            tracing::warn!(error_detail = why, "the kill switch's Redis does not tell what it brings back")
        }
    }
}

async fn ask_server(
    client: &impl ClientLike,
    [key, history_key]: &[String; 2],
) -> Result<RestartReplay, Error> {
    let info = match run_command(client, "INFO", &[]).await? {
        Ok(info) => info.as_string().unwrap_or_default(),
        Err(denied) => return Ok(RestartReplay::Untold(format!("{denied}; allow `+info` to this user"))),
    };
    let info = Info(&info);
    if !info.has_file() {
        return Ok(match run_command(client, "CONFIG", &["GET", "save"]).await? {
            Ok(answer) => without_file(save_setting(answer).as_deref()),
            Err(denied) => RestartReplay::Untold(format!("{denied}; allow `+config|get` to this user")),
        });
    }
    if info.needs_no_rights() {
        return Ok(RestartReplay::Whole);
    }
    let questions: [&[&str]; 5] = [
        &["SET", key, "v"],
        &["DEL", key],
        &["RPUSH", history_key, "v"],
        &["LTRIM", history_key, "0", "1"],
        &["SELECT", "0"],
    ];
    for words in questions {
        match run_command(client, "ACL", &[&["DRYRUN", "default"], words].concat()).await? {
            Ok(answer) => match answer.as_string() {
                Some(answer) if answer == "OK" => {}
                refused => return Ok(RestartReplay::Short(replay_advice(&refused.unwrap_or_default()))),
            },
            Err(denied) => {
                return Ok(RestartReplay::Untold(format!("{denied}; allow `+acl|dryrun` to this user")));
            }
        }
    }
    Ok(RestartReplay::Whole)
}

/// What the server answered, or in which words it refused.
async fn run_command(
    client: &impl ClientLike,
    name: &'static str,
    words: &[&str],
) -> Result<Result<Value, String>, Error> {
    let command = CustomCommand::new_static(name, ClusterHash::FirstKey, false);
    let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).collect();
    match client.custom::<Value, Value>(command, words).await {
        Ok(answer) => Ok(Ok(answer)),
        Err(error) if is_reply(&error) => Ok(Err(error_text(&error))),
        Err(error) => Err(error),
    }
}

fn replay_advice(refused: &str) -> String {
    let (major, minor) = FREE_SINCE;
    format!(
        "a restart of the server leaves out what an operator's command has written: it replays its file as its user \
         `default`, which may not ({refused}); set `user default off resetpass ~* &* +@all` in its ACL, as which nobody \
         can log in, or use Redis {major}.{minor} or later"
    )
}

/// The value of `CONFIG GET save`.
fn save_setting(answer: Value) -> Option<String> {
    match answer {
        Value::Array(parts) => parts.into_iter().nth(1)?.into_string(),
        Value::Map(fields) => fields.inner().into_iter().next()?.1.into_string(),
        _ => None,
    }
}

/// A server that appends nothing: without snapshots the key is absent after a restart, which blocks.
fn without_file(snapshots: Option<&str>) -> RestartReplay {
    if snapshots == Some("") {
        return RestartReplay::Whole;
    }
    RestartReplay::Stale(
        "a restart of the server brings back its last snapshot, which may be older than the last stop; set \
         `appendonly yes` on it"
            .to_owned(),
    )
}

/// Answer to `INFO`.
struct Info<'a>(&'a str);

impl Info<'_> {
    fn find_field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    /// Whether there is an append-only file. A server that does not say is asked on.
    fn has_file(&self) -> bool {
        self.find_field("aof_enabled") != Some("0")
    }

    /// Whether it is known to replay without asking for rights. Valkey gives the version of Redis that it is compatible
    /// with, which proves nothing.
    fn needs_no_rights(&self) -> bool {
        let mut numbers =
            self.find_field("redis_version").unwrap_or_default().split('.').map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => {
                FREE_SINCE <= (major, minor)
                    && self.find_field("server_name").is_none_or(|name| name == "redis")
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_needs_rights_unless_it_says_otherwise() {
        for (info, expected) in [
            ("", false),
            ("redis_version:7.0.15\r\naof_enabled:1\r\n", false),
            ("redis_version:8.6.0\r\naof_enabled:1\r\n", true),
            ("redis_version:8.10.2\r\naof_enabled:1\r\n", true),
            ("redis_version:8.6.0\r\nserver_name:valkey\r\naof_enabled:1\r\n", false),
        ] {
            assert_eq!(Info(info).needs_no_rights(), expected, "{info:?}");
            assert!(Info(info).has_file(), "{info:?}");
        }
        assert!(!Info("aof_enabled:0\r\n").has_file());
    }

    #[test]
    fn only_a_server_that_comes_back_empty_needs_no_file() {
        assert_eq!(without_file(Some("")), RestartReplay::Whole);
        for snapshots in [Some("3600 1"), None] {
            assert!(matches!(without_file(snapshots), RestartReplay::Stale(_)), "{snapshots:?}");
        }
    }
}
