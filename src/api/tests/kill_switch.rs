//! The kill switch over HTTP: the bodies of specification 004, and ours beside them.

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_kernel::kill_switch::{
    Applied, KillSwitchChange, KillSwitchReadError, OperatorCommand, Refusal, Shortfall, Stored,
};
use orchestrator_kernel::ports::kill_switch::{ApplyError, KillGate as _, KillSwitchRead, KillSwitchStore};
use serde_json::{Value, json};

use super::*;

const ENGAGE: &str = r#"{"reason":"Market anomaly","operator":"ops_team","details":{"vix":80}}"#;
const DISENGAGE: &str = r#"{"operator":"ops_team","notes":"calm again"}"#;
const STATUS: &str = "/api/v1/kill-switch/status";

impl Service {
    async fn command(&self, verb: &str, body: &str) -> Answer {
        let request = self.client.post(self.url(&format!("/api/v1/kill-switch/{verb}")));
        let request = request.header("content-type", "application/json").body(body.to_owned());
        Answer::of(request.send().await.unwrap()).await
    }

    async fn stored(&self) -> Stored {
        self.kill_switch.read_value().await.unwrap()
    }
}

/// The recorded members of a status, and nothing that this service adds.
fn recorded(answer: &Answer) -> Value {
    let mut body = answer.json();
    for ours in ["effects", "reason", "age_ms", "since", "place", "transitions"] {
        assert!(body.as_object_mut().unwrap().remove(ours).is_some(), "{ours}");
    }
    body
}

#[track_caller]
fn check_refused(answer: &Answer, status: u16, detail: &Value) {
    assert_eq!((answer.status, answer.json()), (status, json!({ "detail": detail })), "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/json");
}

#[tokio::test]
async fn engage_status_and_disengage_have_the_recorded_bodies_and_ours_beside_them() {
    let service = Service::start().await;

    let engaged = service.command("engage", ENGAGE).await;
    assert_eq!(engaged.status, 200, "{}", engaged.text);
    let at = "2026-01-01T00:00:00+00:00";
    let mut record = json!({
        "state": "ENGAGED", "engaged_at": at, "engaged_by": "ops_team", "engagement_reason": "Market anomaly",
        "engagement_details": {"vix": 80}, "disengaged_at": null, "disengaged_by": null,
        "disengagement_notes": null, "engagement_count_today": 1,
    });
    assert_eq!(recorded(&engaged), record);
    let reason = json!(format!("halted by ops_team at {at}: Market anomaly"));
    assert_eq!((&engaged.json()["effects"], &engaged.json()["reason"]), (&json!("halted"), &reason));
    assert_eq!(engaged.json()["transitions"][1]["engaged_by"], "ops_team");
    service.gate.try_permit().unwrap_err();
    let status = service.get(STATUS).await;
    assert_eq!((status.status, recorded(&status)), (200, record.clone()));
    check_refused(&service.command("engage", ENGAGE).await, 400, &json!("Kill-switch already engaged"));

    let disengaged = service.command("disengage", DISENGAGE).await;
    assert_eq!(disengaged.status, 200, "{}", disengaged.text);
    record["state"] = json!("ACTIVE");
    record["disengaged_at"] = json!(at);
    record["disengaged_by"] = json!("ops_team");
    record["disengagement_notes"] = json!("calm again");
    assert_eq!(recorded(&disengaged), record);
    assert_eq!(
        (&disengaged.json()["effects"], &disengaged.json()["reason"]),
        (&json!("trading"), &json!(null))
    );
    service.gate.try_permit().unwrap();
    assert_eq!(recorded(&service.get(STATUS).await), record);
    check_refused(&service.command("disengage", DISENGAGE).await, 400, &json!("Kill-switch not engaged"));
}

#[tokio::test]
async fn engage_works_on_whatever_is_stored_and_an_unknown_state_has_the_recorded_503() {
    let service = Service::start().await;
    let unavailable = json!({
        "error": "Kill-switch unavailable",
        "message": "All trading blocked - kill-switch state unknown (Redis unavailable)",
        "fail_closed": true,
    });
    let odd: [Option<&[u8]>; 4] = [None, Some(b"ACTIVE"), Some(b"{}"), Some(b"\xff\xfe")];
    for stored in odd {
        service.kill_switch.put_value(stored);
        service.gate.fresh_permit().await.unwrap_err();

        for answer in [service.get(STATUS).await, service.command("disengage", DISENGAGE).await] {
            let body = answer.json();
            assert_eq!((answer.status, &body["detail"]), (503, &unavailable), "{}", answer.text);
            assert_eq!((&body["effects"], &body["place"]), (&json!("unknown"), &json!("memory")));
            assert!(body["reason"].as_str().unwrap().contains("stored"), "{body}");
            assert!(body.get("state").is_none());
        }
        let engaged = service.command("engage", ENGAGE).await;
        assert_eq!((engaged.status, &engaged.json()["effects"]), (200, &json!("halted")), "{stored:?}");
    }
    let status = service.command("disengage", DISENGAGE).await;
    assert_eq!((status.status, &status.json()["effects"]), (200, &json!("trading")));
}

#[tokio::test]
async fn bad_bodies_name_their_fields_and_change_nothing() {
    let service = Service::start().await;
    let before = service.stored().await;
    let objection =
        |field: &str, msg: &str, kind: &str| json!({"loc": ["body", field], "msg": msg, "type": kind});
    let missing = |field: &str| objection(field, "Field required", "missing");
    for (verb, body, details) in [
        ("engage", "{}", vec![missing("operator"), missing("reason")]),
        ("engage", "", vec![missing("operator"), missing("reason")]),
        ("disengage", r#"{"notes":"x"}"#, vec![missing("operator")]),
        (
            "engage",
            r#"{"operator":7,"reason":"r","details":[]}"#,
            vec![
                objection("operator", "Input should be a valid string", "string_type"),
                objection("details", "Input should be a valid dictionary", "dict_type"),
            ],
        ),
        (
            "engage",
            r#"{"operator":" ","reason":"r"}"#,
            vec![objection("operator", "operator is empty", "value_error")],
        ),
        (
            "disengage",
            r#"{"operator":"o\u0007"}"#,
            vec![objection("operator", "operator holds a control character", "value_error")],
        ),
    ] {
        check_refused(&service.command(verb, body).await, 422, &json!(details));
    }
    let broken = service.command("engage", "{\"operator\":").await;
    assert_eq!((broken.status, &broken.json()["detail"][0]["type"]), (422, &json!("json_invalid")));
    let long = format!(r#"{{"operator":"o","reason":"{}"}}"#, "x".repeat(300 << 10));
    assert_eq!(service.command("engage", &long).await.status, 413);
    let foreign = service.client.post(service.url("/api/v1/kill-switch/disengage")).body(DISENGAGE);
    let foreign = foreign.header("content-type", "application/json").header("origin", "http://evil.example");
    assert_eq!(foreign.send().await.unwrap().status().as_u16(), 403);
    let form = service.client.post(service.url("/api/v1/kill-switch/engage")).body(ENGAGE);
    assert_eq!(form.send().await.unwrap().status().as_u16(), 415, "a form of another site may not command");
    assert_eq!(service.stored().await, before);

    // Fields that nobody knows, and nulls, keep nobody from stopping.
    let odd = r#"{"operator":"o","reason":"r","details":null,"from":"a dashboard"}"#;
    assert_eq!(service.command("engage", odd).await.status, 200);
}

/// A store that answers commands as it is told, and changes what is read only by removing it.
struct OddStore {
    read: Arc<MemoryKillSwitch>,
    removes: bool,
    answer: StoreAnswer,
}

/// What it makes of a change.
type StoreAnswer = fn(KillSwitchChange) -> Result<Applied, ApplyError>;

#[async_trait]
impl KillSwitchRead for OddStore {
    fn place_text(&self) -> String {
        "elsewhere".to_owned()
    }

    async fn read_value(&self) -> Result<Stored, KillSwitchReadError> {
        self.read.read_value().await
    }

    async fn wait_changed(&self) {}
}

#[async_trait]
impl KillSwitchStore for OddStore {
    async fn apply_command(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError> {
        let off = Stored::Value(Bytes::from_static(b"off"));
        let change = orchestrator_kernel::kill_switch::decide(&off, command, now)?;
        if self.removes {
            self.read.put_value(None);
        }
        (self.answer)(change)
    }

    async fn read_history(&self, _: usize) -> Result<Vec<String>, KillSwitchReadError> {
        Ok(Vec::new())
    }
}

async fn service_of(removes: bool, answer: StoreAnswer) -> Service {
    let read = Arc::new(MemoryKillSwitch::default());
    read.put_value(Some(b"off"));
    let store = Arc::new(OddStore { read: Arc::clone(&read), removes, answer });
    let setup = Setup { operators: Some(OperatorDesk::open(store)), kill_switch: read, ..Setup::default() };
    setup.start().await
}

#[tokio::test]
async fn engaged_by_removal_is_200_with_effects_unknown_and_says_what_was_left_undone() {
    let service = service_of(true, |change| {
        let shortfalls = vec![Shortfall::Removed("disk full".to_owned())];
        Ok(Applied { change, shortfalls })
    })
    .await;

    let answer = service.command("engage", ENGAGE).await;

    let body = answer.json();
    assert_eq!((answer.status, &body["effects"]), (200, &json!("unknown")), "{}", answer.text);
    assert!(body["shortfalls"][0].as_str().unwrap().contains("kill-switch init"), "{body}");
    assert!(body.get("state").is_none() && body["reason"].as_str().unwrap().contains("nothing is stored"));
    assert_eq!(service.get(STATUS).await.status, 503);
}

#[tokio::test]
async fn a_stop_that_did_not_reach_what_the_service_reads_is_never_told_as_done() {
    let elsewhere = service_of(false, |change| Ok(Applied::in_full(change))).await;
    let answer = elsewhere.command("engage", ENGAGE).await;
    let body = answer.json();
    assert_eq!((answer.status, &body["effects"]), (503, &json!("trading")), "{}", answer.text);
    let message = body["detail"]["message"].as_str().unwrap();
    assert!(message.contains("elsewhere") && message.contains("kill_switch.operator_url"), "{message}");

    let already: StoreAnswer = |_| Err(Refusal::AlreadyEngaged.into());
    let answer = service_of(false, already).await.command("engage", ENGAGE).await;
    assert_eq!(answer.status, 503, "it is engaged there, and not here: {}", answer.text);

    let failures: [(StoreAnswer, &str); 2] = [
        (|_| Err(ApplyError::Unchanged("NOPERM".to_owned())), "nothing was changed: NOPERM"),
        (
            |_| Err(ApplyError::Unknown("cut off".to_owned())),
            "not known whether this was carried out (cut off)",
        ),
    ];
    for (answer, part) in failures {
        let service = service_of(false, answer).await;
        let answer = service.command("engage", ENGAGE).await;
        let body = answer.json();
        assert_eq!((answer.status, &body["effects"]), (503, &json!("trading")), "{}", answer.text);
        let message = body["detail"]["message"].as_str().unwrap();
        assert!(message.starts_with("trading goes on: ") && message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn without_a_desk_commands_name_the_setting_and_the_status_is_there() {
    let operators = Some(OperatorDesk::closed("kill_switch.operator_url is not set"));
    let service = Setup { operators, ..Setup::default() }.start().await;

    for (verb, body) in [("engage", ENGAGE), ("disengage", DISENGAGE)] {
        let answer = service.command(verb, body).await;
        assert_eq!(answer.status, 503);
        assert_eq!(answer.json()["detail"]["message"], "kill_switch.operator_url is not set");
    }
    let status = service.get(STATUS).await;
    assert_eq!((status.status, &status.json()["state"]), (200, &json!("ACTIVE")));
    assert_eq!(service.command("engage", "{}").await.status, 422, "what is wrong with it is told first");
}
