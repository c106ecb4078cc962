//! The private servers themselves: what all other live tests stand on.

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
