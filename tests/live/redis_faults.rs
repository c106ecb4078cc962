//! The deployment while its Redis is killed, frozen, or behind a bad network: nothing confirmed is lost, the service
//! says what it lost, never ends, and heals by itself.

use std::time::{Duration, Instant};

use crate::support::proxy::Direction::{ToClient, ToServer};
use crate::support::proxy::{Fault, FaultProxy, Reach};
use crate::support::redis_server::RedisServer;
use crate::support::scene::{NOTICED_MAX, Scene};

/// Kills of Redis: a part of a campaign by default, all of it in a soak.
const KILLS: usize = 40;
const KILLS_IN_SOAK: usize = 1000;
/// Each of so many kills leaves the server down for a while.
const DOWN_EVERY: usize = 20;
/// How soon after the server answers again the service must store receipts and be ready (RELIABILITY §6).
const READY_MAX: Duration = Duration::from_secs(2);

/// The one at this part of the sorted times, from 0 to 100.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() - 1) * percent / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_of_redis_lose_nothing_and_never_end_the_service() {
    check_kills(KILLS).await;
}

/// The same again and again for as long as `ops/test --soak MINUTES` says.
#[tokio::test(flavor = "multi_thread")]
async fn soak_of_redis_kills() {
    let Ok(minutes) = std::env::var("ORCHESTRATOR_SOAK_MINUTES") else {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    };
    let end = Instant::now() + Duration::from_secs(60 * minutes.parse::<u64>().unwrap());
    while Instant::now() < end {
        check_kills(KILLS_IN_SOAK).await;
    }
}

async fn check_kills(kills: usize) {
    let mut scene = Scene::start().await;
    let begun = Instant::now();
    let (mut ready, mut noticed) = (Vec::new(), Vec::new());

    for kill in 0..kills {
        scene.stores(20).await;
        scene.redis.kill();
        if kill % DOWN_EVERY == 0 {
            let down = Instant::now();
            noticed.push(scene.unready_within(NOTICED_MAX).await.0);
            scene.stays_unready(Duration::from_millis(2500).saturating_sub(down.elapsed())).await;
        }
        scene.redis.start_again();
        let since = Instant::now();
        scene.stores(1).await;
        scene.ready().await;
        ready.push(since.elapsed());
    }
    let took = begun.elapsed();
    let figures = scene.finish().await;

    let (half, most) = (percentile(&mut ready, 50), percentile(&mut ready, 100));
    println!(
        "{kills} kills of Redis in {took:.1?}: ready again after {half:.1?} (p50), {most:.1?} (max), not ready within {:.1?} (max); {figures}",
        percentile(&mut noticed, 100)
    );
    assert_eq!(figures.repeated, 0, "an append whose answer was lost is recognised when it comes again");
    assert!(most <= READY_MAX, "ready only {most:?} after the server was");
}

/// Resident memory of the service in KiB.
fn memory_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_redis_is_noticed_costs_no_memory_and_heals_by_itself() {
    /// What the messages in hand (prefetch) and their copies may take.
    const MEMORY_KIB_MAX: u64 = 32 << 10;
    let scene = Scene::start().await;
    scene.stores(3000).await;
    let before = memory_kib(scene.service.pid());

    scene.redis.pause();
    let frozen = Instant::now();
    let (noticed, said) = scene.unready_within(NOTICED_MAX).await;
    scene.stays_unready(Duration::from_secs(8).saturating_sub(frozen.elapsed())).await;
    let early = memory_kib(scene.service.pid());
    scene.stays_unready(Duration::from_secs(15).saturating_sub(frozen.elapsed())).await;
    let late = memory_kib(scene.service.pid());
    scene.redis.resume();
    let healed = scene.heals().await;
    let figures = scene.finish().await;

    println!(
        "Redis frozen for 15 s: not ready after {noticed:.1?}, memory {before}, after 8 s {early}, after 15 s {late} KiB, healed in {healed:.1?}; {figures}"
    );
    assert!(said.contains("did not answer"), "{said}");
    assert!(late <= before + MEMORY_KIB_MAX, "memory grows while nothing can be stored");
    assert!(late <= early + 4096, "memory goes on growing");
    assert_eq!(figures.repeated, 0, "what the frozen server did late is recognised");
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_network_to_redis_loses_and_repeats_nothing() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::to(redis.port());
    let url = format!("redis://127.0.0.1:{}/0", proxy.port());
    let scene = Scene::on(redis, &url, &[]).await;
    let begun = Instant::now();
    let mut heals = Vec::new();

    for _ in 0..20 {
        scene.stores(20).await;
        proxy.put(Fault::Reset, Reach::Existing);
    }
    heals.push(scene.heals().await);
    // In front of a command, in its first bytes, in its middle, and in the answer: lost, half sent, done but unanswered.
    let to_server = [0, 1, 17, 100, 1000, 5000, 20_000].map(|bytes| Fault::CutAfter(ToServer, bytes));
    let to_client = [0, 1, 10, 30].map(|bytes| Fault::CutAfter(ToClient, bytes));
    let half = [ToServer, ToClient].map(Fault::HalfClose);
    for fault in to_server.into_iter().chain(to_client).chain(half) {
        proxy.put(fault, Reach::Existing);
        scene.stores(20).await;
    }
    heals.push(scene.heals().await);
    // New connections are cut in the middle of what they are asked first.
    for bytes in [10, 100, 500] {
        proxy.put(Fault::Reset, Reach::Existing);
        proxy.put(Fault::CutAfter(ToServer, bytes), Reach::New);
        tokio::time::sleep(Duration::from_millis(500)).await;
        proxy.heal();
        heals.push(scene.heals().await);
    }
    proxy.put(Fault::BlackHole, Reach::All);
    let (noticed, _) = scene.unready_within(NOTICED_MAX).await;
    scene.stays_unready(Duration::from_secs(3).saturating_sub(noticed)).await;
    proxy.heal();
    heals.push(scene.heals().await);
    proxy.put(Fault::Latency(Duration::from_millis(100)), Reach::All);
    heals.push(scene.heals().await);
    proxy.heal();
    let took = begun.elapsed();
    let figures = scene.finish().await;

    println!(
        "20 resets, 16 cuts, 2 half-closes, a black hole (not ready after {noticed:.1?}) and 200 ms of latency in {took:.1?}: healed in {:.1?} (max); {figures}",
        percentile(&mut heals, 100)
    );
    assert_eq!(figures.repeated, 0, "an append whose answer was lost is recognised when it comes again");
}
