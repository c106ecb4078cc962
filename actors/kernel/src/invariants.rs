//! The promises by number, and the check that guards them at run time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! invariants {
    ($($(#[$doc:meta])* $name:ident = $id:literal),+ $(,)?) => {
        /// Property that must never stop being true. The ids are those of the documentation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Invariant {
            $($(#[$doc])* $name),+
        }

        impl Invariant {
            /// Every invariant.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The id, for example `LOG-1`.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $id),+
                }
            }
        }
    };
}

invariants! {
    /// `ingest_seq` is 1, 2, 3 … without gap or reuse.
    Log1 = "LOG-1",
    /// Upstream is acknowledged only after the receipt is durable.
    Log2 = "LOG-2",
    /// At most one writer.
    Log3 = "LOG-3",
    /// Stored bytes equal received bytes.
    Log4 = "LOG-4",
    /// `ingest_ts_ms` never decreases along the log.
    Log5 = "LOG-5",
    /// Cuts of one symbol tile the log.
    Cut1 = "CUT-1",
    /// A cut's end is the highest seq with `ingest_ts_ms ≤ planned_ts_ms`.
    Cut2 = "CUT-2",
    /// A cut costs O(its slice).
    Cut3 = "CUT-3",
    /// `started` is durable before the engine is called, the terminal record before anything is published.
    Run1 = "RUN-1",
    /// One terminal record a run.
    Run2 = "RUN-2",
    /// Per symbol, runs are sequential in increasing engine time.
    Run3 = "RUN-3",
    /// A run that a crash interrupted is finished under the same id.
    Run4 = "RUN-4",
    /// Every terminal run's events are published at least once, per symbol in order.
    Out1 = "OUT-1",
    /// The cursor moves only behind confirmed messages.
    Out2 = "OUT-2",
    /// Replay of the logs yields the same events byte for byte.
    Rep1 = "REP-1",
    /// Two processes, or one worker or eight, give the same bytes.
    Rep2 = "REP-2",
    /// No effect begins unless a read that says "trading allowed" was sent less than a lease ago.
    Kill1 = "KILL-1",
    /// Nothing but an operator's act creates "trading allowed".
    Kill2 = "KILL-2",
    /// From the flip of the switch to the first refusal: 10 ms at the 95th percentile, 600 ms at worst.
    Kill3 = "KILL-3",
    /// Stopping needs no room, memory, lock or unrelated setting, and is done before it is recorded.
    Kill4 = "KILL-4",
    /// Every queue is bounded.
    Mem1 = "MEM-1",
    /// A failure in one domain or one symbol leaves the others running.
    Iso1 = "ISO-1",
    /// A slow consumer or engine never delays ingestion below its limits.
    Iso2 = "ISO-2",
    /// One decision of the trading plane is one record, and each record's hash covers the one before.
    Jrn1 = "JRN-1",
    /// Nothing is answered and no event is acknowledged before its record is durable.
    Jrn2 = "JRN-2",
    /// What readers are shown is what the durable records add up to.
    Jrn3 = "JRN-3",
    /// A cycle ends once, and no order is intended without a RISK decision and a permit before it.
    Cyc1 = "CYC-1",
    /// Every fire of a schedule is a cycle or a recorded skip, once.
    Cyc2 = "CYC-2",
    /// A cycle that a crash interrupted goes on under the same id, and does nothing twice that may not be.
    Cyc3 = "CYC-3",
    /// Nothing begins or counts beyond its budget, so every cycle ends.
    Cyc4 = "CYC-4",
    /// Nothing trades unless the agent runs on record, and after a start not before open work is known.
    Agt1 = "AGT-1",
    /// A command that comes twice has one result.
    Cmd1 = "CMD-1",
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// How many violations this process has seen. Anything but 0 is a bug to report.
#[must_use]
pub fn violation_count() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// Called by [`check_invariant!`](crate::check_invariant): panics in debug builds, counts in release builds.
#[track_caller]
pub fn violated(invariant: Invariant, what: fmt::Arguments<'_>) {
    VIOLATIONS.fetch_add(1, Ordering::Relaxed);
    debug_assert!(false, "{invariant} violated: {what}");
}

/// Guards an invariant: `check_invariant!(Invariant::Cut1, holds, "…")`.
#[macro_export]
macro_rules! check_invariant {
    ($invariant:expr, $holds:expr, $($what:tt)+) => {
        if !$holds {
            $crate::invariants::violated($invariant, format_args!($($what)+));
        }
    };
}
