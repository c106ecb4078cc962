//! The kill switch over HTTP on a real Redis with the shipped users: the service reads with a login that can change
//! nothing, and an operator's request is carried out by the operators' login alone.

use reqwest::Client;
use serde_json::{Value, json};

use crate::support::process::{Service, eventually};
use crate::support::redis_server::RedisServer;
use crate::support::secrets::Secrets;

const KEY: &str = "kill_switch:state";

/// A service that reads with the shipped login, and takes commands by `operator_url`, if any.
struct Scene {
    dir: tempfile::TempDir,
    service: Service,
}

impl Scene {
    async fn start(redis: &RedisServer, operator_url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("service.toml");
        let text = format!(
            "[service]\ndata_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
             [sources.http]\nkind = \"http\"\n\
             [kill_switch]\nkind = \"redis\"\nurl = {:?}\noperator_url = {operator_url:?}\n\
             read_timeout = \"5s\"\nlease = \"10s\"\n",
            dir.path().join("data"),
            Secrets::shared().as_service(&redis.url()),
        );
        std::fs::write(&config, text).unwrap();
        let service = Service::start(&config, &[]).await;
        Self { dir, service }
    }

    async fn post(&self, verb: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/api/v1/kill-switch/{verb}", self.service.url);
        let answer = Client::new().post(url).json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn engage(&self) -> (u16, Value) {
        self.post("engage", &json!({ "operator": "ops", "reason": "a test" })).await
    }

    async fn status(&self) -> (u16, Value) {
        let (code, body) = self.service.get("/api/v1/kill-switch/status").await;
        (code, serde_json::from_str(&body).unwrap())
    }

    /// Waits until the service knows that trading is allowed.
    async fn trading(&self) {
        eventually("trading is allowed", async || {
            (self.status().await.1["effects"] == "trading").then_some(())
        })
        .await;
    }

    async fn stop(self) {
        self.service.stop_unverified().await;
        drop(self.dir);
    }
}

fn put(redis: &RedisServer, value: &str) {
    assert!(redis.command(&["SET", KEY, value]).unwrap().starts_with("+OK"));
}

fn stored(redis: &RedisServer) -> String {
    redis.command(&["GET", KEY]).unwrap()
}

#[tokio::test]
async fn operators_of_the_shipped_redis_stop_and_allow_effects_over_http() {
    let redis = RedisServer::start();
    put(&redis, "off");
    let scene = Scene::start(&redis, &Secrets::shared().as_operator(&redis.url())).await;
    scene.trading().await;

    let (code, engaged) = scene.engage().await;
    assert_eq!(
        (code, &engaged["state"], &engaged["effects"]),
        (200, &json!("ENGAGED"), &json!("halted")),
        "{engaged}"
    );
    assert!(stored(&redis).contains("\"engagement_reason\":\"a test\""));
    assert_eq!(scene.status().await.1["engaged_by"], "ops");
    assert_eq!(scene.engage().await, (400, json!({ "detail": "Kill-switch already engaged" })));
    let lift = json!({ "operator": "ops", "notes": "over" });
    let (code, lifted) = scene.post("disengage", &lift).await;
    assert_eq!(
        (code, &lifted["state"], &lifted["effects"]),
        (200, &json!("ACTIVE"), &json!("trading")),
        "{lifted}"
    );
    assert_eq!(scene.post("disengage", &lift).await, (400, json!({ "detail": "Kill-switch not engaged" })));

    // Whatever somebody else stored: a stop works, and what it lifted is known again.
    redis.command(&["DEL", KEY]).unwrap();
    redis.command(&["RPUSH", KEY, "a list"]).unwrap();
    eventually("it is unknown", async || (scene.status().await.0 == 503).then_some(())).await;
    assert_eq!(scene.post("disengage", &lift).await.0, 503);
    assert_eq!(scene.engage().await.0, 200);
    assert!(stored(&redis).contains("ENGAGED"));
    let history = redis.command(&["LRANGE", "kill_switch:history", "0", "-1"]).unwrap();
    let told: Vec<&str> =
        history.split("\"event\":\"").skip(1).filter_map(|line| line.split('"').next()).collect();
    assert_eq!(told, ["ENGAGED", "DISENGAGED", "ENGAGED"]);
    scene.stop().await;
}

#[tokio::test]
async fn without_their_login_operators_are_told_which_setting_is_missing() {
    let redis = RedisServer::start();
    put(&redis, "off");
    let scene = Scene::start(&redis, "").await;
    scene.trading().await;

    let (code, body) = scene.engage().await;

    assert_eq!((code, &body["effects"]), (503, &json!("trading")));
    assert!(body["detail"]["message"].as_str().unwrap().contains("kill_switch.operator_url"), "{body}");
    assert_eq!(stored(&redis), "$3\r\noff\r\n", "nothing was changed");
    scene.stop().await;
}

/// Method: logins that are refused, that may not write, and that are of another server. None of them is a stop, and
/// none is told as one.
#[tokio::test]
async fn a_stop_that_the_redis_of_the_service_does_not_have_is_never_told_as_done() {
    let (redis, other) = (RedisServer::start(), RedisServer::start());
    put(&redis, "off");
    let wrong = redis.url_of("operator", "not-the-password");
    assert!(
        redis
            .command(&["ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+ping", "+select"])
            .is_some()
    );
    let elsewhere = Secrets::shared().as_operator(&other.url());
    for (operator_url, error, part) in [
        (wrong, "Kill-switch not changed", "trading goes on"),
        (redis.url_of("reader", "secret"), "Kill-switch not changed", "NOPERM"),
        (elsewhere, "Kill-switch engaged elsewhere", "kill_switch.operator_url"),
    ] {
        let scene = Scene::start(&redis, &operator_url).await;
        scene.trading().await;

        let (code, body) = scene.engage().await;

        assert_eq!(
            (code, &body["effects"], &body["detail"]["error"]),
            (503, &json!("trading"), &json!(error)),
            "{body}"
        );
        assert!(body["detail"]["message"].as_str().unwrap().contains(part), "{body}");
        assert!(
            !body.to_string().contains("not-the-password")
                && !scene.service.log().contains("not-the-password")
        );
        assert_eq!(stored(&redis), "$3\r\noff\r\n");
        scene.stop().await;
    }
    assert!(stored(&other).contains("ENGAGED"));
    let scene = Scene::start(&redis, &Secrets::shared().as_operator(&other.url())).await;
    scene.trading().await;
    let (code, body) = scene.engage().await;
    assert_eq!((code, &body["effects"]), (503, &json!("trading")), "already engaged, and not here: {body}");
    scene.stop().await;
}

/// Method: the server is killed. Nobody can say what holds, so effects are blocked, and that is what is told.
#[tokio::test]
async fn a_redis_that_is_gone_is_503_as_recorded() {
    let mut redis = RedisServer::start();
    put(&redis, "off");
    let scene = Scene::start(&redis, &Secrets::shared().as_operator(&redis.url())).await;
    scene.trading().await;
    redis.kill();
    let unavailable = json!({
        "error": "Kill-switch unavailable",
        "message": "All trading blocked - kill-switch state unknown (Redis unavailable)",
        "fail_closed": true,
    });
    eventually("the lease has ended", async || (scene.status().await.0 == 503).then_some(())).await;

    for (code, body) in [
        scene.status().await,
        scene.engage().await,
        scene.post("disengage", &json!({ "operator": "ops" })).await,
    ] {
        assert_eq!(
            (code, &body["detail"], &body["effects"]),
            (503, &unavailable, &json!("unknown")),
            "{body}"
        );
    }
    scene.stop().await;
}
