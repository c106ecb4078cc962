//! The audit of a journal, chain and rules, against hashing the same bytes.

use std::time::{Duration, Instant};

use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::audit::JournalAudit;
use orchestrator_kernel::trading::journal::{CHAIN_HASH_BYTES, ChainHash};

use super::bed::Bed;
use super::support::{Bar, Options, Outcome, Row, ensure, median, per_second, runtime, scratch};

pub(super) fn measure(options: Options) -> Outcome<Vec<Row>> {
    let (strategies, ticks): (u64, u64) = (options.size(1000, 100), options.size(10, 2));
    let dir = scratch()?;
    let records = runtime()?.block_on(async {
        let mut bed = Bed::start(options.medium, dir.path(), strategies).await?;
        for _ in 0..ticks {
            bed.tick().await?;
        }
        bed.finish(strategies * ticks).await
    })?;
    let (mut audits, mut hashes) = (Vec::new(), Vec::new());
    for _ in 0..options.size(5, 1) {
        let (audited, audit_head) = audit_records(&records)?;
        let (hashed, hash_head) = hash_records(&records);
        ensure(audit_head == hash_head, || "the audit ends with another hash".to_owned())?;
        audits.push(per_second(records.len() as u64, audited));
        hashes.push(per_second(records.len() as u64, hashed));
    }
    let bytes: usize = records.iter().map(Vec::len).sum();
    Ok(vec![Row {
        what: format!("journal verified, {} records of {} B", records.len(), bytes / records.len()),
        value: median(&mut audits),
        unit: "records/s",
        baseline: "SHA-256 over the same chain alone",
        baseline_value: median(&mut hashes),
        bar: Bar::AtLeast(500_000.0),
    }])
}

fn audit_records(records: &[Vec<u8>]) -> Outcome<(Duration, ChainHash)> {
    let begin = Instant::now();
    let mut audit = JournalAudit::default();
    for (bytes, seq) in records.iter().zip(1..) {
        audit.take_record(JournalSeq(seq), bytes)?;
    }
    Ok((begin.elapsed(), audit.head_hash()))
}

fn hash_records(records: &[Vec<u8>]) -> (Duration, ChainHash) {
    let begin = Instant::now();
    let head = records.iter().fold(ChainHash::START, |head, bytes| {
        let body = bytes.get(..bytes.len().saturating_sub(CHAIN_HASH_BYTES)).unwrap_or_default();
        head.hash_of_next(body)
    });
    (begin.elapsed(), head)
}
