//! Cursors and the search in time, on logs in memory.

use orchestrator_kernel::ports::log_memory::MemoryLog;

use super::*;

async fn log_of(times: &[i64]) -> MemoryLog {
    let log = MemoryLog::default();
    let epoch = log.acquire().await.unwrap().epoch;
    for (ts, seq) in times.iter().zip(1..) {
        let mut batch = RecordBatch::starting_at(Seq(seq));
        batch.push_with(|out| {
            ReceiptRecord {
                ingest_seq: IngestSeq(seq),
                ingest_ts_ms: TsMs(*ts),
                origin: "o",
                position: 0,
                symbol: "A",
                event_type: "T",
                snapshot_ts_ms: None,
                event: b"{}",
            }
            .encode_to(out);
        });
        log.append(epoch, &batch).await.unwrap();
    }
    log
}

#[tokio::test]
async fn a_cursor_gives_its_range_and_nothing_else() {
    let log = log_of(&[1, 2, 3, 4, 5]).await;
    for (first, last, expected) in [(1, 5, 1..=5), (2, 4, 2..=4), (0, 99, 1..=5), (5, 5, 5..=5)] {
        let mut receipts = ReceiptCursor::over_range(&log, &(IngestSeq(first)..=IngestSeq(last)));
        let mut seen = Vec::new();
        while let Some(record) = receipts.next().await.unwrap() {
            seen.push(record.ingest_seq.0);
        }
        assert_eq!(seen, expected.collect::<Vec<_>>());
    }
    assert!(ReceiptCursor::over_range(&log, &(IngestSeq(6)..=IngestSeq(9))).next().await.unwrap().is_none());
    assert!(ReceiptCursor::over_range(&log, &(IngestSeq(4)..=IngestSeq(3))).next().await.unwrap().is_none());
}

/// Method: against a linear search, for every time around the recorded ones.
#[tokio::test]
async fn the_first_receipt_after_a_time_is_found() {
    let times = [10, 10, 10, 12, 15, 15, 20];
    let log = log_of(&times).await;
    for at in 8..23 {
        let expected = times.iter().filter(|ts| **ts <= at).count() as u64 + 1;
        assert_eq!(first_after(&log, TsMs(at)).await.unwrap(), IngestSeq(expected), "{at}");
    }
    assert_eq!(first_after(&log_of(&[]).await, TsMs(0)).await.unwrap(), IngestSeq(1));
}

#[tokio::test]
async fn bytes_that_are_no_record_are_reported_with_their_place() {
    let log = MemoryLog::default();
    let epoch = log.acquire().await.unwrap().epoch;
    let mut batch = RecordBatch::starting_at(Seq(1));
    batch.push(b"junk");
    log.append(epoch, &batch).await.unwrap();

    let error = ReceiptCursor::over_range(&log, &(IngestSeq(1)..=IngestSeq(1))).next().await.unwrap_err();

    assert_eq!(error.to_exit(), ProcessExit::Data);
    assert!(matches!(error.source, ReadError::Corrupt { at: Seq(1), .. }), "{error:?}");
}
