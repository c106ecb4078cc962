//! A command on its way: from the request to its answer, and through to its end when the client has gone away.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::Request;
use axum::http::HeaderMap;
use orchestrator_kernel::trading::ids::{CommandId, FOREIGN_ID_BYTES_MAX};
use orchestrator_trading_plane::command::{CommandAnswer, CommandOrigin, TradingCommand};
use tokio::time::{Instant, timeout_at};

use super::Control;
use super::fields::CommandBody;
use super::guard::check_command_head;
use super::refusal::ControlError;
use crate::api::body::read_body;

/// Makes repeats of a request harmless.
const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// Names who commands, for the record.
const OPERATOR: &str = "Orchestrator-Operator";
/// Bytes of an operator's name.
const OPERATOR_BYTES_MAX: usize = 128;
/// Who commands, where nobody is named.
const UNNAMED_OPERATOR: &str = "http";

/// Address that a request came from; the server puts it there.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct PeerAddress(pub(in crate::api) SocketAddr);

/// Head of a command.
pub(super) struct CommandHead {
    /// Where it comes from.
    pub(super) origin: CommandOrigin,
    /// Whether it may be sent again without being done again.
    has_key: bool,
    /// Until when it is answered.
    deadline: Instant,
}

impl Control {
    /// Reads a command's request.
    ///
    /// # Errors
    ///
    /// The answer that refuses it; nothing is on record then.
    pub(super) async fn read_command(
        &self,
        request: Request,
    ) -> Result<(CommandHead, CommandBody), ControlError> {
        let deadline = Instant::now() + self.shared.state.limits.request_timeout;
        let (parts, body) = request.into_parts();
        check_command_head(&parts.headers)?;
        let key = header_text(&parts.headers, IDEMPOTENCY_KEY, FOREIGN_ID_BYTES_MAX)?;
        let operator = header_text(&parts.headers, OPERATOR, OPERATOR_BYTES_MAX)?;
        let peer = parts.extensions.get::<PeerAddress>();
        let origin = CommandOrigin {
            // Nobody else gives a command this id, and its record keeps it.
            id: key.map_or_else(|| CommandId::of_random(random_bytes()), CommandId::derive),
            operator: operator.unwrap_or(UNNAMED_OPERATOR).to_owned(),
            from: peer.map_or_else(|| "http".to_owned(), |PeerAddress(address)| format!("http {address}")),
        };
        let has_key = key.is_some();
        let held = read_body(&self.shared, &parts.headers, body, deadline).await?;
        Ok((CommandHead { origin, has_key, deadline }, CommandBody::read_text(&held.bytes)?))
    }

    /// Carries a command out. It goes on when nobody waits any more.
    ///
    /// # Errors
    ///
    /// The plane's refusal; 503 when it is not known whether it was done.
    pub(super) async fn execute_command(
        &self,
        head: CommandHead,
        command: TradingCommand,
    ) -> Result<CommandAnswer, ControlError> {
        let CommandHead { origin, has_key, deadline } = head;
        let plane = self.plane()?;
        let Ok(permit) = Arc::clone(&self.in_flight).try_acquire_owned() else {
            return Err(ControlError::busy("as many commands are on their way as may be; nothing was done"));
        };
        let carried_out = tokio::spawn(async move {
            let answered = plane.execute_command(command, origin).await;
            drop(permit);
            answered
        });
        let in_doubt = || self.refuse_in_doubt("it is not known yet whether it was done", has_key);
        match timeout_at(deadline, carried_out).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(refused))) if refused.is_in_doubt() => {
                Err(self.refuse_in_doubt(&refused.to_string(), has_key))
            }
            Ok(Ok(Err(refused))) if refused.is_undecided() => Err(self.unavailable(refused.to_string())),
            Ok(Ok(Err(refused))) => Err(refused.into()),
            Ok(Err(error)) => {
                tracing::error!(%error, "a command failed by a defect");
                Err(in_doubt())
            }
            Err(_) => Err(in_doubt()),
        }
    }

    /// 503: it may have been done. Only with a key may it be sent again: without one that would be another command.
    fn refuse_in_doubt(&self, what: &str, has_key: bool) -> ControlError {
        match (has_key, self.is_stopped()) {
            (true, false) => ControlError::unavailable(format!(
                "{what}; send it again with the same Idempotency-Key: it is done once"
            )),
            (true, true) => ControlError::unavailable_for_good(format!(
                "{what}; the trading plane stopped for good: once the service is started again, the same \
                 Idempotency-Key tells"
            )),
            (false, _) => ControlError::unavailable_for_good(format!(
                "{what}; look before you send it again: without an Idempotency-Key that is another command"
            )),
        }
    }
}

/// The value of a header that may come once.
fn header_text<'a>(
    headers: &'a HeaderMap,
    name: &str,
    bytes_max: usize,
) -> Result<Option<&'a str>, ControlError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    match values.next().is_none() && !text.trim().is_empty() && text.len() <= bytes_max {
        true => Ok(Some(text)),
        false => {
            let rule = format!("{name} must come once, with 1 to {bytes_max} bytes of visible ASCII");
            Err(ControlError::bad_value(rule))
        }
    }
}

/// 16 bytes that nobody has had.
pub(super) fn random_bytes() -> [u8; 16] {
    let half = || u128::from(RandomState::new().build_hasher().finish());
    (half() << 64 | half()).to_be_bytes()
}
