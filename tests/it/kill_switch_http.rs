//! The kill switch over HTTP on the real binary and its file: what an operator does with curl, and what he is told.

use std::path::{Path, PathBuf};

use reqwest::Client;
use serde_json::{Value, json};

use crate::support::{Service, eventually, orchestrator};

/// A service in a directory of its own, with a kill switch in a file. It does not trade.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "[service]\ndata_dir = {:?}\n[http]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n\
             [sources.http]\nkind = \"http\"\n[kill_switch]\nread_timeout = \"5s\"\nlease = \"30s\"\n",
            dir.path().join("data")
        );
        std::fs::write(dir.path().join("service.toml"), text).unwrap();
        Self { dir }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("service.toml")
    }

    fn value(&self) -> PathBuf {
        self.dir.path().join("data/kill_switch.json")
    }

    /// A command of the kill switch, and the code that it ends with.
    fn command(&self, words: &[&str]) -> (Option<i32>, String) {
        let config = self.config();
        let words = [&["kill-switch"], words, &["--config", config.to_str().unwrap()]].concat();
        let output = orchestrator(&words);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Posts a command; its status and body.
async fn post(service: &Service, verb: &str, body: &Value) -> (u16, Value) {
    let url = format!("{}/api/v1/kill-switch/{verb}", service.url);
    let answer = Client::new().post(url).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn status(service: &Service) -> (u16, Value) {
    let (code, body) = service.get("/api/v1/kill-switch/status").await;
    (code, serde_json::from_str(&body).unwrap())
}

fn stored(value: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(value).unwrap()).unwrap()
}

/// Method: a service that nobody has set up; engaged over HTTP, lifted, engaged by the command line, lifted over HTTP.
#[tokio::test]
async fn operators_stop_and_allow_effects_over_http_and_by_command_alike() {
    let place = Place::new();
    let service = Service::start(&place.config(), &[]).await;
    let (code, unknown) = status(&service).await;
    let unavailable = json!({
        "error": "Kill-switch unavailable",
        "message": "All trading blocked - kill-switch state unknown (Redis unavailable)",
        "fail_closed": true,
    });
    assert_eq!((code, &unknown["detail"], &unknown["effects"]), (503, &unavailable, &json!("unknown")));
    let lift = json!({ "operator": "ops", "notes": "over" });
    assert_eq!(post(&service, "disengage", &lift).await.0, 503, "nobody knows what would be lifted");

    // Engaging needs nothing that is stored; it is seen by whoever reads the file.
    let stop = json!({ "operator": "ops", "reason": "a test", "details": { "ticket": 7 } });
    let (code, engaged) = post(&service, "engage", &stop).await;
    assert_eq!((code, &engaged["state"], &engaged["effects"]), (200, &json!("ENGAGED"), &json!("halted")));
    assert_eq!((&engaged["engaged_by"], &engaged["engagement_details"]), (&json!("ops"), &stop["details"]));
    let record = stored(&place.value());
    for (name, value) in record.as_object().unwrap() {
        assert_eq!(&engaged[name], value, "{name}: its own fields, as they are stored");
    }
    assert_eq!(place.command(&["status"]).0, Some(1));
    assert_eq!(status(&service).await.1["engagement_reason"], "a test");
    let again = post(&service, "engage", &stop).await;
    assert_eq!(again, (400, json!({ "detail": "Kill-switch already engaged" })));

    let (code, lifted) = post(&service, "disengage", &lift).await;
    assert_eq!((code, &lifted["state"], &lifted["effects"]), (200, &json!("ACTIVE"), &json!("trading")));
    assert_eq!(place.command(&["status"]).0, Some(0));
    let again = post(&service, "disengage", &lift).await;
    assert_eq!(again, (400, json!({ "detail": "Kill-switch not engaged" })));

    assert_eq!(place.command(&["engage", "--operator", "cli", "--reason", "by hand"]).0, Some(0));
    eventually("the service sees it", async || {
        (status(&service).await.1["engaged_by"] == "cli").then_some(())
    })
    .await;
    assert_eq!(post(&service, "disengage", &lift).await.0, 200);
    let (_, history) = place.command(&["status", "--json"]);
    let history: Value = serde_json::from_str(&history).unwrap();
    let told: Vec<&Value> =
        history["history"].as_array().unwrap().iter().map(|line| &line["event"]).collect();
    assert_eq!(told, ["ENGAGED", "DISENGAGED", "ENGAGED", "DISENGAGED"]);
    service.stop_unverified().await;
}

/// Method: the value's place is taken by a directory, so that it can be neither read, written nor removed.
#[tokio::test]
async fn a_stop_that_cannot_be_carried_out_is_503_and_says_what_holds() {
    let place = Place::new();
    assert_eq!(place.command(&["init", "--operator", "ops"]).0, Some(0));
    let service = Service::start(&place.config(), &[]).await;
    assert_eq!(status(&service).await.1["effects"], "trading");
    std::fs::remove_file(place.value()).unwrap();
    std::fs::create_dir_all(place.value().join("in the way")).unwrap();

    let (code, body) = post(&service, "engage", &json!({ "operator": "ops", "reason": "a test" })).await;

    assert_eq!((code, &body["effects"]), (503, &json!("unknown")), "{body}");
    assert_eq!(body["detail"]["fail_closed"], true, "what is in the way blocks all the same");
    assert!(body["command_error"].as_str().unwrap().contains("nothing was changed"), "{body}");
    service.stop_unverified().await;
}

/// Others reach it, and nobody is asked who he is.
#[tokio::test]
async fn a_listener_that_others_reach_takes_no_commands_on_a_file() {
    let place = Place::new();
    assert_eq!(place.command(&["init", "--operator", "ops"]).0, Some(0));
    let public = ["--set", "http.listen=0.0.0.0:0", "--set", "http.allow_public=true"];
    let mut service = Service::start(&place.config(), &public).await;
    service.url = service.url.replace("0.0.0.0", "127.0.0.1");

    for (verb, body) in [
        ("engage", json!({ "operator": "ops", "reason": "a test" })),
        ("disengage", json!({ "operator": "ops" })),
    ] {
        let (code, body) = post(&service, verb, &body).await;
        assert_eq!((code, &body["effects"]), (503, &json!("trading")), "{body}");
        assert!(body["detail"]["message"].as_str().unwrap().contains("http.listen"), "{body}");
    }
    service.stop_unverified().await;
}
