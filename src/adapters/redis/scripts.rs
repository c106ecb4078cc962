//! The scripts: every change of a log is one of them, so that it is atomic and checks first whether it may.

use std::sync::LazyLock;

use redis::Script;

#[cfg(feature = "mutants")]
use super::mutants::append_script;

/// Source of a script that only the present writer of a log may run: the fence, then what it does.
macro_rules! fenced_script {
    ($body:literal) => {
        concat!(include_str!("scripts/fence.lua"), include_str!($body))
    };
}

pub(super) const APPEND_TEXT: &str = fenced_script!("scripts/append.lua");
const PROVE_ROOM_TEXT: &str = fenced_script!("scripts/prove_room.lua");
const TRIM_TEXT: &str = fenced_script!("scripts/trim.lua");

/// Takes a log over.
pub(super) static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/acquire.lua")));
/// Appends a batch.
pub(super) static APPEND: LazyLock<Script> = LazyLock::new(|| Script::new(&append_script(APPEND_TEXT)));
/// Tells whether a batch would be taken.
pub(super) static PROVE_ROOM: LazyLock<Script> = LazyLock::new(|| Script::new(PROVE_ROOM_TEXT));
/// Removes some entries at the beginning.
pub(super) static TRIM: LazyLock<Script> = LazyLock::new(|| Script::new(TRIM_TEXT));
/// Claims the namespace for a writer.
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/claim.lua")));
/// Renews that claim.
pub(super) static KEEP_CLAIM: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/keep_claim.lua")));
/// Gives that claim up.
pub(super) static DROP_CLAIM: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/drop_claim.lua")));
/// Saves a checkpoint.
pub(super) static SAVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/save.lua")));

#[cfg(not(feature = "mutants"))]
fn append_script(script: &'static str) -> std::borrow::Cow<'static, str> {
    script.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: the fence and its words are searched in each script of a writer.
    #[test]
    fn writers_scripts_begin_with_one_fence_and_have_no_other() {
        let fence = include_str!("scripts/fence.lua");
        for script in [APPEND_TEXT, PROVE_ROOM_TEXT, TRIM_TEXT] {
            let body = script.strip_prefix(fence).expect("the fence comes first");
            for fenced in ["'FENCED'", "local meta", "ARGV[1]", "ARGV[2]", "ARGV[3]"] {
                assert!(fence.contains(fenced) && !body.contains(fenced), "{fenced} in {body}");
            }
        }
    }
}
