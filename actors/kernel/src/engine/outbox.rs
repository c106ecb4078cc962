//! The outbox: how far the run log's outputs are published, which of them wait, and which an operator lets go.
//!
//! ```text
//!  run log   1 ······ n | n+1 ······ cursor | ······ tail
//!            published  | published, but for held symbols │ not offered yet
//!                       └ the first output that a hold needs: retention keeps everything from here on
//! ```
//!
//! The cursor goes on over the outputs of a symbol that a fan-out refuses for good; its hold says from where on they
//! wait. Cursor and holds are one saved value, so neither is ever ahead of the other. See the decision record
//! `0022-what-is-refused-for-good-waits-per-symbol`.

mod held;
mod skips;

use crate::engine::contracts::{self, DecodeError};
use crate::ids::RunSeq;
use crate::mutant;

pub use held::{Fate, HeldChoice, Hold, Holds, OutputRefusal, TooManyHeld};
pub use skips::Skips;

/// Version of what stands behind the cursor where symbols are held.
const VERSION: u8 = 2;

/// The end of what was offered: every output up to here is confirmed, skipped, or held with its symbol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishCursor {
    /// The last run record whose outputs were all dealt with.
    pub run_seq: RunSeq,
    /// Outputs up to there.
    pub outputs: u64,
}

/// Progress of publishing: the cursor, and the outputs before it that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProgress {
    /// The end of what was offered.
    pub cursor: PublishCursor,
    /// Symbols whose outputs wait.
    pub holds: Holds,
}

impl PublishProgress {
    /// The last run record that publishing needs no more: no output up to it waits.
    #[must_use]
    pub fn last_released(&self) -> RunSeq {
        let needed = self.holds.needed_from().filter(|_| !mutant!(TrimsWhatIsHeld));
        let before = needed.map(|from| RunSeq(from.0.saturating_sub(1)));
        before.map_or(self.cursor.run_seq, |before| before.min(self.cursor.run_seq))
    }

    /// The stored form: the two numbers of the cursor, 8 bytes each, and behind them the holds when there are any.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend_from_slice(&self.cursor.run_seq.0.to_le_bytes());
        bytes.extend_from_slice(&self.cursor.outputs.to_le_bytes());
        if !self.holds.is_empty() && !mutant!(CursorForgetsHolds) {
            contracts::encode_to(VERSION, &self.holds, &mut bytes);
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: another version, or bytes that are no progress.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let short = || DecodeError::Malformed { detail: format!("{} bytes are no cursor", bytes.len()) };
        let (run_seq, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
        let (outputs, holds) = rest.split_first_chunk::<8>().ok_or_else(short)?;
        let cursor = PublishCursor {
            run_seq: RunSeq(u64::from_le_bytes(*run_seq)),
            outputs: u64::from_le_bytes(*outputs),
        };
        let holds =
            if holds.is_empty() { Holds::default() } else { contracts::decode_versioned(VERSION, holds)? };
        Ok(Self { cursor, holds })
    }
}
