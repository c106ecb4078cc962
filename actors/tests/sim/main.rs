//! The real supervision tree in simulated worlds: one seed is one workload, one set of faults, one sequence of crashes.
//!
//! Time is virtual, the ports are in memory and fail as the seed says, and one thread runs everything: so a seed gives
//! the same trace each time. Whatever a port sees is checked at once against the invariants; at the end the faults
//! heal, the tree has to come to rest, and the oracle compares what was published with what the logs alone give.
//!
//! ```text
//! SEED=17 cargo test -p orchestrator-actors --test sim         one seed, with its trace
//! SIM_SEEDS=100000 cargo test -p orchestrator-actors --test sim        more of them
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a broken test must stop loudly")]

mod audit;
mod campaign;
mod driver;
mod kill_switch;
mod logs;
mod many_seeds;
#[cfg(feature = "mutants")]
mod mutants;
mod plan;
mod ports;
mod retention;
mod source;
mod untold;
mod world;

use campaign::SEEDS;
use driver::{Flaw, Outcome, simulate};
use many_seeds::{Campaign, env_u64};

/// LOG-1 to LOG-5, CUT-1, CUT-2, RUN-1 to RUN-4, OUT-1, OUT-2, REP-1, MEM-1. Method: see the head of this file.
#[test]
fn every_seed_keeps_the_invariants_and_ends_as_the_logs_say() {
    if let Some(seed) = env_u64("SEED") {
        let outcome = simulate(seed, Flaw::None, true);
        println!("SEED={seed} digest {:016x}\n{}", outcome.digest, outcome.coverage);
        assert!(outcome.failure.is_none(), "SEED={seed}: {}", outcome.failure.unwrap_or_default());
        return;
    }
    let count = env_u64("SIM_SEEDS").unwrap_or(SEEDS);
    Campaign::recorded_then(0..count).run().expect_all_pass_and_cover();
}

/// The same with further seeds for as long as `ops/test --soak MINUTES` says.
#[test]
fn soak_of_simulated_worlds() {
    let Some(minutes) = env_u64("ORCHESTRATOR_SOAK_MINUTES") else {
        println!("SKIPPED: a soak runs with ops/test --soak MINUTES");
        return;
    };
    Campaign::for_minutes(minutes).run().expect_all_pass_and_cover();
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..60 {
        let (first, second) = (simulate(seed, Flaw::None, false), simulate(seed, Flaw::None, false));
        assert_eq!(first.digest, second.digest, "SEED={seed}: the same seed, another trace");
    }
}

/// The canary: a log that acknowledges an append and drops it. A simulation that does not see that sees nothing.
#[test]
fn a_log_that_drops_what_it_acknowledged_is_caught() {
    let caught =
        |flaw| (0..200).map(|seed| simulate(seed, flaw, false)).find_map(|Outcome { failure, .. }| failure);
    for flaw in [Flaw::DropsAReceiptBatch, Flaw::DropsARunBatch] {
        let failure = caught(flaw);
        println!("{flaw:?}: {failure:?}");
        assert!(failure.is_some(), "{flaw:?} was not caught by 200 seeds");
    }
}

/// KILL-1. Method: see `kill_switch.rs`.
#[test]
fn whatever_happens_to_its_reader_a_permit_rests_on_a_fresh_answer() {
    let (mut permits, mut refusals) = (0, 0);
    for seed in 0..300 {
        let (given, refused) =
            kill_switch::simulate(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        permits += given;
        refusals += refused;
    }
    println!("{permits} permits, {refusals} refusals");
    assert!(permits > 1000 && refusals > 1000);
}
