//! Protocol 1 of the engines, whatever carries it: one JSON object a request, one an answer.
//!
//! ```text
//! hello    {"engine":{"code_hash":"…","name":"…","version":"…"},"ops":["run","run_with_hysteresis"],"protocol":1}
//! request  {"id":1,"op":"run","snapshot":{"symbol":"BTCUSDT","timestamp_ms":1768002660000,"inputs":{…}}}
//!          {"id":2,"op":"run_with_hysteresis","snapshot":{…},"state":null,"config":{…}}
//! answer   {"id":1,"ok":true,"regime_output":{…}}
//!          {"hysteresis_decision":{…},"id":2,"ok":true,"state":{…}}
//!          {"error_detail":"…","error_kind":"engine_failure","id":1,"ok":false}
//! ```
//!
//! | carrier | hello | request | answer |
//! |---|---|---|---|
//! | a worker's pipes | its first line | a line on stdin | a line on stdout |
//! | HTTP | its members in every answer | the body of a POST | the body of a response 200 |
//!
//! Unknown fields of answers are ignored, so that a newer engine can say more.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::{ErrorKind, bounded_detail};
use crate::ids::EngineMode;
use crate::json;
use crate::ports::engine::{EngineAnswer, EngineCall, EngineError, EngineIdentity};

/// The protocol that this build speaks.
pub const PROTOCOL: u64 = 1;

/// Introduction of an engine. Unknown members are ignored, so an answer that holds these two can be read as one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Hello {
    /// The protocol that it speaks.
    pub protocol: u64,
    /// Who it is.
    pub engine: EngineIdentity,
    /// The requests that it can answer as this protocol says. An engine that does not say is asked and shows it.
    #[serde(default)]
    pub ops: Option<Vec<String>>,
}

impl Hello {
    /// Checks that calls of `mode` can be answered.
    ///
    /// # Errors
    ///
    /// [`NoSuchOp`]: no call would ever complete.
    pub fn check_mode(&self, mode: EngineMode) -> Result<(), NoSuchOp> {
        self.check_ops(&[NeededOp::of_mode(mode)])
    }

    /// Checks that these requests can be answered.
    ///
    /// # Errors
    ///
    /// [`NoSuchOp`]: the first one that cannot.
    pub fn check_ops(&self, needed: &[NeededOp]) -> Result<(), NoSuchOp> {
        let Some(ops) = &self.ops else { return Ok(()) };
        match needed.iter().find(|needed| !ops.iter().any(|op| op == needed.op)) {
            Some(missing) => {
                Err(NoSuchOp { needed: missing.clone(), offered: bounded_detail(&ops.join(", ")) })
            }
            None => Ok(()),
        }
    }
}

/// Request that will be made, and the setting for whose sake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededOp {
    /// Its name in `ops`.
    pub op: &'static str,
    /// The setting, for messages.
    pub setting: String,
}

impl NeededOp {
    /// The request that calls of `mode` make.
    #[must_use]
    pub fn of_mode(mode: EngineMode) -> Self {
        let op = match mode {
            EngineMode::Truth => "run",
            EngineMode::Hysteresis => "run_with_hysteresis",
        };
        Self { op, setting: format!("engine.mode = {:?}", mode.as_str()) }
    }
}

/// The program cannot answer the calls that the configuration wants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the program does not offer {op}, only [{offered}]: {setting} needs one whose answer to {op} is that of protocol \
     {PROTOCOL}",
    op = needed.op,
    setting = needed.setting
)]
pub struct NoSuchOp {
    needed: NeededOp,
    offered: String,
}

/// A request without its beginning, the id: that is the carrier's to give.
#[derive(Debug)]
pub struct RequestBody(String);

impl RequestBody {
    /// The request for `call`; `hysteresis_config` is the canonical text of one JSON object.
    #[must_use]
    pub fn new(call: &EngineCall, hysteresis_config: &str) -> Self {
        let symbol = serde_json::Value::from(call.symbol.as_str());
        let timestamp_ms = call.engine_timestamp_ms;
        let inputs = on_one_line(&call.inputs);
        Self(match call.mode {
            EngineMode::Truth => format!(
                r#""op":"run","snapshot":{{"symbol":{symbol},"timestamp_ms":{timestamp_ms},"inputs":{inputs}}}}}"#
            ),
            EngineMode::Hysteresis => {
                let state = call.state.as_deref().map_or(Cow::Borrowed("null"), on_one_line);
                format!(
                    r#""op":"run_with_hysteresis","snapshot":{{"symbol":{symbol},"timestamp_ms":{timestamp_ms},"inputs":{inputs}}},"state":{state},"config":{hysteresis_config}}}"#
                )
            }
        })
    }

    /// Writes the whole line with its end into `line`, whose content is replaced.
    pub fn write_line(&self, id: u64, line: &mut Vec<u8>) {
        line.clear();
        line.extend_from_slice(format!(r#"{{"id":{id},"#).as_bytes());
        line.extend_from_slice(self.0.as_bytes());
        line.push(b'\n');
    }
}

/// The inputs are a receipt's bytes and may stand on several lines. Inside of strings JSON has no line ends, so each
/// one is white space between tokens.
fn on_one_line(json: &str) -> Cow<'_, str> {
    match json.contains(['\n', '\r']) {
        true => Cow::Owned(json.replace(['\n', '\r'], " ")),
        false => Cow::Borrowed(json),
    }
}

/// Line that is no answer to the request: engine and orchestrator are out of step, and a worker has to go. Completes
/// "the engine wrote".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutOfStep {
    /// Not an answer at all.
    #[error("something that is no answer ({detail})")]
    NotAnAnswer {
        /// What it lacks.
        detail: String,
    },
    /// An answer to something else.
    #[error("answer {found} to request {expected}")]
    WrongId {
        /// The id of the request.
        expected: u64,
        /// The id in the answer.
        found: u64,
    },
}

#[derive(Deserialize)]
struct Answer<'a> {
    id: u64,
    ok: bool,
    #[serde(borrow)]
    regime_output: Option<&'a RawValue>,
    #[serde(borrow)]
    hysteresis_decision: Option<&'a RawValue>,
    #[serde(borrow)]
    state: Option<&'a RawValue>,
    #[serde(borrow)]
    error_kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    error_detail: Option<Cow<'a, str>>,
}

/// Reads the answer to request `id`. The inner result is the engine's; the outer one says whether it was an answer.
///
/// Details never name the worker, its process or its address: outputs must not depend on the number of workers (REP-2).
///
/// # Errors
///
/// [`OutOfStep`].
pub fn read_answer(
    line: &[u8],
    id: u64,
    mode: EngineMode,
) -> Result<Result<EngineAnswer, EngineError>, OutOfStep> {
    let not_an_answer = |detail: String| OutOfStep::NotAnAnswer { detail };
    // Text first: in members that it does not know, serde_json looks at no character.
    let text = std::str::from_utf8(line)
        .map_err(|error| not_an_answer(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
    let answer: Answer<'_> =
        serde_json::from_str(text).map_err(|error| not_an_answer(json::describe_mistake(&error)))?;
    // Of an array serde would take the members by their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(not_an_answer("not an object".to_owned()));
    }
    if answer.id != id {
        return Err(OutOfStep::WrongId { expected: id, found: answer.id });
    }
    if !answer.ok {
        let kind = error_kind(answer.error_kind.as_deref());
        let detail = bounded_detail(answer.error_detail.as_deref().unwrap_or("the engine gave no detail"));
        return Ok(Err(EngineError::from_engine(kind, detail)));
    }
    Ok(match mode {
        EngineMode::Truth => canonical_object("regime_output", answer.regime_output)
            .map(|regime_output| EngineAnswer::Truth { regime_output }),
        EngineMode::Hysteresis => canonical_object("hysteresis_decision", answer.hysteresis_decision)
            .and_then(|decision| {
                canonical_object("state", answer.state)
                    .map(|state| EngineAnswer::Hysteresis { decision, state })
            }),
    })
}

/// Only what an engine can know is taken over; everything else is a failure of the engine.
fn error_kind(word: Option<&str>) -> ErrorKind {
    match word {
        Some("snapshot_build_failure") => ErrorKind::SnapshotBuildFailure,
        Some("hysteresis_monotonicity_violation") => ErrorKind::HysteresisMonotonicityViolation,
        Some(_) | None => ErrorKind::EngineFailure,
    }
}

fn canonical_object(field: &str, value: Option<&RawValue>) -> Result<String, EngineError> {
    let failure = |problem: &str| {
        let detail = bounded_detail(&format!("the engine's answer has {problem} in {field}"));
        EngineError::from_engine(ErrorKind::EngineFailure, detail)
    };
    let value = value.ok_or_else(|| failure("nothing"))?;
    if !value.get().starts_with('{') {
        return Err(failure("no object"));
    }
    json::canonical(value.get()).map_err(|error| failure(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Symbol, TsMs};

    fn line_of(mode: EngineMode, inputs: &str, state: Option<&str>) -> String {
        let call = EngineCall {
            symbol: Symbol::from("A\"B"),
            engine_timestamp_ms: TsMs(180_000),
            mode,
            inputs: inputs.to_owned(),
            state: state.map(str::to_owned),
        };
        let mut line = Vec::new();
        RequestBody::new(&call, "{\"c\":1}").write_line(7, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn requests_carry_the_inputs_as_they_came_on_one_line() {
        assert_eq!(
            line_of(EngineMode::Truth, "{ \"b\":1.50,\r\n\"a\":null }", None),
            "{\"id\":7,\"op\":\"run\",\"snapshot\":{\"symbol\":\"A\\\"B\",\"timestamp_ms\":180000,\"inputs\":{ \"b\":1.50,  \"a\":null }}}\n"
        );
        assert_eq!(
            line_of(EngineMode::Hysteresis, "{}", None),
            "{\"id\":7,\"op\":\"run_with_hysteresis\",\"snapshot\":{\"symbol\":\"A\\\"B\",\"timestamp_ms\":180000,\"inputs\":{}},\"state\":null,\"config\":{\"c\":1}}\n"
        );
        assert!(line_of(EngineMode::Hysteresis, "{}", Some("{\"s\":1}")).contains(",\"state\":{\"s\":1},"));
    }

    fn check_answer(mode: EngineMode, line: &str) -> Result<EngineAnswer, EngineError> {
        read_answer(line.as_bytes(), 7, mode).unwrap()
    }

    #[test]
    fn an_engine_that_says_what_it_offers_is_held_to_it() {
        let check = |ops: &str, mode| {
            let identity = r#"{"code_hash":"","name":"e","version":"1"}"#;
            let hello: Hello =
                serde_json::from_str(&format!(r#"{{"engine":{identity},"protocol":1{ops}}}"#)).unwrap();
            hello.check_mode(mode).map_err(|refused| refused.to_string())
        };

        assert_eq!(check("", EngineMode::Hysteresis), Ok(()), "one that does not say is asked");
        assert_eq!(check(r#","ops":["run","run_with_hysteresis","new"]"#, EngineMode::Hysteresis), Ok(()));
        assert_eq!(check(r#","ops":["run"]"#, EngineMode::Truth), Ok(()));
        let refused = check(r#","ops":["run"]"#, EngineMode::Hysteresis).unwrap_err();
        assert!(refused.contains("does not offer run_with_hysteresis, only [run]"), "{refused}");
        assert!(refused.contains("engine.mode = \"hysteresis\""), "{refused}");
    }

    #[test]
    fn answers_are_made_canonical() {
        assert_eq!(
            check_answer(
                EngineMode::Truth,
                r#"{"ok":true, "id":7, "new":1, "regime_output":{"b":1.0, "a":2}}"#
            ),
            Ok(EngineAnswer::Truth { regime_output: r#"{"a":2,"b":1.0}"#.to_owned() })
        );
        assert_eq!(
            check_answer(
                EngineMode::Hysteresis,
                r#"{"id":7,"ok":true,"hysteresis_decision":{ },"state":{"z":1}}"#
            ),
            Ok(EngineAnswer::Hysteresis { decision: "{}".to_owned(), state: r#"{"z":1}"#.to_owned() })
        );
    }

    #[test]
    fn errors_of_the_engine_keep_their_kind_and_unknown_kinds_are_engine_failures() {
        let cases = [
            ("engine_failure", ErrorKind::EngineFailure),
            ("snapshot_build_failure", ErrorKind::SnapshotBuildFailure),
            ("hysteresis_monotonicity_violation", ErrorKind::HysteresisMonotonicityViolation),
            ("shutdown", ErrorKind::EngineFailure),
            ("brand_new", ErrorKind::EngineFailure),
        ];
        for (word, kind) in cases {
            let line = format!(r#"{{"id":7,"ok":false,"error_kind":"{word}","error_detail":"two\nlines"}}"#);

            let error = check_answer(EngineMode::Truth, &line).unwrap_err();

            assert_eq!(error, EngineError::from_engine(kind, "two lines"));
        }
        let bare = check_answer(EngineMode::Truth, r#"{"id":7,"ok":false}"#).unwrap_err();
        assert_eq!((bare.kind, bare.said), (ErrorKind::EngineFailure, true));
    }

    #[test]
    fn answers_without_the_expected_object_are_engine_failures() {
        let cases = [
            (EngineMode::Truth, r#"{"id":7,"ok":true}"#),
            (EngineMode::Truth, r#"{"id":7,"ok":true,"regime_output":"x"}"#),
            (EngineMode::Truth, r#"{"id":7,"ok":true,"regime_output":{"a":"\ud800"}}"#),
            (EngineMode::Hysteresis, r#"{"id":7,"ok":true,"regime_output":{}}"#),
            (EngineMode::Hysteresis, r#"{"id":7,"ok":true,"hysteresis_decision":{},"state":null}"#),
        ];
        for (mode, line) in cases {
            let error = check_answer(mode, line).unwrap_err();
            assert_eq!((error.kind, error.said), (ErrorKind::EngineFailure, true), "{line}");
        }
    }

    #[test]
    fn lines_that_are_no_answer_to_the_request_are_out_of_step() {
        for line in ["", "hello", "[]", "{\"id\":7}", "{\"id\":7,\"ok\":true,\"regime_output\":{\"a\":NaN}}"]
        {
            let result = read_answer(line.as_bytes(), 7, EngineMode::Truth);
            assert!(matches!(result, Err(OutOfStep::NotAnAnswer { .. })), "{line}");
        }
        for line in [
            &b"[7,true,{},null,null,null,null]"[..],
            b"{\"id\":7,\"ok\":true,\"regime_output\":{},\"x\":\"\xff\"}",
        ] {
            let result = read_answer(line, 7, EngineMode::Truth);
            assert!(matches!(result, Err(OutOfStep::NotAnAnswer { .. })), "{result:?}");
        }
        let other = read_answer(br#"{"id":6,"ok":true,"regime_output":{}}"#, 7, EngineMode::Truth);
        assert!(matches!(other, Err(OutOfStep::WrongId { expected: 7, found: 6 })));
    }
}
