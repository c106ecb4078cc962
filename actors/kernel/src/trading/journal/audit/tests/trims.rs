//! Where the base of a trimmed journal may stand, over whatever the plane does.

use proptest::prelude::*;

use super::*;
use crate::trading::journal::retention::{JournalBlocker, JournalLimits, JournalTrimSearch};
use crate::trading::journal::{CycleCause, ScheduleFired, SealedEntry};

fn entries(stored: &[Vec<u8>]) -> Vec<JournalEntry> {
    stored.iter().map(|bytes| SealedEntry::decode(bytes).unwrap().entry).collect()
}

/// The first records of cycles (from their fires on) and commands that are open at the end of `facts`.
fn first_open(facts: &[JournalFact]) -> Option<u64> {
    let ends = |id| facts.iter().any(|fact| matches!(fact, JournalFact::CycleEnded(e) if e.cycle_id == id));
    let skipped = |fired: &ScheduleFired| {
        facts.iter().any(|fact| {
            matches!(fact, JournalFact::ScheduleSkipped(s)
                if s.schedule == fired.schedule && s.first_fire == fired.fire)
        })
    };
    let answered =
        |id| facts.iter().any(|fact| matches!(fact, JournalFact::CommandEnded(e) if e.command_id == id));
    let begun_for = |command| {
        facts.iter().find_map(|fact| match fact {
            JournalFact::CycleStarted(started) if started.cause == CycleCause::Command(command) => {
                Some(started.cycle_id)
            }
            _ => None,
        })
    };
    let is_open = |fact: &JournalFact| match fact {
        JournalFact::ScheduleFired(fired) => !ends(fired.cycle_id) && !skipped(fired),
        JournalFact::CycleStarted(started) => !ends(started.cycle_id),
        JournalFact::CommandReceived(received) => {
            !answered(received.command_id) || begun_for(received.command_id).is_some_and(|id| !ends(id))
        }
        _ => false,
    };
    facts.iter().position(is_open).map(|at| at as u64 + 1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Method: limits at any place; the base must stand before everything that is open there, before what is needed,
    /// and behind all that may go; the audit goes on from it.
    #[test]
    fn a_base_keeps_what_is_open_needed_or_young_and_the_rest_follows_from_it(
        script in any_script(),
        young in any::<prop::sample::Index>(),
        needed in any::<prop::sample::Index>(),
        below in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
    ) {
        let facts = World::play(&script).facts;
        let stored = sealed(&facts);
        let entries = entries(&stored);
        let tail = stored.len() as u64;
        let [young, needed, below] = [young, needed, below].map(|at| at.index(stored.len()) as u64 + 1);
        let limits = JournalLimits {
            // The record at position n is made at WALL + n - 1.
            older_than: Some(TsMs(WALL + young.cast_signed() - 1)),
            below: JournalSeq(below),
            needed_from: JournalSeq(needed),
        };

        // Two looks: the second one begins where the first one brought the base.
        let first_limits =
            JournalLimits { needed_from: JournalSeq(needed.min(from.index(stored.len()) as u64 + 1)), ..limits };
        let mut base = JournalSeq(0);
        for limits in [first_limits, limits] {
            let mut search = JournalTrimSearch::new(base, limits);
            for (entry, seq) in entries.iter().zip(1..).skip(base.0 as usize) {
                if !search.take_entry(JournalSeq(seq), entry) {
                    break;
                }
            }
            base = base.max(search.base_at());
        }

        let stop = needed.min(young.max(below)).min(tail + 1);
        prop_assert!(base.0 < stop, "{base} below {stop}");
        let open = first_open(&facts[..stop as usize - 1]);
        prop_assert_eq!(base.0, open.map_or(stop - 1, |first| first - 1));
        let mut audit = audit_stored((1..).zip(&stored[..base.0 as usize])).unwrap();
        for (seq, bytes) in (1..).zip(&stored).skip(base.0 as usize) {
            prop_assert!(audit.take_record(JournalSeq(seq), bytes).is_ok());
        }
    }
}

#[test]
fn what_holds_the_base_is_named() {
    let facts = World::two_fires_and_a_command().facts;
    let entries = entries(&sealed(&facts));
    let limits = JournalLimits { older_than: None, below: JournalSeq(1000), needed_from: JournalSeq(1000) };
    let fired = facts.iter().position(|fact| matches!(fact, JournalFact::ScheduleFired(_))).unwrap();

    let mut search = JournalTrimSearch::new(JournalSeq(0), limits);
    for (entry, seq) in entries[..=fired].iter().zip(1..) {
        assert!(search.take_entry(JournalSeq(seq), entry));
    }

    let first = JournalSeq(fired as u64 + 1);
    assert!(matches!(search.first_open(), Some((at, JournalBlocker::Cycle(_))) if at == first));
    assert_eq!(search.base_at(), JournalSeq(first.0 - 1));
}
