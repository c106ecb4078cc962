//! What the end-to-end tests share, most of it with the live tests.

#[path = "../support/logs.rs"]
mod logs;
#[path = "../support/made_up.rs"]
pub(crate) mod made_up;
#[path = "../support/paper.rs"]
mod paper;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/readiness.rs"]
mod readiness;
#[path = "../support/seed.rs"]
mod seed;
#[path = "../support/small_disk.rs"]
pub(crate) mod small_disk;
#[path = "../support/stage_server.rs"]
pub(crate) mod stage_server;
#[path = "../support/stepped_clock.rs"]
pub(crate) mod stepped_clock;
#[path = "../support/trading.rs"]
pub(crate) mod trading;
#[path = "../support/verify.rs"]
mod verify;

pub(crate) use logs::{
    checked_receipts, forget_high_water, message_id, outputs, recorded_lines, recording, records,
    run_records, shared_file,
};
pub(crate) use paper::{Paper, paper_command};
pub(crate) use process::{
    PATIENCE, Service, eventually, metric_of, orchestrator, orchestrator_with, output_of, root,
};
pub(crate) use readiness::{ReadinessWatch, SAID_MAX};
pub(crate) use seed::seed;
pub(crate) use verify::{verify, verify_by};
