//! Two services on one Redis: a second start by mistake is refused, a takeover fences the one that was frozen, and the
//! log never has a record of both.

use std::time::{Duration, Instant};

use crate::support::deployment::Deployment;
use crate::support::process::Service;
use crate::support::redis_server::RedisServer;
use crate::support::scene::{Scene, refused, stores};

/// Exit code of a service whose logs another one holds.
const HELD: i32 = 75;
/// How soon a service must end that was overtaken while it was frozen.
const FENCED_MAX: Duration = Duration::from_secs(2);
const CYCLES: usize = 20;
/// With one active consumer the broker would wait for the frozen one to be gone before it gives the other anything; and
/// with many checkpoints a start need not read a whole day.
const ARGS: [&str; 4] =
    ["--set", "sources.market.single_active=false", "--set", "buffer.checkpoint_every_receipts=1000"];
/// The writers are frozen before they had the second that their mark may take elsewhere: the operator vouches for them.
const TAKEOVER: [&str; 6] = [ARGS[0], ARGS[1], ARGS[2], ARGS[3], "--takeover", "--trust-server"];

#[tokio::test(flavor = "multi_thread")]
async fn second_service_is_refused_and_names_the_first() {
    let scene = Scene::start().await;
    let other = scene.deployment.on_another_host();

    let readiness = scene.service.watch_readiness().await;
    let (code, said) = refused(&other, &[]).await;

    readiness.end().never_lost();
    assert_eq!(code, HELD, "{said}");
    assert!(said.contains(&format!("pid {}", scene.service.pid())), "{said}");
    assert!(said.contains("--takeover"), "{said}");
    scene.heals().await;
    let figures = scene.finish().await;
    assert_eq!(figures.repeated, 0, "the first did not notice");
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_writer_that_was_overtaken_ends_and_writes_nothing() {
    check_takeovers(CYCLES).await;
}

/// The same again and again for as long as `ops/test --soak MINUTES` says.
#[tokio::test(flavor = "multi_thread")]
async fn soak_of_takeovers() {
    let Ok(minutes) = std::env::var("ORCHESTRATOR_SOAK_MINUTES") else {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    };
    let end = Instant::now() + Duration::from_secs(60 * minutes.parse::<u64>().unwrap());
    while Instant::now() < end {
        check_takeovers(10 * CYCLES).await;
    }
}

/// Method: two hosts by turns. The one that writes is frozen in the middle of its work, the other takes over and works;
/// the first goes on and must end. Each service numbers its own records: one that the first wrote after the second had
/// begun would be a gap or a conflict to the second, which would then end (65) instead of storing more.
async fn check_takeovers(cycles: usize) {
    let redis = RedisServer::start();
    let url = redis.url();
    let mut scene = Scene::declaring(redis, &url, &ARGS).await;
    let mut idle = scene.deployment.on_another_host();
    let begun = Instant::now();
    let (mut fenced, mut taken) = (Vec::new(), Vec::new());

    for _ in 0..cycles {
        scene.stores(50).await;
        scene.service.pause();
        let since = Instant::now();
        let mut successor = Service::start(&idle.config(), &TAKEOVER).await;
        taken.push(since.elapsed());
        stores(&successor, 50).await;
        scene.service.resume();
        let since = Instant::now();
        let status = scene.service.ended().await;
        fenced.push(since.elapsed());
        assert_eq!(status.code(), Some(HELD), "{}", scene.service.log());
        assert!(scene.service.log().contains("took over; this one"), "{}", scene.service.log());
        stores(&successor, 50).await;
        std::mem::swap(&mut scene.service, &mut successor);
        std::mem::swap::<Deployment>(&mut scene.deployment, &mut idle);
    }
    let took = begun.elapsed();
    let figures = scene.finish().await;

    fenced.sort();
    taken.sort();
    println!(
        "{cycles} takeovers in {took:.1?}: the second up after {:.1?} (p50), the first gone after {:.1?} (p50), {:.1?} (max); {figures}",
        taken[cycles / 2],
        fenced[cycles / 2],
        fenced[cycles - 1]
    );
    assert!(fenced[cycles - 1] <= FENCED_MAX, "it went on for {:?}", fenced[cycles - 1]);
}
