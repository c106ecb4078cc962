//! The shipped Redis over its restarts: what scripts have written stands in its append-only file as transactions, and
//! comes back only because the shipped `default` user may replay them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use orchestrator::adapters::redis::testkit::replayed_by_store;
use orchestrator::adapters::redis::{
    Durability, RedisLogOptions, RedisOpenError, RedisOptions, RedisStore, WriterClaim,
};
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::checkpoint::CheckpointStore as _;
use orchestrator_kernel::ports::log::Log as _;
use orchestrator_kernel::ports::log_conformance::sample_batch;

use crate::support::process::{eventually, root};
use crate::support::redis_server::RedisServer;
use crate::support::redis_store::{Rig, check_content};
use crate::support::secrets::Secrets;

/// The rights that the user `default` had in what was shipped before: whoever had no password might ask for health.
const DEFAULT_THAT_MAY_PING: &str = "user default on nopass resetkeys resetchannels -@all +ping";

/// A command of the operator with the shipped user; it must succeed.
fn kill_switch(redis: &RedisServer, arguments: &[&str]) -> (i32, String) {
    let url = Secrets::shared().as_operator(&redis.url());
    let output = Command::new(env!("CARGO_BIN_EXE_orchestrator"))
        .arg("kill-switch")
        .args(arguments)
        .current_dir(root())
        .env_clear()
        .env("ORCHESTRATOR__KILL_SWITCH__KIND", "redis")
        .env("ORCHESTRATOR__KILL_SWITCH__URL", url)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned());
    (output.status.code().unwrap(), said.concat())
}

/// Writes in every way in which the service and the operator write by scripts.
async fn write_everything(rig: &Rig, from: u64) {
    let store = rig.store().await;
    store.claim_writer(&WriterClaim { instance: "a".to_owned(), takeover: true }).await.unwrap();
    let log = store.open_log("receipts", RedisLogOptions::default()).await.unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    log.append(epoch, &sample_batch(from, 10)).await.unwrap();
    log.trim(epoch, Seq(from)).await.unwrap();
    let checkpoints = store.checkpoints();
    checkpoints.save("receipts", Epoch(from), Bytes::from(format!("state {from}"))).await.unwrap();
    store.release_writer().await.unwrap();
}

fn dump(redis: &RedisServer) -> BTreeSet<(String, Vec<u8>)> {
    let mut connection = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query(&mut connection).unwrap();
    let value = |key: String| {
        let stored = redis::cmd("DUMP").arg(&key).query(&mut connection).unwrap();
        (key, stored)
    };
    keys.into_iter().map(value).collect()
}

fn rewrite(redis: &RedisServer) {
    assert!(!redis.command(&["BGREWRITEAOF"]).unwrap().starts_with('-'));
    let running = || redis.command(&["INFO", "persistence"]).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while running().contains("aof_rewrite_in_progress:1") || running().contains("aof_rewrite_scheduled:1") {
        assert!(std::time::Instant::now() < deadline, "the file is never rewritten");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Method: everything that is written by scripts, then kill −9 and an orderly restart, with and without a rewrite of
/// the file between. The keys are the same as before, byte for byte.
#[tokio::test]
async fn a_restart_of_the_shipped_redis_brings_back_every_key_also_after_a_rewrite() {
    let mut rig = Rig::start();
    let (code, said) = kill_switch(&rig.redis, &["init", "--operator", "test"]);
    assert_eq!(code, 0, "{said}");
    for (round, rewrites, kills) in [(0, false, true), (1, true, true), (2, false, false), (3, true, false)] {
        write_everything(&rig, round * 10 + 1).await;
        if round == 0 {
            let (code, said) = kill_switch(&rig.redis, &["engage", "--operator", "test", "--reason", "test"]);
            assert_eq!(code, 0, "{said}");
        }
        if rewrites {
            rewrite(&rig.redis);
            write_everything(&rig, round * 10 + 11).await;
        }
        let before = dump(&rig.redis);

        if kills {
            rig.redis.kill()
        } else {
            rig.redis.shut_down()
        }
        rig.redis.start_again();

        assert_eq!(dump(&rig.redis), before, "round {round}");
        assert!(5 <= before.len());
    }
}

/// Method: engage with the shipped operator's user, restart, twenty times; every other time the file is rewritten.
#[tokio::test]
async fn an_engaged_kill_switch_is_engaged_after_each_of_twenty_restarts() {
    let mut redis = RedisServer::start();
    assert_eq!(kill_switch(&redis, &["init", "--operator", "test"]).0, 0);
    for restart in 0..20 {
        let (code, said) = kill_switch(&redis, &["engage", "--operator", "test", "--reason", "test"]);
        assert_eq!(code, 0, "{said}");
        if restart % 2 == 1 {
            rewrite(&redis);
        }

        redis.kill();
        redis.start_again();

        let (code, said) = kill_switch(&redis, &["status"]);
        assert_eq!(code, 1, "restart {restart}: {said}");
        let (code, said) = kill_switch(&redis, &["disengage", "--operator", "test"]);
        assert_eq!(code, 0, "restart {restart}: {said}");
    }
}

/// Commands of the append-only file, by the words that rights depend on: the command and its first key.
fn transactions(redis: &RedisServer) -> BTreeSet<(String, String)> {
    let files = std::fs::read_dir(redis.aof_dir()).unwrap().map(|entry| entry.unwrap().path());
    let written = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof"));
    let (mut found, mut is_inside) = (BTreeSet::new(), false);
    for path in written {
        for words in commands(&path) {
            match words[0].to_ascii_uppercase().as_str() {
                "MULTI" => is_inside = true,
                "EXEC" => is_inside = false,
                "SELECT" => {}
                command if is_inside => drop(found.insert((command.to_owned(), words[1].clone()))),
                _ => {}
            }
        }
    }
    found
}

/// The commands of a file in the protocol of the wire.
fn commands(path: &Path) -> Vec<Vec<String>> {
    let bytes = std::fs::read(path).unwrap();
    let (mut at, mut all) = (0, Vec::new());
    let number = |at: &mut usize, mark: u8| -> usize {
        assert_eq!(bytes[*at], mark, "at byte {at} of {}", path.display());
        let end = *at + bytes[*at..].windows(2).position(|pair| pair == b"\r\n").unwrap();
        let found = std::str::from_utf8(&bytes[*at + 1..end]).unwrap().parse().unwrap();
        *at = end + 2;
        found
    };
    while at < bytes.len() {
        let mut words = Vec::new();
        for _ in 0..number(&mut at, b'*') {
            let length = number(&mut at, b'$');
            words.push(String::from_utf8_lossy(&bytes[at..at + length]).into_owned());
            at += length + 2;
        }
        all.push(words);
    }
    all
}

/// Method: what a store writes stands in the file; each of its transactions' commands is one that the preflight asks
/// for, with the same key.
#[tokio::test]
async fn the_preflight_asks_for_every_command_that_stands_in_a_transaction() {
    let rig = Rig::start();
    write_everything(&rig, 1).await;
    write_everything(&rig, 11).await;
    // A claim that ran out is deleted by the script that finds it.
    let options = RedisOptions { writer_ttl: Duration::from_millis(30), ..rig.options() };
    drop(RedisStore::connect(options).await.unwrap().claim_writer(&claim("b")).await);
    tokio::time::sleep(Duration::from_millis(60)).await;
    rig.store().await.claim_writer(&claim("c")).await.unwrap();

    let written = transactions(&rig.redis);

    let asked: BTreeSet<(String, String)> =
        replayed_by_store("test").into_iter().map(|words| (words[0].clone(), words[1].clone())).collect();
    let missing: Vec<_> = written.difference(&asked).collect();
    assert!(missing.is_empty(), "not asked for: {missing:?}");
    assert!(3 <= written.len(), "{written:?}");
}

fn claim(instance: &str) -> WriterClaim {
    WriterClaim { instance: instance.to_owned(), takeover: true }
}

/// Starts a server whose user `default` has other rights than the shipped one.
fn with_default(default: &str) -> Rig {
    let mut redis = RedisServer::start();
    redis.shut_down();
    let users = redis.users();
    let others: Vec<&str> = users.lines().filter(|line| !line.starts_with("user default ")).collect();
    redis.set_users(&format!("{default}\n{}\n", others.join("\n")));
    redis.start_again();
    Rig::on(redis)
}

async fn refusal(options: RedisOptions) -> String {
    match RedisStore::connect(options).await.map(|_| ()) {
        Err(RedisOpenError::Promise { findings, .. }) => findings.join("\n"),
        other => panic!("it must be refused: {other:?}"),
    }
}

/// The fault itself, as it was shipped: acknowledged appends are gone after a restart. This shows that the tests above
/// would see it, and why the preflight refuses such a server. It holds for the servers that the tests run on.
#[tokio::test]
async fn a_default_user_who_may_only_ping_loses_every_script_of_two_writes_and_is_refused() {
    let mut rig = with_default(DEFAULT_THAT_MAY_PING);
    let write = "redis.call('HSET', KEYS[1], 'a', 1) redis.call('HSET', KEYS[1], 'b', 2)";
    rig.command(&["EVAL", write, "1", "orch:{test}:receipts:meta"]);

    let said = refusal(rig.options()).await;
    let asserted =
        refusal(RedisOptions { durability: Durability::AssertedByOperator, ..rig.options() }).await;

    for said in [said, asserted] {
        assert!(
            said.contains("`user default off resetpass ~* &* +@all`") && said.contains("no permissions"),
            "{said}"
        );
    }
    rig.redis.kill();
    rig.redis.start_again();
    assert_eq!(rig.command(&["EXISTS", "orch:{test}:receipts:meta"]), ":0\r\n", "this server is a newer one");
}

/// Each right is asked for, with each kind of key.
#[tokio::test]
async fn a_default_user_who_lacks_one_command_or_one_key_is_refused_and_it_is_named() {
    for (lacking, named) in [
        ("~* &* +@all -xadd", "xadd"),
        ("~* &* +@all -xtrim", "xtrim"),
        ("~* &* +@all -hset", "hset"),
        ("~* &* +@all -hincrby", "hincrby"),
        ("~* &* +@all -set", "set"),
        ("~* &* +@all -del", "del"),
        ("~* &* +@all -select", "select"),
        ("~other:* &* +@all", "orch:{test}:"),
        ("~orch:{test}:receipts* &* +@all", "orch:{test}:"),
        ("%R~* &* +@all", "orch:{test}:"),
    ] {
        let rig = with_default(&format!("user default off resetpass {lacking}"));

        let said = refusal(rig.options()).await;

        assert!(said.contains(named), "{lacking}: {said}");
    }
    let enough = with_default("user default off nopass ~orch:* +@read +@write +select");
    enough.store().await;
}

/// Method: the rights are taken away while it runs, and given back.
#[tokio::test]
async fn a_default_user_who_loses_its_rights_stops_appends_until_it_has_them_again() {
    let rig = Rig::start();
    let store = rig.store().await;
    let log = store.open_log("raw", RedisLogOptions::default()).await.unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    log.append(epoch, &sample_batch(1, 1)).await.unwrap();

    rig.command(&["ACL", "SETUSER", "default", "-xadd"]);
    eventually("it is noticed", async || store.append_refusal().filter(|why| why.contains("xadd"))).await;
    let refused = log.append(epoch, &sample_batch(2, 1)).await.unwrap_err();
    rig.command(&["ACL", "SETUSER", "default", "+@all"]);
    eventually("it is noticed", async || store.append_refusal().is_none().then_some(())).await;

    assert!(refused.to_string().contains("full"), "{refused}");
    log.append(epoch, &sample_batch(2, 1)).await.unwrap();
    check_content(&log, 2).await;
}

/// Method: the service's user without the right to ask; with the operator's word for it, it starts.
#[tokio::test]
async fn a_user_who_may_not_ask_about_the_replay_is_told_what_to_grant() {
    let rig = Rig::start();
    rig.command(&["ACL", "SETUSER", "orchestrator", "-acl|dryrun"]);

    let said = refusal(rig.options()).await;
    let asserted = RedisOptions { durability: Durability::AssertedByOperator, ..rig.options() };

    assert!(said.contains("`+acl|dryrun`") && said.contains("asserted-by-operator"), "{said}");
    RedisStore::connect(asserted).await.unwrap();
    // Who writes as `default` may replay what it writes.
    rig.command(&["ACL", "SETUSER", "default", "on", ">own", "resetkeys", "~orch:*", "-acl"]);
    let url = rig.redis.url_of("default", "own");
    RedisStore::connect(RedisOptions { url, ..rig.options() }).await.unwrap();
}
