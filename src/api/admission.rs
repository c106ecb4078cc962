//! Which connections are served: a bound on all of them, and a way in for probes however many clients are slow.
//!
//! ```text
//! accept ──▶ slot free? ──▶ served
//!              │ no
//!              ├─▶ a connection that never sent a whole head, old enough? ──▶ ended, its slot is ours
//!              ├─▶ probe slot free? ──▶ served, but for /livez /readyz /health /metrics only
//!              └─▶ waits in the kernel's queue
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Connections beyond the bound, for probes only.
const PROBE_SLOTS: usize = 16;
/// How long a connection in a probe's slot may take for a head, and be idle.
pub(super) const PROBE_HEAD_MAX: Duration = Duration::from_millis(500);
/// How long every connection may take for its first head before it may be ended in favour of another one.
const HEAD_GRACE: Duration = Duration::from_millis(250);

/// Gives out the slots of the HTTP interface.
pub(super) struct ConnectionAdmission {
    slots: Arc<Semaphore>,
    probe_slots: Arc<Semaphore>,
    silent: Arc<SilentConnections>,
}

/// A slot, held as long as its connection is served.
pub(super) struct Admitted {
    _slot: OwnedSemaphorePermit,
    /// Only probes may be asked for.
    pub(super) is_for_probes: bool,
    /// Ends the connection while no whole head has come.
    pub(super) eviction: CancellationToken,
    head: FirstHead,
}

/// Connections that have not sent a whole head yet, by the order in which they came.
#[derive(Default)]
struct SilentConnections(Mutex<Silent>);

#[derive(Default)]
struct Silent {
    next: u64,
    waiting: BTreeMap<u64, (Instant, CancellationToken)>,
}

/// One connection's place among the silent ones, until its first head or its end.
#[derive(Clone)]
pub(super) struct FirstHead(Arc<SilentPlace>);

struct SilentPlace {
    number: Option<u64>,
    silent: Arc<SilentConnections>,
}

impl ConnectionAdmission {
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(connections_max)),
            probe_slots: Arc::new(Semaphore::new(PROBE_SLOTS)),
            silent: Arc::default(),
        }
    }

    /// Waits for a slot, making room among clients that send nothing.
    pub(super) async fn admit_client(&self) -> Admitted {
        loop {
            if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
                return self.grant_slot(slot, false);
            }
            let evictable_in = self.silent.evict_oldest().err();
            if evictable_in.is_some()
                && let Ok(slot) = Arc::clone(&self.probe_slots).try_acquire_owned()
            {
                return self.grant_slot(slot, true);
            }
            // Woken by whatever comes first: a slot, or a silent connection that has had its time.
            tokio::select! {
                biased;
                slot = Arc::clone(&self.slots).acquire_owned() => if let Ok(slot) = slot {
                    return self.grant_slot(slot, false);
                },
                () = tokio::time::sleep(evictable_in.unwrap_or(HEAD_GRACE)) => {}
            }
        }
    }

    fn grant_slot(&self, slot: OwnedSemaphorePermit, is_for_probes: bool) -> Admitted {
        let eviction = CancellationToken::new();
        // A probe's slot makes room by itself, soon.
        let number = if is_for_probes { None } else { Some(self.silent.add_connection(eviction.clone())) };
        let head = FirstHead(Arc::new(SilentPlace { number, silent: Arc::clone(&self.silent) }));
        Admitted { _slot: slot, is_for_probes, eviction, head }
    }
}

impl Admitted {
    /// Told when the first head has come.
    pub(super) fn first_head(&self) -> FirstHead {
        self.head.clone()
    }
}

impl FirstHead {
    /// From now on the connection is not ended in favour of another one.
    pub(super) fn has_come(&self) {
        self.0.leave_silent();
    }
}

impl SilentPlace {
    fn leave_silent(&self) {
        if let Some(number) = self.number {
            self.silent.remove_connection(number);
        }
    }
}

impl Drop for SilentPlace {
    fn drop(&mut self) {
        self.leave_silent();
    }
}

impl SilentConnections {
    fn lock_silent(&self) -> MutexGuard<'_, Silent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_connection(&self, eviction: CancellationToken) -> u64 {
        let mut silent = self.lock_silent();
        let number = silent.next;
        silent.next += 1;
        silent.waiting.insert(number, (Instant::now(), eviction));
        number
    }

    fn remove_connection(&self, number: u64) {
        self.lock_silent().waiting.remove(&number);
    }

    /// Ends the connection that has been silent for longest.
    ///
    /// # Errors
    ///
    /// None has had its time yet; how long until one may have.
    fn evict_oldest(&self) -> Result<(), Duration> {
        let mut silent = self.lock_silent();
        let Some(oldest) = silent.waiting.first_entry() else { return Err(HEAD_GRACE) };
        let left = HEAD_GRACE.saturating_sub(oldest.get().0.elapsed());
        if !left.is_zero() {
            return Err(left);
        }
        let (_, eviction) = oldest.remove();
        eviction.cancel();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_silent_connection_makes_room_and_one_that_was_asked_something_never_does() {
        let admission = ConnectionAdmission::new(2);
        let asked = admission.admit_client().await;
        asked.first_head().has_come();
        let silent = admission.admit_client().await;
        tokio::time::advance(HEAD_GRACE).await;

        let mut third = std::pin::pin!(admission.admit_client());
        assert!(futures_util::poll!(third.as_mut()).is_pending());
        assert!(silent.eviction.is_cancelled() && !asked.eviction.is_cancelled());
        drop(silent);

        assert!(!third.await.is_for_probes);
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_are_busy_probes_have_slots_of_their_own_and_no_more() {
        let admission = ConnectionAdmission::new(1);
        let busy = admission.admit_client().await;
        busy.first_head().has_come();

        let mut probes = Vec::new();
        for _ in 0..PROBE_SLOTS {
            let probe = admission.admit_client().await;
            probe.first_head().has_come();
            assert!(probe.is_for_probes);
            probes.push(probe);
        }
        let mut next = std::pin::pin!(admission.admit_client());
        assert!(futures_util::poll!(next.as_mut()).is_pending());
        drop(busy);

        assert!(!next.await.is_for_probes);
    }

    #[tokio::test]
    async fn places_of_ended_connections_are_given_back() {
        let admission = ConnectionAdmission::new(4);

        for _ in 0..100 {
            drop(admission.admit_client().await);
        }

        assert!(admission.silent.lock_silent().waiting.is_empty());
    }
}
