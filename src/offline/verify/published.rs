//! Events as they stand in the outputs file: equal whatever the time of their publication, remembered by their digests.

use std::collections::{BTreeSet, VecDeque};

use sha2::{Digest as _, Sha256};

/// What stands before the time of publication in an event, and behind it. Keys are sorted, and what comes later holds
/// no engine's text: so the last such place is the event's own.
const BEFORE_TIME: &[u8] = b"\"published_ts_ms\":";
const AFTER_TIME: &[u8] = b",\"run_id\":\"";

/// Whether two lines are the same event, but for the time of its publication.
pub(super) fn is_equal(line: &[u8], other: &[u8]) -> bool {
    around_time(line) == around_time(other)
}

/// The time of publication that an event tells, as it is written; nothing when the line is no event.
pub(super) fn time_of(line: &[u8]) -> Option<&[u8]> {
    let (before, after) = around_time(line);
    let time = line.get(before.len()..line.len() - after.len())?;
    is_time(time).then_some(time)
}

/// A line before the time of its publication, and behind it. Without one: all of it, and nothing.
fn around_time(line: &[u8]) -> (&[u8], &[u8]) {
    let mut ends = line.windows(AFTER_TIME.len()).enumerate().rev();
    let split = ends.find_map(|(end, window)| {
        let (before, after) = (window == AFTER_TIME).then(|| line.split_at(end))?;
        let begin = before.iter().rposition(|byte| *byte == b':')? + 1;
        let (before, time) = before.split_at(begin);
        (before.ends_with(BEFORE_TIME) && is_time(time)).then_some((before, after))
    });
    split.unwrap_or((line, &[]))
}

fn is_time(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    text == b"null" || (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
}

/// The SHA-256 of a line without the time of its publication.
type Digest = [u8; 32];

/// The last events, to recognise a repetition. It costs some 80 bytes an event, however long they are.
pub(super) struct RecentEvents {
    max: usize,
    known: BTreeSet<Digest>,
    order: VecDeque<Digest>,
}

impl RecentEvents {
    /// Remembers up to `max` events, at least one.
    pub(super) const fn new(max: usize) -> Self {
        Self { max, known: BTreeSet::new(), order: VecDeque::new() }
    }

    /// Remembers an event, and forgets the oldest one when there are too many.
    pub(super) fn remember_event(&mut self, line: &[u8]) {
        let digest = event_digest(line);
        if !self.known.insert(digest) {
            return;
        }
        if self.max <= self.order.len()
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.order.push_back(digest);
    }

    /// Whether the line is one of them, at whatever time it was published.
    pub(super) fn has_event(&self, line: &[u8]) -> bool {
        self.known.contains(&event_digest(line))
    }
}

fn event_digest(line: &[u8]) -> Digest {
    let (before, after) = around_time(line);
    // The length keeps apart what stands before and behind.
    let length = (before.len() as u64).to_le_bytes();
    Sha256::new().chain_update(length).chain_update(before).chain_update(after).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event whose payload holds what looks like the time of publication, too.
    fn event(run: u32, time: &str) -> Vec<u8> {
        let inner = r#"{"published_ts_ms":1,"run_id":"x"}"#;
        format!(
            r#"{{"attempt":1,"payload":{inner},"published_ts_ms":{time},"run_id":"{run}","symbol":"\"published_ts_ms\":2,\"run_id\":\""}}"#
        )
        .into_bytes()
    }

    #[test]
    fn events_are_equal_but_for_their_time() {
        for time in ["null", "0", "-5", "1768002662009"] {
            assert!(is_equal(&event(1, time), &event(1, "null")), "{time}");
        }
        for time in ["", "-", "1.5", "\"1\"", "true", "1,\"x\":2"] {
            assert!(!is_equal(&event(1, time), &event(1, "null")), "{time}");
        }
        assert!(!is_equal(&event(1, "null"), &event(2, "null")));
        assert!(is_equal(b"{}", b"{}") && !is_equal(b"{}", b"") && !is_equal(b"", &event(1, "null")));
    }

    #[test]
    fn time_of_an_event_is_the_one_that_publishing_wrote() {
        for time in ["null", "0", "1768002662009"] {
            assert_eq!(time_of(&event(1, time)), Some(time.as_bytes()));
        }
        assert_eq!(time_of(b"{}"), None);
        assert_eq!(time_of(b""), None);
    }

    /// Method: every byte of a remembered event is flipped; only the time may be any other one.
    #[test]
    fn a_repetition_is_recognised_at_any_time_and_with_no_other_byte() {
        let mut recent = RecentEvents::new(10);
        let honest = event(1, "1768002662009");
        recent.remember_event(&event(1, "null"));

        assert!(
            recent.has_event(&honest)
                && recent.has_event(&event(1, "7"))
                && recent.has_event(&event(1, "null"))
        );
        for at in 0..honest.len() {
            let mut forged = honest.clone();
            forged[at] ^= 1;
            assert_eq!(
                recent.has_event(&forged),
                is_equal(&forged, &honest),
                "{at}: {}",
                forged.escape_ascii()
            );
            assert!(!recent.has_event(&honest[..at]), "{at}");
        }
        assert!(!recent.has_event(&event(2, "null")));
    }

    /// Method: events of a megabyte, of which only digests may be kept, more than are remembered.
    #[test]
    fn only_the_last_events_are_remembered_and_only_their_digests() {
        let long = |run: u32| [event(run, "null"), vec![b' '; 1 << 20]].concat();
        let mut recent = RecentEvents::new(3);

        for run in [1, 2, 2, 2, 3, 4, 5] {
            recent.remember_event(&long(run));
        }

        let held: Vec<bool> = (1..=5).map(|run| recent.has_event(&long(run))).collect();
        assert_eq!(held, [false, false, true, true, true]);
        assert_eq!((recent.known.len(), recent.order.len()), (3, 3));
        assert_eq!(size_of::<Digest>(), 32);
    }
}
