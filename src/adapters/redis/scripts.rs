//! The scripts: every change of a log is one of them, so that it is atomic and checks first whether it may.

use std::sync::LazyLock;

use redis::Script;

#[cfg(feature = "mutants")]
use super::mutants::append_script;

/// Takes a log over.
pub(super) static ACQUIRE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/acquire.lua")));
/// Appends a batch.
pub(super) static APPEND: LazyLock<Script> =
    LazyLock::new(|| Script::new(&append_script(include_str!("scripts/append.lua"))));
/// Tells whether a batch would be taken.
pub(super) static PROVE_ROOM: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/prove_room.lua")));
/// Removes some entries at the beginning.
pub(super) static TRIM: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/trim.lua")));
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
