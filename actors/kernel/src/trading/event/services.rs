//! Other services by their heartbeats: which of them are well, and which have fallen silent.

use std::collections::BTreeMap;
use std::time::Duration;

use super::incoming_payload::ForeignHeartbeat;

/// Services that are remembered; heartbeats of further ones are counted and change nothing.
pub const FOREIGN_SERVICES_MAX: usize = 256;
/// Intervals without a heartbeat after which a service is unhealthy.
pub const SILENT_INTERVALS_MAX: u32 = 3;

/// Health of another service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceHealth {
    /// Its last heartbeat came in time and says so.
    Healthy,
    /// It says that it is degraded.
    Degraded,
    /// It says that it is not well, or is silent.
    Unhealthy,
}

impl ServiceHealth {
    /// The word in `/health`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// The health that a heartbeat's status means. A word that nobody knows is not taken for health.
    fn of_status(status: &str) -> Self {
        match status.to_ascii_lowercase().as_str() {
            "healthy" | "ok" | "up" | "running" => Self::Healthy,
            "degraded" | "warning" | "starting" => Self::Degraded,
            _ => Self::Unhealthy,
        }
    }
}

#[derive(Clone, Debug)]
struct LastHeartbeat {
    at: Duration,
    says: ServiceHealth,
}

/// The services that have been heard of since the start. Times are of the caller's monotonic clock.
#[derive(Clone, Debug)]
pub struct ForeignServices {
    interval: Duration,
    heard: BTreeMap<String, LastHeartbeat>,
}

impl ForeignServices {
    /// Nobody has been heard of yet; a service speaks every `interval`.
    #[must_use]
    pub const fn new(interval: Duration) -> Self {
        Self { interval, heard: BTreeMap::new() }
    }

    /// Takes a heartbeat that came at `now`. Says whether its service is remembered.
    pub fn take_heartbeat(&mut self, beat: &ForeignHeartbeat, now: Duration) -> bool {
        let is_known = self.heard.contains_key(&beat.service);
        if !is_known && FOREIGN_SERVICES_MAX <= self.heard.len() {
            return false;
        }
        let says = ServiceHealth::of_status(&beat.status);
        self.heard.insert(beat.service.clone(), LastHeartbeat { at: now, says });
        true
    }

    /// How each service is at `now`, by name.
    #[must_use]
    pub fn list_health(&self, now: Duration) -> Vec<(String, ServiceHealth)> {
        let silent_after = self.interval.saturating_mul(SILENT_INTERVALS_MAX);
        let health_of = |last: &LastHeartbeat| match now.saturating_sub(last.at) <= silent_after {
            true => last.says,
            false => ServiceHealth::Unhealthy,
        };
        self.heard.iter().map(|(name, last)| (name.clone(), health_of(last))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn beat(service: &str, status: &str) -> ForeignHeartbeat {
        ForeignHeartbeat { service: service.to_owned(), status: status.to_owned() }
    }

    #[test]
    fn a_service_is_what_it_says_until_it_is_silent_for_three_intervals() {
        let mut services = ForeignServices::new(30 * SECOND);
        assert!(services.take_heartbeat(&beat("a", "healthy"), 10 * SECOND));
        assert!(services.take_heartbeat(&beat("b", "DEGRADED"), 10 * SECOND));
        assert!(services.take_heartbeat(&beat("c", "odd"), 10 * SECOND));
        let words = |services: &ForeignServices, now| {
            let listed = services.list_health(now);
            listed.iter().map(|(_, health)| health.as_str()).collect::<Vec<_>>()
        };

        assert_eq!(words(&services, 100 * SECOND), ["healthy", "degraded", "unhealthy"]);
        assert_eq!(words(&services, 101 * SECOND), ["unhealthy"; 3]);
        services.take_heartbeat(&beat("a", "healthy"), 101 * SECOND);
        assert_eq!(words(&services, 101 * SECOND), ["healthy", "unhealthy", "unhealthy"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut services = ForeignServices::new(SECOND);
        for number in 0..FOREIGN_SERVICES_MAX {
            assert!(services.take_heartbeat(&beat(&format!("s{number}"), "ok"), SECOND));
        }
        assert!(!services.take_heartbeat(&beat("one more", "ok"), SECOND));
        assert!(services.take_heartbeat(&beat("s1", "ok"), SECOND));
        assert_eq!(services.list_health(SECOND).len(), FOREIGN_SERVICES_MAX);
    }
}
