//! The audit passes what the state machines write, and names each planted defect by its record and rule.

mod defects;
mod trims;
mod world;

use proptest::prelude::*;

use super::*;
use crate::ids::TsMs;
use crate::trading::journal::{JournalAuthor, seal_entry};
use crate::trading::testkit::{WALL, cycle_id};

use world::{World, any_script};

fn sealed(facts: &[JournalFact]) -> Vec<Vec<u8>> {
    let mut previous = ChainHash::START;
    let stored = facts.iter().zip(0..).map(|(fact, at)| {
        let entry = JournalEntry {
            who: JournalAuthor::Actor("cadence".to_owned()),
            planned_ts_ms: None,
            at_ms: TsMs(WALL + at),
            correlation: cycle_id(1).correlation_id(),
            fact: fact.clone(),
        };
        let mut bytes = Vec::new();
        previous = seal_entry(previous, &entry, &mut bytes);
        bytes
    });
    stored.collect()
}

fn audit_stored<'a>(
    stored: impl IntoIterator<Item = (u64, &'a Vec<u8>)>,
) -> Result<JournalAudit, BrokenRule> {
    let mut audit = JournalAudit::default();
    for (seq, bytes) in stored {
        audit.take_record(JournalSeq(seq), bytes)?;
    }
    Ok(audit)
}

fn audited(facts: &[JournalFact]) -> Result<JournalAudit, BrokenRule> {
    audit_stored((1..).zip(&sealed(facts)))
}

#[test]
fn every_rule_has_a_word_of_its_own_and_a_sentence() {
    let words: BTreeSet<_> = JournalRule::ALL.iter().map(|rule| rule.as_str()).collect();

    assert_eq!(words.len(), JournalRule::ALL.len());
    assert!(JournalRule::ALL.iter().all(|rule| rule.sentence().trim().ends_with('.')));
    let broken = BrokenRule { seq: JournalSeq(7), rule: JournalRule::FireLost, detail: "fire 3".to_owned() };
    assert_eq!(broken.to_string(), "record 7 breaks fire_lost: fire 3");
}

#[test]
fn what_has_begun_and_not_ended_is_told_and_breaks_nothing() {
    let facts = World::two_fires_and_a_command().facts;
    let whole = audited(&facts).unwrap();
    assert_eq!(whole.unfinished_work(), JournalUnfinished::default());
    assert_eq!(whole.tail(), JournalSeq(facts.len() as u64));

    let fired = facts.iter().position(|fact| matches!(fact, JournalFact::ScheduleFired(_))).unwrap();
    let cut = audited(&facts[..=fired]).unwrap().unfinished_work();
    assert_eq!((cut.fires.len(), cut.cycles.len()), (1, 0));
    let cut = audited(&facts[..fired + 3]).unwrap().unfinished_work();
    assert_eq!((cut.fires.len(), cut.cycles.len()), (0, 1));
}

/// The base of a trimmed journal, byte for byte: one written before is still read.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads its golden file")]
fn the_stored_base_has_the_golden_bytes_of_version_1() {
    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/journal_base_v1.hex");
    let facts = World::hooked_cycle().facts;
    let audit = audited(&facts[..facts.len() - 3]).unwrap();
    let mut bytes = Vec::new();
    audit.encode_to(&mut bytes);

    let lines =
        bytes.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n");
    let shown: String = lines.collect();
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(GOLDEN, &shown).unwrap();
    }
    assert_eq!(shown, std::fs::read_to_string(GOLDEN).unwrap(), "BLESS=1 records it");
    assert_eq!(JournalAudit::decode(&bytes), Ok(audit));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_sequence_that_the_state_machines_produce_passes(script in any_script()) {
        let world = World::play(&script);

        let audit = audited(&world.facts);

        prop_assert!(audit.is_ok(), "{:?}\n{}", audit, world.tail_of(&audit));
        prop_assert_eq!(audit.unwrap().unfinished_work(), JournalUnfinished::default());
    }

    /// The audit's state is what a trimmed journal continues from.
    #[test]
    fn an_audit_continued_from_its_stored_base_says_the_same(
        script in any_script(),
        at in any::<prop::sample::Index>(),
    ) {
        let stored = sealed(&World::play(&script).facts);
        let cut = at.index(stored.len());
        let before = audit_stored((1..).zip(&stored[..cut])).unwrap();
        let mut base = Vec::new();
        before.encode_to(&mut base);

        let mut continued = JournalAudit::decode(&base).unwrap();
        prop_assert_eq!(&continued, &before);
        for (seq, bytes) in (1..).zip(&stored).skip(cut) {
            prop_assert!(continued.take_record(JournalSeq(seq), bytes).is_ok());
        }

        prop_assert_eq!(continued, audit_stored((1..).zip(&stored)).unwrap());
    }

    /// Method: one byte of one record, one record away, two records exchanged.
    #[test]
    fn a_record_altered_removed_or_moved_is_named(
        script in any_script(),
        at in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        bits in 1..=255u8,
    ) {
        let stored = sealed(&World::play(&script).facts);
        let at = at.index(stored.len() - 1);
        let seq = JournalSeq(at as u64 + 1);

        let mut altered = stored.clone();
        let byte = byte.index(altered[at].len());
        altered[at][byte] ^= bits;
        let broken = audit_stored((1..).zip(&altered)).unwrap_err();
        prop_assert_eq!((broken.seq, broken.rule), (seq, JournalRule::Chain));

        let mut removed = stored.clone();
        removed.remove(at);
        let broken = audit_stored((1..).zip(&removed)).unwrap_err();
        prop_assert_eq!((broken.seq, broken.rule), (seq, JournalRule::Chain), "and those behind it renumbered");
        let gap = (1..).zip(&stored).filter(|(number, _)| *number != seq.0);
        let broken = audit_stored(gap).unwrap_err();
        prop_assert_eq!((broken.seq, broken.rule), (seq.next(), JournalRule::Numbering));

        let mut swapped = stored;
        swapped.swap(at, at + 1);
        let broken = audit_stored((1..).zip(&swapped)).unwrap_err();
        prop_assert_eq!((broken.seq, broken.rule), (seq, JournalRule::Chain));
    }
}
