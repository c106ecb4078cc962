//! Engaging: the direction that must work when nothing else does.
//!
//! ```text
//! overwrite in place ──fails──▶ remove the file ──fails──▶ empty it ──fails──▶ nothing was changed
//!    │ (no new inode, no room)     (absent blocks)
//!    ▼
//! cancel what is under way: remove the file that another command is about to put in the place of the value
//!    ▼
//! look: still not Trading? ──no──▶ again
//!    ▼
//! only now: lock (as long as a command may take), history
//! ```
//!
//! No lock is needed for this order to be safe. A command that allows writes its new file aside (1), makes sure that
//! the value is the one that it decided on (2), and puts the new one in its place (3). One that had done (2) before the
//! overwrite had done (1) before the removal: either (3) came before that too, and the look sees it, or (3) finds no
//! file.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::kill_switch::{
    Applied, OperatorCommand, Refusal, Shortfall, Stored, TradingState, VALUE_BYTES_MAX, decide,
};
use orchestrator_kernel::ports::kill_switch::ApplyError;

use super::files::{Files, dir_of, open_plain, sync_dir};

/// How often a stop is repeated when others keep allowing meanwhile. Each repetition takes a command of theirs.
const ATTEMPTS_MAX: u32 = 16;

/// The first byte of a value that is being overwritten.
const BEGINS_NO_VALUE: &[u8] = b"!";

impl Files {
    /// Carries out a stop: in force first, then confirmed and recorded.
    pub(super) fn engage_stop(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError> {
        match self.put_in_force(command, now) {
            Ok(applied) => self.record_stop(applied),
            // A command that lifts it may be under way. Its end changes nothing that is safe now, so it may be waited for.
            Err(ApplyError::Refused(Refusal::AlreadyEngaged)) => match self.hold_lock() {
                Ok(lock) => {
                    let applied = self.put_in_force(command, now)?;
                    Ok(self.remember_or_say(applied, Some(&lock)))
                }
                Err(_) => Err(Refusal::AlreadyEngaged.into()),
            },
            Err(error) => Err(error),
        }
    }

    /// Blocks without lock, room or history.
    fn put_in_force(&self, command: &OperatorCommand, now: TsMs) -> Result<Applied, ApplyError> {
        let mut last = None;
        for _ in 0..ATTEMPTS_MAX {
            // What cannot be read can still be overwritten.
            let stored = self.read_value().unwrap_or(Stored::NotText);
            let mut applied = Applied::in_full(decide(&stored, command, now)?);
            applied.shortfalls.extend(self.overwrite_or_remove(&applied.change.value)?);
            self.cancel_others();
            match self.read_value().map(|stored| TradingState::of_stored(&stored)) {
                Ok(TradingState::Halted(_)) | Err(_) => return Ok(applied),
                Ok(TradingState::Unknown(_)) if applied.value_in_force().is_none() => {
                    return Ok(applied);
                }
                // Another stop wrote at the same time: a mixture of both blocks, but says nothing.
                Ok(TradingState::Unknown(_)) => last = Some(applied),
                Ok(TradingState::Trading) => last = None,
            }
        }
        last.ok_or_else(|| {
            let what = format!("others allowed trading {ATTEMPTS_MAX} times meanwhile; try again");
            ApplyError::Unchanged(what)
        })
    }

    fn overwrite_or_remove(&self, value: &str) -> Result<Option<Shortfall>, ApplyError> {
        let first = match self.overwrite_value(value) {
            Ok(shortfall) => return Ok(shortfall),
            Err(error) => error,
        };
        // Something that is no file, or one that cannot be written. A new one in its place is better than none.
        if self.remove_value().is_ok()
            && let Ok(shortfall) = self.overwrite_value(value)
        {
            return Ok(shortfall);
        }
        match self.remove_value() {
            Ok(()) => Ok(Some(Shortfall::Removed(format!("cannot write it: {first}")))),
            Err(second) => Err(ApplyError::Unchanged(format!(
                "cannot overwrite the value: {first}; nor remove it: {second}"
            ))),
        }
    }

    /// Overwrites the value where it is. Only a file that is not there takes a new inode.
    fn overwrite_value(&self, value: &str) -> io::Result<Option<Shortfall>> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let file = match open_plain(&mut options, self.value_path()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(dir_of(self.value_path()))?;
                open_plain(&mut options, self.value_path())?
            }
            opened => opened?,
        };
        let before = file.metadata()?.len();
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(b'\n');
        let length = bytes.len();
        // What is left of a longer value would spoil this one until it is cut off. JSON may end in blanks.
        let padded = usize::try_from(before).unwrap_or(usize::MAX).min(VALUE_BYTES_MAX);
        bytes.resize(length.max(padded), b' ');
        // First a byte that begins no value, last the one that begins this one: torn anywhere between, and over whatever
        // stood there, it says nothing, which blocks.
        file.write_all_at(BEGINS_NO_VALUE, 0)?;
        file.write_all_at(bytes.get(1..).unwrap_or_default(), 1)?;
        file.write_all_at(bytes.get(..1).unwrap_or_default(), 0)?;
        file.set_len(length as u64)?;
        let is_new = before == 0;
        let synced = file.sync_all().and_then(|()| if is_new { sync_dir(self.value_path()) } else { Ok(()) });
        Ok(synced.err().map(|error| Shortfall::Unsynced(error.to_string())))
    }

    /// Leaves nothing: no file, or an empty one where its directory may not be written.
    fn remove_value(&self) -> io::Result<()> {
        let path = self.value_path();
        match fs::remove_file(path) {
            Ok(()) => {
                if let Err(error) = sync_dir(path) {
                    tracing::warn!(file = %path.display(), %error, "the removal may not outlive a loss of power");
                }
                Ok(())
            }
            // It is a path that is read, so its directory must be there: a mistyped one is no stop.
            Err(error) if error.kind() == ErrorKind::NotFound && dir_of(path).is_dir() => Ok(()),
            Err(error) => {
                let emptied = open_plain(File::options().write(true), path)
                    .and_then(|file| file.set_len(0).and_then(|()| file.sync_all()));
                emptied.map_err(|_| error)
            }
        }
    }

    /// Takes the file away that a command under way would put in the place of the value; it then changes nothing.
    fn cancel_others(&self) {
        if let Err(error) = fs::remove_file(self.temporary_path())
            && error.kind() != ErrorKind::NotFound
        {
            tracing::debug!(%error, "cannot remove what another command may be about to put in place");
        }
    }

    /// Writes the line of history of a stop that is in force.
    fn record_stop(&self, applied: Applied) -> Result<Applied, ApplyError> {
        // Whoever cannot have the lock is in force all the same, and appends: one line is one write.
        let lock = self.hold_lock();
        if let Err(error) = &lock {
            tracing::debug!(%error, "the stop is recorded without the lock");
        }
        let is_recorded = self.has_line(&applied.change.entry);
        let stored = self.read_value();
        let is_ours = |stored: &Stored| matches!(stored, Stored::Value(value) if value.trim_ascii_end() == applied.change.value.as_bytes());
        let halted = stored
            .as_ref()
            .is_ok_and(|stored| matches!(TradingState::of_stored(stored), TradingState::Halted(_)));
        let ours = stored.as_ref().is_ok_and(is_ours);
        match (halted, ours, is_recorded) {
            // Somebody else stopped it at the same moment, and their words stand there.
            (true, false, false) | (true, true, true) => Err(Refusal::AlreadyEngaged.into()),
            // Somebody saw it, recorded it and lifted it already.
            (_, false, true) => Ok(applied),
            (_, _, false) | (false, true, true) => Ok(self.remember_or_say(applied, lock.as_ref().ok())),
        }
    }

    fn remember_or_say(&self, mut applied: Applied, lock: Option<&File>) -> Applied {
        if let Err(error) = self.append_history(&[applied.change.entry.as_str()], lock) {
            applied.shortfalls.push(Shortfall::Unrecorded(error.to_string()));
        }
        applied
    }
}
