//! The routing key of an output: three words whatever the symbol is, so that a binding means what it says.
//!
//! A topic exchange reads a key as words between dots, and `*` and `#` in a *binding* as any word and any words. A
//! symbol is data: as one word it is found by `orchestrator_event.EngineRunCompleted.*`, and a binding that is made
//! from it takes that symbol alone. What stands in the way is percent-encoded; ordinary symbols stay as they are.

use lapin::types::ShortString;
use orchestrator_kernel::ports::fan_out::OutputMessage;
use sha2::{Digest as _, Sha256};

/// What a topic exchange or this encoding reads as more than itself.
const ENCODED: [char; 4] = ['.', '*', '#', '%'];
/// Bytes of the symbol's word. With the longest event type a key stays below the 255 that the wire allows.
const WORD_BYTES_MAX: usize = 200;
/// Bytes of a longer word that are kept before its digest.
const KEPT_BYTES: usize = 128;

/// `orchestrator_event.<event_type>.<symbol>`, the symbol as one word.
pub(super) fn routing_key(message: &OutputMessage) -> ShortString {
    format!("orchestrator_event.{}.{}", message.event_type, symbol_word(message.symbol.as_str())).into()
}

/// A symbol as one word, unlike that of any other symbol.
fn symbol_word(symbol: &str) -> String {
    let mut word = String::with_capacity(symbol.len());
    for character in symbol.chars() {
        if ENCODED.contains(&character) {
            word.push_str(&format!("%{:02X}", u32::from(character)));
        } else {
            word.push(character);
        }
    }
    if word.len() <= WORD_BYTES_MAX { word } else { shorten_word(&word, symbol) }
}

/// The beginning of a long word and the SHA-256 of its symbol; `%~` stands in no other word.
fn shorten_word(word: &str, symbol: &str) -> String {
    let end = word.floor_char_boundary(KEPT_BYTES);
    let kept = word.get(..end).unwrap_or_default();
    // Not within an encoded character.
    let cut = kept.rfind('%').filter(|at| kept.len() < at + 3);
    let whole = cut.and_then(|at| kept.get(..at)).unwrap_or(kept);
    let digest: String = Sha256::digest(symbol).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{whole}%~{digest}")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use orchestrator_kernel::engine::contracts::orchestrator_event::event_type;
    use orchestrator_kernel::engine::run_id::RunId;
    use orchestrator_kernel::ids::{EngineMode, IngestSeq, RunSeq, Symbol, TsMs};
    use proptest::prelude::*;

    use super::*;

    fn key(symbol: &str, event_type: &'static str) -> String {
        let symbol = Symbol::from(symbol);
        let run_id = RunId::derive(&symbol, TsMs(1), IngestSeq(1), EngineMode::Truth);
        let (run_seq, body) = (RunSeq(1), Bytes::new());
        let message = OutputMessage { run_seq, index: 0, run_id, event_type, symbol, symbol_seq: 1, body };
        routing_key(&message).to_string()
    }

    /// Method: each line of the recorded file is a symbol and its key, with a tabulator between.
    #[test]
    fn keys_are_those_that_consumers_bind() {
        let longest = "x".repeat(128);
        let symbols = [
            "BTCUSDT",
            "ETH/USDT",
            "BTC-PERP",
            "a_b:c@d",
            "BRK.B",
            "ETH-PERP.OKX",
            "EUR.USD",
            "a..b",
            ".",
            "*",
            "#",
            "50%",
            "A*.#",
            "株式",
            &longest,
            &".".repeat(128),
            &"é.".repeat(42),
        ];
        let shown: String = symbols
            .iter()
            .map(|symbol| format!("{symbol}\t{}\n", key(symbol, event_type::RUN_COMPLETED)))
            .collect();

        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/amqp_routing_keys.txt");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(path, &shown).unwrap();
        }
        assert_eq!(shown, std::fs::read_to_string(path).unwrap(), "consumers bind it: BLESS=1 records it");
    }

    proptest! {
        #[test]
        fn every_symbol_is_one_word_of_its_own(
            one in "[A-Z.*#%~é/ ]{1,128}",
            other in "[A-Z.*#%~é/ ]{1,128}",
            kind in prop::sample::select(&event_type::ALL[..])
        ) {
            let [one, other] = [one, other].map(|name| name[..name.floor_char_boundary(128)].to_owned());
            let (key, another) = (key(&one, kind), key(&other, kind));

            prop_assert!(key.len() <= 255, "{key}");
            prop_assert_eq!(key.split('.').count(), 3);
            prop_assert!(!key.contains(['*', '#']), "{key}");
            prop_assert_eq!(key == another, one == other);
        }
    }
}
