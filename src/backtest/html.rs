//! x
use super::report::Report;
/// The page.
pub fn page(_: &Report) -> String {
    String::new()
}
