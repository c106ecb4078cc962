//! Tests of the clocks.

use std::cell::Cell;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use orchestrator_kernel::random::Rng;

use super::*;

/// Polls once: what has not happened by itself now, waits for somebody else.
fn poll_once<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

fn is_ready<F: Future>(future: &mut std::pin::Pin<Box<F>>) -> bool {
    poll_once(future).is_ready()
}

/// Advances a clock that nothing holds back.
fn check_arrives(clock: &RecordedClock, at: i64) {
    assert!(is_ready(&mut Box::pin(clock.advance(TsMs(at)))), "{at} is held back");
}

#[tokio::test]
async fn the_wall_clock_is_the_systems_and_is_not_driven() {
    let clock = WallClock;
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();

    let now = clock.now().unwrap().0;

    assert!(now >= i64::try_from(before).unwrap() && now <= clock.wait_started().await.0);
    assert_eq!((clock.armed_deadline(), clock.is_driven()), (None, false));
    clock.sleep_until(TsMs(now - 1)).await;
    clock.sleep_until(TsMs(now + 20)).await;
    assert!(clock.now().unwrap().0 >= now + 20);
}

/// Method: under paused time the sleep takes exactly its slices; the wall is a variable that the test moves.
#[tokio::test(start_paused = true)]
async fn a_sleep_notices_jumps_of_the_wall_clock_within_a_slice() {
    let begin = tokio::time::Instant::now();
    let jump_ms = Cell::new(0_i64);
    let wall = || TsMs(i64::try_from(begin.elapsed().as_millis()).unwrap() + jump_ms.get());

    sleep_in_slices(TsMs(1_000), wall).await;
    assert_eq!(begin.elapsed(), Duration::from_secs(1));

    // An hour forward while it sleeps: it ends at the next slice.
    let mut sleep = Box::pin(sleep_in_slices(TsMs(3_000_000), wall));
    assert!(!is_ready(&mut sleep));
    jump_ms.set(3_600_000);
    sleep.await;
    assert_eq!(begin.elapsed(), Duration::from_millis(1_250));

    // An hour back: it waits the hour once more.
    let mut sleep = Box::pin(sleep_in_slices(wall().plus_ms(100), wall));
    assert!(!is_ready(&mut sleep));
    jump_ms.set(0);
    sleep.await;
    assert_eq!(begin.elapsed(), Duration::from_millis(1_250 + 3_600_000 + 100));
}

#[tokio::test]
async fn a_recording_starts_at_its_first_receipt() {
    let clock = RecordedClock::new();
    let mut started = Box::pin(clock.wait_started());
    assert!(!is_ready(&mut started));
    assert_eq!(clock.now(), None);

    let mut advance = Box::pin(clock.advance(TsMs(1_000)));
    assert!(!is_ready(&mut advance), "nobody has armed a deadline");

    assert_eq!(poll_once(&mut started), Poll::Ready(TsMs(1_000)));
    let mut sleep = Box::pin(clock.sleep_until(TsMs(2_000)));
    assert!(!is_ready(&mut sleep));
    assert!(is_ready(&mut advance));
    assert_eq!((clock.now(), clock.armed_deadline()), (Some(TsMs(1_000)), Some(TsMs(2_000))));
}

#[tokio::test]
async fn a_deadline_fires_only_for_a_receipt_strictly_after_it() {
    let clock = RecordedClock::resume_at(TsMs(0));
    let mut sleep = Box::pin(clock.sleep_until(TsMs(100)));
    assert!(!is_ready(&mut sleep));

    check_arrives(&clock, 100);
    assert!(!is_ready(&mut sleep), "receipts at the deadline belong before it");
    assert_eq!(clock.now(), Some(TsMs(100)));

    let mut advance = Box::pin(clock.advance(TsMs(101)));
    assert!(!is_ready(&mut advance), "the work of the deadline is not done");
    assert!(is_ready(&mut sleep));
    assert_eq!(clock.now(), Some(TsMs(100)), "the work sees the time of the deadline, not of the receipt");

    let mut next = Box::pin(clock.sleep_until(TsMs(200)));
    assert!(!is_ready(&mut next));
    assert!(is_ready(&mut advance));
    assert_eq!(clock.now(), Some(TsMs(101)));
}

#[tokio::test]
async fn a_deadline_that_was_passed_before_it_was_armed_is_due_at_once() {
    let clock = RecordedClock::resume_at(TsMs(500));

    clock.sleep_until(TsMs(499)).await;
    let mut sleep = Box::pin(clock.sleep_until(TsMs(500)));

    assert!(!is_ready(&mut sleep), "more receipts of time 500 may come");
    assert_eq!(clock.wait_started().await, TsMs(500));
}

#[tokio::test]
async fn a_receipt_from_the_past_never_turns_the_clock_back() {
    let clock = RecordedClock::resume_at(TsMs(500));
    let mut sleep = Box::pin(clock.sleep_until(TsMs(600)));
    assert!(!is_ready(&mut sleep));

    check_arrives(&clock, 10);

    assert_eq!(clock.now(), Some(TsMs(500)));
}

#[tokio::test]
async fn several_sleepers_fire_smallest_first() {
    let clock = RecordedClock::resume_at(TsMs(0));
    let mut sleeps: Vec<_> = [300, 100, 200, 100].map(|at| Box::pin(clock.sleep_until(TsMs(at)))).into();
    for sleep in &mut sleeps {
        assert!(!is_ready(sleep));
    }
    assert_eq!(clock.armed_deadline(), Some(TsMs(100)));

    check_arrives(&clock, 201);

    assert_eq!(sleeps.iter_mut().map(is_ready).collect::<Vec<_>>(), [false, true, true, true]);
    assert_eq!(clock.armed_deadline(), Some(TsMs(300)));
}

#[tokio::test]
async fn a_dropped_sleeper_disarms_its_deadline_and_no_other() {
    let clock = RecordedClock::resume_at(TsMs(0));
    let mut first = Box::pin(clock.sleep_until(TsMs(100)));
    let mut second = Box::pin(clock.sleep_until(TsMs(100)));
    assert!(!is_ready(&mut first) && !is_ready(&mut second));

    drop(first);
    assert_eq!(clock.armed_deadline(), Some(TsMs(100)));
    drop(second);
    assert_eq!(clock.armed_deadline(), None);
}

/// Method: drop `advance` at each place where it can wait, and advance anew.
#[tokio::test]
async fn a_dropped_advance_loses_nothing() {
    let clock = RecordedClock::new();
    assert!(!is_ready(&mut Box::pin(clock.advance(TsMs(1_000)))));
    assert_eq!(clock.wait_started().await, TsMs(1_000));

    let mut sleep = Box::pin(clock.sleep_until(TsMs(1_500)));
    assert!(!is_ready(&mut sleep));
    assert!(!is_ready(&mut Box::pin(clock.advance(TsMs(2_000)))), "fired, and waits for the next deadline");
    assert!(is_ready(&mut sleep));

    let mut sleep = Box::pin(clock.sleep_until(TsMs(3_000)));
    assert!(!is_ready(&mut sleep));
    check_arrives(&clock, 2_000);
    assert_eq!(clock.now(), Some(TsMs(2_000)));
}

#[tokio::test]
async fn a_released_clock_blocks_nobody_and_still_fires_what_it_passes() {
    let clock = RecordedClock::resume_at(TsMs(0));
    let mut blocked = Box::pin(clock.advance(TsMs(50)));
    assert!(!is_ready(&mut blocked));

    clock.end_lockstep();

    assert!(is_ready(&mut blocked));
    let mut sleep = Box::pin(clock.sleep_until(TsMs(100)));
    assert!(!is_ready(&mut sleep));
    check_arrives(&clock, 200);
    assert!(is_ready(&mut sleep));
    assert_eq!(clock.now(), Some(TsMs(200)));
}

fn is_asleep<F: Future>(sleep: &mut std::pin::Pin<Box<F>>) -> bool {
    !is_ready(sleep)
}

#[tokio::test]
async fn time_stands_still_while_a_follower_works() {
    let clock = Arc::new(RecordedClock::new());
    let follower = clock.join_follower();
    assert!(!is_ready(&mut Box::pin(clock.advance(TsMs(10)))));
    let mut tick = Box::pin(clock.sleep_until(TsMs(100)));
    assert!(is_asleep(&mut tick));
    let mut advance = Box::pin(clock.advance(TsMs(10)));

    assert!(!is_ready(&mut advance), "the follower has not slept yet");

    let mut sleep = Box::pin(follower.sleep_until(None));
    assert!(is_asleep(&mut sleep));
    assert!(is_ready(&mut advance));
    assert_eq!((clock.armed_deadline(), clock.next_tick()), (Some(TsMs(100)), Some(TsMs(100))));
}

/// Method: one moment of the follower's own before a tick, one at the tick, none after it.
#[tokio::test]
async fn a_follower_has_its_turn_after_each_tick_and_at_its_own_moments_and_never_beside_another() {
    let clock = Arc::new(RecordedClock::resume_at(TsMs(0)));
    let follower = clock.join_follower();
    let mut tick = Box::pin(clock.sleep_until(TsMs(100)));
    let mut sleep = Box::pin(follower.sleep_until(Some(TsMs(40))));
    assert!(is_asleep(&mut tick) && is_asleep(&mut sleep));
    assert_eq!((clock.armed_deadline(), clock.next_tick()), (Some(TsMs(40)), Some(TsMs(100))));
    let mut advance = Box::pin(clock.advance(TsMs(250)));

    assert!(!is_ready(&mut advance));
    assert!(is_ready(&mut sleep) && !is_ready(&mut tick));
    assert_eq!(clock.now(), Some(TsMs(40)));
    drop(sleep);

    // At one moment the tick comes first, and the follower waits until the next one is armed.
    let mut sleep = Box::pin(follower.sleep_until(Some(TsMs(100))));
    assert!(is_asleep(&mut sleep) && !is_ready(&mut advance));
    assert!(is_ready(&mut tick) && !is_ready(&mut sleep));
    let mut tick = Box::pin(clock.sleep_until(TsMs(200)));
    assert!(is_asleep(&mut tick) && !is_ready(&mut advance));
    assert!(is_ready(&mut sleep) && !is_ready(&mut tick), "one turn for both");
    assert_eq!(clock.now(), Some(TsMs(100)));
    drop(sleep);

    let mut sleep = Box::pin(follower.sleep_until(None));
    assert!(is_asleep(&mut sleep) && !is_ready(&mut advance));
    assert!(is_ready(&mut tick) && !is_ready(&mut sleep));
    let mut tick = Box::pin(clock.sleep_until(TsMs(300)));
    assert!(is_asleep(&mut tick) && !is_ready(&mut advance));
    assert!(is_ready(&mut sleep), "each tick is followed");
    assert_eq!(clock.now(), Some(TsMs(200)));
    drop(sleep);
    let mut sleep = Box::pin(follower.sleep_until(Some(TsMs(250))));
    assert!(is_asleep(&mut sleep) && is_ready(&mut advance), "receipts at the moment belong before it");
}

#[tokio::test]
async fn a_follower_that_stops_sleeping_holds_time_and_one_that_goes_lets_it_go_on() {
    let clock = Arc::new(RecordedClock::resume_at(TsMs(0)));
    let follower = clock.join_follower();
    let mut tick = Box::pin(clock.sleep_until(TsMs(900)));
    assert!(is_asleep(&mut tick));
    assert!(is_asleep(&mut Box::pin(follower.sleep_until(Some(TsMs(50))))), "and is dropped again");
    let mut advance = Box::pin(clock.advance(TsMs(100)));
    assert!(!is_ready(&mut advance), "nothing happens behind its back");

    drop(follower);

    assert!(is_ready(&mut advance));
    assert_eq!(clock.armed_deadline(), Some(TsMs(900)));
}

#[tokio::test]
async fn a_moment_of_a_follower_that_has_passed_is_due_at_once() {
    let clock = Arc::new(RecordedClock::resume_at(TsMs(500)));
    let follower = clock.join_follower();

    follower.sleep_until(Some(TsMs(499))).await;

    assert!(
        is_asleep(&mut Box::pin(follower.sleep_until(Some(TsMs(500))))),
        "more receipts of time 500 may come"
    );
}

/// What ingest, the scheduler and a follower did, in order.
async fn trace_of_a_recording(receipts: Vec<i64>) -> Vec<String> {
    let clock = Arc::new(RecordedClock::new());
    let trace = Arc::new(Mutex::new(Vec::new()));
    let scheduler = tokio::spawn({
        let (clock, trace) = (Arc::clone(&clock), Arc::clone(&trace));
        async move {
            let mut deadline = clock.wait_started().await.0 / 100 * 100 + 100;
            loop {
                clock.sleep_until(TsMs(deadline)).await;
                // The work of a deadline is anything that waits; the lockstep must not depend on how long.
                for _ in 0..deadline % 7 {
                    tokio::task::yield_now().await;
                }
                trace.lock().unwrap().push(format!("cut {deadline} at {}", clock.now().unwrap()));
                deadline += 100;
            }
        }
    });
    let follower = clock.join_follower();
    let following = tokio::spawn({
        let (clock, trace) = (Arc::clone(&clock), Arc::clone(&trace));
        async move {
            let mut own = clock.wait_started().await.0 / 70 * 70 + 70;
            loop {
                let now = clock.now().unwrap();
                for _ in 0..now.0 % 5 {
                    tokio::task::yield_now().await;
                }
                trace.lock().unwrap().push(format!("turn at {now}"));
                while own <= now.0 {
                    own += 70;
                }
                follower.sleep_until(Some(TsMs(own))).await;
            }
        }
    });
    for at in receipts {
        clock.advance(TsMs(at)).await;
        let (now, barrier) = (clock.now().unwrap(), clock.armed_deadline().unwrap());
        assert!(now <= barrier, "a receipt is stamped {now} behind the armed deadline {barrier}");
        trace.lock().unwrap().push(format!("receipt {at} at {now}"));
    }
    for task in [scheduler, following] {
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
    }
    let trace = trace.lock().unwrap();
    trace.clone()
}

fn recording() -> Vec<i64> {
    let mut at = 1_000_000_i64;
    let mut rng = Rng::new(7);
    let steps = std::iter::repeat_with(move || {
        at += i64::try_from(rng.next_below(64)).unwrap() * 9 - 100;
        at
    });
    steps.take(3_000).collect()
}

/// Method: the trace on one thread is the reference; ten runs on four threads must equal it.
#[test]
fn two_runs_of_one_recording_are_equal_on_any_number_of_threads() {
    let run = |runtime: tokio::runtime::Runtime| {
        let within = Duration::from_secs(30);
        runtime.block_on(async {
            tokio::time::timeout(within, trace_of_a_recording(recording())).await.expect("lockstep is stuck")
        })
    };
    let paused =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let reference = run(paused);
    for kind in ["cut", "turn"] {
        assert!(reference.iter().filter(|line| line.starts_with(kind)).count() > 100, "{kind}");
    }
    for _ in 0..10 {
        let threads =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_time().build().unwrap();
        assert_eq!(run(threads), reference);
    }
}
