//! Rights that the server's own user needs, so that a restart of the server brings back what our scripts wrote.
//!
//! A script's writes stand in the append-only file one by one; two or more of them (and a read of a group that brings
//! two or more entries) stand there as a transaction. At a restart Redis replays the file as its user `default`, and
//! below 8.6 leaves out each transaction that this user may not do: acknowledged records are gone, with nothing but a
//! line in the server's log, and from the next rewrite of the file on for good. (Upstream: redis/redis#14541, mended by
//! #14545; valkey-io/valkey#3983.) The rights are asked for with `ACL DRYRUN`, which tells nothing else about a user.

use orchestrator_kernel::ports::log::LogName;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisResult};

/// The checkpoints of a namespace.
const CHECKPOINTS: [&str; 4] = ["base", "published", "receipts", "runs"];
/// The checkpoints that a trading plane adds.
const TRADING_CHECKPOINTS: [&str; 3] = ["journal", "journal_base", "trading_events"];
/// The first Redis that replays without asking for rights. Of Valkey no release is known to.
const FREE_SINCE: (u32, u32) = (8, 6);

/// Commands that the server must be able to replay, with keys of the kinds that they are written with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ReplayedCommands(Vec<Vec<String>>);

impl ReplayedCommands {
    /// What the scripts of a store write: append, trim, acquire, claim, checkpoint. `is_trading` adds what a trading
    /// plane writes.
    pub(super) fn of_store(namespace: &str, is_trading: bool) -> Self {
        let mut replayed = Self::default();
        for log in LogName::of_service(is_trading) {
            let stream = format!("orch:{{{namespace}}}:{log}");
            let meta = format!("{stream}:meta");
            replayed.add_command(&["XADD", &stream, "1-0", "r", ""]);
            replayed.add_command(&["XTRIM", &stream, "MINID", "=", "1-0"]);
            replayed.add_command(&["HSET", &meta, "tail", "1"]);
            replayed.add_command(&["HINCRBY", &meta, "epoch", "1"]);
        }
        let trading_checkpoints = TRADING_CHECKPOINTS.into_iter().filter(|_| is_trading);
        for name in CHECKPOINTS.into_iter().chain(trading_checkpoints) {
            replayed.add_command(&["HSET", &format!("orch:{{{namespace}}}:checkpoint:{name}"), "epoch", "1"]);
        }
        let writer = format!("orch:{{{namespace}}}:writer");
        replayed.add_command(&["SET", &writer, "", "PXAT", "1"]);
        // A claim that ran out is deleted by the script that finds it, in one of two ways.
        replayed.add_command(&["DEL", &writer]);
        replayed.add_command(&["UNLINK", &writer]);
        replayed
    }

    /// What reading a stream as a consumer of a group writes. XACK alone is no transaction.
    pub(super) fn of_group(stream: &str, group: &str, consumer: &str) -> Self {
        let mut replayed = Self::default();
        replayed.add_command(&["XCLAIM", stream, group, consumer, "0", "1-0"]);
        replayed
    }

    /// The commands, word by word.
    #[cfg(any(test, feature = "testkit"))]
    pub(super) fn into_commands(self) -> Vec<Vec<String>> {
        self.0
    }

    fn add_command(&mut self, words: &[&str]) {
        self.0.push(words.iter().map(|word| (*word).to_owned()).collect());
    }

    /// Asks for each of them: `OK`, or why the user `default` may not do it.
    pub(super) fn dry_run_questions(&self) -> Pipeline {
        let mut questions = redis::pipe();
        questions.ignore_errors();
        // A transaction begins with it when the one before was in another database.
        questions.cmd("ACL").arg(&["DRYRUN", "default", "SELECT", "0"]);
        for words in &self.0 {
            questions.cmd("ACL").arg(&["DRYRUN", "default"]).arg(words);
        }
        questions
    }
}

/// The first answer to [`Replayed::questions`] that is a no.
pub(super) fn refused_in(answers: Vec<String>) -> Option<String> {
    answers.into_iter().find(|answer| answer != "OK")
}

/// Asks on `connection` why the user `default` may not replay what is `written`; nothing when it may, need not, or when
/// the server does not tell.
pub(super) async fn refused_replay(
    connection: &mut MultiplexedConnection,
    written: &ReplayedCommands,
) -> Option<String> {
    let answers =
        written.dry_run_questions().query_async::<Vec<RedisResult<String>>>(connection).await.ok()?;
    let refused = refused_in(answers.into_iter().collect::<RedisResult<Vec<String>>>().ok()?)?;
    let info = redis::cmd("INFO").query_async::<String>(connection).await.unwrap_or_default();
    let find = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let is_free = needs_no_rights(find("server_name"), find("redis_version").unwrap_or_default());
    (!is_free && find("aof_enabled") != Some("0")).then_some(refused)
}

/// Why nothing may be acknowledged by a server whose user `default` may not replay it, and what to do.
pub(super) fn replay_advice(said: &str) -> String {
    let (major, minor) = FREE_SINCE;
    format!(
        "it replays its append-only file as its user `default`, which may not do what is written ({said}), so any \
         restart of it loses that: set `user default off resetpass ~* &* +@all` in its ACL, as which \
         nobody can log in, or use Redis {major}.{minor} or later"
    )
}

/// Whether this version is known to replay without asking for rights. `server` is what `INFO` calls `server_name`,
/// which Redis itself does not tell.
pub(super) fn needs_no_rights(server: Option<&str>, version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => {
            server.is_none_or(|name| name == "redis") && FREE_SINCE <= (major, minor)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_versions_that_are_known_to_need_no_rights_are_taken_without_them() {
        let cases = [
            (None, "7.0.15", false),
            (None, "8.4.7", false),
            (None, "8.6.0", true),
            (Some("redis"), "8.10.2", true),
            (None, "9.0.0", true),
            // Valkey gives the version of Redis that it is compatible with; a later one would prove nothing.
            (Some("valkey"), "7.2.4", false),
            (Some("valkey"), "8.6.0", false),
            (None, "unknown", false),
            (None, "9", false),
        ];

        for (server, version, is_free) in cases {
            assert_eq!(needs_no_rights(server, version), is_free, "{server:?} {version}");
        }
    }

    #[test]
    fn one_refusal_among_the_answers_is_told() {
        assert_eq!(refused_in(vec!["OK".to_owned(), "OK".to_owned()]), None);
        assert_eq!(
            refused_in(vec!["OK".to_owned(), "no".to_owned(), "OK".to_owned()]),
            Some("no".to_owned())
        );
    }

    #[test]
    fn a_store_asks_for_every_key_that_it_writes() {
        let asks_for = |is_trading, key: &str| {
            let ReplayedCommands(asked) = ReplayedCommands::of_store("n", is_trading);
            asked.iter().any(|words| words[1] == format!("orch:{{n}}:{key}"))
        };

        for key in
            ["receipts", "receipts:meta", "quarantine", "runs:meta", "manifests", "checkpoint:base", "writer"]
        {
            assert!(asks_for(false, key) && asks_for(true, key), "{key}");
        }
        for key in [
            "journal",
            "journal:meta",
            "checkpoint:journal",
            "checkpoint:journal_base",
            "checkpoint:trading_events",
        ] {
            assert!(asks_for(true, key) && !asks_for(false, key), "{key}");
        }
    }
}
