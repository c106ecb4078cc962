//! A recorded run of a service with a journal beside it that a trading plane wrote, and what a tamperer does to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orchestrator::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use orchestrator::adapters::files::{DataDir, MarkedLog};
use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{Log, LogName, RecordBatch};
use orchestrator_kernel::trading::ids::JournalSeq;
use orchestrator_kernel::trading::journal::audit::JournalAudit;
use orchestrator_kernel::trading::journal::{ChainHash, JournalEntry, JournalFact, SealedEntry, seal_entry};
use orchestrator_trading_plane::command::{CommandAnswer, TradingCommand};
use orchestrator_trading_plane::plane::TradingStop;
use orchestrator_trading_plane::testkit::{
    PlaneRig, origin, pipeline_name, start_agent, strategy_name, trading_settings,
};

use crate::verify::made_up::MadeUp;

/// Cycles of the journal, each begun by a command.
pub(crate) const CYCLES: usize = 3;

/// Small segments: the journal has several.
const SEGMENT_BYTES: u64 = 4096;

/// What a plane puts on record that starts its agent, runs cycles of two strategies, and stops.
pub(crate) async fn plane_records() -> Vec<Vec<u8>> {
    let mut settings = trading_settings();
    settings.schedules.clear();
    let rig = PlaneRig::new(settings);
    let plane = rig.start().await;
    start_agent(plane.handle(), "start").await.unwrap();
    for cycle in 0..CYCLES {
        let command = TradingCommand::RunCycle {
            pipeline: pipeline_name("canonical"),
            strategies: vec![strategy_name("a"), strategy_name("b")],
            trigger_event: None,
        };
        let begun = plane.handle().execute_command(command, origin(&format!("run-{cycle}"))).await.unwrap();
        let CommandAnswer::CycleBegun { cycle_id } = begun else { panic!("no cycle begins: {begun:?}") };
        let ended = tokio::time::timeout(Duration::from_secs(60), plane.handle().wait_for_cycle(cycle_id));
        ended.await.expect("the cycle ends").expect("the cycle is shown");
    }
    assert_eq!(plane.stop(Duration::from_secs(60)).await, TradingStop::Clean);
    rig.log.records().await
}

/// The records without their hashes.
pub(crate) fn entries(records: &[Vec<u8>]) -> Vec<JournalEntry> {
    records.iter().map(|record| SealedEntry::decode(record).unwrap().entry).collect()
}

/// A chain of these records, as somebody makes it who knows how.
pub(crate) fn sealed(entries: &[JournalEntry]) -> Vec<Vec<u8>> {
    let mut hash = ChainHash::START;
    let seal = |entry: &JournalEntry| {
        let mut bytes = Vec::new();
        hash = seal_entry(hash, entry, &mut bytes);
        bytes
    };
    entries.iter().map(seal).collect()
}

/// The position of the first record of this kind, counted from 0.
pub(crate) fn first_of(entries: &[JournalEntry], kind: &str) -> usize {
    entries.iter().position(|entry| entry.fact.kind_word() == kind).unwrap()
}

/// The journal's directory.
pub(crate) fn journal_dir(data: &Path) -> PathBuf {
    data.join("journal")
}

/// Writes a journal into a data directory as a service does: in small batches, with its high-water mark.
pub(crate) async fn write_journal(data: &Path, records: &[Vec<u8>]) {
    let data_dir = DataDir::open(data).unwrap();
    assert!(data_dir.make_room_for_journal().unwrap());
    let options = EmbeddedLogOptions {
        segment_bytes: SEGMENT_BYTES,
        mark: data_dir.mark_of(MarkedLog::Journal),
        ..EmbeddedLogOptions::new("journal")
    };
    let log: Arc<dyn Log> =
        Arc::new(EmbeddedLog::open(&data_dir.log_dir(LogName::Journal), options).unwrap());
    let epoch = log.acquire().await.unwrap().epoch;
    let mut next = Seq(1);
    for records in records.chunks(5) {
        let mut batch = RecordBatch::starting_at(next);
        records.iter().for_each(|record| batch.push(record));
        log.append(epoch, &batch).await.unwrap();
        next = batch.last_seq().next();
    }
}

/// Puts another journal in the place of the one that is there, with all that is known of it gone.
pub(crate) async fn replace_journal(data: &Path, records: &[Vec<u8>]) {
    fs::remove_dir_all(journal_dir(data)).unwrap();
    for marks in ["high_water.marks", "runs/high_water.marks"] {
        forget_journal_marks(&data.join(marks));
    }
    write_journal(data, records).await;
}

/// Blanks the marks of the journal in a file of marks: the slots of log number 7.
fn forget_journal_marks(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let from = 4096 * 3 * 7;
    if from < bytes.len() {
        bytes[from..].fill(0);
    }
    fs::write(path, bytes).unwrap();
}

/// Segments of the journal, in order.
pub(crate) fn segments(data: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(journal_dir(data)).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
    segments.sort();
    segments
}

/// A recorded run with the journal of a plane.
pub(crate) async fn recorded_with_journal() -> (MadeUp, Vec<Vec<u8>>) {
    let made = MadeUp::with_demo_engine();
    let records = plane_records().await;
    write_journal(&made.data, &records).await;
    (made, records)
}

/// The hash that the next record would continue.
pub(crate) fn head_of(records: &[Vec<u8>]) -> String {
    let mut audit = JournalAudit::default();
    for (record, seq) in records.iter().zip(1..) {
        audit.take_record(JournalSeq(seq), record).unwrap();
    }
    audit.head_hash().to_string()
}

/// Removes the records that `goes` names, and chains the rest.
pub(crate) fn without(entries: &[JournalEntry], goes: impl Fn(usize, &JournalFact) -> bool) -> Vec<Vec<u8>> {
    let kept = entries.iter().enumerate().filter(|(at, entry)| !goes(*at, &entry.fact));
    sealed(&kept.map(|(_, entry)| entry.clone()).collect::<Vec<_>>())
}
