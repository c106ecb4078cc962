//! Stopping effects by Redis when things are bad (KILL-4): the real binary on servers that are full, cannot save,
//! follow another one, are part of a cluster, or give an operator few rights.

use std::time::{Duration, Instant};

use orchestrator::adapters::redis::kill_switch::{KillRedis, KillRedisOptions};
use orchestrator_kernel::kill_switch::Stored;
use orchestrator_kernel::ports::kill_switch::KillSwitchRead as _;

use crate::support::ports::free_port;
use crate::support::process::{PATIENCE, orchestrator};
use crate::support::redis_server::RedisServer;
use crate::support::secrets::Secrets;

const KEY: &str = "kill_switch:state";
const HISTORY: &str = "kill_switch:history";
const ENGAGE: [&str; 5] = ["engage", "--operator", "ops", "--reason", "odd prices"];

/// Runs a command on the kill switch of this server; what it says.
#[track_caller]
fn run(url: &str, words: &[&str], code: i32) -> String {
    let output = orchestrator(&[&["kill-switch"], words, &["--url", url]].concat());
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
    said
}

/// Checks that it is stopped, by a plain client and by the binary.
#[track_caller]
fn check_halted(redis: &RedisServer) {
    let value = redis.command(&["GET", KEY]).unwrap();
    assert!(value.contains("\"state\":\"ENGAGED\""), "{value}");
    run(&redis.url(), &["status"], 1);
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ok(redis: &RedisServer, words: &[&str]) {
    let reply = redis.command(words).unwrap();
    assert!(reply.starts_with("+OK"), "{words:?}: {reply}");
}

/// A user besides the default one; the URL with its login.
fn user(redis: &RedisServer, rights: &[&str]) -> String {
    ok(redis, &[&["ACL", "SETUSER", "someone", "on", ">secret", "resetkeys", "-@all"], rights].concat());
    redis.url_of("someone", "secret")
}

/// What the shipped ACL file grants to an operator.
fn shipped_operator() -> Vec<&'static str> {
    let users = include_str!("../../ops/redis/users.acl");
    let line = users.lines().find(|line| line.starts_with("user operator ")).unwrap();
    // Selectors in brackets are one argument each.
    let (rights, selectors) = line.split_once(" (").unwrap_or((line, ""));
    let mut words: Vec<&str> = rights.split(' ').skip(4).collect();
    words.extend(selectors.strip_suffix(')').map(|_| line.split_at(rights.len() + 1).1));
    words
}

/// Method: nothing more may be stored; the unsafe direction is refused, the safe one is not.
#[test]
fn a_full_redis_does_not_keep_anybody_from_stopping() {
    let redis = RedisServer::start();
    let operator = user(&redis, &shipped_operator());
    for url in [redis.url(), operator] {
        ok(&redis, &["SET", KEY, "off"]);
        ok(&redis, &["CONFIG", "SET", "maxmemory", "1"]);
        assert!(redis.command(&["SET", "other", "x"]).unwrap().starts_with("-OOM"));

        run(&url, &ENGAGE, 0);

        check_halted(&redis);
        assert!(run(&url, &["status"], 1).contains("\"event\":\"ENGAGED\""));
        run(&url, &["disengage", "--operator", "ops"], 69);
        check_halted(&redis);
        ok(&redis, &["CONFIG", "SET", "maxmemory", "0"]);
        redis.command(&["DEL", HISTORY]).unwrap();
    }
}

/// Method: a full server and a user without scripts, as on servers that do not know how to run them without memory.
#[test]
fn where_nothing_can_be_written_the_state_is_removed() {
    let redis = RedisServer::start();
    let url = user(
        &redis,
        &["~kill_switch:*", "+select", "+ping", "+getrange", "+set", "+del", "+rpush", "+lrange"],
    );
    ok(&redis, &["SET", KEY, "off"]);
    ok(&redis, &["CONFIG", "SET", "maxmemory", "1"]);

    let said = run(&url, &ENGAGE, 0);

    assert!(said.contains("blocked, state removed: `kill-switch init` is needed"), "{said}");
    assert!(said.contains("OOM"), "{said}");
    assert!(run(&redis.url(), &["status"], 2).contains("nothing is stored"));
    ok(&redis, &["CONFIG", "SET", "maxmemory", "0"]);
    run(&redis.url(), &["disengage", "--operator", "ops"], 1);
    run(&redis.url(), &["init", "--operator", "ops"], 0);
}

/// Method: the last snapshot failed, so the server refuses every write. One who may tell it otherwise stops; one who
/// may not is told that it stays as it is, and what to do.
#[test]
fn a_redis_that_cannot_save_is_stopped_by_whoever_may_or_says_how() {
    let redis = RedisServer::with(&["--appendonly", "no", "--save", "3600 1"]);
    ok(&redis, &["SET", KEY, "off"]);
    let operator = user(&redis, &shipped_operator());
    std::fs::remove_dir_all(redis.dir()).unwrap();
    redis.command(&["BGSAVE"]).unwrap();
    wait_until("it refuses writes", || {
        redis.command(&["SET", "other", "x"]).unwrap().starts_with("-MISCONF")
    });

    let refused = run(&operator, &ENGAGE, 69);
    for part in ["nothing was changed", "MISCONF", "stays `trading`", "shut it down"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    run(&operator, &["status"], 0);
    run(&redis.url(), &ENGAGE, 0);

    check_halted(&redis);
    assert!(redis.command(&["SET", "other", "x"]).unwrap().starts_with("-MISCONF"), "as it was");
}

/// Method: what was shipped once, a user `default` that may only ping. The stop is gone after the restart, and nobody
/// has believed this server before or after.
#[test]
fn a_redis_that_would_forget_a_stop_is_not_believed_until_it_is_mended() {
    let mut redis = RedisServer::start();
    redis.shut_down();
    let shipped = redis.users();
    redis.set_users(
        &shipped.replace("user default off resetpass ~* &* +@all", "user default on nopass -@all +ping"),
    );
    redis.start_again();
    let operator = Secrets::shared().as_operator(&redis.url());
    // One write is no transaction: this one comes back.
    ok(&redis, &["SET", KEY, "off"]);

    let before = run(&operator, &["status"], 2);
    let stopped = run(&operator, &ENGAGE, 0);
    redis.kill();
    redis.start_again();
    let after = run(&operator, &["status"], 2);

    assert!(redis.command(&["GET", KEY]).unwrap().ends_with("off\r\n"), "this server is a newer one");
    for said in [before, stopped.clone(), after] {
        assert!(said.contains("user default off resetpass ~* &* +@all"), "{said}");
    }
    assert!(stopped.contains("blocked now, but a restart of the server may undo it"), "{stopped}");
    ok(&redis, &["ACL", "SETUSER", "default", "off", "resetpass", "~*", "&*", "+@all"]);
    run(&operator, &["status"], 0);
}

#[test]
fn a_stop_on_a_redis_with_snapshots_only_says_that_a_restart_may_undo_it() {
    let mut redis = RedisServer::with(&["--appendonly", "no", "--save", "3600 1"]);
    let operator = Secrets::shared().as_operator(&redis.url());
    ok(&redis, &["SET", KEY, "off"]);
    ok(&redis, &["SAVE"]);

    let stopped = run(&operator, &ENGAGE, 0);
    check_halted(&redis);
    redis.kill();
    redis.start_again();

    assert!(stopped.contains("a restart of the server may undo it"), "{stopped}");
    assert!(stopped.contains("`appendonly yes`"), "{stopped}");
    run(&operator, &["status"], 0);
}

/// Method: a server that follows another one. Its readers see the stop as soon as the other one has it.
#[test]
fn a_replica_says_that_it_is_one_and_what_holds() {
    let primary = RedisServer::start();
    let replica = RedisServer::start();
    ok(&primary, &["SET", KEY, "off"]);
    ok(&replica, &["CONFIG", "SET", "masteruser", "inspector", "masterauth", "any"]);
    ok(&replica, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    wait_until("it follows", || replica.command(&["GET", KEY]).is_some_and(|reply| reply.contains("off")));

    let refused = run(&replica.url(), &ENGAGE, 69);
    for part in ["nothing was changed", "READONLY", "is a replica", "stays `trading`"] {
        assert!(refused.contains(part), "{part}: {refused}");
    }
    run(&primary.url(), &ENGAGE, 0);

    wait_until("it is seen there", || {
        replica.command(&["GET", KEY]).is_some_and(|reply| reply.contains("ENGAGED"))
    });
    run(&replica.url(), &["status"], 1);
}

/// Method: a list where the value should be; rights for the key alone, with scripts and without.
#[test]
fn a_wrong_type_or_few_rights_do_not_keep_anybody_from_stopping() {
    let redis = RedisServer::start();
    redis.command(&["LPUSH", KEY, "off"]).unwrap();
    run(&redis.url(), &ENGAGE, 0);
    check_halted(&redis);

    let rights: [&[&str]; 3] = [
        &["~kill_switch:state", "+@all"],
        &["~kill_switch:state", "+select", "+set"],
        &["%W~kill_switch:state", "+select", "+set"],
    ];
    for rights in rights {
        ok(&redis, &["SET", KEY, "off"]);
        let url = user(&redis, rights);
        let said = run(&url, &ENGAGE, 0);
        assert!(
            said.contains("blocked, but the history was not written") && said.contains("NOPERM"),
            "{said}"
        );
        check_halted(&redis);
        ok(&redis, &["ACL", "SETUSER", "someone", "reset"]);
    }
}

/// Three servers that share the keys.
struct Cluster(Vec<RedisServer>);

impl Cluster {
    fn start() -> Self {
        let servers: Vec<(RedisServer, u16)> = (0..3)
            .map(|_| {
                let bus = free_port();
                let port = bus.to_string();
                let server = RedisServer::with(&["--cluster-enabled", "yes", "--cluster-port", &port]);
                (server, bus)
            })
            .collect();
        for ((server, _), (first, last)) in
            servers.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")])
        {
            ok(server, &["CLUSTER", "ADDSLOTSRANGE", first, last]);
        }
        for (server, bus) in servers.iter().skip(1) {
            let (port, bus) = (server.port().to_string(), bus.to_string());
            ok(&servers[0].0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
        }
        let cluster = Self(servers.into_iter().map(|(server, _)| server).collect());
        for server in &cluster.0 {
            wait_until("the cluster is whole", || {
                server.command(&["CLUSTER", "INFO"]).is_some_and(|info| {
                    info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
                })
            });
        }
        cluster
    }

    /// The server that has `key`.
    fn owner(&self, key: &str) -> &RedisServer {
        let owns = |server: &&RedisServer| !server.command(&["TYPE", key]).unwrap().starts_with("-MOVED");
        self.0.iter().find(owns).unwrap()
    }

    /// Gives the slot of the key, which must not be there, to the next server.
    fn move_key(&self) {
        let slot = self.0[0].command(&["CLUSTER", "KEYSLOT", KEY]).unwrap();
        let slot = slot.trim_start_matches(':').trim();
        let from = self.0.iter().position(|server| server.port() == self.owner(KEY).port()).unwrap();
        let to = &self.0[(from + 1) % self.0.len()];
        let id = to.command(&["CLUSTER", "MYID"]).unwrap();
        let id = id.lines().nth(1).unwrap().to_owned();
        ok(to, &["CLUSTER", "SETSLOT", slot, "NODE", &id]);
        for server in &self.0 {
            ok(server, &["CLUSTER", "SETSLOT", slot, "NODE", &id]);
        }
        assert_eq!(self.owner(KEY).port(), to.port());
    }
}

/// Method: each server of a cluster as the one that the operator knows. With the default names the two keys are on
/// different servers: stopping works, permission is refused with what to do; with one hash tag all of it works.
#[test]
fn on_a_cluster_any_server_can_be_asked_to_stop() {
    let cluster = Cluster::start();
    for server in &cluster.0 {
        ok(cluster.owner(KEY), &["SET", KEY, "off"]);
        run(&server.url(), &["status"], 0);

        let said = run(&server.url(), &ENGAGE, 0);

        assert!(said.contains("the history was not written") && said.contains("hash tag"), "{said}");
        check_halted_at(&cluster, KEY);
        run(&server.url(), &["status"], 1);
        let refused = run(&server.url(), &["disengage", "--operator", "ops"], 69);
        assert!(refused.contains("hash tag"), "{refused}");
        check_halted_at(&cluster, KEY);
    }

    let (key, history) = ("{kill_switch}:state", "{kill_switch}:history");
    let names =
        ["--set", &format!("kill_switch.key={key}"), "--set", &format!("kill_switch.history_key={history}")];
    let run =
        |server: &RedisServer, words: &[&str], code| run(&server.url(), &[words, &names[..]].concat(), code);
    run(&cluster.0[0], &["init", "--operator", "ops"], 0);
    for server in &cluster.0 {
        let said = run(server, &ENGAGE, 0);
        assert!(!said.contains("history"), "{said}");
        check_halted_at(&cluster, key);
        assert!(run(server, &["status"], 1).contains("\"event\":\"ENGAGED\""));
        run(server, &["disengage", "--operator", "ops"], 0);
    }
}

fn check_halted_at(cluster: &Cluster, key: &str) {
    let value = cluster.owner(key).command(&["GET", key]).unwrap();
    assert!(value.contains("\"state\":\"ENGAGED\""), "{value}");
}

/// Method: the service's reads begin at a server that has not the key; then the key moves on, and its new server dies.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_follows_the_key_through_a_cluster() {
    let mut cluster = Cluster::start();
    ok(cluster.owner(KEY), &["SET", KEY, "off"]);
    let elsewhere = cluster.0.iter().find(|server| server.port() != cluster.owner(KEY).port()).unwrap();
    let store = KillRedis::start(KillRedisOptions {
        url: elsewhere.url(),
        key: KEY.to_owned(),
        history_key: HISTORY.to_owned(),
        read_timeout: Duration::from_millis(500),
        command_timeout: Duration::from_secs(2),
    })
    .unwrap();
    let reads = async |what: &str, wanted: &str| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match store.read_value().await {
                Ok(Stored::Value(value)) if value == wanted => return,
                other => assert!(Instant::now() < deadline, "{what}: {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };

    reads("the value is read", "off").await;
    // The subscription of the server that has the key is up, some time.
    let changed =
        async || tokio::time::timeout(PATIENCE, store.wait_changed()).await.expect("changes are announced");
    changed().await;
    ok(cluster.owner(KEY), &["SET", KEY, "on"]);
    reads("a change is read", "on").await;

    cluster.owner(KEY).command(&["DEL", KEY]).unwrap();
    cluster.move_key();
    ok(cluster.owner(KEY), &["SET", KEY, "0"]);
    reads("it is followed", "0").await;

    let owner = cluster.owner(KEY).port();
    let server = cluster.0.iter_mut().find(|server| server.port() == owner).unwrap();
    server.kill();
    let deadline = Instant::now() + PATIENCE;
    while store.read_value().await.is_ok() {
        assert!(Instant::now() < deadline, "a server that is gone answers");
    }
    server.start_again();
    reads("it is found again", "0").await;
}
