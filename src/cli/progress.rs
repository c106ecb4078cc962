//! A progress bar with rate and remaining time, on a terminal only.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use orchestrator_kernel::ids::{IngestSeq, RunSeq, Seq};

/// Progress of reading a log.
pub(super) struct ReadProgress(Option<ProgressBar>);

impl ReadProgress {
    /// Progress through `receipts` receipts, on standard error.
    pub(super) fn for_receipts(receipts: Seq) -> Self {
        if !stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(Some(receipts.0), ProgressDrawTarget::stderr());
        let template = "{wide_bar} {human_pos} of {human_len} receipts, {per_sec}, {eta} left {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self(Some(bar))
    }

    pub(super) fn set_position(&self, receipts: IngestSeq, runs: RunSeq) {
        if let Some(bar) = &self.0 {
            bar.set_position(receipts.0);
            bar.set_message(format!("(run record {runs})"));
        }
    }

    pub(super) fn clear_bar(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
