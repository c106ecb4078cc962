//! Disk formats compared with recorded bytes. `BLESS=1` records them; a changed file is a changed format.

use std::fmt::Write as _;
use std::path::Path;

/// Compares `bytes` with the hex dump `tests/golden/{name}`.
pub(crate) fn check(name: &str, bytes: &[u8]) {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name);
    let dump = dump(bytes);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, &dump).unwrap();
    }
    let recorded =
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}; BLESS=1 records it"));
    assert_eq!(dump, recorded, "{name} differs: the format changed");
}

/// Sixteen bytes a line, with their position and text.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String =
            chunk.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' }).collect();
        writeln!(text, "{:08x}  {:<47}  {shown}", line * 16, hex.join(" ")).unwrap();
    }
    text
}
