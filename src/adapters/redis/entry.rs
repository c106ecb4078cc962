//! The stored form of a record: one stream entry `<seq>-0` with one field.
//!
//! ```text
//! field r    0  version u8 (1)    1  crc u32 of seq, log id, payload (each number little-endian)    5  payload
//! ```
//!
//! Redis checks neither its file nor its memory; the checksum also tells an entry of another log or another position.

use orchestrator_kernel::ids::Seq;

/// Bytes before the payload.
pub(super) const HEADER_BYTES: usize = 5;
/// The field's name.
pub(super) const FIELD: &str = "r";

const VERSION: u8 = 1;

/// A log's random identity: tells it from every other one, also from its own successor under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LogId(pub(super) u64);

impl LogId {
    pub(super) fn from_hex(text: &str) -> Option<Self> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| u64::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Version and checksum: what stands before the payload, and what the high-water mark remembers of an entry.
pub(super) type Header = [u8; HEADER_BYTES];

/// Replaces what is in `entry` by the stored form of a record; returns its header.
pub(super) fn write_entry(log: LogId, seq: Seq, payload: &[u8], entry: &mut Vec<u8>) -> Header {
    let header = entry_header(log, seq, payload);
    entry.clear();
    entry.extend_from_slice(&header);
    entry.extend_from_slice(payload);
    header
}

fn entry_header(log: LogId, seq: Seq, payload: &[u8]) -> Header {
    let crc = crc32c::crc32c(&seq.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &log.0.to_le_bytes());
    let [a, b, c, d] = crc32c::crc32c_append(crc, payload).to_le_bytes();
    [VERSION, a, b, c, d]
}

/// The payload of a stored entry.
///
/// # Errors
///
/// Why it cannot be trusted.
pub(super) fn open_entry(log: LogId, seq: Seq, stored: &[u8]) -> Result<&[u8], String> {
    let (found, payload) = stored.split_first_chunk::<HEADER_BYTES>().ok_or("it is too short")?;
    if found[0] != VERSION {
        return Err(format!("it has format version {}, this binary knows {VERSION}", found[0]));
    }
    if *found != entry_header(log, seq, payload) {
        return Err("it fails its checksum: damaged, or an entry of another log".to_owned());
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(0x0123_4567_89ab_cdef);

    fn written(log: LogId, seq: u64, payload: &[u8]) -> Vec<u8> {
        let mut entry = vec![0xee; 3];
        write_entry(log, Seq(seq), payload, &mut entry);
        entry
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let entry = written(LOG, 7, b"a record");
        assert_eq!(open_entry(LOG, Seq(7), &entry), Ok(b"a record" as &[u8]));

        for at in 0..entry.len() {
            for bit in 0..8 {
                let mut flipped = entry.clone();
                flipped[at] ^= 1 << bit;
                assert!(open_entry(LOG, Seq(7), &flipped).is_err(), "bit {bit} of byte {at}");
            }
            assert!(open_entry(LOG, Seq(7), &entry[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn entry_of_another_log_or_position_is_refused() {
        let entry = written(LOG, 7, b"");

        assert!(open_entry(LOG, Seq(7), &entry).is_ok());
        assert!(open_entry(LOG, Seq(8), &entry).is_err());
        assert!(open_entry(LogId(1), Seq(7), &entry).is_err());
    }

    #[test]
    fn log_id_is_sixteen_hex_digits() {
        assert_eq!(LogId::from_hex(&LOG.to_string()), Some(LOG));
        assert_eq!(LogId::from_hex(&LogId(1).to_string()), Some(LogId(1)));
        for text in ["", "1", "000000000000000g", "+000000000000001", "00000000000000001"] {
            assert_eq!(LogId::from_hex(text), None, "{text}");
        }
    }

    /// A changed file is a changed format. `BLESS=1` records it.
    #[test]
    fn entry_matches_its_golden_file() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/redis_entry_v1.hex");
        let entry = written(LOG, 42, b"a record");
        let dump = entry.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ") + "\n";

        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &dump).unwrap();
        }

        assert_eq!(std::fs::read_to_string(path).unwrap(), dump);
    }
}
