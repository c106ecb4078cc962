//! Operators' commands on the kill switch: the paths of specification 004, there with trading and without.
//!
//! ```text
//! engage ─▶ head, body ─▶ operators' store (done first, KILL-4) ─▶ read back by the service's own login ─▶ answer
//!                                                            └──▶ a note in the journal, as soon as that can
//! ```
//!
//! The service does not act here: an operator does, with a login that nothing else of the service has (KILL-2). Errors
//! are `{"detail": …}`, as recorded.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use orchestrator_kernel::error::bounded_detail;
use orchestrator_kernel::kill_switch::{
    Applied, OperatorCommand, Refusal, Stored, TradingState, recorded_fields,
};
use orchestrator_kernel::ports::kill_switch::{ApplyError, KillSwitchStore};
use orchestrator_kernel::trading::ids::CommandId;
use orchestrator_runtime::kill_switch::Gate;
use orchestrator_trading_plane::command::{CommandOrigin, TradingCommand};
use serde_json::{Map, json};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout_at};

use super::command::{PeerAddress, random_bytes};
use super::fields::CommandBody;
use super::guard::check_command_head;
use super::refusal::{ControlError, SchemaObjection};
use crate::api::Shared;
use crate::api::body::read_small_body;
use crate::api::kill_switch::{OperatorAccess, StatusBody};

/// Bytes of a command: its longest reason and details, with every byte escaped.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Time for the service to see what was written.
const SEEN_WITHIN: Duration = Duration::from_secs(1);
/// Time between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

/// `POST /api/v1/kill-switch/engage`.
pub(in crate::api) async fn post_engage(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let read = |body: &mut CommandBody| OperatorCommand::Engage {
        operator: body.require_text("operator"),
        reason: body.require_text("reason"),
        details: body.take_members("details"),
    };
    answer_command(&shared, request, read).await
}

/// `POST /api/v1/kill-switch/disengage`.
pub(in crate::api) async fn post_disengage(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let read = |body: &mut CommandBody| OperatorCommand::Disengage {
        operator: body.require_text("operator"),
        notes: body.take_text("notes"),
    };
    answer_command(&shared, request, read).await
}

async fn answer_command(
    shared: &Shared,
    request: Request,
    read: impl FnOnce(&mut CommandBody) -> OperatorCommand,
) -> Response {
    let deadline = Instant::now() + shared.state.limits.request_timeout;
    let peer = request.extensions().get::<PeerAddress>().copied();
    let command = match read_command(request, deadline, read).await {
        Ok(command) => command,
        Err(refused) => return refused.into_detail(),
    };
    let store = match &shared.state.operators.access {
        OperatorAccess::Open(store) => store,
        OperatorAccess::Closed(why) => {
            let detail = json!({ "error": "Kill-switch commands are not taken here", "message": why });
            let body = body_now(shared, Map::new()).with("detail", detail);
            return body.into_answer(StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    match carry_out(shared, Arc::clone(store), command.clone(), deadline).await {
        Ok(applied) => {
            note_in_journal(shared, &command, peer);
            answer_applied(shared, store.as_ref(), &command, &applied).await
        }
        // It is engaged there. That it is engaged here has to be seen, too.
        Err(ApplyError::Refused(refused @ Refusal::AlreadyEngaged)) => {
            match wait_until_seen(&shared.state.gate, &command).await {
                true => ControlError::bad_value(refused.to_string()).into_detail(),
                false => engaged_elsewhere(shared, store.as_ref()),
            }
        }
        Err(error) => answer_failed(shared, error).await,
    }
}

/// Reads a command. Its bytes do not count against those of all requests: a flood of receipts holds up no stop.
async fn read_command(
    request: Request,
    deadline: Instant,
    read: impl FnOnce(&mut CommandBody) -> OperatorCommand,
) -> Result<OperatorCommand, ControlError> {
    let (parts, body) = request.into_parts();
    check_command_head(&parts.headers)?;
    let text = read_small_body(body, BODY_BYTES_MAX, deadline).await?;
    let mut body = CommandBody::read_text(&text)?;
    let command = read(&mut body);
    // Fields that nobody knows are passed over, as the recorded interface does: none of them is worth a stop.
    body.finish_open()?;
    Ok(command)
}

/// Carries the command out, to its end also when nobody waits any more.
///
/// On a thread of its own: the store of a file writes where it stands, and a disk may hang.
async fn carry_out(
    shared: &Shared,
    store: Arc<dyn KillSwitchStore>,
    command: OperatorCommand,
    deadline: Instant,
) -> Result<Applied, ApplyError> {
    let Ok(turn) = Arc::clone(&shared.state.operators.turns).try_acquire_owned() else {
        return Err(ApplyError::Unchanged("as many commands are under way as may be".to_owned()));
    };
    let (runtime, now) = (Handle::current(), (shared.state.wall_now)());
    let carried_out = spawn_blocking(move || {
        let applied = runtime.block_on(store.apply_command(&command, now));
        drop(turn);
        applied
    });
    match timeout_at(deadline, carried_out).await {
        Ok(Ok(applied)) => applied,
        Ok(Err(error)) => Err(ApplyError::Unknown(error.to_string())),
        Err(_) => Err(ApplyError::Unknown("no answer in time".to_owned())),
    }
}

/// Puts the command on record in the trading plane's journal, if there is one and as soon as it can. Nothing waits for
/// it: the switch's own history has the command (KILL-4).
fn note_in_journal(shared: &Shared, command: &OperatorCommand, peer: Option<PeerAddress>) {
    let Some(mut door) = shared.state.trading.as_ref().map(|faces| faces.door.clone()) else { return };
    let Ok(turn) = Arc::clone(&shared.state.operators.notes).try_acquire_owned() else {
        tracing::warn!("as many notes of the kill switch wait for the journal as may; this one is left out");
        return;
    };
    let (note, origin) = (
        note_of(command),
        CommandOrigin {
            id: CommandId::of_random(random_bytes()),
            operator: command.operator().to_owned(),
            from: peer.map_or_else(|| "http".to_owned(), |PeerAddress(address)| format!("http {address}")),
        },
    );
    let shutdown = shared.state.shutdown.clone();
    tokio::spawn(async move {
        let opened = tokio::select! {
            () = shutdown.cancelled() => None,
            opened = door.wait_for(Option::is_some) => opened.ok().and_then(|plane| plane.clone()),
        };
        let noted = match opened {
            Some(plane) => {
                plane.execute_command(note, origin).await.map(drop).map_err(|error| error.to_string())
            }
            None => Err("the trading plane did not start before the service stopped".to_owned()),
        };
        if let Err(why) = noted {
            tracing::warn!(
                error_detail = why,
                "the journal has no note of the kill switch; its history has it"
            );
        }
        drop(turn);
    });
}

fn note_of(command: &OperatorCommand) -> TradingCommand {
    let (name, detail) = match command {
        OperatorCommand::Init { .. } => ("kill_switch.initialized", None),
        OperatorCommand::Engage { reason, .. } => ("kill_switch.engaged", Some(reason)),
        OperatorCommand::Disengage { notes, .. } => ("kill_switch.disengaged", notes.as_ref()),
    };
    let detail = bounded_detail(detail.map_or("", String::as_str));
    TradingCommand::NoteEvent { name: name.to_owned(), detail }
}

/// Answers what was carried out, with what the service itself reads now.
async fn answer_applied(
    shared: &Shared,
    store: &dyn KillSwitchStore,
    command: &OperatorCommand,
    applied: &Applied,
) -> Response {
    let is_seen = wait_until_seen(&shared.state.gate, command).await;
    if !is_seen && command.only_blocks() {
        return engaged_elsewhere(shared, store);
    }
    let written = applied.value_in_force().map(|value| Stored::Value(value.as_bytes().to_vec().into()));
    let record = written.as_ref().and_then(recorded_fields).unwrap_or_default();
    let shortfalls: Vec<String> = applied.shortfalls.iter().map(ToString::to_string).collect();
    let body = body_now(shared, record);
    let body = if shortfalls.is_empty() { body } else { body.with("shortfalls", shortfalls) };
    body.into_answer(StatusCode::OK)
}

/// 503 of a stop that is in force where the service does not read.
fn engaged_elsewhere(shared: &Shared, store: &dyn KillSwitchStore) -> Response {
    let message = format!(
        "it is engaged at {}, and this service reads {} and still finds trading allowed: make kill_switch.url and \
         kill_switch.operator_url name one place; until then stop the service",
        store.place_text(),
        shared.state.gate.place_text(),
    );
    let detail = json!({ "error": "Kill-switch engaged elsewhere", "message": message });
    body_now(shared, Map::new()).with("detail", detail).into_answer(StatusCode::SERVICE_UNAVAILABLE)
}

/// Reads until the service sees what the command did, or for [`SEEN_WITHIN`]: a copy of the store follows in a moment.
async fn wait_until_seen(gate: &Gate, command: &OperatorCommand) -> bool {
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        gate.read_store().await;
        let is_blocked = match gate.current_view().state {
            TradingState::Trading => false,
            TradingState::Halted(_) | TradingState::Unknown(_) => true,
        };
        if is_blocked == command.only_blocks() {
            return true;
        }
        if deadline <= Instant::now() {
            return false;
        }
        sleep(LOOK_PAUSE).await;
    }
}

async fn answer_failed(shared: &Shared, error: ApplyError) -> Response {
    match error {
        ApplyError::Refused(Refusal::Unfit { field, what }) => {
            let objection = SchemaObjection {
                place: "body",
                field: vec![field.into()],
                kind: "value_error",
                msg: format!("{field} {what}"),
            };
            ControlError::of_schema(&[objection]).into_detail()
        }
        ApplyError::Refused(
            refused @ (Refusal::AlreadyEngaged | Refusal::NotEngaged | Refusal::NotMissing),
        ) => ControlError::bad_value(refused.to_string()).into_detail(),
        // What is stored is asked for, so that what is told of it is true now.
        ApplyError::Refused(Refusal::NotKnown(_)) | ApplyError::Unchanged(_) | ApplyError::Unknown(_) => {
            shared.state.gate.read_store().await;
            not_changed(shared, &error.to_string())
        }
    }
}

/// 503 of a command that was not carried out, or of which nobody knows.
fn not_changed(shared: &Shared, why: &str) -> Response {
    let body = body_now(shared, Map::new()).with("command_error", why);
    let body = if shared.state.gate.current_view().state.block_reason().is_none() {
        let message = format!("trading goes on: {why}");
        body.with("detail", json!({ "error": "Kill-switch not changed", "message": message }))
    } else {
        body.with_unavailable()
    };
    body.into_answer(StatusCode::SERVICE_UNAVAILABLE)
}

/// The fields of `record`, with what is known now.
fn body_now(shared: &Shared, record: Map<String, serde_json::Value>) -> StatusBody {
    let gate = &shared.state.gate;
    StatusBody::new(record, gate.current_view(), gate, (shared.state.wall_now)())
}
