//! Every planted defect is found: otherwise the simulation is blind where it claims to see.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use orchestrator_kernel::mutants::Mutant;

use crate::driver::{self, Flaw};
use crate::kill_switch;

/// Seeds within which a mutant must be caught.
const SEEDS: u64 = 2_000;

/// Whether the simulated trees do what is broken; those of retention are caught by its own tests.
const fn is_simulated(mutant: Mutant) -> bool {
    !matches!(mutant, Mutant::TrimsBeforePublished | Mutant::TrimsBeforeBase)
}

/// The seed that catches it, and by what.
fn caught(mutant: Mutant) -> Option<(u64, String)> {
    let _planted = mutant.plant();
    (0..SEEDS).find_map(|seed| {
        let failure = match mutant {
            Mutant::PermitForEver => kill_switch::simulate(seed).err(),
            _ => driver::simulate(seed, Flaw::None, false).failure,
        };
        failure.map(|failure| (seed, failure))
    })
}

#[test]
fn every_mutant_is_caught() {
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !is_simulated(*mutant) {
                        continue;
                    }
                    match caught(*mutant) {
                        Some((seed, failure)) => {
                            println!("{mutant:?} is caught by {} seeds: {failure:.200}", seed + 1)
                        }
                        None => survivors.lock().unwrap().push(*mutant),
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "not caught by {SEEDS} seeds: {survivors:?}");
}
