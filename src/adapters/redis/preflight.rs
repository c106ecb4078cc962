//! Whether a server keeps what its acknowledgements promise: asked before the first append, after every new
//! connection, and from time to time.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisResult};
use tokio::time::error::Elapsed;

use super::connect::Endpoint;
use super::fault::RedisFault;
use super::replay::{self, ReplayedCommands};

/// Redis says `OOM` at 100 %; before that there has to be room for other clients and for rewriting its file.
const MEMORY_USED_PERCENT_MAX: u64 = 90;
/// With the default of 4096 an entry takes some 10 % more memory, and a scan some 70 % more time (measured).
const STREAM_NODE_BYTES_ADVISED: u64 = 65_536;
/// The oldest server that the scripts were tested on.
const MAJOR_VERSION_MIN: u32 = 7;

/// Durability of an acknowledged append. The service promises it; the server must do at least that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every append is on the server's disk before it is acknowledged: it survives kill −9 and power failure of the
    /// server. Needs `appendfsync always`.
    Always,
    /// Up to two seconds of acknowledged appends may be lost with the server, which is then detected and refused.
    /// Needs `appendonly yes`.
    Everysec,
    /// The operator knows what the server keeps: its settings are not asked for, because it does not tell them.
    AssertedByOperator,
}

impl Durability {
    /// Its name in configuration and status: `always`, `everysec`, `asserted-by-operator`.
    #[must_use]
    pub const fn config_word(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Everysec => "everysec",
            Self::AssertedByOperator => "asserted-by-operator",
        }
    }
}

/// Findings about a server. Each text says what to set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerFindings {
    /// The promise does not hold: no start, and no append while it lasts.
    pub(super) broken: Vec<String>,
    /// The promise holds, but there is hardly any room: no append while it lasts.
    pub(super) short: Vec<String>,
    /// It could be better.
    pub(super) advice: Vec<String>,
}

impl ServerFindings {
    /// Why nothing may be appended now.
    pub(super) fn append_refusal(&self) -> Option<String> {
        let all: Vec<&str> = self.broken.iter().chain(&self.short).map(String::as_str).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Asks the server on `connection`, also whether it can replay what is `written` to it.
///
/// # Errors
///
/// It did not answer.
pub(super) async fn examine_server(
    endpoint: &Endpoint,
    connection: &mut MultiplexedConnection,
    promise: Durability,
    written: &ReplayedCommands,
    timeout: Duration,
) -> io::Result<ServerFindings> {
    let mut server = Server { endpoint, connection, timeout };
    let mut findings = ServerFindings::default();
    server.ask_server::<String>(&["PING"]).await?.map_err(|denied| io::Error::other(denied.0))?;
    match server.ask_server::<String>(&["INFO"]).await? {
        Ok(info) => {
            let info = Info::parse(&info);
            check_info(&info, promise, &mut findings);
            check_replay(&mut server, &info, promise, written, &mut findings).await?;
        }
        Err(denied) => match promise {
            Durability::Always | Durability::Everysec => findings.broken.push(denied.grant_advice("+info")),
            Durability::AssertedByOperator => findings.advice.push(denied.grant_advice("+info")),
        },
    }
    match promise {
        Durability::Always | Durability::Everysec => {
            check_settings(&mut server, promise, &mut findings).await?
        }
        Durability::AssertedByOperator => {}
    }
    Ok(findings)
}

fn check_info(info: &Info<'_>, promise: Durability, findings: &mut ServerFindings) {
    let mut broken = |text: String| findings.broken.push(text);
    if info.major_version().is_some_and(|major| major < MAJOR_VERSION_MIN) {
        let version = info.field_or_unknown("redis_version");
        broken(format!("its version is {version}: use {MAJOR_VERSION_MIN}.0 or later"));
    }
    if info.field_or_unknown("role") != "master" {
        broken(format!("its role is {}: the URL must lead to the master", info.field_or_unknown("role")));
    }
    if info.field_or_unknown("loading") == "1" {
        broken("it is still reading its files: wait".to_owned());
    }
    match promise {
        Durability::Always | Durability::Everysec if info.field_or_unknown("aof_enabled") != "1" => {
            broken("it keeps no append-only file: set `appendonly yes`".to_owned());
        }
        Durability::Always | Durability::Everysec | Durability::AssertedByOperator => {}
    }
    if info.field_or_unknown("aof_enabled") == "1" && info.field_or_unknown("aof_last_write_status") != "ok" {
        broken("it failed to write its append-only file: give its disk room, see its log".to_owned());
    }
    let (used, max) = (info.number_or_zero("used_memory"), info.number_or_zero("maxmemory"));
    let policy = info.field_or_unknown("maxmemory_policy");
    if max > 0 && policy != "noeviction" {
        broken(format!(
            "its maxmemory-policy is {policy}, which throws logs away: set `maxmemory-policy noeviction`"
        ));
    }
    if max > 0 && max.saturating_mul(MEMORY_USED_PERCENT_MAX) < used.saturating_mul(100) {
        findings.short.push(format!(
            "it uses {used} of {max} bytes of its maxmemory, more than {MEMORY_USED_PERCENT_MAX} %: raise it, or free memory"
        ));
    }
}

/// Finds a server that would leave out what is written when it replays its append-only file.
async fn check_replay(
    server: &mut Server<'_>,
    info: &Info<'_>,
    promise: Durability,
    written: &ReplayedCommands,
    findings: &mut ServerFindings,
) -> io::Result<()> {
    let is_free =
        replay::needs_no_rights(info.find_field("server_name"), info.field_or_unknown("redis_version"));
    // What the user `default` may write, it may replay. Without a file there is nothing to replay.
    if is_free || server.endpoint.is_default_user() || info.field_or_unknown("aof_enabled") != "1" {
        return Ok(());
    }
    match server.ask_replay(written).await? {
        Replay::Whole => {}
        Replay::Short(refused) => findings.broken.push(replay::replay_advice(&refused)),
        Replay::Denied(denied) => match promise {
            Durability::Always | Durability::Everysec => {
                let denied = denied.grant_advice("+acl|dryrun");
                findings.broken.push(format!("{denied}, or promise durability `asserted-by-operator`"));
            }
            Durability::AssertedByOperator => findings.advice.push(denied.grant_advice("+acl|dryrun")),
        },
        Replay::Untold(said) => findings.advice.push(format!(
            "it does not tell whether a restart of it brings back what is written ({said}): see that its user \
             `default` may do everything"
        )),
    }
    Ok(())
}

async fn check_settings(
    server: &mut Server<'_>,
    promise: Durability,
    findings: &mut ServerFindings,
) -> io::Result<()> {
    let synced = match server.read_setting("appendfsync").await? {
        Ok(synced) => synced,
        Err(denied) => {
            let denied = denied.grant_advice("+config|get");
            findings.broken.push(format!("{denied}, or promise durability `asserted-by-operator`"));
            return Ok(());
        }
    };
    match promise {
        Durability::Always if synced != "always" => findings.broken.push(format!(
            "its appendfsync is {synced}, which loses acknowledged appends when it is killed: set `appendfsync always`, or promise durability `everysec`"
        )),
        Durability::Everysec if synced != "always" && synced != "everysec" => findings
            .broken
            .push(format!("its appendfsync is {synced}: set `appendfsync always` or `appendfsync everysec`")),
        Durability::Always | Durability::Everysec | Durability::AssertedByOperator => {}
    }
    let Ok(pauses) = server.read_setting("no-appendfsync-on-rewrite").await? else { return Ok(()) };
    if pauses == "yes" {
        findings.broken.push(
            "it does not sync while it rewrites its file: set `no-appendfsync-on-rewrite no`".to_owned(),
        );
    }
    let Ok(truncates) = server.read_setting("aof-load-truncated").await? else { return Ok(()) };
    if truncates == "yes" {
        findings.advice.push(
            "it starts with a shorter file without saying so (that is found out here): set `aof-load-truncated no`"
                .to_owned(),
        );
    }
    let Ok(node) = server.read_setting("stream-node-max-bytes").await? else { return Ok(()) };
    if node.parse::<u64>().is_ok_and(|bytes| 0 < bytes && bytes < STREAM_NODE_BYTES_ADVISED) {
        findings.advice.push(format!(
            "its streams are slow to read: set `stream-node-max-bytes {STREAM_NODE_BYTES_ADVISED}` and `stream-node-max-entries 1000`"
        ));
    }
    Ok(())
}

/// Extent to which a restart of the server would bring back what was written.
enum Replay {
    /// Everything.
    Whole,
    /// Not what its user `default` may not do; the text is what the server said.
    Short(String),
    /// We may not ask.
    Denied(Denied),
    /// It does not know the question; the text is what it said.
    Untold(String),
}

/// The ACL does not allow a question; the text is what the server said.
struct Denied(String);

impl Denied {
    fn grant_advice(&self, grant: &str) -> String {
        format!("it does not tell what it keeps ({}): allow `{grant}` to this user", self.0)
    }
}

struct Server<'a> {
    endpoint: &'a Endpoint,
    connection: &'a mut MultiplexedConnection,
    timeout: Duration,
}

impl Server<'_> {
    /// Asks; the inner error is a denial.
    async fn ask_server<T: FromRedisValue>(&mut self, words: &[&str]) -> io::Result<Result<T, Denied>> {
        let mut question = Cmd::new();
        question.arg(words);
        let answer = question.query_async::<T>(self.connection);
        let answer = tokio::time::timeout(self.timeout, answer).await;
        self.settle_answer(answer)
    }

    fn settle_answer<T>(&self, answer: Result<RedisResult<T>, Elapsed>) -> io::Result<Result<T, Denied>> {
        match answer {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(error)) if error.code() == Some("NOPERM") => Ok(Err(Denied(error.to_string()))),
            Ok(Err(error)) => Err(self.endpoint.fault_of(&error).into_io()),
            Err(_) => Err(RedisFault::timed_out(self.endpoint.place(), self.timeout).into_io()),
        }
    }

    /// Asks whether a restart brings back what is `written`.
    async fn ask_replay(&mut self, written: &ReplayedCommands) -> io::Result<Replay> {
        let questions = written.dry_run_questions();
        let answers = questions.query_async::<Vec<RedisResult<String>>>(self.connection);
        let answers = tokio::time::timeout(self.timeout, answers).await;
        let answers = answers.map(|asked| asked.and_then(|answers| answers.into_iter().collect()));
        if let Ok(Err(error)) = &answers
            && error.code() == Some("ERR")
        {
            return Ok(Replay::Untold(error.to_string()));
        }
        Ok(match self.settle_answer(answers)? {
            Ok(answers) => replay::refused_in(answers).map_or(Replay::Whole, Replay::Short),
            Err(denied) => Replay::Denied(denied),
        })
    }

    /// A setting's value; empty when this server does not know it.
    async fn read_setting(&mut self, name: &str) -> io::Result<Result<String, Denied>> {
        let answer = self.ask_server::<HashMap<String, String>>(&["CONFIG", "GET", name]).await?;
        Ok(answer.map(|mut found| found.remove(name).unwrap_or_default()))
    }
}

/// The answer of `INFO`, as lines `name:value`.
struct Info<'a>(HashMap<&'a str, &'a str>);

impl<'a> Info<'a> {
    fn parse(text: &'a str) -> Self {
        Self(text.lines().filter_map(|line| line.split_once(':')).collect())
    }

    fn find_field(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn field_or_unknown(&self, name: &str) -> &'a str {
        self.find_field(name).unwrap_or("unknown")
    }

    fn number_or_zero(&self, name: &str) -> u64 {
        self.field_or_unknown(name).parse().unwrap_or(0)
    }

    fn major_version(&self) -> Option<u32> {
        self.field_or_unknown("redis_version").split('.').next()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# Server\r\nredis_version:7.0.15\r\nrole:master\r\nloading:0\r\naof_enabled:1\r\n\
        aof_last_write_status:ok\r\nused_memory:100\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n";

    fn check(changes: &[(&str, &str)], promise: Durability) -> ServerFindings {
        let mut text = GOOD.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let mut findings = ServerFindings::default();
        check_info(&Info::parse(&text), promise, &mut findings);
        findings
    }

    #[test]
    fn good_server_has_no_finding() {
        assert_eq!(check(&[], Durability::Always), ServerFindings::default());
        assert_eq!(check(&[], Durability::Always).append_refusal(), None);
    }

    #[test]
    fn each_weakness_is_one_finding_that_says_what_to_set() {
        let cases = [
            ("redis_version:7.0.15", "redis_version:6.2.1", "7.0 or later"),
            ("role:master", "role:slave", "master"),
            ("loading:0", "loading:1", "wait"),
            ("aof_enabled:1", "aof_enabled:0", "`appendonly yes`"),
            ("write_status:ok", "write_status:err", "room"),
            ("maxmemory:0", "maxmemory:1000", "`maxmemory-policy noeviction`"),
        ];

        for (from, to, advice) in cases {
            let findings = check(&[(from, to)], Durability::Always);
            assert_eq!(findings.broken.len(), 1, "{to}: {findings:?}");
            assert!(findings.append_refusal().unwrap().contains(advice), "{to}: {findings:?}");
        }
    }

    #[test]
    fn scarce_memory_refuses_appends_and_not_the_start() {
        let full = [("maxmemory:0", "maxmemory:110"), ("allkeys-lru", "noeviction")];

        let findings = check(&full, Durability::Always);

        assert_eq!((findings.broken.len(), findings.short.len()), (0, 1), "{findings:?}");
        assert!(findings.append_refusal().is_some());
        let room = [("maxmemory:0", "maxmemory:112"), ("allkeys-lru", "noeviction")];
        assert_eq!(check(&room, Durability::Always), ServerFindings::default());
    }

    #[test]
    fn what_the_operator_asserts_is_not_asked_for() {
        let none = [("aof_enabled:1", "aof_enabled:0")];

        assert_eq!(check(&none, Durability::AssertedByOperator), ServerFindings::default());
    }
}
