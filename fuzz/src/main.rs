//! The fuzzer: one binary for all targets, `ORCHESTRATOR_FUZZ_TARGET` names the one. Started by `ops/fuzz`.
#![no_main]

mod targets;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<targets::Target> = LazyLock::new(|| {
    let wanted = std::env::var("ORCHESTRATOR_FUZZ_TARGET").unwrap_or_default();
    let found = targets::TARGETS.into_iter().find(|(name, _)| *name == wanted);
    let names = targets::TARGETS.map(|(name, _)| name).join(" ");
    found.unwrap_or_else(|| panic!("ORCHESTRATOR_FUZZ_TARGET is {wanted:?}, it must be one of: {names}")).1
});

fuzz_target!(|input: &[u8]| TARGET(input));
