//! The servers and the service of the live tests are the shipped ones: what is in force differs from `ops/` and
//! `config/production.toml` in nothing that `support/deviations.rs` does not name.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Stdio};

use toml::{Table, Value};

use crate::support::deployment::Deployment;
use crate::support::deviations::{
    RABBIT_ADDRESSES, REDIS_ADDRESSES, REDIS_INSPECTOR, SERVICE, SERVICE_ADDRESSES,
};
use crate::support::ports::free_port;
use crate::support::process::{eventually, root};
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::secrets::Secrets;

/// The user of the service on both servers, as `ops/make_secrets.py` makes it.
const SERVICE_USER: &str = "orchestrator";

/// A redis-server as the compose file starts it, but for where it is.
struct Bare(Child);

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn settings_of(url: &str) -> Option<BTreeMap<String, String>> {
    let mut connection = redis::Client::open(url).ok()?.get_connection().ok()?;
    redis::cmd("CONFIG").arg("GET").arg("*").query(&mut connection).ok()
}

#[tokio::test]
async fn redis_of_the_tests_is_the_shipped_one() {
    let redis = RedisServer::start();
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.acl");
    let shipped = Secrets::shared().file("redis_users.acl");
    std::fs::write(&users, shipped).unwrap();
    let port = free_port();
    let bare = Command::new("redis-server")
        .arg(root().join("ops/redis/redis.conf"))
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"])
        .arg(dir.path())
        .arg("--aclfile")
        .arg(&users)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let _bare = Bare(bare);
    let url = Secrets::shared().as_service(&format!("redis://127.0.0.1:{port}/0"));

    let expected = eventually("it answers", async || settings_of(&url)).await;
    let found = settings_of(&redis.url()).unwrap();

    let addresses = REDIS_ADDRESSES.map(|option| option.trim_start_matches('-'));
    let differing: Vec<_> = found
        .iter()
        .filter(|(name, value)| {
            !addresses.contains(&name.as_str()) && expected.get(name.as_str()) != Some(value)
        })
        .collect();
    assert!(differing.is_empty(), "{differing:?}");
    assert!(150 < found.len() && found.len() == expected.len(), "{}", found.len());
    assert_eq!(redis.users(), format!("{shipped}{REDIS_INSPECTOR}\n"));
}

#[test]
fn rabbitmq_of_the_tests_is_the_shipped_one() {
    let shipped = std::fs::read_to_string(root().join("ops/rabbitmq/rabbitmq.conf")).unwrap();
    let found = RabbitServer::shared().settings();

    let lines = |text: &str| -> BTreeSet<String> {
        let kept = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        kept.map(str::to_owned).collect()
    };
    let is_address = |line: &&String| {
        RABBIT_ADDRESSES.iter().any(|name| line.starts_with(name)) || line.starts_with("prometheus.tcp.ip = ")
    };
    let (shipped, found) = (lines(&shipped), lines(&found));
    let differing: Vec<_> = shipped.symmetric_difference(&found).filter(|line| !is_address(line)).collect();
    assert!(differing.is_empty(), "{differing:?}");
}

#[tokio::test]
async fn the_service_of_the_tests_has_the_shipped_configuration() {
    let redis = RedisServer::start();
    let rabbit = RabbitServer::shared();
    let deployment = Deployment::new(&redis.url(), &rabbit.url(&rabbit.vhost()));
    let shipped: Table =
        std::fs::read_to_string(root().join("config/production.toml")).unwrap().parse().unwrap();

    let (shipped, found) = (flat(&shipped), flat(&deployment.settings()));

    let differing: BTreeSet<&str> = found
        .iter()
        .filter(|(name, value)| shipped.get(*name) != Some(value))
        .map(|(name, _)| name.as_str())
        .chain(shipped.keys().map(String::as_str).filter(|name| !found.contains_key(*name)))
        .collect();
    let listed: BTreeSet<&str> = SERVICE.iter().map(|(name, ..)| *name).chain(SERVICE_ADDRESSES).collect();
    assert_eq!(differing.symmetric_difference(&listed).collect::<Vec<_>>(), [&""; 0], "listed, and in force");
    for (name, value, _why) in SERVICE {
        assert_eq!(found[name].to_string(), value, "{name}");
    }
    for url in ["redis.url", "kill_switch.url", "sources.market.url", "publish.rabbitmq.url"] {
        assert!(
            found[url].as_str().unwrap().contains(&format!("://{SERVICE_USER}:")),
            "{url} is of the shipped user"
        );
    }
}

/// Every setting by its whole name.
fn flat(table: &Table) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    for (name, value) in table {
        match value {
            Value::Table(inner) => {
                all.extend(flat(inner).into_iter().map(|(rest, value)| (format!("{name}.{rest}"), value)));
            }
            _ => drop(all.insert(name.clone(), value.clone())),
        }
    }
    all
}
