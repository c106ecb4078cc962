//! The deployment while people delete exchanges, bindings, queues and connections under it, and while its consumer is
//! stopped.
//!
//! What is deleted, the service declares again; what was *in* a deleted queue is gone with it, and that is the loss of
//! whoever deleted it. Bindings of subscribers are theirs: until they bind again, outputs go to the queue of the
//! alternate exchange, from where the subscribers' operator takes them. So the oracle counts both.

use lapin::ExchangeKind;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::FieldTable;

use crate::support::amqp::Amqp;
use crate::support::campaign::{Campaign, Setup};
use crate::support::process::eventually;
use crate::support::rabbit_server::RabbitServer;
use crate::support::subscriber::{Subscriber, check_increasing, queue_of};

const EXCHANGE: &str = "orchestrator.events";
const CLOSINGS: usize = 10;
const UNROUTED: &str = "orchestrator.events.unrouted";
const RECEIPTS: &str = "orchestrator.receipts";
/// Messages that the service may have in hand: its prefetch.
const IN_HAND_MAX: usize = 4096;

#[tokio::test(flavor = "multi_thread")]
async fn what_people_delete_is_there_again_and_costs_no_output() {
    let rabbit = RabbitServer::shared();
    let vhost = rabbit.vhost();
    let amqp = rabbit.url(&vhost);
    let mut campaign = Campaign::start(&amqp, Setup { declares: true, ..Setup::default() }).await;
    let victim = Subscriber::start(&amqp, "victim").await;
    let readiness = campaign.service.watch_readiness().await;
    let admin = Amqp::connect(&amqp).await;

    // The queue of one subscriber: the service and the other one do not notice.
    eventually("both get outputs", async || (victim.distinct() >= 8).then_some(())).await;
    admin.channel().queue_delete(queue_of("victim").into(), QueueDeleteOptions::default()).await.unwrap();
    campaign.busy().await;
    let before = victim.distinct();
    victim.bind_again().await;
    eventually("it gets outputs again", async || (before + 8 <= victim.distinct()).then_some(())).await;
    check_increasing(&victim.messages());
    admin.channel().queue_delete(queue_of("victim").into(), QueueDeleteOptions::default()).await.unwrap();
    drop(victim);
    assert_eq!(admin.ready(UNROUTED).await, 0, "one subscriber is enough");
    assert_eq!(campaign.failures(), 0, "publishing was not disturbed");
    campaign.heals("queue of a subscriber deleted").await;

    // The binding of the only one.
    let key = "orchestrator_event.#".into();
    let unbound = admin.channel().queue_unbind(
        queue_of("everything").into(),
        EXCHANGE.into(),
        key,
        FieldTable::default(),
    );
    unbound.await.unwrap();
    let unrouted = check_detour(&mut campaign, &admin, "binding deleted").await;
    assert_eq!(campaign.failures(), 0, "publishing was not disturbed");

    // The exchange, and all bindings with it.
    admin.channel().exchange_delete(EXCHANGE.into(), ExchangeDeleteOptions::default()).await.unwrap();
    let unrouted = unrouted + check_detour(&mut campaign, &admin, "exchange deleted").await;
    assert!(campaign.service.log().contains("no exchange 'orchestrator.events'"), "the reason is logged");
    readiness.end().never_lost();

    let failures = campaign.failures();
    let figures = campaign.finish(Vec::new()).await;
    println!(
        "deletions on RabbitMQ: {figures}; {unrouted} outputs by the alternate exchange, publishing failed {failures} times"
    );
}

/// Nothing is bound: outputs go to the alternate exchange's queue, and the service is ready. Then the subscriber binds
/// again and its operator takes them from there. Returns how many they were.
async fn check_detour(campaign: &mut Campaign, admin: &Amqp, fault: &str) -> usize {
    eventually("outputs are kept aside", async || (admin.ready(UNROUTED).await >= 8).then_some(())).await;
    campaign.heals(fault).await;
    campaign.subscriber.bind_again().await;
    campaign.busy().await;
    let unrouted = admin.drain(UNROUTED).await;
    campaign.subscriber.adopt(&unrouted);
    unrouted.len()
}

/// Method: an operator's topology whose alternate exchange leads nowhere; then the only binding is removed for a while.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_no_queue_takes_wait_until_one_does() {
    let rabbit = RabbitServer::shared();
    let amqp = rabbit.url(&rabbit.vhost());
    let admin = Amqp::connect(&amqp).await;
    admin.exchange(UNROUTED, ExchangeKind::Fanout, None).await;
    admin.queue(UNROUTED, &[]).await;
    let passive = ["--set", "publish.rabbitmq.topology=passive"];
    let campaign = Campaign::start(&amqp, Setup { args: &passive, declares: true, ..Setup::default() }).await;
    let published = async || campaign.service.metric("orch_publish_outputs_total").await;

    let failures = campaign.failures();
    let readiness = campaign.service.watch_readiness().await;
    let key = "orchestrator_event.#".into();
    let unbound = admin.channel().queue_unbind(
        queue_of("everything").into(),
        EXCHANGE.into(),
        key,
        FieldTable::default(),
    );
    unbound.await.unwrap();
    let before = published().await;
    eventually("outputs are tried", async || {
        (failures < campaign.failures() || before + 16.0 <= published().await).then_some(())
    })
    .await;
    campaign.subscriber.bind_again().await;
    readiness.end().never_lost();

    let failed = campaign.failures() - failures;
    let is_named = campaign.service.log().contains("312 NO_ROUTE");
    let figures = campaign.finish(Vec::new()).await;
    println!("no queue for outputs: {figures}; publishing failed {failed} times");
    assert!(0 < failed && is_named, "it is noticed, and the reason is logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_connections_and_a_stopped_consumer_cost_nothing_and_a_deleted_queue_what_was_in_it() {
    let rabbit = RabbitServer::shared();
    let vhost = rabbit.vhost();
    let amqp = rabbit.url(&vhost);
    let mut campaign = Campaign::start(&amqp, Setup { declares: true, ..Setup::default() }).await;

    for _ in 0..CLOSINGS {
        campaign.busy().await;
        rabbit.close_connections(&vhost);
    }
    campaign.heals("connections closed ten times").await;

    // The subscriber is away: its queue grows, and that is all.
    let admin = Amqp::connect(&amqp).await;
    let failures = campaign.failures();
    let readiness = campaign.service.watch_readiness().await;
    campaign.subscriber.stop_reading();
    eventually("its queue grows", async || (admin.ready(&queue_of("everything")).await >= 40).then_some(()))
        .await;
    assert_eq!(campaign.failures(), failures, "the service is not disturbed");
    readiness.end().never_lost();
    campaign.subscriber.read_on();
    eventually("it catches up", async || (admin.ready(&queue_of("everything")).await == 0).then_some(()))
        .await;
    campaign.heals("consumer stopped").await;

    let (mut kept, lost) = check_source_queue_deleted(&mut campaign, &admin).await;
    kept.extend(campaign.change_producer().await);
    let failures = campaign.failures();
    let figures = campaign.finish(kept).await;
    println!(
        "people on RabbitMQ: {figures}; {lost} receipts deleted with their queue, publishing failed {failures} times"
    );
}

/// Method: what was confirmed before is stored first, and then one producer alone fills the queue while it is deleted.
/// So what is lost is one run of its receipts, no longer than what was in the queue and in the service's hands; all
/// that was confirmed before and after is stored. Returns that, and the number that is lost.
async fn check_source_queue_deleted(campaign: &mut Campaign, admin: &Amqp) -> (Vec<Vec<u8>>, usize) {
    let mut kept = campaign.change_producer().await;
    campaign.all_stored(&kept).await;
    let confirmed = async |campaign: &Campaign, count: usize| {
        eventually("receipts are confirmed", async || (count <= campaign.load.confirmed()).then_some(()))
            .await;
    };

    confirmed(campaign, 1000).await;
    let deletion = admin.channel().queue_delete(RECEIPTS.into(), QueueDeleteOptions::default());
    let deleted = deletion.await.unwrap() as usize;
    confirmed(campaign, campaign.load.confirmed() + 2000).await;
    campaign.heals("source queue deleted").await;
    let through = campaign.change_producer().await;
    campaign.all_stored(&through[through.len() - 1000..]).await;

    let stored = campaign.stored().await;
    let lost: Vec<usize> =
        through.iter().enumerate().filter(|(_, event)| !stored.contains(*event)).map(|(at, _)| at).collect();
    assert!(lost.windows(2).all(|pair| pair[0] + 1 == pair[1]), "lost in one piece: {lost:?}");
    assert!(lost.len() <= deleted + IN_HAND_MAX, "{} lost, {deleted} were in the queue", lost.len());
    let count = lost.len();
    kept.extend(through.into_iter().filter(|event| stored.contains(event)));
    (kept, count)
}
