//! What needs no server. The promises of the port are tested on a real one, in `tests/live`.

use super::*;

fn options(url: &str) -> KillRedisOptions {
    KillRedisOptions {
        url: url.to_owned(),
        key: "kill_switch:state".to_owned(),
        history_key: "kill_switch:history".to_owned(),
        read_timeout: Duration::from_millis(100),
        command_timeout: Duration::from_millis(50),
    }
}

#[tokio::test]
async fn a_password_is_never_shown() {
    let options = options(&format!("redis://{}@127.0.0.1:1/3", "someone:hunter2"));
    let store = KillRedis::start(options.clone()).unwrap();

    let read = store.read_value().await.unwrap_err();
    let applied = store
        .apply_command(&OperatorCommand::Init { operator: "ops".to_owned() }, TsMs(0))
        .await
        .unwrap_err();

    assert_eq!(store.place_text(), "key kill_switch:state of Redis 127.0.0.1:1, database 3");
    let shown = format!("{options:?} {read} {read:?} {applied} {applied:?} {}", store.place_text());
    assert!(!shown.contains("hunter2") && !shown.contains("someone"), "{shown}");
    let Err(bad) = KillRedis::start(super::tests::options("redis://x:hunter2@host:not-a-port")) else {
        panic!("no URL")
    };
    assert!(!format!("{bad} {bad:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_url_with_tls_is_accepted() {
    KillRedis::start(options("rediss://:secret@127.0.0.1:1/0")).unwrap();
}

#[tokio::test]
async fn without_a_server_reads_bring_no_answer_and_commands_change_nothing() {
    let store = KillRedis::start(options("redis://127.0.0.1:1")).unwrap();

    let began = Instant::now();
    assert!(matches!(store.read_value().await, Err(KillSwitchReadError::NoAnswer(_))));
    assert!(began.elapsed() < Duration::from_millis(100));
    let applied = store.apply_command(&OperatorCommand::Init { operator: "ops".to_owned() }, TsMs(0)).await;
    assert!(matches!(applied, Err(ApplyError::Unchanged(_))), "{applied:?}");
    assert!(matches!(store.read_history(1).await, Err(KillSwitchReadError::NoAnswer(_))));
}
