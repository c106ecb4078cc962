//! Planted defects that are ports: each breaks its contract in one way, around a port that keeps it.

use orchestrator_kernel::mutants::{self, Mutant};
use orchestrator_kernel::ports::log::RecordBatch;
use orchestrator_kernel::trading::journal::{JournalFact, SealedEntry};
use orchestrator_runtime::testkit::EarlyLog;

use crate::settings::TradingPorts;

/// The ports, with the defect that is planted on this thread if it is one of a port.
#[must_use]
pub fn plant_in_ports(ports: TradingPorts) -> TradingPorts {
    match mutants::current() {
        Some(Mutant::AnswersEarly) => {
            // The result of a command is confirmed before it is durable.
            let journal = EarlyLog::around(&ports.journal, has_result);
            TradingPorts { journal, ..ports }
        }
        // The others are lines of the product.
        Some(_) | None => ports,
    }
}

fn has_result(batch: &RecordBatch) -> bool {
    let is_result = |payload: &[u8]| {
        let entry = SealedEntry::decode(payload);
        entry.is_ok_and(|sealed| matches!(sealed.entry.fact, JournalFact::CommandEnded(_)))
    };
    batch.iter().any(|(_, payload)| is_result(payload))
}
