//! The tasks: two connections that are kept up, and the notifications of the key.

use std::sync::Arc;
use std::time::Duration;

use fred::clients::{Client, SubscriberClient};
use fred::interfaces::{ClientLike, EventInterface, PubsubInterface};
use fred::types::{ClusterHash, CustomCommand, Value};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::connection::error_text;
use super::route::LinkShared;

/// How often the subscription is made again, which shows whether its connection still works, and how often the server
/// is asked what it announces.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Pause before a client is started again that gave up for good, which it does for settings it cannot use.
const START_PAUSE: Duration = Duration::from_secs(1);
/// What must be announced: keyspace events of strings, generic commands and expiry.
const ANNOUNCED: [char; 4] = ['K', '$', 'g', 'x'];

/// Starts everything; it ends with the handles.
pub(super) fn start_tasks(shared: &Arc<LinkShared>) -> Vec<AbortOnDropHandle<()>> {
    // The receivers are made before the clients connect: the first connection is an event, too.
    let commands = follow_commands(Arc::clone(shared));
    let notifications = follow_notifications(Arc::clone(shared));
    let (client, subscriber) = (shared.client.clone(), shared.subscriber.clone());
    vec![
        AbortOnDropHandle::new(tokio::spawn(commands)),
        AbortOnDropHandle::new(tokio::spawn(notifications)),
        AbortOnDropHandle::new(tokio::spawn(keep_up(move || client.connect()))),
        AbortOnDropHandle::new(tokio::spawn(keep_up(move || subscriber.connect()))),
    ]
}

/// Drives a client's connection, which reconnects by itself, and starts it again should it ever give up.
async fn keep_up(connect: impl Fn() -> fred::types::ConnectHandle + Send) {
    loop {
        match AbortOnDropHandle::new(connect()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(
                    error_detail = error_text(&error),
                    "the kill switch's connection gave up; starting it again"
                );
            }
            Err(error) => tracing::error!(%error, "the kill switch's connection failed; starting it again"),
        }
        sleep(START_PAUSE).await;
    }
}

/// Follows the connection of the reads: what is wrong with it, and that it is back, which is worth a read.
fn follow_commands(shared: Arc<LinkShared>) -> impl Future<Output = ()> + Send {
    let (mut ups, mut errors) = (shared.client.reconnect_rx(), shared.client.error_rx());
    async move {
        loop {
            let closed = tokio::select! {
                biased;
                up = ups.recv() => {
                    // Perhaps another server, or the same one with other settings.
                    shared.replay.forget_found();
                    shared.news.notify_one();
                    up.is_err_and(|error| error == RecvError::Closed)
                }
                error = errors.recv() => match error {
                    Ok((error, _)) => {
                        shared.trouble.note_error(&error);
                        false
                    }
                    Err(error) => error == RecvError::Closed,
                },
            };
            if closed {
                return;
            }
        }
    }
}

/// Turns notifications into news, and keeps the subscription.
fn follow_notifications(shared: Arc<LinkShared>) -> impl Future<Output = ()> + Send {
    let (mut events, mut ups) = (shared.subscriber.keyspace_event_rx(), shared.subscriber.reconnect_rx());
    let mut checks = interval(CHECK_EVERY);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    async move {
        let mut told = Some(String::new());
        // The first tick is at once, when there is no connection yet.
        checks.tick().await;
        loop {
            tokio::select! {
                biased;
                event = events.recv() => {
                    // Whatever it says, and however many were missed: the value may be another.
                    shared.news.notify_one();
                    if event.is_err_and(|error| error == RecvError::Closed) {
                        return;
                    }
                }
                up = ups.recv() => {
                    if up.is_err_and(|error| error == RecvError::Closed) {
                        return;
                    }
                    subscribe_and_tell(&shared, &mut told).await;
                    checks.reset();
                }
                _ = checks.tick() => {
                    if shared.subscriber.is_connected() {
                        subscribe_and_tell(&shared, &mut told).await;
                    }
                }
            }
        }
    }
}

/// Subscribes, which is harmless when it is done already, and says once whether notifications can be expected.
async fn subscribe_and_tell(shared: &LinkShared, told: &mut Option<String>) {
    let LinkShared { subscriber, channel, news, .. } = shared;
    // The client does not wait for the answer to a subscription, so a ping behind it shows that the connection works.
    let subscribed = async {
        subscriber.subscribe(channel.as_str()).await?;
        subscriber.ping::<Value>(None).await
    };
    if let Err(error) = subscribed.await {
        tracing::debug!(error_detail = error_text(&error), "the kill switch's subscription does not answer");
        return renew_subscription(subscriber).await;
    }
    if let Err(error) = shared.replay.ask_and_tell(&shared.client, &shared.keys).await {
        tracing::debug!(
            error_detail = error_text(&error),
            "the kill switch's Redis was not asked what it brings back"
        );
    }
    // What happened before is known to nobody.
    news.notify_one();
    let trouble = what_is_not_announced(shared).await;
    if *told == trouble {
        return;
    }
    match &trouble {
        Some(why) => tracing::warn!(
            error_detail = why,
            "changes of the kill switch are not announced; it is only polled, which takes longer"
        ),
        None => tracing::info!("subscribed to changes of the kill switch"),
    }
    *told = trouble;
}

async fn renew_subscription(subscriber: &SubscriberClient) {
    if let Err(error) = subscriber.force_reconnection().await {
        tracing::debug!(error_detail = error_text(&error), "the kill switch's subscription was not renewed");
    }
}

/// What the server does not announce, as far as it tells; a server that does not tell is taken at its best.
async fn what_is_not_announced(shared: &LinkShared) -> Option<String> {
    let LinkShared { client, channel, .. } = shared;
    if ask_second_word(client, "PUBSUB", ["NUMSUB", channel]).await.is_some_and(|count| count == "0") {
        return Some(format!("subscribing to {channel} was refused; grant this user the channel"));
    }
    let flags = ask_second_word(client, "CONFIG", ["GET", "notify-keyspace-events"]).await?;
    // A stands for all kinds of events, but not for K.
    let missing: String = ANNOUNCED
        .into_iter()
        .filter(|flag| !flags.contains(*flag) && (*flag == 'K' || !flags.contains('A')))
        .collect();
    (!missing.is_empty())
        .then(|| format!("notify-keyspace-events is {flags:?} and lacks {missing:?}; set it to \"K$gx\""))
}

/// The second word of the answer to a question that the server may refuse.
async fn ask_second_word(client: &Client, command: &'static str, words: [&str; 2]) -> Option<String> {
    let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
    let answer = client.custom::<Vec<String>, Value>(command, words.map(Value::from).to_vec());
    answer.await.ok()?.into_iter().nth(1)
}
