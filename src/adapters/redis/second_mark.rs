//! The second mark while the logs are written: what is acknowledged is noted elsewhere within a second.
//!
//! ```text
//! acknowledged ──learn──▶ mine ──at most every 750 ms──▶ store ──answer──▶ kept: the join of all writers
//! acquired ─────announce─────────────at once────────────▶                   │ a higher epoch there:
//!                                                                           ▼ this writer is superseded
//! ```
//!
//! It never delays an acknowledgement: what a fail-over host cannot know is what was acknowledged since the last note.
//! While the store does not answer that grows, and is said; `max_age` bounds it by pausing appends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::marks::{HighWaterMark, MarkError, MarkStore, Marks};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until};
use tracing::{error, info, warn};

use super::entry::LogId;
use super::high_water::Mark;
use super::witnesses::SecondSays;

/// From one note to the next, at least. With the time that a note takes less than a second.
const NOTE_EVERY: Duration = Duration::from_millis(750);
/// A note when nothing is new: whether the store still answers, and whether another host has taken over.
const IDLE_NOTE_EVERY: Duration = Duration::from_secs(5);

/// The marks of this process's logs in their second place.
pub(super) struct SecondMark {
    store: Arc<dyn MarkStore>,
    max_age: Option<Duration>,
    state: Mutex<Noting>,
    wake: Notify,
    trouble: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Noting {
    /// What the store said last, or why it has said nothing so far.
    kept: Option<Result<Marks, String>>,
    /// Only the logs that this process acquired.
    mine: Marks,
    /// Since when something of `mine` waits to be noted.
    waits_since: Option<Instant>,
}

impl SecondMark {
    pub(super) fn new(store: Arc<dyn MarkStore>, max_age: Option<Duration>) -> Self {
        let (trouble, _) = watch::channel(None);
        Self { store, max_age, state: Mutex::default(), wake: Notify::new(), trouble }
    }

    /// Asks the store what is known. One that is away is no error here: it depends on what else is known.
    ///
    /// # Errors
    ///
    /// [`MarkError::Damaged`]: it is never taken for nothing.
    pub(super) async fn load_marks(&self) -> Result<(), MarkError> {
        let loaded = match self.store.load_marks().await {
            Ok(marks) => Ok(marks),
            Err(MarkError::Away(why)) => Err(why),
            Err(damaged @ MarkError::Damaged { .. }) => return Err(damaged),
        };
        self.lock_state().kept = Some(loaded);
        Ok(())
    }

    pub(super) fn store_place(&self) -> String {
        self.store.place_text()
    }

    /// What was known of the log `name` when this process started.
    pub(super) fn says_of_log(&self, name: &str) -> SecondSays {
        match &self.lock_state().kept {
            None => SecondSays::Away("it was not asked".to_owned()),
            Some(Err(why)) => SecondSays::Away(why.clone()),
            Some(Ok(marks)) => marks.get(name).map_or(
                SecondSays::Nothing,
                |HighWaterMark { log_id, epoch, tail, fingerprint }| {
                    SecondSays::Known(Mark { log: LogId(log_id), seq: tail, header: fingerprint }, epoch)
                },
            ),
        }
    }

    /// Takes over what was acknowledged; it is noted within a second.
    pub(super) fn learn_mark(&self, name: &str, epoch: Epoch, mark: Mark) {
        let Mark { log: LogId(log_id), seq: tail, header: fingerprint } = mark;
        let mut state = self.lock_state();
        if state.mine.raise_mark(name, HighWaterMark { log_id, epoch, tail, fingerprint }) {
            state.waits_since.get_or_insert_with(Instant::now);
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Notes at once that this process writes the log now, so that the writer before finds out. A store that is known
    /// to be away is not waited for.
    pub(super) async fn announce_writer(&self, name: &str, epoch: Epoch, mark: Mark) {
        self.learn_mark(name, epoch, mark);
        let is_reached = matches!(self.lock_state().kept, Some(Ok(_)));
        if is_reached && self.trouble.borrow().is_none() {
            self.note_now().await;
        }
    }

    /// The epoch of a later writer of the log, if the store knows one.
    pub(super) fn successor_epoch(&self, name: &str, epoch: Epoch) -> Option<Epoch> {
        let state = self.lock_state();
        let Some(Ok(kept)) = &state.kept else { return None };
        kept.get(name).map(|mark| mark.epoch).filter(|current| epoch < *current)
    }

    /// Why nothing may be appended now: what was acknowledged has waited for too long to be noted.
    pub(super) fn append_refusal(&self) -> Option<String> {
        let waited = self.lock_state().waits_since?.elapsed();
        let max_age = self.max_age.filter(|max_age| *max_age < waited)?;
        Some(format!(
            "the second mark ({}) could not be noted for {waited:.0?}, longer than redis.mark.max_age ({max_age:?})",
            self.store_place()
        ))
    }

    /// Why the store lags behind what is acknowledged, while it does.
    pub(super) fn watch_trouble(&self) -> watch::Receiver<Option<String>> {
        self.trouble.subscribe()
    }

    /// Notes what is acknowledged, for as long as the returned future is polled.
    pub(super) async fn keep_noting(self: Arc<Self>) {
        loop {
            let next = tokio::time::Instant::now() + NOTE_EVERY;
            self.note_now().await;
            sleep_until(next).await;
            tokio::select! {
                () = self.wake.notified() => {}
                () = sleep(IDLE_NOTE_EVERY) => {}
            }
        }
    }

    /// Notes what waits, at the end.
    pub(super) async fn note_waiting(&self) {
        if self.lock_state().waits_since.is_some() {
            self.note_now().await;
        }
    }

    async fn note_now(&self) {
        let (mine, began) = (self.lock_state().mine.clone(), Instant::now());
        match self.store.note_marks(&mine).await {
            Ok(kept) => self.take_noted(&mine, kept, began),
            Err(error) => self.not_noted(&error),
        }
    }

    fn take_noted(&self, mine: &Marks, kept: Marks, began: Instant) {
        let superseded =
            mine.iter().find(|(name, mark)| kept.get(name).is_some_and(|current| mark.epoch < current.epoch));
        let mut state = self.lock_state();
        let is_new = superseded
            .filter(|(name, _)| !matches!(&state.kept, Some(Ok(known)) if known.get(name) == kept.get(name)));
        if let Some((log, mark)) = is_new {
            let successor = kept.get(log).map(|current| current.epoch.0);
            error!(
                log,
                epoch = mark.epoch.0,
                successor,
                place = self.store_place(),
                "another writer took the log over"
            );
        }
        match &mut state.kept {
            // An answer may come behind that to a later note.
            Some(Ok(known)) => known.join_marks(&kept),
            first => *first = Some(Ok(kept)),
        }
        // What was acknowledged meanwhile has waited since this note began, at most.
        state.waits_since = if state.mine == *mine { None } else { Some(began) };
        drop(state);
        if self.trouble.send_replace(None).is_some() {
            info!(place = self.store_place(), "the second mark is noted again");
        }
    }

    fn not_noted(&self, error: &MarkError) {
        let waited = self.lock_state().waits_since.map(|since| since.elapsed());
        let behind = match waited {
            Some(waited) => {
                format!("what was acknowledged in the last {} s is not in it", waited.as_secs() + 1)
            }
            None => "all that was acknowledged is in it".to_owned(),
        };
        let detail = format!("{}: {error}; {behind}", self.store_place());
        if self.trouble.send_replace(Some(detail)).is_none() {
            warn!(place = self.store_place(), %error, "cannot note the second mark; tried again");
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, Noting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use orchestrator_kernel::ids::Seq;
    use orchestrator_kernel::ports::marks::MemoryMarks;

    use super::*;

    fn mark(seq: u64) -> Mark {
        Mark { log: LogId(1), seq: Seq(seq), header: None }
    }

    async fn started(store: &MemoryMarks, max_age: Option<Duration>) -> Arc<SecondMark> {
        let second = Arc::new(SecondMark::new(Arc::new(store.clone()), max_age));
        second.load_marks().await.unwrap();
        tokio::spawn(Arc::clone(&second).keep_noting());
        second
    }

    async fn noted_tail(store: &MemoryMarks) -> u64 {
        store.load_marks().await.unwrap().get("raw").map_or(0, |mark| mark.tail.0)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_acknowledged_is_noted_within_a_second() {
        let store = MemoryMarks::default();
        let second = started(&store, None).await;
        second.announce_writer("raw", Epoch(1), mark(0)).await;

        for tail in 1..=300 {
            second.learn_mark("raw", Epoch(1), mark(tail));
            tokio::time::sleep(Duration::from_millis(10)).await;
            let missing = tail - noted_tail(&store).await;
            assert!(missing <= 100, "{missing} of 100 a second are not noted");
        }

        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(noted_tail(&store).await, 300);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_away_is_said_delays_nothing_and_is_caught_up_with() {
        let store = MemoryMarks::default();
        let second = started(&store, None).await;
        second.announce_writer("raw", Epoch(1), mark(1)).await;
        let mut trouble = second.watch_trouble();

        store.set_away(true);
        second.learn_mark("raw", Epoch(1), mark(2));
        trouble.wait_for(Option::is_some).await.unwrap();
        assert_eq!(second.append_refusal(), None, "appends go on");
        store.set_away(false);
        trouble.wait_for(Option::is_none).await.unwrap();

        assert_eq!(noted_tail(&store).await, 2);
    }

    /// The clock of `waits_since` is the machine's: the limit is one that has passed at once.
    #[tokio::test(start_paused = true)]
    async fn a_mark_that_is_too_old_pauses_appends_until_it_is_noted() {
        let store = MemoryMarks::default();
        let second = started(&store, Some(Duration::from_nanos(1))).await;
        let mut trouble = second.watch_trouble();
        store.set_away(true);
        second.learn_mark("raw", Epoch(1), mark(2));
        trouble.wait_for(Option::is_some).await.unwrap();

        let refusal = second.append_refusal().unwrap();

        assert!(refusal.contains("redis.mark.max_age"), "{refusal}");
        store.set_away(false);
        trouble.wait_for(Option::is_none).await.unwrap();
        assert_eq!(second.append_refusal(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_writer_that_was_superseded_finds_out() {
        let store = MemoryMarks::default();
        let zombie = started(&store, None).await;
        zombie.announce_writer("raw", Epoch(1), mark(9)).await;
        assert_eq!(zombie.successor_epoch("raw", Epoch(1)), None);

        started(&store, None).await.announce_writer("raw", Epoch(2), mark(8)).await;
        tokio::time::sleep(IDLE_NOTE_EVERY + NOTE_EVERY).await;

        assert_eq!(zombie.successor_epoch("raw", Epoch(1)), Some(Epoch(2)));
        assert_eq!(noted_tail(&store).await, 8);
    }
}
