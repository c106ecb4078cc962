//! The deployment while its login at the broker is taken away: another password, no rights at all, no right to publish.
//! It says what the broker says, loses nothing, and goes on by itself when the login holds again. (The login at Redis
//! is in `redis_refusals`.)

use std::time::{Duration, Instant};

use crate::support::campaign::{Campaign, Setup};
use crate::support::process::eventually;
use crate::support::rabbit_server::RabbitServer;
use crate::support::readiness::SAID_MAX;

/// The service's own user; producer and subscriber have another one.
const USER: &str = "revoked";
const PASSWORD: &str = "s3cret";

/// What the service says about a source that is down, and what it logged last about publishing.
async fn waits_for_reason(campaign: &Campaign, reason: &str) -> Duration {
    let noticed = campaign.unready("source_down").await;
    eventually(reason, async || campaign.service.get("/readyz").await.1.contains(reason).then_some(())).await;
    noticed
}

/// Waits until publishing fails once more, for this reason.
async fn fails_to_publish(campaign: &Campaign, reason: &str) {
    let before = campaign.failures();
    eventually("publishing fails", async || (before < campaign.failures()).then_some(())).await;
    let log = campaign.service.log();
    let said = log.lines().rfind(|line| line.contains("publishing failed")).unwrap();
    assert!(said.contains(reason), "it must say {reason}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_the_broker_takes_away_costs_nothing_and_is_named() {
    let rabbit = RabbitServer::shared();
    let vhost = rabbit.vhost();
    let amqp = rabbit.url(&vhost);
    let rights = |write: &str| {
        rabbit.ctl(&["set_permissions", "--vhost", &vhost, USER, ".*", write, ".*"]);
    };
    rabbit.ctl(&["add_user", USER, PASSWORD]);
    rights(".*");
    let login = amqp.replace("inspector:any@", &format!("{USER}:{PASSWORD}@"));
    let setup = Setup { service_amqp_url: Some(&login), ..Setup::default() };
    let mut campaign = Campaign::start(&amqp, setup).await;

    let (readiness, taken) = (campaign.service.watch_readiness().await, Instant::now());
    rabbit.ctl(&["change_password", USER, "another"]);
    rabbit.close_connections(&vhost);
    // The command takes seconds, and the connections are closed somewhere in them.
    let closed = taken.elapsed();
    let noticed = waits_for_reason(&campaign, "ACCESS_REFUSED").await;
    fails_to_publish(&campaign, "ACCESS_REFUSED").await;
    let given_back = Instant::now();
    rabbit.ctl(&["change_password", USER, PASSWORD]);
    campaign.heals("another password").await;
    readiness.end().lost_once("source_down|publish_blocked", taken, closed + SAID_MAX, given_back);

    rabbit.ctl(&["clear_permissions", "--vhost", &vhost, USER]);
    rabbit.close_connections(&vhost);
    waits_for_reason(&campaign, "access to vhost").await;
    fails_to_publish(&campaign, "access to vhost").await;
    rights(".*");
    campaign.heals("no rights").await;

    // Receipts go on: only outputs wait.
    rights(r"^(market\.raw|orchestrator\.receipts.*)$");
    rabbit.close_connections(&vhost);
    fails_to_publish(&campaign, "ACCESS_REFUSED").await;
    campaign.stores(500).await;
    assert!(0 < campaign.backlog().await, "outputs wait");
    rights(".*");
    campaign.heals("no right to publish").await;

    assert!(!campaign.service.log().contains(PASSWORD), "the password is never logged");
    let figures = campaign.finish(Vec::new()).await;
    rabbit.ctl(&["delete_user", USER]);
    println!("a login at RabbitMQ taken away: said after {noticed:.1?}; {figures}");
}
