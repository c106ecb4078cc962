//! The gate of what has no effect: cycles over a recording, whose orders go nowhere.

use std::time::Duration;

use async_trait::async_trait;
use orchestrator_kernel::kill_switch::{Lease, Permit, PermitRefused, TradingState};
use orchestrator_kernel::ports::kill_switch::KillGate;

/// A permit that stands: nobody stops a recording, and how busy the machine is ends no lease (REP-2). Only a backtest
/// has it, and nothing of a backtest leaves the machine.
#[derive(Clone, Debug)]
pub struct StandingPermit(Lease);

impl Default for StandingPermit {
    fn default() -> Self {
        let mut lease = Lease::new(Duration::MAX, Duration::ZERO);
        lease.on_read(Duration::ZERO, Duration::ZERO, Ok(TradingState::Trading));
        Self(lease)
    }
}

#[async_trait]
impl KillGate for StandingPermit {
    fn try_permit(&self) -> Result<Permit, PermitRefused> {
        self.0.issue_permit(Duration::ZERO)
    }

    async fn fresh_permit(&self) -> Result<Permit, PermitRefused> {
        self.try_permit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_permits_whenever_it_is_asked() {
        let gate = StandingPermit::default();
        assert!(gate.try_permit().is_ok() && gate.fresh_permit().await.is_ok());
    }
}
