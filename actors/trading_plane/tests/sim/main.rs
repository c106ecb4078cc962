//! The real trading plane in simulated worlds: one seed is one workload, one set of faults, one sequence of crashes.
//!
//! Time is virtual, the ports are in memory and fail as the seed says, and one thread runs everything: so a seed gives
//! the same trace each time. Each record is checked when it becomes durable, each stage when it is called, each answer
//! when it comes; at the end the faults heal, the plane has to come to rest, and what readers are shown is compared
//! with a fold of the journal.
//!
//! ```text
//! SEED=17 cargo test -p orchestrator-trading-plane --test sim          one seed, with its trace
//! SIM_FROM=10000 SIM_SEEDS=100000 cargo test -p orchestrator-trading-plane --test sim every_seed
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken test must stop loudly")]

mod audit;
mod campaign;
mod driver;
mod journal;
#[path = "../../../tests/sim/many_seeds.rs"]
mod many_seeds;
#[cfg(feature = "mutants")]
mod mutants;
mod plan;
mod ports;
#[path = "../../../tests/sim/untold.rs"]
mod untold;
mod world;

use campaign::SEEDS;
use driver::{Flaw, simulate};
use many_seeds::{Campaign, env_u64};

/// JRN-1, JRN-2, JRN-3, CYC-1, CYC-2, CYC-3, CYC-4, AGT-1, CMD-1. Method: see the head of this file.
#[test]
fn every_seed_keeps_the_trading_invariants_and_comes_to_rest() {
    if let Some(seed) = env_u64("SEED") {
        let outcome = simulate(seed, Flaw::None, true);
        println!("SEED={seed} digest {:016x}\n{}", outcome.digest, outcome.coverage);
        assert!(outcome.failure.is_none(), "SEED={seed}: {}", outcome.failure.unwrap_or_default());
        return;
    }
    let (from, count) = (env_u64("SIM_FROM").unwrap_or(0), env_u64("SIM_SEEDS").unwrap_or(SEEDS));
    Campaign::recorded_then(from..from + count).run().expect_all_pass_and_cover();
}

/// The same with further seeds for as long as `ops/test --soak MINUTES` says.
#[test]
fn soak_of_simulated_trading() {
    let Some(minutes) = env_u64("ORCHESTRATOR_SOAK_MINUTES") else {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    };
    Campaign::for_minutes(minutes).run().expect_all_pass_and_cover();
}

#[test]
fn the_same_seed_gives_the_same_trading_trace() {
    for seed in 0..40 {
        let (first, second) = (simulate(seed, Flaw::None, false), simulate(seed, Flaw::None, false));
        assert_eq!(first.digest, second.digest, "SEED={seed}: the same seed, another trace");
    }
}

/// The canary: a journal that acknowledges a batch and drops it. A simulation that does not see that sees nothing.
#[test]
fn a_journal_that_drops_what_it_acknowledged_is_caught() {
    let failure = (0..200).find_map(|seed| simulate(seed, Flaw::DropsABatch, false).failure);
    println!("{failure:?}");
    assert!(failure.is_some(), "a dropped batch was not caught by 200 seeds");
}
