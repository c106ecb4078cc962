//! KillSwitch: keeps the reading of the kill switch fresh. Failure domain: its own; whatever fails here blocks effects.
//!
//! ```text
//! store ──changed()──▶ watcher ──Changed──▶ KillSwitch ──read()──▶ Gate (lease) ◀──permit()── effects
//!                      timer ────Poll─────▶      every 100 ms, each read at most 100 ms, lease 500 ms
//! ```
//!
//! The actor decides nothing: the kernel's lease does. When the actor is down or its reads hang, nobody extends the
//! lease, so the state is Unknown half a second later; a notification that is lost costs the wait for the next poll.

mod gate;

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinHandle;

use crate::address::send_reply;

pub use gate::{Gate, Past};

/// Times that the kill switch is read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillSwitchSettings {
    /// Time between two reads.
    pub poll: Duration,
    /// How long one read may take. `poll + read_timeout < lease`, so that one lost read blocks nothing.
    pub read_timeout: Duration,
    /// How long a reading counts, from the moment its read was sent.
    pub lease: Duration,
}

/// Messages to the kill switch, from itself and from its watcher.
pub enum KillSwitchMsg {
    /// Read, and again after the poll interval. Sent by itself.
    Poll,
    /// The value may have changed: read. Sent by its watcher, which waits for the reply before it sends the next.
    Changed(RpcReplyPort<()>),
}

/// Settings and ports of the kill switch; cloned for each start.
#[derive(Clone)]
pub struct KillSwitchArgs {
    /// What effects ask; it outlives this actor.
    pub gate: Gate,
    /// Time between two reads.
    pub poll: Duration,
}

/// Kill switch state between two messages. What was read is in the gate.
pub struct KillSwitchState {
    args: KillSwitchArgs,
    _watcher: Watcher,
}

/// Turns notifications into reads; ends with its owner.
struct Watcher(JoinHandle<()>);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watcher {
    fn start_watching(me: ActorRef<KillSwitchMsg>, gate: Gate) -> Self {
        Self(tokio::spawn(async move {
            loop {
                gate.wait_for_change().await;
                let (sender, read) = ractor::concurrency::oneshot();
                // One notification at a time is in the mailbox, however many come.
                if me.send_message(KillSwitchMsg::Changed(sender.into())).is_err() || read.await.is_err() {
                    return;
                }
            }
        }))
    }
}

/// The actor.
pub struct KillSwitch;

impl Actor for KillSwitch {
    type Msg = KillSwitchMsg;
    type State = KillSwitchState;
    type Arguments = KillSwitchArgs;

    async fn pre_start(
        &self,
        me: ActorRef<KillSwitchMsg>,
        args: KillSwitchArgs,
    ) -> Result<KillSwitchState, ActorProcessingErr> {
        let watcher = Watcher::start_watching(me.clone(), args.gate.clone());
        args.gate.read_store().await;
        let state = args.gate.current_view().state;
        tracing::info!(
            state = state.state_word(),
            reason = state.block_reason(),
            place = args.gate.place_text(),
            "the kill switch is being read"
        );
        me.send_after(args.poll, || KillSwitchMsg::Poll);
        Ok(KillSwitchState { args, _watcher: watcher })
    }

    async fn handle(
        &self,
        me: ActorRef<KillSwitchMsg>,
        message: KillSwitchMsg,
        state: &mut KillSwitchState,
    ) -> Result<(), ActorProcessingErr> {
        let KillSwitchArgs { gate, poll } = &state.args;
        match message {
            KillSwitchMsg::Poll => {
                gate.read_store().await;
                me.send_after(*poll, || KillSwitchMsg::Poll);
            }
            KillSwitchMsg::Changed(reply) => {
                gate.read_store().await;
                send_reply(reply, ());
            }
        }
        Ok(())
    }
}
