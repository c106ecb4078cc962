//! The kill switch in a simulated world: a permit must rest on something that was true less than a lease ago.

use std::time::Duration;

use orchestrator_actors::testkit::{ManualClock, ReadMood, TestClock, TestTree, settings};
use orchestrator_kernel::kill_switch::KillSwitchReadError;
use orchestrator_kernel::ports::kill_switch::KillGate;
use orchestrator_kernel::random::Rng;
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
/// The lease of the testkit's settings; a poll comes every 100 ms and takes at most 100 ms.
const LEASE: Duration = Duration::from_millis(500);

/// What a world came to: why it failed, and how many permits were given and refused.
pub(crate) type Ending = Result<(u64, u64), String>;

/// One seed: the value flips, announced or not, reads hang, fail or panic, and the reader is killed.
pub(crate) fn simulate(seed: u64) -> Ending {
    let process =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let told = crate::untold::listen();
    let ending = process.block_on(flip_about(seed));
    match told.first_untold() {
        Some(panic) => Err(panic),
        None => ending,
    }
}

async fn flip_about(seed: u64) -> Ending {
    let mut dice = Rng::new(seed ^ 0x0b10_cced);
    let rig = TestTree::new(settings(&["A"]), TestClock::Manual(ManualClock::at(1_000_000)));
    let tree = rig.start().await;
    let (memory, gate) = (&rig.kill_switch.memory, &tree.gate);
    let (mut permits, mut refusals) = (0, 0);
    let (mut allows, mut answers) = (true, true);
    // Until when the store said that trading is allowed, to everybody who asked.
    let mut allowed_until = Instant::now();
    for _ in 0..40 {
        match dice.next_below(10) {
            0..=1 => allows = put(memory, dice.next_below(5), true),
            2..=3 => allows = put(memory, dice.next_below(5), false),
            4..=5 => {
                answers = false;
                match dice.next_below(3) {
                    0 => rig.kill_switch.set(ReadMood::Hangs),
                    1 => rig.kill_switch.set(ReadMood::Panics),
                    _ => memory.fail_reads(Some(KillSwitchReadError::NoAnswer("as told".to_owned()))),
                }
            }
            6..=7 => {
                answers = true;
                rig.kill_switch.set(ReadMood::Works);
                memory.fail_reads(None);
            }
            8 => tree.actor_addresses().kill_switch.current_actor().map_err(|down| down.to_string())?.kill(),
            _ => {}
        }
        for _ in 0..1 + dice.next_below(6) {
            if allows && answers {
                allowed_until = Instant::now();
            }
            sleep(MS * (1 + dice.next_below(150) as u32)).await;
            if allows && answers {
                allowed_until = Instant::now();
            }
            let age = allowed_until.elapsed();
            match gate.try_permit() {
                Ok(_) if LEASE <= age => {
                    return Err(format!(
                        "KILL-1: a permit {age:?} after trading was last known to be allowed"
                    ));
                }
                Ok(_) => permits += 1,
                Err(_) => refusals += 1,
            }
        }
    }
    rig.kill_switch.set(ReadMood::Works);
    memory.fail_reads(None);
    memory.put_value(Some(b"off"));
    // The reader's back-off is at most five seconds.
    sleep(MS * 6000).await;
    gate.try_permit().map_err(|refused| format!("no permit although all is well again: {refused}"))?;
    tree.kill().await;
    Ok((permits, refusals))
}

/// Stores one of the values; whether it allows trading.
fn put(
    memory: &orchestrator_kernel::ports::kill_switch::MemoryKillSwitch,
    which: u64,
    announced: bool,
) -> bool {
    let value: Option<&[u8]> = match which {
        0 => Some(b"engaged"),
        1 => Some(b"what is this"),
        2 => None,
        _ => Some(b"off"),
    };
    if announced {
        memory.put_value(value)
    } else {
        memory.put_silently(value)
    }
    which > 2
}
