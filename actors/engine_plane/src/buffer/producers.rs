//! Who may send numbered receipts: the producers that are remembered, and a new one while there is room for its name.
//!
//! A name that is forgotten is known again after a start that derives the positions from the log: more is remembered
//! then than has to be, never less.

use std::collections::BTreeMap;
use std::time::Duration;

use orchestrator_kernel::engine::positions::Positions;
use orchestrator_kernel::ids::{Origin, TsMs};

/// Bound of the remembered producers, and the silence after which one may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerLimits {
    /// Producers that are remembered.
    pub known_max: usize,
    /// Silence after which a producer may be forgotten for a new one.
    pub forget_after: Duration,
}

/// Times at which producers were last heard of.
pub(super) struct ProducerBook {
    limits: ProducerLimits,
    /// For those that were not heard of since the start.
    began: TsMs,
    heard: BTreeMap<Origin, TsMs>,
    /// Before then nobody is silent for long enough: spares a look at all of them for each one that is turned away.
    full_until: Option<TsMs>,
}

/// Decision about a batch of a producer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProducerAdmission {
    /// It is remembered, or there is room.
    Admitted,
    /// There is room once this one is forgotten.
    InPlaceOf(Origin),
    /// Too many are remembered, and none of them is silent for long enough.
    Full,
}

impl ProducerBook {
    pub(super) fn new(limits: ProducerLimits, began: TsMs) -> Self {
        Self { limits, began, heard: BTreeMap::new(), full_until: None }
    }

    pub(super) const fn known_max(&self) -> usize {
        self.limits.known_max
    }

    /// Decides about a batch of `origin`. Those in `on_their_way` have receipts in flight, and are not forgotten.
    pub(super) fn admit_batch(
        &mut self,
        origin: &Origin,
        known: &Positions,
        on_their_way: &BTreeMap<Origin, u64>,
        now: TsMs,
    ) -> ProducerAdmission {
        let admission = self.decide_admission(origin, known, on_their_way, now);
        match &admission {
            ProducerAdmission::Admitted => self.note_heard(origin, now),
            ProducerAdmission::InPlaceOf(silent) => {
                self.heard.remove(silent);
                self.note_heard(origin, now);
            }
            ProducerAdmission::Full => {}
        }
        admission
    }

    fn decide_admission(
        &mut self,
        origin: &Origin,
        known: &Positions,
        on_their_way: &BTreeMap<Origin, u64>,
        now: TsMs,
    ) -> ProducerAdmission {
        if known.knows_origin(origin.as_str()) || on_their_way.contains_key(origin) {
            return ProducerAdmission::Admitted;
        }
        let new = on_their_way.keys().filter(|origin| !known.knows_origin(origin.as_str())).count();
        if known.origins().len() + new < self.limits.known_max {
            return ProducerAdmission::Admitted;
        }
        if self.full_until.is_some_and(|until| now < until) {
            return ProducerAdmission::Full;
        }
        let last_heard = |origin: &Origin| self.heard.get(origin).copied().unwrap_or(self.began);
        let idle = known.origins().filter(|origin| !on_their_way.contains_key(*origin));
        let Some(silent) = idle.min_by_key(|origin| last_heard(origin)) else {
            return ProducerAdmission::Full;
        };
        let forget_after = i64::try_from(self.limits.forget_after.as_millis()).unwrap_or(i64::MAX);
        let until = last_heard(silent).plus_ms(forget_after);
        if now < until {
            self.full_until = Some(until);
            return ProducerAdmission::Full;
        }
        ProducerAdmission::InPlaceOf(silent.clone())
    }

    fn note_heard(&mut self, origin: &Origin, now: TsMs) {
        match self.heard.get_mut(origin) {
            Some(heard) => *heard = now,
            None => drop(self.heard.insert(origin.clone(), now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Positions {
        let mut known = Positions::default();
        names.iter().for_each(|name| known.note_receipt(name, 1));
        known
    }

    /// Room for two, an hour of silence.
    fn book() -> ProducerBook {
        ProducerBook::new(ProducerLimits { known_max: 2, forget_after: Duration::from_secs(3600) }, TsMs(0))
    }

    const HOUR: i64 = 3_600_000;

    #[test]
    fn a_new_producer_takes_the_place_of_the_one_that_is_silent_for_longest() {
        let (mut book, idle) = (book(), BTreeMap::new());
        let both = known(&["a", "b"]);
        assert_eq!(
            book.admit_batch(&Origin::from("a"), &both, &idle, TsMs(100)),
            ProducerAdmission::Admitted
        );

        assert_eq!(
            book.admit_batch(&Origin::from("c"), &both, &idle, TsMs(HOUR - 1)),
            ProducerAdmission::Full
        );
        let place = book.admit_batch(&Origin::from("c"), &both, &idle, TsMs(HOUR));
        assert_eq!(place, ProducerAdmission::InPlaceOf(Origin::from("b")));

        let now = known(&["a", "c"]);
        assert_eq!(
            book.admit_batch(&Origin::from("d"), &now, &idle, TsMs(HOUR + 99)),
            ProducerAdmission::Full
        );
        let place = book.admit_batch(&Origin::from("d"), &now, &idle, TsMs(HOUR + 100));
        assert_eq!(place, ProducerAdmission::InPlaceOf(Origin::from("a")));
    }

    #[test]
    fn producers_with_receipts_on_their_way_count_and_are_not_forgotten() {
        let mut book = book();
        let on_their_way = BTreeMap::from([(Origin::from("a"), 2), (Origin::from("b"), 1)]);

        let third = book.admit_batch(&Origin::from("c"), &known(&["a"]), &on_their_way, TsMs(2 * HOUR));

        assert_eq!(third, ProducerAdmission::Full);
        let second = book.admit_batch(&Origin::from("b"), &known(&["a"]), &on_their_way, TsMs(2 * HOUR));
        assert_eq!(second, ProducerAdmission::Admitted);
    }
}
