//! Every planted defect is found: otherwise the simulation is blind where it claims to see.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use orchestrator_kernel::mutants::Mutant;

use crate::driver::{self, Flaw};
use crate::kill_switch;
use crate::many_seeds;

/// Seeds within which a mutant must be caught, after the recorded ones: a rare defect stays found by the seed that
/// found it.
const SEEDS: u64 = 4_000;

/// The seed that catches it, and by what.
fn caught(mutant: Mutant) -> Option<(u64, String)> {
    let _planted = mutant.plant();
    let seeds = many_seeds::env_u64("SIM_SEEDS").unwrap_or(SEEDS);
    many_seeds::recorded().into_iter().chain(0..seeds).find_map(|seed| {
        let failure = match mutant {
            Mutant::PermitForEver => kill_switch::simulate(seed).err(),
            _ => driver::simulate(seed, Flaw::None, false).failure,
        };
        failure.map(|failure| (seed, failure))
    })
}

/// One that a campaign is to look for: `MUTANT=SealMeetsATrim SIM_SEEDS=100000 … every_mutant`.
#[allow(clippy::disallowed_methods, reason = "how a test is steered, not a setting of the actors")]
fn is_wanted(mutant: Mutant) -> bool {
    std::env::var("MUTANT").map_or(!is_rare(mutant), |wanted| wanted == format!("{mutant:?}"))
}

/// One that is met by a seed in some hundred thousand, more than a default run has. No seed is recorded that meets it
/// since made-up ticks wait in the scheduler: a campaign has to look for it by name.
const fn is_rare(mutant: Mutant) -> bool {
    matches!(mutant, Mutant::SealMeetsATrim)
}

#[test]
fn every_mutant_is_caught() {
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(mutant) = Mutant::ENGINE_PLANE.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !is_wanted(*mutant) {
                        continue;
                    }
                    match caught(*mutant) {
                        Some((seed, failure)) => {
                            println!("{mutant:?} is caught by seed {seed}: {failure:.200}")
                        }
                        None => survivors.lock().unwrap().push(*mutant),
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "not caught: {survivors:?}");
}
