//! The port of the second mark: how far logs on a server were acknowledged, kept where the loss of that server, or of
//! the host that wrote, does not reach.
//!
//! A set of marks only grows: two sets are joined log by log, and the higher (epoch, tail) stays. So it does not matter
//! in which order writers note what they know: one that was superseded can neither lower nor hide its successor's mark,
//! and finds out from the answer. That needs epochs which never repeat, also over a server that was put back to an
//! earlier moment: whoever acquires a log gives it an epoch above that of its mark.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::ids::{Epoch, Seq};

/// Bytes of the stored form at most; ours has some 400.
pub const MARK_BYTES_MAX: usize = 16 << 10;

/// First word of the stored form, with its version.
const MAGIC: &str = "orchmarks 1";
/// Hex digits of the checksum: of a flipped bit it misses one in 2^64.
const SUM_DIGITS: usize = 16;

/// Bytes that tell the record at a log's tail from another one.
pub type Fingerprint = [u8; 5];

/// High-water mark of one log: how far it is known as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HighWaterMark {
    /// Identity that the log got when it was begun.
    pub log_id: u64,
    /// The writer that acknowledged it.
    pub epoch: Epoch,
    /// The last acknowledged position.
    pub tail: Seq,
    /// The record there, when it is known.
    pub fingerprint: Option<Fingerprint>,
}

impl HighWaterMark {
    const fn rank_key(&self) -> (u64, u64) {
        (self.epoch.0, self.tail.0)
    }
}

/// The marks of the logs of one deployment, by the log's name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks(BTreeMap<String, HighWaterMark>);

/// Reason for which a stored form tells nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MarksUnreadable(pub String);

impl Marks {
    /// The mark of the log `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<HighWaterMark> {
        self.0.get(name).copied()
    }

    /// Whether nothing was ever noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every mark with its log's name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, HighWaterMark)> {
        self.0.iter().map(|(name, mark)| (name.as_str(), *mark))
    }

    /// Takes `mark` over, unless the one that is known ranks as high or higher; whether it was taken.
    pub fn raise_mark(&mut self, name: &str, mark: HighWaterMark) -> bool {
        let is_news = self.0.get(name).is_none_or(|known| known.rank_key() < mark.rank_key());
        if is_news {
            self.0.insert(name.to_owned(), mark);
        }
        is_news
    }

    /// Takes over what `other` knows better.
    pub fn join_marks(&mut self, other: &Self) {
        for (name, mark) in other.iter() {
            self.raise_mark(name, mark);
        }
    }

    /// The stored form: lines for people too, the last one a checksum over those before it.
    ///
    /// ```text
    /// orchmarks 1 NAMESPACE
    /// LOG  log id, 16 hex digits  epoch  tail  fingerprint as hex, or -
    /// sum  first 16 hex digits of the SHA-256 of the lines above
    /// ```
    #[must_use]
    pub fn encode(&self, namespace: &str) -> String {
        let mut text = format!("{MAGIC} {namespace}\n");
        for (name, HighWaterMark { log_id, epoch, tail, fingerprint }) in self.iter() {
            let fingerprint = fingerprint.map_or_else(|| "-".to_owned(), |bytes| to_hex(&bytes));
            // Writing to a String cannot fail.
            if writeln!(text, "{name} {log_id:016x} {} {} {fingerprint}", epoch.0, tail.0).is_err() {
                continue;
            }
        }
        let sum = sum_of(&text);
        text + "sum " + &sum + "\n"
    }

    /// Reads a stored form: its namespace, and the marks.
    ///
    /// # Errors
    ///
    /// [`MarksUnreadable`]: not all of it is there, or something of it was changed.
    pub fn decode(stored: &[u8]) -> Result<(String, Self), MarksUnreadable> {
        let bad = |why: &str| MarksUnreadable(why.to_owned());
        if MARK_BYTES_MAX < stored.len() {
            return Err(bad("it is too long"));
        }
        let text = std::str::from_utf8(stored).map_err(|_| bad("it is no text"))?;
        let body_ends = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
        let (body, last) = text.split_at_checked(body_ends).ok_or_else(|| bad("it is cut short"))?;
        if last.strip_prefix("sum ").and_then(|sum| sum.strip_suffix('\n')) != Some(sum_of(body).as_str()) {
            return Err(bad("it fails its checksum"));
        }
        let mut lines = body.lines();
        let namespace = lines
            .next()
            .and_then(|line| line.strip_prefix(MAGIC)?.strip_prefix(' '))
            .ok_or_else(|| bad("it is of another version"))?;
        let mut marks = Self::default();
        for line in lines {
            let (name, mark) = read_line(line).ok_or_else(|| bad("a line of it is no mark"))?;
            marks.0.insert(name, mark);
        }
        Ok((namespace.to_owned(), marks))
    }
}

fn read_line(line: &str) -> Option<(String, HighWaterMark)> {
    let mut words = line.split(' ');
    let mut next = || words.next();
    let name = next()?.to_owned();
    let log_id = u64::from_str_radix(next()?, 16).ok()?;
    let (epoch, tail) = (Epoch(next()?.parse().ok()?), Seq(next()?.parse().ok()?));
    let fingerprint = match next()? {
        "-" => None,
        digits => Some(from_hex(digits)?),
    };
    (next().is_none()).then_some((name, HighWaterMark { log_id, epoch, tail, fingerprint }))
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(digits: &str) -> Option<Fingerprint> {
    let mut bytes = Fingerprint::default();
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn sum_of(text: &str) -> String {
    let mut sum = to_hex(&Sha256::digest(text.as_bytes()));
    sum.truncate(SUM_DIGITS);
    sum
}

/// Reason for which marks were neither loaded nor noted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkError {
    /// The store does not answer, or refuses. It may answer later.
    #[error("{0}")]
    Away(String),
    /// Something else stands there. It is never taken for no mark.
    #[error("{place} cannot be trusted: {detail}")]
    Damaged {
        /// File or queue.
        place: String,
        /// What is wrong there.
        detail: String,
    },
}

/// Keeps the marks of one deployment.
#[async_trait]
pub trait MarkStore: Send + Sync {
    /// Where the marks are, for people; without secrets.
    fn place_text(&self) -> String;

    /// The join of everything that any writer noted; empty when none ever did.
    ///
    /// # Errors
    ///
    /// [`MarkError`].
    async fn load_marks(&self) -> Result<Marks, MarkError>;

    /// Joins `marks` to what is kept, and answers the whole of it. When this returns, every later
    /// [`load_marks`](Self::load_marks), by whomever, has at least that. Repeating it is harmless.
    ///
    /// # Errors
    ///
    /// [`MarkError`]; `marks` may be kept or not.
    async fn note_marks(&self, marks: &Marks) -> Result<Marks, MarkError>;
}

/// The reference: marks in memory. Clones share them, as hosts share a store.
#[derive(Clone, Debug, Default)]
pub struct MemoryMarks(Arc<Mutex<KeptMarks>>);

#[derive(Debug, Default)]
struct KeptMarks {
    marks: Marks,
    is_away: bool,
}

impl MemoryMarks {
    /// Lets the store answer nobody, or answer again.
    pub fn set_away(&self, is_away: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_away = is_away;
    }

    fn join_kept(&self, more: &Marks) -> Result<Marks, MarkError> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_away {
            return Err(MarkError::Away("the marks in memory are away".to_owned()));
        }
        kept.marks.join_marks(more);
        Ok(kept.marks.clone())
    }
}

#[async_trait]
impl MarkStore for MemoryMarks {
    fn place_text(&self) -> String {
        "memory".to_owned()
    }

    async fn load_marks(&self) -> Result<Marks, MarkError> {
        self.join_kept(&Marks::default())
    }

    async fn note_marks(&self, marks: &Marks) -> Result<Marks, MarkError> {
        self.join_kept(marks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::marks_conformance::{self, MarksProvider};
    use super::*;

    struct InMemory(MemoryMarks);

    #[async_trait]
    impl MarksProvider for InMemory {
        async fn store(&self) -> Arc<dyn MarkStore> {
            Arc::new(self.0.clone())
        }
    }

    #[test]
    fn memory_passes_the_suite() {
        pollster::block_on(marks_conformance::run(&InMemory(MemoryMarks::default())));
    }

    fn a_mark() -> impl Strategy<Value = HighWaterMark> {
        (0..3_u64, 0..4_u64, 0..9_u64, proptest::option::of(any::<Fingerprint>())).prop_map(
            |(log_id, epoch, tail, fingerprint)| HighWaterMark {
                log_id,
                epoch: Epoch(epoch),
                tail: Seq(tail),
                fingerprint,
            },
        )
    }

    fn some_marks() -> impl Strategy<Value = Marks> {
        proptest::collection::btree_map("[a-z_]{1,8}", a_mark(), 0..5).prop_map(Marks)
    }

    fn ranks(marks: &Marks) -> Vec<(String, (u64, u64))> {
        marks.iter().map(|(name, mark)| (name.to_owned(), mark.rank_key())).collect()
    }

    proptest! {
        #[test]
        fn marks_come_back_from_their_stored_form(marks in some_marks()) {
            let stored = marks.encode("a-b_1");

            prop_assert_eq!(Marks::decode(stored.as_bytes()), Ok(("a-b_1".to_owned(), marks)));
        }

        /// Whatever order writers come in, and however often: the same ranks.
        #[test]
        fn joins_commute_and_repeat_without_effect(a in some_marks(), b in some_marks()) {
            let (mut ab, mut ba) = (a.clone(), b.clone());
            ab.join_marks(&b);
            ba.join_marks(&a);
            prop_assert_eq!(ranks(&ab), ranks(&ba));
            let once = ab.clone();
            ab.join_marks(&a);
            ab.join_marks(&b);
            prop_assert_eq!(ab, once);
        }

        #[test]
        fn no_damage_is_taken_for_marks(marks in some_marks(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let stored = marks.encode("ns").into_bytes();
            let mut changed = stored.clone();
            changed[at.index(stored.len())] = to;

            prop_assert!(changed == stored || Marks::decode(&changed).is_err());
            prop_assert!(Marks::decode(&stored[..at.index(stored.len())]).is_err());
        }
    }
}
