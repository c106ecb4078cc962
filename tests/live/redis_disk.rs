//! The deployment while the disk of its Redis is full.

use std::time::Duration;

use crate::support::redis_server::RedisServer;
use crate::support::scene::{NOTICED_MAX, Scene};

/// How long the disk stays full.
const FULL: Duration = Duration::from_secs(3);

/// Method: the server's files on a small file system that is filled up under load. A server that syncs always ends
/// itself then; it is started again when there is room.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk_of_redis_loses_and_repeats_nothing() {
    let redis = RedisServer::on_small_disk(64);
    let url = redis.url();
    let mut scene = Scene::on(redis, &url, &[]).await;

    scene.redis.disk().fill();
    let (noticed, said) = scene.unready_within(NOTICED_MAX).await;
    assert!(said.contains("append_failing"), "{said}");
    scene.stays_unready(FULL).await;
    let has_ended = !scene.redis.answers();
    scene.redis.disk().make_room();
    scene.redis.kill();
    scene.redis.start_again();
    let healed = scene.heals().await;

    let figures = scene.finish().await;
    println!(
        "disk of Redis full for {FULL:?}: not ready after {noticed:.1?}, healed in {healed:.1?}; {figures}"
    );
    assert!(has_ended, "it is known to end itself: when it does not, the manual has to be changed");
    assert_eq!(figures.repeated, 0, "what was not answered is stored once");
}
