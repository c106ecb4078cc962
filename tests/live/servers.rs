//! The private servers themselves: what all other live tests stand on.

use std::time::Duration;

use crate::support::process::Service;
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;

#[test]
fn redis_keeps_its_data_over_kill_and_comes_up_on_its_port_again() {
    let mut redis = RedisServer::start();
    assert!(redis.command(&["SET", "key", "value"]).unwrap().starts_with("+OK"));

    redis.kill();
    assert!(!redis.answers());
    redis.start_again();

    assert!(redis.command(&["GET", "key"]).unwrap().contains("value"));
    assert!(redis.url().contains(&redis.port().to_string()));
}

#[test]
fn redis_that_refuses_to_start_says_why() {
    let mut redis = RedisServer::start();
    redis.shut_down();
    let mut files = std::fs::read_dir(redis.aof_dir()).unwrap().map(|entry| entry.unwrap().path());
    let part = files.find(|path| path.to_string_lossy().ends_with(".incr.aof")).unwrap();
    std::fs::write(&part, b"*3\r\n$3\r\nSET\r\n").unwrap();

    let log = redis.try_start().unwrap_err();

    assert!(log.contains("aof-load-truncated") || log.contains("Unexpected end"), "{log}");
    assert!(redis.dir().exists());
}

#[test]
fn a_frozen_redis_keeps_connections_and_answers_nothing_until_it_goes_on() {
    let redis = RedisServer::start();

    redis.pause();
    assert!(!redis.answers());
    redis.resume();

    assert!(redis.answers());
}

#[tokio::test]
async fn a_frozen_service_answers_nothing_until_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("service.toml");
    let data = dir.path().join("data");
    let text = format!("[service]\ndata_dir = {data:?}\n[http]\nlisten = \"127.0.0.1:0\"\n");
    std::fs::write(&config, text).unwrap();
    let service = Service::start(&config, &[]).await;
    let ask =
        reqwest::Client::new().get(format!("{}/livez", service.url)).timeout(Duration::from_millis(100));

    service.pause();
    assert!(ask.try_clone().unwrap().send().await.unwrap_err().is_timeout());
    service.resume();

    assert_eq!(service.get("/livez").await.0, 200);
    service.stop_unverified().await;
}

/// Method: a message that the broker confirmed is there after kill −9; what happens to a frozen broker is in the tests
/// of the clients.
#[test]
fn rabbit_keeps_its_ports_over_kill_and_leaves_nothing_behind() {
    let mut rabbit = RabbitServer::own();
    assert!(rabbit.ctl(&["list_vhosts"]).contains(&rabbit.vhost()));

    rabbit.kill();
    assert!(!rabbit.answers());
    rabbit.start_again();
    assert!(rabbit.answers());
    rabbit.pause();
    assert!(!rabbit.answers());
    rabbit.resume();

    assert!(rabbit.url("a").ends_with(&format!("127.0.0.1:{}/a", rabbit.port())));
}
