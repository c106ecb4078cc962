//! What is shipped for production, on real servers: `config/production.toml`, the files of `ops/redis` and
//! `ops/rabbitmq`, and the users that `ops/make_secrets.py` makes. Only addresses and directories are other ones.

use lapin::options::{BasicConsumeOptions, BasicGetOptions, ExchangeDeclareOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties, ExchangeKind};
use serde_json::json;

use crate::support::amqp::Amqp;
use crate::support::process::eventually;
use crate::support::production::Production;
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::secrets::Secrets;

/// The URL of a shipped user of Redis.
fn redis_url(user: &str, redis: &RedisServer) -> String {
    match user {
        "default" => redis.url_of_nobody(),
        "inspector" => redis.url(),
        "operator" => Secrets::shared().as_operator(&redis.url()),
        "health" => redis.url_of("health", Secrets::shared().file("redis_health_password").trim()),
        _ => Secrets::shared().as_service(&redis.url()),
    }
}

fn receipt(number: u64) -> Vec<u8> {
    let event = json!({
        "schema": "raw_market_event", "schema_version": "1", "event_type": "TradeTick", "source_id": "test",
        "symbol": "BTCUSDT", "exchange_ts_ms": null, "recv_ts_ms": 1_768_002_660_000_u64 + number,
        "raw_payload": "x".repeat(20_000), "normalized": {"price": 1.0, "quantity": 1.0, "side": "buy"},
    });
    event.to_string().into_bytes()
}

/// The answer of one command as this user.
fn ask(url: &str, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query(&mut connection)
}

/// Method: the real binary with the shipped configuration does everything once: receipts in, runs, outputs out, the
/// archive, the kill switch flipped by an operator, an orderly stop and a second start. Nobody was denied anything.
#[tokio::test]
async fn the_shipped_deployment_does_its_work_with_the_rights_it_has() {
    let (redis, rabbit) = (RedisServer::start(), RabbitServer::own());
    let production = Production::on(&redis, &rabbit);
    production.operate(&["init"]);
    let subscriber = Amqp::connect(&Production::rabbit_url("subscriber", &rabbit)).await;
    subscriber.queue("subscriber.test", &[]).await;
    subscriber.bind("subscriber.test", "orchestrator.events", "#").await;
    let producer = Amqp::connect(&Production::rabbit_url("producer", &rabbit)).await;

    let service = production.start().await;
    let receipts: Vec<Vec<u8>> = (0..100).map(receipt).collect();
    let bodies: Vec<&[u8]> = receipts.iter().map(Vec::as_slice).collect();
    producer.send("market.raw", "TradeTick.BTCUSDT", &bodies).await;
    let settled = async |series: &str, value: f64| {
        eventually(series, async || (service.metric(series).await == value).then_some(())).await;
    };
    settled("orch_ingest_receipts_appended_total", 100.0).await;
    let outputs = subscriber.take("subscriber.test", 2).await;
    assert!(outputs[0].routing_key.as_str().starts_with("orchestrator_event."), "{:?}", outputs[0]);
    eventually("the oldest receipts move to the archive", async || {
        let start =
            ask(&redis_url("inspector", &redis), &["HGET", "orch:{production}:receipts:meta", "start"]);
        (start.unwrap() != redis::Value::BulkString(b"1".to_vec())).then_some(())
    })
    .await;
    settled("orch_kill_switch_state{state=\"trading\"}", 1.0).await;
    production.operate(&["engage", "--reason", "test"]);
    settled("orch_kill_switch_state{state=\"halted\"}", 1.0).await;
    let (status, ready) = service.get("/readyz").await;
    assert_eq!(status, 200, "{ready}");
    let (_, health) = service.get("/health").await;
    assert!(!health.contains("mark_stale"), "the second mark is noted: {health}");
    service.stop().await;
    let service = production.start().await;
    producer.send("market.raw", "TradeTick.BTCUSDT", &bodies[..10]).await;
    eventually("it goes on in the same log", async || {
        (service.metric("orch_buffer_records").await == 110.0).then_some(())
    })
    .await;
    service.stop().await;

    let denied = ask(&redis_url("inspector", &redis), &["ACL", "LOG"]).unwrap();
    assert_eq!(denied, redis::Value::Array(Vec::new()), "something was denied");
}

#[test]
fn users_of_the_shipped_redis_may_do_no_more_than_their_work() {
    let redis = RedisServer::start();
    let inspector = redis_url("inspector", &redis);
    for key in ["kill_switch:state", "orch:{production}:receipts:meta", "orch:{production}:writer", "other"] {
        ask(&inspector, &["SET", key, "0"]).unwrap();
    }
    // Asked only of another writer's claim, to tell how long it stands.
    ask(&redis_url("orchestrator", &redis), &["PTTL", "orch:{production}:writer"]).unwrap();
    let everybody: [&[&str]; 15] = [
        &["FLUSHALL"],
        &["FLUSHDB"],
        &["CONFIG", "SET", "appendfsync", "no"],
        &["CONFIG", "REWRITE"],
        &["ACL", "SETUSER", "operator", "+@all"],
        &["ACL", "LIST"],
        &["SHUTDOWN", "NOSAVE"],
        &["DEBUG", "SLEEP", "0"],
        &["REPLICAOF", "127.0.0.1", "1"],
        &["MODULE", "LIST"],
        &["MONITOR"],
        &["KEYS", "*"],
        &["CLIENT", "KILL", "TYPE", "normal"],
        &["SCRIPT", "FLUSH"],
        &["GET", "other"],
    ];
    let service: [&[&str]; 9] = [
        &["SET", "kill_switch:state", "off"],
        &["DEL", "kill_switch:state"],
        &["EVAL", "return redis.call('SET', KEYS[1], 'off')", "1", "kill_switch:state"],
        &["EVAL", "return redis.call('SET', 'kill_switch:state', 'off')", "0"],
        &["RPUSH", "kill_switch:history", "x"],
        &["DEL", "orch:{production}:receipts"],
        &["RENAME", "orch:{production}:receipts", "orch:{production}:other"],
        &["EXPIRE", "orch:{production}:receipts", "1"],
        &["EVAL", "return redis.call('DEL', KEYS[1])", "1", "orch:{production}:receipts"],
    ];
    let operator: [&[&str]; 4] = [
        &["XADD", "orch:{production}:receipts", "*", "r", "x"],
        &["GET", "orch:{production}:writer"],
        &["DEL", "kill_switch:history"],
        &["EVAL", "return redis.call('XTRIM', KEYS[1], 'MAXLEN', '0')", "1", "orch:{production}:receipts"],
    ];
    let stranger: [&[&str]; 5] = [
        &["GET", "kill_switch:state"],
        &["XRANGE", "orch:{production}:receipts", "-", "+"],
        &["INFO"],
        &["CONFIG", "GET", "*"],
        &["SUBSCRIBE", "a"],
    ];

    for (user, own) in [("orchestrator", &service[..]), ("operator", &operator), ("health", &stranger)] {
        for words in everybody.iter().chain(own) {
            let answer = ask(&redis_url(user, &redis), words);
            let said = format!("{answer:?}");
            let is_denied = ["NoPerm", "NOPERM", "not allowed", "can't access", "can't run"]
                .iter()
                .any(|word| said.contains(word));
            assert!(answer.is_err() && is_denied, "{user} {words:?}: {said}");
        }
    }
    // Nobody is `default`, whatever is tried as its password; what it may do it may do for the replay only.
    let unknown = redis::Client::open(redis_url("default", &redis)).unwrap().get_connection().unwrap();
    check_is_nobody(unknown, &[&["PING"], &["GET", "other"], &["HELLO", "3"], &["RESET"]]);
    for words in [&["AUTH", ""][..], &["AUTH", "default", ""], &["AUTH", "default", "nopass"]] {
        let stranger = redis::Client::open(redis_url("default", &redis)).unwrap().get_connection().unwrap();
        check_is_nobody(stranger, &[words, &["PING"]]);
    }
    assert_eq!(
        ask(&inspector, &["GET", "kill_switch:state"]).unwrap(),
        redis::Value::BulkString(b"0".to_vec())
    );
}

/// None of these commands does anything on this connection.
fn check_is_nobody(mut connection: redis::Connection, commands: &[&[&str]]) {
    for words in commands {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let answer: redis::RedisResult<redis::Value> = command.query(&mut connection);
        let said = format!("{answer:?}");
        let is_reset = words[0] == "RESET" && said.contains("RESET");
        assert!(
            is_reset
                || said.contains("NOAUTH")
                || said.contains("WRONGPASS")
                || said.contains("disabled")
                || said.contains("AuthenticationFailed"),
            "{words:?}: {said}"
        );
    }
}

#[tokio::test]
async fn users_of_the_shipped_broker_may_do_no_more_than_their_work() {
    let rabbit = RabbitServer::own();

    let known = rabbit.ctl(&["list_users", "--silent"]);
    let names: Vec<&str> = known.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(
        names.len() == 4
            && names
                .iter()
                .all(|name| ["inspector", "orchestrator", "producer", "subscriber"].contains(name)),
        "{known}"
    );

    for (user, exchange, queue) in [
        ("orchestrator", "market.raw", "orchestrator.receipts.dead"),
        ("producer", "orchestrator.events", "orchestrator.receipts"),
        ("subscriber", "market.raw", "orchestrator.receipts"),
    ] {
        let url = Production::rabbit_url(user, &rabbit);
        // A refused call closes its channel.
        let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
        let channel = || async { connection.create_channel().await.unwrap() };
        let table = FieldTable::default;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declared = channel().await.queue_declare("other".into(), durable, table()).await;
        check_refused(&declared, user, "declares a queue");
        let topic = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared =
            channel().await.exchange_declare("other".into(), ExchangeKind::Topic, topic, table()).await;
        check_refused(&declared, user, "declares an exchange");
        let got = channel().await.basic_get(queue.into(), BasicGetOptions::default()).await;
        check_refused(&got, user, "gets from a queue");
        let consumed = channel()
            .await
            .basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), table())
            .await;
        check_refused(&consumed, user, "consumes");
        let publishing = channel().await;
        publishing.confirm_select(Default::default()).await.unwrap();
        let sent = publishing.basic_publish(
            exchange.into(),
            "a".into(),
            Default::default(),
            b"x",
            Default::default(),
        );
        let confirmed = match sent.await {
            Ok(confirm) => confirm.await.map(|_| ()),
            Err(error) => Err(error),
        };
        check_refused(&confirmed, user, "publishes");
    }
}

fn check_refused<T>(answer: &Result<T, lapin::Error>, user: &str, what: &str) {
    let said = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
    assert!(
        said.contains("ACCESS_REFUSED") || said.contains("ACCESS-REFUSED") || said.contains("403"),
        "{user} {what}: {said}"
    );
}
