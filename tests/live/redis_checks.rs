//! What Redis must promise, who may write, and what is kept beside the logs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator::adapters::redis::{
    ClaimError, Durability, RedisLogOptions, RedisOpenError, RedisOptions, RedisStore, WriterClaim,
};
use orchestrator_kernel::ids::{Epoch, Seq};
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError, SaveError};
use orchestrator_kernel::ports::checkpoint_conformance::{self, CheckpointProvider};
use orchestrator_kernel::ports::log::{AppendError, Log, RecordBatch};
use orchestrator_kernel::ports::log_conformance::sample_batch;

use crate::support::redis_server::RedisServer;
use crate::support::redis_store::{Rig, check_content};

async fn refused(options: RedisOptions) -> Vec<String> {
    match RedisStore::connect(options).await.map(|_| ()) {
        Err(RedisOpenError::Promise { findings, .. }) => findings,
        other => panic!("it must be refused: {other:?}"),
    }
}

#[tokio::test]
async fn server_that_breaks_every_promise_is_refused_with_all_of_them_at_once() {
    let settings = ["--appendonly", "no", "--appendfsync", "everysec", "--no-appendfsync-on-rewrite", "yes"];
    let memory = ["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", "--replicaof", "127.0.0.1 1"];
    let rig = Rig::on(RedisServer::with(&[settings, memory].concat()));

    let findings = refused(rig.options()).await;

    let advice = [
        "lead to the master",
        "`appendonly yes`",
        "`maxmemory-policy noeviction`",
        "`appendfsync always`",
        "`no-appendfsync-on-rewrite no`",
    ];
    assert_eq!(findings.len(), advice.len(), "{findings:#?}");
    for (finding, advice) in findings.iter().zip(advice) {
        assert!(finding.contains(advice), "{finding:?} must say {advice}");
    }
    let error = RedisStore::connect(rig.options()).await.err().unwrap();
    let text = error.to_string();
    assert!(advice.iter().all(|advice| text.contains(advice)) && text.contains("`always`"), "{text}");
}

#[tokio::test]
async fn server_must_do_at_least_what_is_promised() {
    let rig = Rig::start();
    let promise = |durability| RedisOptions { durability, ..rig.options() };

    for (synced, durability, is_kept) in [
        ("always", Durability::Always, true),
        ("always", Durability::Everysec, true),
        ("everysec", Durability::Always, false),
        ("everysec", Durability::Everysec, true),
        ("no", Durability::Everysec, false),
        ("no", Durability::AssertedByOperator, true),
    ] {
        rig.command(&["CONFIG", "SET", "appendfsync", synced]);
        let connected = RedisStore::connect(promise(durability)).await;
        assert_eq!(connected.is_ok(), is_kept, "{synced} for {}", durability.config_word());
        connected.into_iter().for_each(|store| assert_eq!(store.durability(), durability));
    }
}

#[tokio::test]
async fn user_who_may_not_ask_needs_the_assertion_of_the_operator() {
    let rig = Rig::start();
    rig.command(&["ACL", "SETUSER", "svc", "on", ">s3cret", "~orch:*", "+@all", "-@admin", "-@dangerous"]);
    let url = rig.redis.url_of("svc", "s3cret");
    let login = |durability| RedisOptions { url: url.clone(), durability, ..rig.options() };

    let findings = refused(login(Durability::Always)).await;
    let store = RedisStore::connect(login(Durability::AssertedByOperator)).await.unwrap();

    let text = findings.join("\n");
    assert!(
        text.contains("+info") && text.contains("+config|get") && text.contains("asserted-by-operator"),
        "{text}"
    );
    let log = store.open_log("raw", RedisLogOptions::default()).await.unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    log.append(epoch, &sample_batch(1, 3)).await.unwrap();
}

#[tokio::test]
async fn refused_login_and_missing_right_say_so_without_the_password() {
    let rig = Rig::start();
    rig.command(&["ACL", "SETUSER", "svc", "on", ">s3cret", "~orch:*", "+@all"]);
    let url = rig.redis.url_of("svc", "s3cret");
    let options = RedisOptions { url, ..rig.options() };
    assert!(!format!("{options:?}").contains("s3cret"));
    let store = RedisStore::connect(options.clone()).await.unwrap();
    let log = store.open_log("raw", RedisLogOptions::default()).await.unwrap();
    let epoch = log.acquire().await.unwrap().epoch;

    rig.command(&["ACL", "SETUSER", "svc", "-evalsha"]);
    let denied = log.append(epoch, &sample_batch(1, 1)).await;
    rig.command(&["ACL", "SETUSER", "svc", "resetpass", ">another", "+evalsha"]);
    rig.command(&["CLIENT", "KILL", "TYPE", "normal"]);
    let mut texts = vec![format!("{denied:?}")];
    // The first may still go to the connection that was just cut.
    for _ in 0..2 {
        texts.push(format!("{:?}", log.append(epoch, &sample_batch(1, 1)).await.unwrap_err()));
    }
    texts.push(format!("{:?}", RedisStore::connect(options).await.err().unwrap()));

    assert!(
        texts[0].contains("Unknown")
            && texts[0].contains("no permissions")
            && texts[0].contains("its ACL must"),
        "{texts:#?}"
    );
    for text in &texts[2..] {
        assert!(text.contains("user and password"), "{texts:#?}");
    }
    assert!(!texts.concat().contains("s3cret"), "{texts:#?}");
    rig.command(&["ACL", "SETUSER", "svc", ">s3cret"]);
    log.append(epoch, &sample_batch(1, 1)).await.unwrap();
}

/// Waits until appending the next record gives what `is_wanted` says; records that are appended meanwhile count.
async fn append_until(
    log: &dyn Log,
    epoch: Epoch,
    tail: &mut u64,
    is_wanted: impl Fn(&Result<(), AppendError>) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let appended = log.append(epoch, &sample_batch(*tail + 1, 1)).await;
        *tail += u64::from(appended.is_ok());
        if is_wanted(&appended) {
            return;
        }
        assert!(Instant::now() < deadline, "{appended:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn promise_broken_while_running_stops_appends_until_it_is_mended() {
    let rig = Rig::start();
    rig.command(&["CONFIG", "SET", "maxmemory", "1gb"]);
    let store = rig.store().await;
    let log = store.open_log("raw", RedisLogOptions::default()).await.unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    let mut tail = 0;

    for (name, bad, good) in
        [("appendfsync", "everysec", "always"), ("maxmemory-policy", "allkeys-lru", "noeviction")]
    {
        rig.command(&["CONFIG", "SET", name, bad]);
        let is_full = |appended: &Result<(), AppendError>| matches!(appended, Err(AppendError::Full { detail }) if detail.contains(&format!("`{name} {good}`")));
        append_until(&log, epoch, &mut tail, is_full).await;
        assert!(store.append_refusal().unwrap().contains(name));
        let probe = log.append(epoch, &RecordBatch::starting_at(Seq(tail + 1))).await;
        assert!(is_full(&probe), "a probe says it although it acknowledges nothing: {probe:?}");

        rig.command(&["CONFIG", "SET", name, good]);
        append_until(&log, epoch, &mut tail, Result::is_ok).await;
        assert_eq!(store.append_refusal(), None);
    }
    check_content(&log, tail).await;
}

/// A server that comes back with other settings must not acknowledge even one append under them.
#[tokio::test]
async fn server_restarted_with_weaker_settings_acknowledges_nothing() {
    let mut rig = Rig::start();
    let options = RedisOptions { check_interval: Duration::from_secs(3600), ..rig.options() };
    let store = RedisStore::connect(options).await.unwrap();
    let log = store.open_log("raw", RedisLogOptions::default()).await.unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    log.append(epoch, &sample_batch(1, 1)).await.unwrap();

    rig.redis.kill();
    rig.redis.set("--appendfsync", "everysec");
    rig.redis.start_again();
    let cut = log.append(epoch, &sample_batch(2, 1)).await;
    let back = log.append(epoch, &sample_batch(2, 1)).await;

    assert!(matches!(&cut, Err(AppendError::Unknown { .. })), "{cut:?}");
    assert!(matches!(&back, Err(AppendError::Full { detail }) if detail.contains("appendfsync")), "{back:?}");
    rig.command(&["CONFIG", "SET", "appendfsync", "always"]);
    log.append(epoch, &sample_batch(2, 1)).await.unwrap();
}

#[tokio::test]
async fn server_without_memory_is_full_and_goes_on_when_there_is_some() {
    let rig = Rig::start();
    let options = RedisOptions { check_interval: Duration::from_secs(3600), ..rig.options() };
    let store = RedisStore::connect(options).await.unwrap();
    let log = store.open_log("raw", RedisLogOptions::default()).await.unwrap();
    let epoch = log.acquire().await.unwrap().epoch;
    log.append(epoch, &sample_batch(1, 10)).await.unwrap();

    rig.command(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = log.append(epoch, &sample_batch(11, 10)).await;
    let known = log.append(epoch, &sample_batch(1, 10)).await;
    let saved = store.checkpoints().save("cursor", Epoch(1), Bytes::from_static(b"x")).await;

    assert!(matches!(&full, Err(AppendError::Full { detail }) if detail.contains("maxmemory")), "{full:?}");
    assert!(known.is_ok(), "what is there needs no memory: {known:?}");
    assert!(matches!(&saved, Err(SaveError::Io(_))), "{saved:?}");
    check_content(&log, 10).await;
    let scarce = RedisStore::connect(rig.options()).await.unwrap();
    assert!(scarce.append_refusal().unwrap().contains("maxmemory"), "trimming mends it, so it starts");
    rig.command(&["CONFIG", "SET", "maxmemory", "0"]);
    log.append(epoch, &sample_batch(11, 10)).await.unwrap();
    check_content(&log, 20).await;
}

#[tokio::test]
async fn replica_with_the_same_data_takes_nothing_until_it_is_the_master() {
    let rig = Rig::start();
    let (log, epoch) = rig.filled(3).await;
    let mut tail = 3;

    rig.command(&["REPLICAOF", "127.0.0.1", "1"]);
    let refused = log.append(epoch, &sample_batch(4, 1)).await;
    append_until(&log, epoch, &mut tail, |appended| matches!(appended, Err(AppendError::Full { .. }))).await;
    assert_eq!(tail, 3);

    assert!(matches!(&refused, Err(AppendError::Unknown { .. } | AppendError::Full { .. })), "{refused:?}");
    rig.command(&["REPLICAOF", "NO", "ONE"]);
    append_until(&log, epoch, &mut tail, Result::is_ok).await;
    check_content(&log, 4).await;
}

fn claim(instance: &str, takeover: bool) -> WriterClaim {
    WriterClaim { instance: instance.to_owned(), takeover }
}

async fn check_held(store: &RedisStore, instance: &str) {
    let refused = store.claim_writer(&claim(instance, false)).await;
    let Err(error @ ClaimError::Held { .. }) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("--takeover"), "{error}");
}

#[tokio::test]
async fn namespace_has_one_writer_unless_another_takes_over() {
    let rig = Rig::start();
    let (first, second) = (rig.store().await, rig.store().await);

    first.claim_writer(&claim("a", false)).await.unwrap();
    let refused = second.claim_writer(&claim("b", false)).await.unwrap_err().to_string();
    first.claim_writer(&claim("a", false)).await.unwrap();

    assert!(
        refused.contains("instance a on ") && refused.contains(&std::process::id().to_string()),
        "{refused}"
    );
    second.claim_writer(&claim("b", true)).await.unwrap();
    check_held(&first, "a").await;
    second.release_writer().await.unwrap();
    first.claim_writer(&claim("a", false)).await.unwrap();
}

#[tokio::test]
async fn claim_lives_as_long_as_its_store() {
    let rig = Rig::start();
    let ttl = Duration::from_millis(150);
    let store = RedisStore::connect(RedisOptions { writer_ttl: ttl, ..rig.options() }).await.unwrap();
    let other = rig.store().await;
    store.claim_writer(&claim("a", false)).await.unwrap();

    let started = Instant::now();
    while started.elapsed() < 4 * ttl {
        check_held(&other, "b").await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(store);

    let deadline = Instant::now() + Duration::from_secs(5);
    while other.claim_writer(&claim("b", false)).await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn writer_that_was_overtaken_does_not_take_the_claim_back() {
    let rig = Rig::start();
    let ttl = Duration::from_millis(60);
    let store = RedisStore::connect(RedisOptions { writer_ttl: ttl, ..rig.options() }).await.unwrap();
    let other = rig.store().await;
    store.claim_writer(&claim("a", false)).await.unwrap();

    other.claim_writer(&claim("b", true)).await.unwrap();

    let started = Instant::now();
    while started.elapsed() < 4 * ttl {
        assert!(rig.command(&["GET", "orch:{test}:writer"]).contains(r#""instance":"b""#));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    store.release_writer().await.unwrap();
    check_held(&store, "a").await;
}

#[tokio::test]
async fn checkpoint_is_replaced_as_a_whole_and_never_by_a_superseded_writer() {
    let rig = Rig::start();
    let checkpoints = rig.store().await.checkpoints();
    let (old, new) = (Bytes::from_static(b"old"), Bytes::from_static(b"new"));
    assert_eq!(checkpoints.load("cursor").await.unwrap(), None);

    checkpoints.save("cursor", Epoch(2), old.clone()).await.unwrap();
    checkpoints.save("cursor", Epoch(2), Bytes::new()).await.unwrap();
    checkpoints.save("cursor", Epoch(3), new.clone()).await.unwrap();
    checkpoints.save("other", Epoch(1), old.clone()).await.unwrap();
    let fenced = checkpoints.save("cursor", Epoch(2), old).await;

    let is_fenced = matches!(&fenced, Err(SaveError::Fenced { mine: Epoch(2), current: Epoch(3) }));
    assert!(is_fenced, "{fenced:?}");
    assert_eq!(rig.store().await.checkpoints().load("cursor").await.unwrap(), Some(new));
    for name in ["", "a b", "a}b"] {
        assert!(checkpoints.load(name).await.is_err(), "{name:?}");
    }
}

struct OnServer(Rig);

#[async_trait]
impl CheckpointProvider for OnServer {
    async fn store(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.0.store().await.checkpoints())
    }

    async fn damage(&self, name: &str, at: usize) {
        let client = redis::Client::open(self.0.redis.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let key = format!("orch:{{test}}:checkpoint:{name}");
        let read = redis::cmd("HGET").arg(&key).arg("value").clone();
        let mut value: Vec<u8> = read.query_async(&mut connection).await.unwrap();
        let at = at % value.len();
        value[at] ^= 0x10;
        let write = redis::cmd("HSET").arg(&key).arg("value").arg(value).clone();
        let _fields: u64 = write.query_async(&mut connection).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_keep_every_promise_of_their_port() {
    checkpoint_conformance::run(&OnServer(Rig::start())).await;
}

#[tokio::test]
async fn a_checkpoint_that_is_no_hash_or_has_no_header_is_damaged() {
    let rig = Rig::start();
    let checkpoints = rig.store().await.checkpoints();
    rig.command(&["SET", "orch:{test}:checkpoint:a", "something else"]);
    rig.command(&["HSET", "orch:{test}:checkpoint:b", "value", "abc"]);

    for (name, why) in [("a", "no hash"), ("b", "too short")] {
        match checkpoints.load(name).await {
            Err(LoadError::Damaged { place, detail }) => {
                assert_eq!(place, format!("orch:{{test}}:checkpoint:{name}"));
                assert!(detail.contains(why), "{detail}");
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
