//! The deployment behind a bad network: everything between the service and its broker goes through a proxy, the
//! producer and the subscriber do not.

use std::time::Duration;

use crate::support::campaign::{Campaign, Setup};
use crate::support::proxy::Direction::{ToClient, ToServer};
use crate::support::proxy::{Fault, FaultProxy, Reach};
use crate::support::rabbit_server::RabbitServer;

const RESETS: u64 = 20;
const BLACK_HOLE: Duration = Duration::from_secs(5);
/// Where connections are cut, in bytes from now on: in place of the next byte, within a frame's head, within its body,
/// and some frames later.
const CUTS: [u64; 5] = [0, 1, 9, 500, 5000];

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_network_to_the_broker_costs_no_receipt_and_no_output() {
    let rabbit = RabbitServer::shared();
    let amqp = rabbit.url(&rabbit.vhost());
    let proxy = FaultProxy::to(rabbit.port());
    let through = amqp.replace(&rabbit.port().to_string(), &proxy.port().to_string());
    let setup = Setup { service_amqp_url: Some(&through), ..Setup::default() };
    let mut campaign = Campaign::start(&amqp, setup).await;

    for reset in 0..RESETS {
        campaign.stores(20).await;
        tokio::time::sleep(Duration::from_millis(reset * 370 % 1000)).await;
        proxy.put(Fault::Reset, Reach::Existing);
    }
    campaign.heals("20 resets").await;

    campaign.busy().await;
    proxy.put(Fault::BlackHole, Reach::All);
    tokio::time::sleep(BLACK_HOLE).await;
    proxy.heal();
    campaign.heals("black hole for 5 s").await;

    for direction in [ToServer, ToClient] {
        campaign.busy().await;
        proxy.put(Fault::HalfClose(direction), Reach::Existing);
        campaign.heals(&format!("half-close {direction:?}")).await;
    }

    for direction in [ToServer, ToClient] {
        for bytes in CUTS {
            campaign.busy().await;
            proxy.put(Fault::CutAfter(direction, bytes), Reach::Existing);
            campaign.stores(20).await;
        }
        campaign.heals(&format!("cuts {direction:?}")).await;
        // In the handshake: no connection comes up for a while.
        proxy.put(Fault::CutAfter(direction, 100), Reach::New);
        proxy.put(Fault::Reset, Reach::Existing);
        campaign.unready("source_down").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        proxy.heal();
        campaign.heals(&format!("cut handshakes {direction:?}")).await;
    }

    let failures = campaign.failures();
    let figures = campaign.finish(Vec::new()).await;
    println!("a bad network to RabbitMQ: {figures}; publishing failed {failures} times");
}
