//! Protections that are switched off, one at a time, to show that the tests see it: a check that never failed is no
//! check.
//!
//! Method: this test binary once more, for one test, with the name of a planted fault. The test must fail then, for the
//! reason that the fault gives it; that it passes without the fault is seen in this very run.

use std::process::Command;

/// Runs these tests with the fault planted, in their process and in those of the services that they start. Each comes
/// with what it says then.
fn check_caught(mutant: &str, tests: &[(&str, &str)]) {
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .args(tests.iter().map(|(test, _)| test))
        .env("ORCHESTRATOR_MUTANT", mutant)
        .env("RUST_BACKTRACE", "0")
        .output()
        .unwrap();
    let said = [run.stdout, run.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(said.contains(&format!("0 passed; {} failed", tests.len())), "{mutant} is not seen:\n{said}");
    for (test, reason) in tests {
        assert!(said.contains(reason), "{test} fails for another reason than {mutant}:\n{said}");
    }
}

#[test]
fn a_log_that_does_not_ask_for_the_epoch_is_caught() {
    // The log alone: the whole service is kept from it by the second mark, too.
    let log = "redis_log::writer_that_was_overtaken_while_it_slept_writes_nothing";
    check_caught("append_without_epoch", &[(log, "Ok(())")]);
}

#[test]
fn outputs_that_are_published_without_mandatory_are_caught() {
    let adapter = "rabbit_fan_out::an_unroutable_message_ends_the_confirmed_prefix_exactly_there";
    let service = "rabbit_topology::outputs_that_no_queue_takes_wait_until_one_does";
    let taken = "called `Result::unwrap_err()` on an `Ok` value";
    check_caught("fan_out_without_mandatory", &[(adapter, taken), (service, "outputs came")]);
}
