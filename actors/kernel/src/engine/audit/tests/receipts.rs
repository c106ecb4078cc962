//! Whatever is changed in the receipt log is noticed.

use proptest::prelude::*;

use super::*;

/// A change of the receipt log, at a receipt that some run has counted; returns what must name it.
type LogFlip = fn(&mut Vec<Stored>, usize) -> Option<(Check, &'static str)>;

fn log_flips() -> impl Strategy<Value = LogFlip> {
    let flips: Vec<LogFlip> = vec![
        |log: &mut Vec<Stored>, at| {
            log[at].event_type = "Forged";
            Some((Check::Cuts, "counts_by_event_type"))
        },
        |log: &mut Vec<Stored>, at| {
            log[at].symbol = "forged";
            Some((Check::Cuts, "counts_by_event_type"))
        },
        // Everything after it moves down, and no longer is where it says.
        |log: &mut Vec<Stored>, at| {
            log.remove(at);
            (at < log.len()).then_some((Check::Receipts, "ingest_seq"))
        },
        |log: &mut Vec<Stored>, at| {
            log[at].ingest_ts_ms = TsMs(0);
            (0 < at).then_some((Check::Order, "ingest_ts_ms"))
        },
        // As if it had come much later: the cuts before would have ended earlier.
        |log: &mut Vec<Stored>, at| {
            log[at].ingest_ts_ms = TsMs(i64::MAX / 2);
            Some((Check::Cuts, "cut_end_ingest_seq"))
        },
    ];
    prop::sample::select(flips)
}

/// Whether any run has counted this receipt.
fn is_counted(receipt: &ReceiptRecord<'_>, runs: &[RunRecord]) -> bool {
    runs.iter()
        .any(|run| run.facts.symbol.as_str() == receipt.symbol && receipt.ingest_seq <= run.facts.cut.end)
}

proptest! {
    /// Method: change one receipt that some run counted, without a trace in the run log.
    #[test]
    fn a_receipt_that_was_changed_or_dropped_is_noticed(
        history in history(), at in any::<prop::sample::Index>(), flip in log_flips(),
    ) {
        let mut live = Live::after(history);
        let counted: Vec<usize> = records(&live.log)
            .filter(|receipt| is_counted(receipt, &live.runs))
            .map(|receipt| usize::try_from(receipt.ingest_seq.0).unwrap() - 1)
            .collect();
        if counted.is_empty() {
            return Ok(());
        }
        let index = counted[at.index(counted.len())];
        let numbered: Vec<u64> = (1..=live.log.len() as u64).collect();
        let mut numbers = numbered.clone();
        let honest_len = live.log.len();
        let Some((check, field)) = flip(&mut live.log, index) else { return Ok(()) };
        if live.log.len() < honest_len {
            numbers.remove(index);
        }
        let renumbered =
            records(&live.log).zip(numbers).map(|(record, seq)| ReceiptRecord { ingest_seq: IngestSeq(seq), position: seq, ..record });

        let audited = audit_from(renumbered, &live.runs, StateFrom::Record, ReplayStart::default());

        prop_assert!(audited.has(check, field), "{:?}", audited.found);
    }

    #[test]
    fn an_item_that_was_stored_twice_is_named(history in history(), at in any::<prop::sample::Index>()) {
        let live = Live::after(history);
        if live.log.len() < 2 {
            return Ok(());
        }
        let index = at.index(live.log.len() - 1) + 1;
        let repeated = records(&live.log).enumerate().map(|(number, record)| ReceiptRecord {
            position: if number == index { record.position - 1 } else { record.position },
            ..record
        });

        let audited = audit_from(repeated, &live.runs, StateFrom::Record, ReplayStart::default());

        let place = DivergencePlace::Receipt(IngestSeq(index as u64 + 1));
        prop_assert!(audited.found.iter().any(|found| found.check == Check::Positions && found.place == place));
        prop_assert_eq!(audited.found.len(), 1);
    }
}
