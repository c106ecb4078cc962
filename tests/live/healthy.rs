//! A deployment that nothing happens to: the oracle of the fault tests agrees with it, and the figures are sane.

use crate::support::deployment::Deployment;
use crate::support::load::Load;
use crate::support::oracle::{check, healed};
use crate::support::process::eventually;
use crate::support::rabbit_server::RabbitServer;
use crate::support::redis_server::RedisServer;
use crate::support::subscriber::Subscriber;

#[tokio::test(flavor = "multi_thread")]
async fn receipts_go_in_by_a_queue_and_outputs_come_out_by_an_exchange() {
    let (redis, rabbit) = (RedisServer::start(), RabbitServer::shared());
    let amqp = rabbit.url(&rabbit.vhost());
    let deployment = Deployment::new(&redis.url(), &amqp);
    let subscriber = Subscriber::start(&amqp, "everything").await;
    let service = deployment.start().await;
    let load = Load::start(&amqp);

    eventually("outputs come", async || (subscriber.distinct() >= 24).then_some(())).await;
    let confirmed = load.stop().await;
    healed(&service).await;
    eventually("all receipts are stored", async || {
        let stored = service.metric("orch_buffer_records").await;
        (stored >= confirmed.len() as f64).then_some(())
    })
    .await;
    service.stop().await;

    let logs = check(deployment.redis_url(), &confirmed, &subscriber).await;
    assert!(logs.receipts.len() >= confirmed.len() && !confirmed.is_empty());
    assert!(logs.outputs().values().all(|outputs| outputs.len() >= 4), "every symbol runs");
}
