//! What the tests share: a journal on a log that fails as it is told, and small records.

use std::sync::Arc;
use std::time::Duration;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::ports::checkpoint::MemoryCheckpoints;
use orchestrator_kernel::ports::observer::Unobserved;
use orchestrator_kernel::restart::{BeyondIntensity, Restart, RestartPolicy};
use orchestrator_kernel::trading::ids::{CorrelationId, JournalSeq};
use orchestrator_kernel::trading::journal::audit::JournalAudit;
use orchestrator_kernel::trading::journal::{
    AlertCleared, AlertRaised, JournalAuthor, JournalEntry, JournalFact,
};
use orchestrator_runtime::fatal::{FatalKind, FatalSlot};
use orchestrator_runtime::group_commit::BatchLimits;
use orchestrator_runtime::log_writer::LogWriterSettings;
use orchestrator_runtime::status::{Condition, StatusBoard};
use orchestrator_runtime::supervisor::{ChildSpec, Supervisor, SupervisorArgs, SupervisorMsg};
use orchestrator_runtime::testkit::FaultyLog;
use orchestrator_trading_plane::journal::messages::{JournalCommitted, JournalDoor, JournalMsg};
use orchestrator_trading_plane::journal::{Journal, JournalArgs, JournalSettings};
use orchestrator_trading_plane::view::TradingView;
use ractor::{Actor, ActorRef};
use tokio::sync::watch;

/// The wall clock's moment zero.
pub(crate) const WALL: i64 = 1_768_002_660_000;

/// Waits until `holds`; a test that waits in vain fails.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "in vain: {what}");
}

pub(crate) fn journal_settings() -> JournalSettings {
    JournalSettings {
        writer: LogWriterSettings {
            limits: BatchLimits { records: 1024, bytes: 1 << 20 },
            resend_after: Duration::from_millis(5),
            probe_every: None,
            reopen_after: Duration::from_millis(5),
        },
        linger: Duration::from_millis(20),
        slow_after: Duration::from_millis(50),
        checkpoint_every: 1 << 20,
    }
}

/// A journal by itself, under a supervisor of its own. Log and checkpoints live across its restarts.
pub(crate) struct JournalRig {
    pub(crate) log: Arc<FaultyLog>,
    pub(crate) checkpoints: Arc<MemoryCheckpoints>,
    pub(crate) settings: JournalSettings,
    pub(crate) queue_max: u32,
}

impl Default for JournalRig {
    fn default() -> Self {
        Self {
            log: Arc::default(),
            checkpoints: Arc::default(),
            settings: journal_settings(),
            queue_max: 1000,
        }
    }
}

/// A journal that is up.
pub(crate) struct RunningJournal {
    root: ActorRef<SupervisorMsg>,
    joined: tokio::task::JoinHandle<()>,
    pub(crate) fatal: FatalSlot,
    pub(crate) door: JournalDoor,
    pub(crate) view: TradingView,
    pub(crate) board: StatusBoard,
    pub(crate) committed: watch::Receiver<JournalCommitted>,
}

impl JournalRig {
    /// Starts the journal, or says why it did not start.
    pub(crate) async fn start(&self) -> Result<RunningJournal, (FatalKind, String)> {
        let (fatal, board, view) = (FatalSlot::default(), StatusBoard::default(), TradingView::default());
        let door = JournalDoor::new(self.queue_max, board.clone());
        let committed = Arc::new(watch::Sender::new(JournalCommitted::default()));
        let args = JournalArgs {
            log: self.log.clone(),
            checkpoints: self.checkpoints.clone(),
            settings: self.settings,
            door: door.clone(),
            view: view.clone(),
            committed: Arc::clone(&committed),
            observer: Arc::new(Unobserved),
            board: board.clone(),
        };
        let address = door.address().clone();
        let child = ChildSpec {
            name: "journal".to_owned(),
            kind: "journal",
            policy: RestartPolicy {
                restart: Restart::Never,
                restarts_max: 0,
                period: Duration::from_secs(1),
                backoff_min: Duration::ZERO,
                backoff_max: Duration::ZERO,
                beyond: BeyondIntensity::Escalate,
            },
            start: Arc::new(move |parent| {
                let (address, args) = (address.clone(), args.clone());
                Box::pin(async move { address.start_actor(Journal, args, parent).await })
            }),
            on_halt: None,
        };
        let observer = Arc::new(Unobserved);
        let args = SupervisorArgs { name: "trading", children: vec![child], fatal: fatal.clone(), observer };
        match Supervisor::spawn(None, Supervisor, args).await {
            Ok((root, joined)) => {
                let committed = committed.subscribe();
                Ok(RunningJournal { root, joined, fatal, door, view, board, committed })
            }
            Err(error) => {
                let fatal = fatal.first_or(&error);
                Err((fatal.kind, format!("{}", orchestrator_runtime::fatal::Chain(&fatal))))
            }
        }
    }

    /// Everything durable, audited.
    pub(crate) async fn audit(&self) -> JournalAudit {
        let mut audit = JournalAudit::default();
        for (bytes, seq) in self.log.records().await.iter().zip(1..) {
            audit.take_record(JournalSeq(seq), bytes).expect("the journal keeps its rules");
        }
        audit
    }
}

impl RunningJournal {
    /// Ends at once, as a crash would.
    pub(crate) async fn kill(self) {
        self.root.kill();
        self.joined.await.ok();
    }

    /// Finishes what is in flight and stops.
    pub(crate) async fn drain(self) {
        self.door.address().call(JournalMsg::Drain).await.expect("the journal is up");
        self.root.stop(None);
        self.joined.await.ok();
    }

    /// Why it ended. One that nothing ends is a failure of the test.
    pub(crate) async fn failure(self) -> (FatalKind, String) {
        tokio::time::timeout(Duration::from_secs(60), self.joined).await.expect("nothing ended it").ok();
        self.fatal.get().expect("a reason")
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.board.holds_condition(&Condition::JournalFailing)
    }
}

pub(crate) fn entry(fact: JournalFact) -> JournalEntry {
    JournalEntry {
        who: JournalAuthor::Actor("test".to_owned()),
        planned_ts_ms: None,
        at_ms: TsMs(WALL),
        correlation: CorrelationId::new("test").expect("a correlation"),
        fact,
    }
}

pub(crate) fn raised(alert: &str) -> Vec<JournalEntry> {
    vec![entry(JournalFact::AlertRaised(AlertRaised { alert: alert.to_owned(), detail: "it is".to_owned() }))]
}

pub(crate) fn cleared(alert: &str) -> Vec<JournalEntry> {
    vec![entry(JournalFact::AlertCleared(AlertCleared { alert: alert.to_owned() }))]
}
