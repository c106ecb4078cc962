//! Names of events on the wire: one set of kinds inside, two families of names outside.

/// Family of names that events have on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EventFamily {
    /// Those of specification 002: `orchestrator.cycle.started`.
    #[default]
    Orchestrator,
    /// Those of specification 001: `ordinis.ops.cycle.started`.
    Ordinis,
}

impl EventFamily {
    const fn first_words(self) -> &'static str {
        match self {
            Self::Orchestrator => "orchestrator",
            Self::Ordinis => "ordinis.ops",
        }
    }
}

/// Kind of an event that is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TradingEventKind {
    /// A cycle began.
    CycleStarted,
    /// A cycle ended, whatever its status.
    CycleCompleted,
    /// A decision is wanted of whoever makes decisions.
    AnalysisRequested,
    /// A stage failed, or was not begun because its cycle was out of time.
    StageFailed,
    /// One line of an ended cycle's errors.
    ErrorOccurred,
    /// A decision became an order intent.
    OrdersIntent,
    /// The agent changed.
    AgentChanged,
    /// A strategy is active.
    StrategyActivated,
    /// A strategy waits.
    StrategyPaused,
    /// A strategy is stopped, or exists no more.
    StrategyDeactivated,
    /// Something needs attention.
    AlertRaised,
    /// It does no longer.
    AlertCleared,
    /// The kill switch stopped a cycle.
    KillBlock,
    /// Trading was latched as stopped.
    KillActivated,
    /// The latch was released.
    KillDeactivated,
}

impl TradingEventKind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::CycleStarted,
        Self::CycleCompleted,
        Self::AnalysisRequested,
        Self::StageFailed,
        Self::ErrorOccurred,
        Self::OrdersIntent,
        Self::AgentChanged,
        Self::StrategyActivated,
        Self::StrategyPaused,
        Self::StrategyDeactivated,
        Self::AlertRaised,
        Self::AlertCleared,
        Self::KillBlock,
        Self::KillActivated,
        Self::KillDeactivated,
    ];

    /// The last words of its name, the same in both families.
    #[must_use]
    pub const fn last_words(self) -> &'static str {
        match self {
            Self::CycleStarted => "cycle.started",
            Self::CycleCompleted => "cycle.completed",
            Self::AnalysisRequested => "analysis.requested",
            Self::StageFailed => "stage.failed",
            Self::ErrorOccurred => "error.occurred",
            Self::OrdersIntent => "orders.intent",
            Self::AgentChanged => "agent.changed",
            Self::StrategyActivated => "strategy.activated",
            Self::StrategyPaused => "strategy.paused",
            Self::StrategyDeactivated => "strategy.deactivated",
            Self::AlertRaised => "alert.raised",
            Self::AlertCleared => "alert.cleared",
            Self::KillBlock => "kill.block",
            Self::KillActivated => "kill.activated",
            Self::KillDeactivated => "kill.deactivated",
        }
    }
}

/// Naming of events on the wire: the family, and a prefix before every name that goes out or comes in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventNaming {
    /// The family of published names.
    pub family: EventFamily,
    /// Stands with a dot before every name; empty for none.
    pub prefix: String,
}

impl EventNaming {
    /// The name of a published event.
    #[must_use]
    pub fn wire_name(&self, kind: TradingEventKind) -> String {
        self.prefixed_name(&format!("{}.{}", self.family.first_words(), kind.last_words()))
    }

    /// `name` with the prefix.
    #[must_use]
    pub fn prefixed_name(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// A name that came in, without the prefix; one that has none is taken as it is.
    ///
    /// Source: issue, "A `subscribePrefix` is taken from names that come in".
    #[must_use]
    pub fn strip_prefix_of<'n>(&self, name: &'n str) -> &'n str {
        let rest = name.strip_prefix(self.prefix.as_str()).and_then(|rest| rest.strip_prefix('.'));
        rest.filter(|_| !self.prefix.is_empty()).unwrap_or(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_one_name_in_each_family_and_the_prefix_stands_before_it() {
        let names = |family, prefix: &str| {
            let naming = EventNaming { family, prefix: prefix.to_owned() };
            (naming.wire_name(TradingEventKind::CycleStarted), naming)
        };

        assert_eq!(names(EventFamily::Orchestrator, "").0, "orchestrator.cycle.started");
        assert_eq!(names(EventFamily::Ordinis, "").0, "ordinis.ops.cycle.started");
        let (name, naming) = names(EventFamily::Orchestrator, "ai-trader");
        assert_eq!(name, "ai-trader.orchestrator.cycle.started");
        assert_eq!(naming.strip_prefix_of("ai-trader.system.heartbeat"), "system.heartbeat");
        assert_eq!(naming.strip_prefix_of("ai-traders.system.heartbeat"), "ai-traders.system.heartbeat");
        assert_eq!(naming.strip_prefix_of("system.heartbeat"), "system.heartbeat");
        let plain = EventNaming::default();
        assert_eq!(plain.strip_prefix_of(".system"), ".system");
        let all: std::collections::BTreeSet<_> =
            TradingEventKind::ALL.map(TradingEventKind::last_words).into_iter().collect();
        assert_eq!(all.len(), TradingEventKind::ALL.len());
    }
}
