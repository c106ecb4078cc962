//! Where an actor is reached, across its restarts.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, Message, RpcReplyPort, SupervisionEvent};

use crate::supervisor::{Parent, Start};

/// The actor is not up, or ended before it answered. What it keeps in a log is not lost; the message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("actor {0} is down")]
pub struct Down(pub &'static str);

/// The current incarnation of an actor. Siblings hold the address, never the reference: that changes with a restart.
pub struct Address<M> {
    name: &'static str,
    current: Arc<RwLock<Option<ActorRef<M>>>>,
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { name: self.name, current: Arc::clone(&self.current) }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({})", self.name)
    }
}

impl<M: Message> Address<M> {
    /// The address of an actor that is not up yet.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, current: Arc::default() }
    }

    /// Starts an incarnation, linked to its supervisor, and waits until it is up.
    ///
    /// The address is known before the actor does anything: what is sent meanwhile waits in its mailbox. An actor that
    /// tells the others of itself can then be answered at once, and nobody's message falls into a gap.
    ///
    /// # Errors
    ///
    /// What the actor's start failed with.
    pub async fn start_actor<A: Actor<Msg = M>>(
        &self,
        actor: A,
        args: A::Arguments,
        parent: Parent,
    ) -> Result<ActorCell, ActorProcessingErr> {
        let supervisor = parent.cell.clone();
        let addressed = Addressed { actor, address: self.clone(), parent };
        let (started, _) = Addressed::spawn_linked(None, addressed, args, supervisor).await?;
        Ok(started.get_cell())
    }

    /// Makes `actor` the current incarnation.
    pub fn set_actor(&self, actor: ActorRef<M>) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(actor);
    }

    /// The current incarnation.
    ///
    /// # Errors
    ///
    /// [`Down`] before the first start.
    pub fn current_actor(&self) -> Result<ActorRef<M>, Down> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Down(self.name))
    }

    /// Sends without waiting. `Ok` says only that it is in the mailbox: never enough for what must not be lost.
    ///
    /// # Errors
    ///
    /// [`Down`].
    pub fn cast(&self, message: M) -> Result<(), Down> {
        self.current_actor()?.send_message(message).map_err(|_| Down(self.name))
    }

    /// Sends a request and waits for the reply. That wait is the backpressure: mailboxes are unbounded.
    ///
    /// # Errors
    ///
    /// [`Down`] when the actor is down, or goes down before it answers: then it is unknown what it did.
    pub async fn call<R: Send + 'static>(
        &self,
        request: impl FnOnce(RpcReplyPort<R>) -> M,
    ) -> Result<R, Down> {
        let (sender, receiver) = ractor::concurrency::oneshot();
        self.cast(request(sender.into()))?;
        receiver.await.map_err(|_| Down(self.name))
    }
}

/// An actor that sets its address as the first thing of each start, and says why it cannot go on as the last thing
/// before it goes down.
struct Addressed<A: Actor> {
    actor: A,
    address: Address<A::Msg>,
    parent: Parent,
}

impl<A: Actor> Addressed<A> {
    fn note_fatal<T>(&self, done: Result<T, ActorProcessingErr>) -> Result<T, ActorProcessingErr> {
        done.inspect_err(|error| self.parent.note_fatal(error))
    }
}

impl<A: Actor> Actor for Addressed<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        me: ActorRef<A::Msg>,
        args: A::Arguments,
    ) -> Result<A::State, ActorProcessingErr> {
        self.address.set_actor(me.clone());
        self.note_fatal(self.actor.pre_start(me, args).await)
    }

    async fn post_start(&self, me: ActorRef<A::Msg>, state: &mut A::State) -> Result<(), ActorProcessingErr> {
        self.note_fatal(self.actor.post_start(me, state).await)
    }

    async fn post_stop(&self, me: ActorRef<A::Msg>, state: &mut A::State) -> Result<(), ActorProcessingErr> {
        self.note_fatal(self.actor.post_stop(me, state).await)
    }

    async fn handle(
        &self,
        me: ActorRef<A::Msg>,
        message: A::Msg,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        self.note_fatal(self.actor.handle(me, message, state).await)
    }

    async fn handle_supervisor_evt(
        &self,
        me: ActorRef<A::Msg>,
        event: SupervisionEvent,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        self.note_fatal(self.actor.handle_supervisor_evt(me, event, state).await)
    }
}

/// Answers a request whose sender may be gone: a reply that nobody waits for any more is no error.
pub fn send_reply<R>(port: RpcReplyPort<R>, reply: R) {
    if port.send(reply).is_err() {
        tracing::trace!("the asker is gone");
    }
}

/// The start of one actor, each time with the same arguments; `address` leads to the incarnation that lives.
pub fn start_of_actor<A>(address: &Address<A::Msg>, actor: fn() -> A, args: A::Arguments) -> Start
where
    A: Actor,
    A::Arguments: Clone + Sync,
{
    let address = address.clone();
    Arc::new(move |parent| {
        let (address, args) = (address.clone(), args.clone());
        Box::pin(async move { address.start_actor(actor(), args, parent).await })
    })
}
