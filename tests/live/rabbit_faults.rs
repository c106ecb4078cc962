//! The deployment while its broker is killed and frozen: queue of the receipts and exchange of the outputs are both on
//! it. Nothing confirmed is lost, no output is dropped, and the service goes on and heals by itself.

use std::time::{Duration, Instant};

use crate::support::campaign::{Campaign, Setup};
use crate::support::rabbit_server::RabbitServer;

const KILLS: usize = 10;
const SOAK_KILLS: usize = 100;
const FROZEN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn ten_kills_of_the_broker_and_a_freeze_lose_nothing_and_never_end_the_service() {
    check_kills(KILLS).await;
}

/// The same with a hundred kills, again for as long as `ops/test --soak MINUTES` says.
#[tokio::test(flavor = "multi_thread")]
async fn soak_of_broker_kills() {
    let Ok(minutes) = std::env::var("ORCHESTRATOR_SOAK_MINUTES") else {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    };
    let end = Instant::now() + Duration::from_secs(60 * minutes.parse::<u64>().unwrap());
    while Instant::now() < end {
        check_kills(SOAK_KILLS).await;
    }
}

async fn check_kills(kills: usize) {
    let mut rabbit = RabbitServer::own();
    let amqp = rabbit.url(RabbitServer::SHIPPED_VHOST);
    let mut campaign = Campaign::start(&amqp, Setup::default()).await;

    for kill in 1..=kills {
        campaign.busy().await;
        // The second has another part each time: ticks, snapshots and outputs come once a second.
        tokio::time::sleep(Duration::from_millis(kill as u64 * 370 % 1000)).await;
        rabbit.kill();
        rabbit.start_again();
        campaign.heals(&format!("kill {kill}")).await;
    }

    campaign.busy().await;
    rabbit.pause();
    tokio::time::sleep(FROZEN).await;
    rabbit.resume();
    campaign.heals("SIGSTOP for 15 s").await;

    let failures = campaign.failures();
    let figures = campaign.finish(Vec::new()).await;
    println!("{kills} kills of RabbitMQ and a freeze: {figures}; publishing failed {failures} times");
}
