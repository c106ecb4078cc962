//! Planted faults, with the feature `mutants`: a live test names one in the environment, and other tests must see it.
//! Nothing of it is in a binary without the feature.

use std::borrow::Cow;
use std::sync::LazyLock;

static PLANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("ORCHESTRATOR_MUTANT").ok());

/// The script that appends; with `append_without_epoch` any writer may.
pub(super) fn append_script(script: &'static str) -> Cow<'static, str> {
    match PLANTED.as_deref() {
        Some("append_without_epoch") => without_epoch_check(script).into(),
        Some(_) | None => script.into(),
    }
}

fn without_epoch_check(script: &str) -> String {
    script.replace("if epoch > mine or meta[3] ~= ARGV[2] then", "if false then")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_is_found_in_the_script() {
        let script = super::super::scripts::APPEND_TEXT;

        assert_ne!(without_epoch_check(script), script);
        assert_eq!(append_script(script), script, "nothing is planted unless it is named");
    }
}
