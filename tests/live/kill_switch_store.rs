//! The kill switch's store in Redis: the promises of its port, and what operators' commands do when servers fail.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use orchestrator::adapters::redis::kill_switch::{KillRedis, KillRedisOptions};
use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{KillSwitchReadError, OperatorCommand, Stored, TradingState};
use orchestrator_kernel::ports::kill_switch::{ApplyError, KillSwitchRead as _, KillSwitchStore as _};
use orchestrator_kernel::ports::kill_switch_conformance::{self as conformance, KillSwitchProvider};

use crate::support::process::eventually;
use crate::support::redis_server::RedisServer;
use crate::support::secrets::Secrets;

const KEY: &str = "kill_switch:state";
const HISTORY: &str = "kill_switch:history";

fn options(url: String) -> KillRedisOptions {
    KillRedisOptions {
        url,
        key: KEY.to_owned(),
        history_key: HISTORY.to_owned(),
        read_timeout: Duration::from_millis(500),
        command_timeout: Duration::from_secs(2),
    }
}

/// As the user `service`, which a test makes.
fn service_url(redis: &RedisServer) -> String {
    redis.url_of("service", "secret")
}

async fn connect(redis: &RedisServer) -> KillRedis {
    let store = KillRedis::start(options(Secrets::shared().as_operator(&redis.url()))).unwrap();
    assert!(store.wait_connected().await);
    store
}

fn engage() -> OperatorCommand {
    OperatorCommand::Engage { operator: "ops".to_owned(), reason: "a test".to_owned(), details: None }
}

fn init() -> OperatorCommand {
    OperatorCommand::Init { operator: "ops".to_owned() }
}

#[derive(Default)]
struct InRedis(Mutex<Vec<RedisServer>>);

impl InRedis {
    fn newest<T>(&self, act: impl FnOnce(&RedisServer) -> T) -> T {
        act(self.0.lock().unwrap().last().unwrap())
    }
}

#[async_trait]
impl KillSwitchProvider for InRedis {
    type Store = KillRedis;

    async fn fresh(&self) -> Arc<KillRedis> {
        let redis = RedisServer::with(&["--appendfsync", "no"]);
        let store = Arc::new(connect(&redis).await);
        self.0.lock().unwrap().push(redis);
        store
    }

    async fn put(&self, _: &KillRedis, value: Option<&[u8]>) {
        // Values of this suite are read as text by the plain client, but for one: bytes that are no text.
        self.newest(|redis| match value {
            Some(value) => {
                assert!(redis.command_bytes(&[b"SET", KEY.as_bytes(), value]).unwrap().starts_with("+OK"))
            }
            None => drop(redis.command(&["DEL", KEY]).unwrap()),
        });
    }

    async fn put_history(&self, _: &KillRedis, lines: Vec<String>) {
        let mut words = vec!["RPUSH", HISTORY];
        words.extend(lines.iter().map(String::as_str));
        assert!(self.newest(|redis| redis.command(&words).unwrap()).starts_with(':'));
    }

    async fn spoil_history(&self, _: &KillRedis) {
        assert!(self.newest(|redis| redis.command(&["SET", HISTORY, "no list"]).unwrap()).starts_with("+OK"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_the_promises_of_the_port() {
    conformance::run(&InRedis::default()).await;
}

/// Method: a list where the value should be, and another where the history should be.
#[tokio::test]
async fn wrong_types_block_and_only_a_stop_gets_past_them() {
    let redis = RedisServer::start();
    let store = connect(&redis).await;
    redis.command(&["LPUSH", KEY, "off"]).unwrap();
    redis.command(&["SET", HISTORY, "not a list"]).unwrap();
    assert_eq!(store.read_value().await, Ok(Stored::NotText));

    let allowed = store.apply_command(&init(), TsMs(0)).await;
    assert!(matches!(allowed, Err(ApplyError::Refused(_))), "{allowed:?}");
    store.apply_command(&engage(), TsMs(0)).await.unwrap();
    assert!(matches!(TradingState::of_stored(&store.read_value().await.unwrap()), TradingState::Halted(_)));

    let lift = OperatorCommand::Disengage { operator: "ops".to_owned(), notes: None };
    let lifted = store.apply_command(&lift, TsMs(0)).await;
    assert!(matches!(&lifted, Err(ApplyError::Unchanged(why)) if why.contains("WRONGTYPE")), "{lifted:?}");
    assert!(
        matches!(TradingState::of_stored(&store.read_value().await.unwrap()), TradingState::Halted(_)),
        "nothing without a record"
    );
}

/// Method: a user without the right to the channel; the answer to the subscription comes out of turn and must confuse
/// nothing.
#[tokio::test]
async fn without_the_right_to_subscribe_it_is_only_polled() {
    let redis = RedisServer::start();
    let rights = ["ACL", "SETUSER", "service", "on", ">secret", "allkeys", "resetchannels", "+@all"];
    assert!(redis.command(&rights).unwrap().starts_with("+OK"));
    let store = KillRedis::start(options(service_url(&redis))).unwrap();
    assert!(store.wait_connected().await);

    for value in ["off", "on", "0", "1"] {
        redis.command(&["SET", KEY, value]).unwrap();
        assert!(matches!(store.read_value().await, Ok(Stored::Value(read)) if read == value));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Method: the server is frozen after the connection was made: nobody can say whether the command will be carried out.
#[tokio::test]
async fn a_command_without_an_answer_is_neither_done_nor_undone() {
    let redis = RedisServer::start();
    let store = connect(&redis).await;
    redis.command(&["SET", KEY, "off"]).unwrap();

    redis.pause();
    let unknown = store.apply_command(&engage(), TsMs(0)).await;
    redis.resume();

    assert!(matches!(unknown, Err(ApplyError::Unchanged(_) | ApplyError::Unknown(_))), "{unknown:?}");
}

/// The least that the service needs, as docs/operations.md names it; it cannot change the value (KILL-2).
#[tokio::test]
async fn a_service_with_the_documented_rights_can_read_and_not_write() {
    let redis = RedisServer::start();
    let rights = [
        "ACL",
        "SETUSER",
        "service",
        "on",
        ">secret",
        "resetkeys",
        "%R~kill_switch:state",
        "resetchannels",
        "&__keyspace@0__:kill_switch:state",
        "-@all",
        "+getrange",
        "+subscribe",
        "+ping",
        "+select",
        "+info",
        "+config|get",
        "+acl|dryrun",
        "+pubsub|numsub",
    ];
    assert!(redis.command(&rights).unwrap().starts_with("+OK"));
    redis.command(&["SET", KEY, "off"]).unwrap();
    let url = service_url(&redis);
    let store = KillRedis::start(options(url)).unwrap();
    assert!(store.wait_connected().await);

    assert!(matches!(store.read_value().await, Ok(Stored::Value(value)) if value == "off"));
    tokio::time::timeout(Duration::from_secs(5), store.wait_changed()).await.expect("it is subscribed");
    redis.command(&["SET", KEY, "on"]).unwrap();
    tokio::time::timeout(Duration::from_secs(5), store.wait_changed()).await.expect("changes are announced");
    // A stop of what is stopped already needs no right.
    redis.command(&["SET", KEY, "off"]).unwrap();
    let refused = store.apply_command(&engage(), TsMs(0)).await;
    assert!(matches!(&refused, Err(ApplyError::Unchanged(why)) if why.contains("NOPERM")), "{refused:?}");
}

/// Method: the user `default` without the right to replay, and with it again; read by the shipped user of the service.
#[tokio::test]
async fn a_reading_of_a_redis_that_would_forget_it_is_refused() {
    let redis = RedisServer::start();
    redis.command(&["SET", KEY, "off"]).unwrap();
    redis.command(&["ACL", "SETUSER", "default", "-rpush"]).unwrap();
    let store = KillRedis::start(options(Secrets::shared().as_service(&redis.url()))).unwrap();
    assert!(store.wait_connected().await);

    let refused = store.read_value().await;
    redis.command(&["ACL", "SETUSER", "default", "+@all"]).unwrap();

    let Err(KillSwitchReadError::Refused(why)) = refused else { panic!("{refused:?}") };
    assert!(why.contains("rpush") && why.contains("`user default off resetpass ~* &* +@all`"), "{why}");
    eventually("it is asked again", async || {
        matches!(store.read_value().await, Ok(Stored::Value(value)) if value == "off").then_some(())
    })
    .await;
}
