//! The history of a recorded journal, made by the command.

use std::path::Path;

use orchestrator::adapters::files::log::{EmbeddedLog, EmbeddedLogOptions};
use orchestrator_kernel::ids::{Seq, TsMs};
use orchestrator_kernel::ports::log::{Log, RecordBatch};
use orchestrator_kernel::trading::agent::{AgentCause, AgentCommand, AgentState};
use orchestrator_kernel::trading::ids::CorrelationId;
use orchestrator_kernel::trading::journal::{
    AlertRaised, ChainHash, JournalAuthor, JournalEntry, JournalFact, seal_entry,
};
use serde_json::{Value, json};

use crate::support::orchestrator;

const AT: i64 = 1_768_002_660_000;

/// Records of an agent that was started while an alert was raised, as a plane leaves them.
fn records() -> Vec<Vec<u8>> {
    let cause = AgentCause::Command(AgentCommand::Start { strategies: None, mode: None });
    let changed = AgentState::default().decide_change(cause, TsMs(AT)).unwrap().unwrap();
    let raised = AlertRaised { alert: "calendar_ending".to_owned(), detail: "soon".to_owned() };
    let mut hash = ChainHash::START;
    let facts = [JournalFact::AlertRaised(raised), JournalFact::AgentChanged(changed)];
    let sealed = facts.into_iter().map(|fact| {
        let entry = JournalEntry {
            who: JournalAuthor::Actor("test".to_owned()),
            planned_ts_ms: None,
            at_ms: TsMs(AT),
            correlation: CorrelationId::new("test").unwrap(),
            fact,
        };
        let mut bytes = Vec::new();
        hash = seal_entry(hash, &entry, &mut bytes);
        bytes
    });
    sealed.collect()
}

async fn write_journal(dir: &Path) {
    let log = EmbeddedLog::open(&dir.join("journal"), EmbeddedLogOptions::new("journal")).unwrap();
    let acquired = log.acquire().await.unwrap();
    let mut batch = RecordBatch::starting_at(Seq(1));
    records().iter().for_each(|record| batch.push(record));
    log.append(acquired.epoch, &batch).await.unwrap();
}

fn rebuild(dir: &Path, more: &[&str]) -> std::process::Output {
    let (dir, data_dir) = (dir.to_str().unwrap(), format!("service.data_dir={}", dir.to_str().unwrap()));
    let mut args = vec!["history", "rebuild", "--from", dir, "--set", &data_dir];
    args.extend(more);
    orchestrator(&args)
}

#[tokio::test]
async fn a_recorded_journal_becomes_tables_and_again_the_same_ones() {
    let dir = tempfile::tempdir().unwrap();
    write_journal(dir.path()).await;
    // The place has the logs of a service.
    std::fs::create_dir(dir.path().join("receipts")).unwrap();

    for _ in 0..2 {
        let made = rebuild(dir.path(), &[]);

        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let report: Value = serde_json::from_slice(&made.stdout).unwrap();
        assert_eq!(report, json!({ "projected": 2, "skipped": [] }));
        let file = std::fs::read(dir.path().join("history.sqlite")).unwrap();
        assert!(file.starts_with(b"SQLite format 3\0"));
    }
}

#[tokio::test]
async fn a_rebuild_that_cannot_be_says_why_and_how_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    write_journal(dir.path()).await;
    std::fs::create_dir(dir.path().join("receipts")).unwrap();
    // A port that nobody listens on: bound, and let go of.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("trading.history.url=postgres://me:hidden@127.0.0.1:{port}/name");
    for (more, code, said) in [
        (vec!["--set", "trading.history.enabled=false"], 78, "trading.history.enabled"),
        (vec!["--set", &url, "--set", "trading.history.connect_timeout=200ms"], 69, "away"),
    ] {
        let refused = rebuild(dir.path(), &more);

        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(code), "{message}");
        assert!(message.contains(said) && !message.contains("hidden"), "{message}");
    }
}
