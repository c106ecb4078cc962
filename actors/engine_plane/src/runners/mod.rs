//! The runners as a group: started as symbols come, reached by symbol, halted one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orchestrator_kernel::ids::Symbol;
use orchestrator_kernel::ports::observer::Observation;
use orchestrator_runtime::address::Address;
use orchestrator_runtime::status::{Condition, StatusBoard};
use orchestrator_runtime::supervisor::{ChildSpec, SupervisorMsg};

use crate::run_log::messages::RunLogMsg;
use crate::scheduler::messages::SchedulerMsg;
pub mod messages;
pub mod symbol_runner;

use messages::RunnerMsg;
use symbol_runner::{RunnerArgs, SymbolRunner};

struct Shared {
    supervisor: Address<SupervisorMsg>,
    board: StatusBoard,
    args: RunnerArgs,
    known: Mutex<KnownRunners>,
}

#[derive(Default)]
struct KnownRunners {
    addresses: BTreeMap<Symbol, Address<RunnerMsg>>,
    halted: BTreeSet<Symbol>,
}

/// All runners. Cheap to clone.
#[derive(Clone)]
pub struct Runners(Arc<Shared>);

impl Runners {
    /// No runner yet; `supervisor` will hold them, and each is started with `args`.
    #[must_use]
    pub fn new(supervisor: Address<SupervisorMsg>, board: StatusBoard, args: RunnerArgs) -> Self {
        let known = Mutex::default();
        Self(Arc::new(Shared { supervisor, board, args, known }))
    }

    fn lock_known(&self) -> MutexGuard<'_, KnownRunners> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the symbol's runner started, unless it was before.
    pub fn ensure_started(&self, symbol: &Symbol) {
        let mut known = self.lock_known();
        if known.addresses.contains_key(symbol) {
            return;
        }
        let address = Address::new("symbol_runner");
        known.addresses.insert(symbol.clone(), address.clone());
        drop(known);
        if self.0.supervisor.cast(SupervisorMsg::Add(self.child_spec(symbol, address))).is_err() {
            tracing::error!(%symbol, "the supervisor of the runners is down");
        }
    }

    fn child_spec(&self, symbol: &Symbol, address: Address<RunnerMsg>) -> ChildSpec {
        let (args, for_start) = (self.0.args.clone(), symbol.clone());
        let (runners, for_halt) = (self.clone(), symbol.clone());
        ChildSpec {
            name: format!("symbol_runner:{symbol}"),
            kind: "symbol_runner",
            policy: self.0.args.settings.restart,
            start: Arc::new(move |parent| {
                let (args, address) = ((for_start.clone(), args.clone()), address.clone());
                Box::pin(async move { address.start_actor(SymbolRunner, args, parent).await })
            }),
            on_halt: Some(Arc::new(move |why| runners.note_halted(&for_halt, why))),
        }
    }

    /// One bad symbol stops alone, and is shown (ISO-1).
    fn note_halted(&self, symbol: &Symbol, why: &str) {
        self.lock_known().halted.insert(symbol.clone());
        self.0.board.raise_condition(Condition::SymbolHalted(symbol.to_string()), why);
        self.0.args.observer.observe(&Observation::SymbolHalted { symbol });
        for told in [
            self.0.args.run_log.cast(RunLogMsg::Withdraw(symbol.clone())),
            self.0.args.scheduler.cast(SchedulerMsg::RunnerHalted(symbol.clone())),
        ] {
            if let Err(down) = told {
                tracing::debug!(%symbol, %down, "halt not told");
            }
        }
    }

    /// Whether the symbol was stopped for good.
    #[must_use]
    pub fn is_halted(&self, symbol: &Symbol) -> bool {
        self.lock_known().halted.contains(symbol)
    }

    /// Sends to the symbol's runner; a runner that is down reports to the scheduler when it is up again.
    pub fn send_to_runner(&self, symbol: &Symbol, message: RunnerMsg) {
        let address = self.lock_known().addresses.get(symbol).cloned();
        if let Some(Err(down)) = address.map(|address| address.cast(message)) {
            tracing::debug!(%symbol, %down, "message not delivered");
        }
    }

    /// Asks the symbol's runner to report to the scheduler.
    pub fn ask_to_report(&self, symbol: &Symbol) {
        self.send_to_runner(symbol, RunnerMsg::Announce);
    }

    /// Every runner's address.
    #[must_use]
    pub fn runner_addresses(&self) -> Vec<Address<RunnerMsg>> {
        self.lock_known().addresses.values().cloned().collect()
    }
}
