//! The cases that have cost others money (T1 to T12), on the real binary with settings that a stranger would write.
//! What needs a server of its own, the kill switch in Redis and decisions over RabbitMQ, is among the live tests.

mod absences;
mod clocks;
mod containment;
mod crashes;
mod gates;
mod misfires;
mod overlaps;
mod repeats;
mod trims;

use crate::support::eventually;
use crate::support::trading::{TradingService, moment};

/// A strategy whose stages nobody has to provide. Without prices it decides nothing.
fn momentum(schedules: &[&str]) -> String {
    format!(
        "[trading.strategies.mine]\nkind = \"momentum\"\nsymbols = [\"AAPL\"]\nstatus = \"active\"\n\
         schedules = {schedules:?}\n"
    )
}

/// A schedule of a pipeline with its trigger and what else it says.
fn schedule(name: &str, pipeline: &str, settings: &str) -> String {
    format!(
        "[trading.schedules.{name}]\npipeline = \"{pipeline}\"\nlateness_max = \"2h\"\n{settings}\n\
         overlap = \"skip\"\nmisfire = \"skip\"\n"
    )
}

/// A schedule that fires each second whatever else happens: that it fired proves that all others were looked at.
fn witness() -> String {
    schedule("witness", "heartbeat", "trigger = \"interval\"\ninterval = \"1s\"\nhours = \"any\"")
}

/// Waits until the schedules were looked at behind this moment.
async fn passes(service: &TradingService, at: &str) {
    let at_ms = moment(at);
    eventually(&format!("{at} passes"), async || {
        let began = service.cycles("heartbeat").await;
        let behind = |cycle: &serde_json::Value| at_ms < moment(cycle["startedAt"].as_str().unwrap());
        began.iter().any(behind).then_some(())
    })
    .await;
}
