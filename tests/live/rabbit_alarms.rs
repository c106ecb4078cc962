//! The deployment while its broker takes nothing: short of memory, short of disk, or away for longer than outputs may
//! wait. Receipts that come over HTTP are stored all the time.

use std::time::{Duration, Instant};

use crate::support::campaign::{Campaign, Setup};
use crate::support::deployment::SYMBOLS;
use crate::support::http_load::HttpLoad;
use crate::support::process::eventually;
use crate::support::rabbit_server::RabbitServer;

const HTTP_SOURCE: &str = "[sources.http]\nkind = \"http\"\n";
/// How soon the service must say that the broker blocks (RELIABILITY §6).
const NOTICED_MAX: Duration = Duration::from_secs(2);
const ALARM: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn alarms_of_the_broker_hold_publishing_back_without_attempts_while_runs_go_on() {
    let mut rabbit = RabbitServer::own();
    let amqp = rabbit.url(RabbitServer::SHIPPED_VHOST);
    let mut campaign = Campaign::start(&amqp, Setup { config: HTTP_SOURCE, ..Setup::default() }).await;
    let over_http = HttpLoad::start(&campaign.service.url);

    let memory = check_alarm(&mut campaign, "memory alarm", |is_on| rabbit.set_memory_alarm(is_on)).await;
    let disk = check_alarm(&mut campaign, "disk alarm", |is_on| rabbit.set_disk_alarm(is_on)).await;

    assert_eq!(over_http.refused(), 0, "receipts over HTTP are taken all the time");
    let durable = over_http.stop().await;
    let figures = campaign.finish(durable).await;
    println!(
        "memory alarm said after {memory:.1?}, disk alarm after {disk:.1?}, no failure logged; {figures}"
    );
}

/// Method: under load, the alarm for ten seconds; readiness, log and metrics meanwhile. Returns how soon it was said.
async fn check_alarm(campaign: &mut Campaign, name: &str, mut set: impl FnMut(bool)) -> Duration {
    campaign.busy().await;
    let planned =
        async |campaign: &Campaign| campaign.service.metric("orch_schedule_runs_planned_total").await;
    let blocked =
        async |campaign: &Campaign| campaign.service.metric("orch_publish_blocked_seconds_total").await;
    let failures = campaign.failures();
    let blocked_before = blocked(campaign).await;

    set(true);
    let noticed = campaign.unready("fan_out_blocked").await;
    let (since, planned_before) = (Instant::now(), planned(campaign).await);
    while since.elapsed() < ALARM {
        let reasons = campaign.reasons().await;
        assert!(reasons.contains("fan_out_blocked"), "said all the time: {reasons:?}");
        assert!(!reasons.contains("publish_blocked"), "the backlog is far from its mark: {reasons:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let runs = planned(campaign).await - planned_before;
    let (waiting, blocked) = (campaign.backlog().await, blocked(campaign).await - blocked_before);
    set(false);
    campaign.heals(name).await;

    assert!(noticed <= NOTICED_MAX, "{name} was said only after {noticed:?}");
    assert_eq!(campaign.failures(), failures, "{name} is no failure, and nothing is attempted");
    assert!(5.0 * SYMBOLS.len() as f64 <= runs, "runs are made while it lasts, one a second: {runs}");
    assert!(runs / 2.0 <= waiting as f64, "their outputs wait: {waiting}");
    assert!(ALARM.as_secs_f64() / 2.0 <= blocked, "the time is counted while it lasts: {blocked} s");
    noticed
}

/// Method: marks of 8 and 4 outputs, which two ticks reach; then the broker is killed and stays away.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_backlog_pauses_the_runs_and_not_the_receipts() {
    let mut rabbit = RabbitServer::own();
    let amqp = rabbit.url(RabbitServer::SHIPPED_VHOST);
    let marks = ["publish.batch_max=8", "publish.backlog_max=8", "publish.backlog_resume=4"];
    let args: Vec<&str> = marks.iter().flat_map(|mark| ["--set", mark]).collect();
    let setup = Setup { config: HTTP_SOURCE, args: &args, ..Setup::default() };
    let mut campaign = Campaign::start(&amqp, setup).await;
    let over_http = HttpLoad::start(&campaign.service.url);
    campaign.busy().await;

    let readiness = campaign.service.watch_readiness().await;
    // Takes some time, which must not count as the fault's.
    rabbit.note_queues();
    let killed = Instant::now();
    rabbit.kill();
    let paused = campaign.unready("publish_blocked").await;
    let metric = async |name: &str| campaign.service.metric(name).await;
    let skipped = "orch_schedule_runs_skipped_total{reason=\"publish_blocked\"}";
    let (planned_before, skipped_before) =
        (metric("orch_schedule_runs_planned_total").await, metric(skipped).await);
    let (durable, backlog) = (over_http.durable(), campaign.backlog().await);
    eventually("ticks pass without runs", async || {
        (skipped_before + 12.0 <= metric(skipped).await).then_some(())
    })
    .await;
    eventually("receipts go on", async || (durable + 500 <= over_http.durable()).then_some(())).await;
    let planned = metric("orch_schedule_runs_planned_total").await;
    let waiting = campaign.backlog().await;
    let healed = Instant::now();
    rabbit.start_again();
    campaign.heals("an absence beyond the backlog").await;
    // Its source is lost first.
    readiness.end().lost_once("condition", killed, NOTICED_MAX, healed);

    assert_eq!(planned, planned_before, "no run is made while it is paused");
    // A tick looks before its runs: those of the last one before the pause come on top.
    assert!(
        backlog <= 8 + 2 * SYMBOLS.len() as u64 && waiting == backlog,
        "{backlog}, then {waiting} outputs wait"
    );
    assert_eq!(over_http.refused(), 0, "receipts over HTTP are taken all the time");
    let durable = over_http.stop().await;
    let figures = campaign.finish(durable).await;
    println!("runs paused {paused:.1?} after the kill with {waiting} outputs waiting; {figures}");
}
