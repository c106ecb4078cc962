//! Every planted defect of the trading plane is found, and by the promise that it breaks.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use orchestrator_kernel::mutants::Mutant;

use crate::driver::{Flaw, simulate};
use crate::many_seeds;

/// Seeds within which a mutant must be caught, after the recorded ones.
const SEEDS: u64 = 1_500;

/// The promise by whose breach each is caught, as the failure names it.
const fn promise_of(mutant: Mutant) -> &'static str {
    match mutant {
        Mutant::GateSkipped
        | Mutant::IntentBeforePermit
        | Mutant::IntentNotSettled
        | Mutant::EndsTwice
        // The gates' own readings contradict what they allow: the rule of the journal's audit belongs to this promise.
        | Mutant::AgentNotAsked
        | Mutant::SilentHookAllows
        | Mutant::HookMayWiden => "CYC-1",
        Mutant::FiresTwice
        | Mutant::SkipNotRecorded
        | Mutant::EventFiresTwice
        | Mutant::OutputFiresTwice
        | Mutant::MisfireIgnored
        | Mutant::OverlapIgnored => "CYC-2",
        Mutant::OpenCyclesForgotten | Mutant::StageCalledAgain => "CYC-3",
        Mutant::BudgetNotRead | Mutant::LateAnswerCounts => "CYC-4",
        Mutant::ChainNotLinked => "JRN-1",
        // Which rule breaks depends on whose record continues what was lost.
        Mutant::LostTermAccepted => "a record that breaks a rule was kept out of the journal",
        Mutant::AnswersEarly => "JRN-2",
        Mutant::ViewForgetsTheAgent => "JRN-3",
        Mutant::KeyNotLookedAt => "CMD-1",
        // The others are the engine plane's, or break this promise.
        _ => "AGT-1",
    }
}

/// The seed that catches it by its promise, and how; else the first failure by another promise.
fn find_catching_seed(mutant: Mutant) -> Result<(u64, String), Option<String>> {
    let _planted = mutant.plant();
    let seeds = many_seeds::env_u64("SIM_SEEDS").unwrap_or(SEEDS);
    let mut other = None;
    for seed in many_seeds::recorded().into_iter().chain(0..seeds) {
        let Some(failure) = simulate(seed, Flaw::None, false).failure else { continue };
        if failure.contains(promise_of(mutant)) {
            return Ok((seed, failure));
        }
        other.get_or_insert(format!("seed {seed}: {failure:.300}"));
    }
    Err(other)
}

/// One that is to be looked for alone: `MUTANT=FiresTwice … every_trading_mutant`.
#[allow(clippy::disallowed_methods, reason = "how a test is steered, not a setting of the actors")]
fn is_wanted(mutant: Mutant) -> bool {
    std::env::var("MUTANT").map_or(true, |wanted| wanted == format!("{mutant:?}"))
}

#[test]
fn every_trading_mutant_is_caught_for_its_own_promise() {
    let next = AtomicUsize::new(0);
    let survivors = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(mutant) = Mutant::TRADING_PLANE.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !is_wanted(*mutant) {
                        continue;
                    }
                    match find_catching_seed(*mutant) {
                        Ok((seed, failure)) => {
                            println!("{mutant:?} is caught by seed {seed}: {failure:.300}");
                        }
                        Err(other) => survivors.lock().unwrap().push((*mutant, other)),
                    }
                }
            });
        }
    });
    let survivors = survivors.into_inner().unwrap();
    assert!(survivors.is_empty(), "not caught by its promise, and what failed instead: {survivors:#?}");
}
