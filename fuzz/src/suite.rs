//! The fuzz targets in the default suite: on every input of the corpus, and on inputs made from it by chance.

mod targets;

use std::collections::BTreeSet;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use targets::{TARGETS, Target};

/// Bytes of all inputs: small enough to clone, large enough to reach every branch.
const CORPUS_BYTES_MAX: u64 = 300 << 10;
/// Inputs that a target has at least.
const INPUTS_MIN: usize = 8;

fn corpus() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus"))
}

/// The inputs of a target by name.
fn inputs(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = corpus().join(target);
    let listed = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| (path.display().to_string(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn every_target_has_a_corpus_and_every_corpus_a_target() {
    let folders: BTreeSet<String> = std::fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(folders, names);

    let all: Vec<_> = names.iter().map(|name| inputs(name)).collect();
    assert!(
        all.iter().all(|inputs| INPUTS_MIN <= inputs.len()),
        "a corpus has less than {INPUTS_MIN} inputs"
    );
    let bytes: usize = all.iter().flatten().map(|(_, input)| input.len()).sum();
    assert!(bytes as u64 <= CORPUS_BYTES_MAX, "the corpus has {bytes} bytes");
}

/// What is done to an input.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    Cut(Index),
    /// The end of another input in place of its own.
    Splice(Index, Index, Index),
}

/// What readers of text stumble over.
const HOSTILE: [&str; 24] = [
    "\u{0}",
    "\r\n",
    "\n\n",
    "\u{feff}",
    "{",
    "[",
    "]",
    "}",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "null",
    "1e400",
    "-0",
    "NaN",
    "18446744073709551616",
    "9223372036854775808",
    "Infinity",
    ",",
    ":",
    " ",
    "\u{2028}",
    "é",
];

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![
        prop::sample::select(HOSTILE.to_vec()).prop_map(|text| text.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 1..9),
    ];
    prop_oneof![
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (any::<Index>(), bytes).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (any::<Index>(), 1..9_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (any::<Index>(), 1..33_usize, 1..9_usize)
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        any::<Index>().prop_map(Change::Cut),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

fn changed(corpus: &[(String, Vec<u8>)], start: Index, changes: &[Change]) -> Vec<u8> {
    let mut input = start.get(corpus).1.clone();
    for change in changes {
        let place = |at: &Index| at.index(input.len() + 1);
        match change {
            Change::Flip(at, bit) => {
                input.iter_mut().skip(at.index(1 << 12)).take(1).for_each(|byte| *byte ^= 1 << bit)
            }
            Change::Set(at, byte) => {
                let at = place(at);
                input.iter_mut().skip(at).take(1).for_each(|old| *old = *byte);
            }
            Change::Insert(at, bytes) => {
                let at = place(at);
                input.splice(at..at, bytes.iter().copied());
            }
            Change::Remove(at, length) => {
                let at = place(at);
                input.drain(at..(at + length).min(input.len()));
            }
            Change::Repeat(at, length, times) => {
                let at = place(at);
                let part = input[at..(at + length).min(input.len())].repeat(*times);
                input.splice(at..at, part);
            }
            Change::Cut(at) => input.truncate(place(at)),
            Change::Splice(at, other, from) => {
                let at = place(at);
                let other = &other.get(corpus).1;
                input.truncate(at);
                input.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
    input
}

/// Runs a target on its corpus, then on `cases` inputs made from it. `SEED=n` makes other ones.
fn check_target(name: &str, cases: u32) {
    let (_, target): &(_, Target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    let corpus = inputs(name);
    for (path, input) in &corpus {
        println!("{path}");
        target(input);
    }
    let seed: u64 = std::env::var("SEED").ok().map_or(1, |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let made = (any::<Index>(), prop::collection::vec(change(), 1..6));
    let outcome = runner.run(&made, |(start, changes)| {
        target(&changed(&corpus, start, &changes));
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("SEED={seed} {name}: {error}"));
}

/// One test a target, so that they run side by side, and the number of inputs that are made for it.
macro_rules! suite {
    ($($name:ident $cases:literal,)*) => {
        $(
            #[test]
            fn $name() {
                check_target(stringify!($name), $cases);
            }
        )*

        #[test]
        fn every_target_is_in_the_suite() {
            assert_eq!(TARGETS.map(|(name, _)| name).to_vec(), [$(stringify!($name)),*]);
        }
    };
}

suite! {
    canonical_json 8_000,
    capture_lines 8_000,
    checkpoints 6_000,
    config 1_000,
    cron_pattern 4_000,
    engine_answer 8_000,
    engine_request 6_000,
    http_body 8_000,
    http_headers 6_000,
    journal_checkpoints 4_000,
    journal_record 4_000,
    kill_switch 6_000,
    market_calendar 4_000,
    quarantine_record 6_000,
    raw_market_event 8_000,
    receipt_record 6_000,
    redis_answer 6_000,
    redis_stored 6_000,
    run_record 6_000,
    segment 3_000,
    stage_answer 8_000,
    worker_lines 6_000,
}
