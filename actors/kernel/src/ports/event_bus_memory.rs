//! The reference of the event bus: in memory, with subscribers by pattern, and away when it is told.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::event_bus::{EventBus, EventMessage, EventsNotTaken};
use super::fan_out::Remedy;
use crate::trading::event::matches_topic;

#[derive(Debug, Default)]
struct BusState {
    /// Everything that was confirmed, in order.
    taken: Vec<EventMessage>,
    is_away: bool,
    /// Events that are confirmed before it goes away.
    away_after: Option<usize>,
    publications: u64,
}

/// The reference: events in memory.
#[derive(Debug, Default)]
pub struct MemoryEventBus(Mutex<BusState>);

impl MemoryEventBus {
    fn state(&self) -> std::sync::MutexGuard<'_, BusState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the bus be away, or back.
    pub fn set_away(&self, is_away: bool) {
        let mut state = self.state();
        state.is_away = is_away;
        state.away_after = None;
    }

    /// Lets the bus go away after it has confirmed so many more events.
    pub fn go_away_after(&self, events: usize) {
        self.state().away_after = Some(events);
    }

    /// How often it was asked to publish.
    #[must_use]
    pub fn publications(&self) -> u64 {
        self.state().publications
    }

    /// What a subscriber of `pattern` has got so far, in order, repetitions included.
    #[must_use]
    pub fn delivered(&self, pattern: &str) -> Vec<EventMessage> {
        self.state().taken.iter().filter(|event| matches_topic(pattern, &event.topic)).cloned().collect()
    }
}

fn away_error(confirmed: usize) -> EventsNotTaken {
    EventsNotTaken {
        bus: "memory".to_owned(),
        detail: "it is away".to_owned(),
        confirmed,
        remedy: Remedy::Time,
    }
}

#[async_trait]
impl EventBus for MemoryEventBus {
    fn name(&self) -> &str {
        "memory"
    }

    async fn prepare(&self) -> Result<(), EventsNotTaken> {
        if self.state().is_away { Err(away_error(0)) } else { Ok(()) }
    }

    async fn publish(&self, events: &[EventMessage]) -> Result<(), EventsNotTaken> {
        let mut state = self.state();
        state.publications += 1;
        if state.is_away {
            return Err(away_error(0));
        }
        let room = state.away_after.unwrap_or(usize::MAX);
        let confirmed = events.len().min(room);
        state.taken.extend(events.iter().take(confirmed).cloned());
        state.away_after = state.away_after.map(|room| room - confirmed);
        if confirmed < events.len() {
            state.is_away = true;
            return Err(away_error(confirmed));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::event_bus_conformance::{self, EventBusProvider};
    use super::*;

    #[derive(Default)]
    struct InMemory(Arc<MemoryEventBus>);

    #[async_trait]
    impl EventBusProvider for InMemory {
        async fn open_bus(&self) -> Arc<dyn EventBus> {
            Arc::clone(&self.0) as _
        }

        async fn delivered(&self, pattern: &str, at_least: usize) -> Vec<EventMessage> {
            let delivered = self.0.delivered(pattern);
            assert!(at_least <= delivered.len(), "{pattern}: {delivered:?}");
            delivered
        }
    }

    #[test]
    fn memory_passes_the_suite() {
        pollster::block_on(event_bus_conformance::run(&InMemory::default()));
    }
}
