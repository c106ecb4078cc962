//! A door to what reads a server's answers, for the fuzz targets.

use super::entries::{self, StreamEntry};

/// Ids and bytes of the entries in an answer as it came over the wire, read as one to `XREADGROUP` or `XAUTOCLAIM`.
///
/// # Errors
///
/// Why it is no such answer.
pub fn entries(answer: &[u8], field: &str, is_claim: bool) -> Result<Vec<(String, Vec<u8>)>, String> {
    let answer = redis::parse_redis_value(answer).map_err(|error| error.to_string())?;
    let entries = match is_claim {
        true => entries::of_claim(answer, field).map(|claimed| claimed.entries),
        false => entries::of_read(answer, field),
    };
    let entries = entries.map_err(|malformed| malformed.to_string())?;
    Ok(entries.into_iter().map(|StreamEntry { id, bytes, .. }| (id.to_string(), bytes.to_vec())).collect())
}
