//! What the live tests share: private servers, the faults that are put on them, and the service as a process.

pub(crate) mod amqp;
pub(crate) mod campaign;
pub(crate) mod day;
pub(crate) mod deployment;
#[path = "../../support/dice.rs"]
pub(crate) mod dice;
pub(crate) mod http_load;
pub(crate) mod load;
#[path = "../../support/logs.rs"]
pub(crate) mod logs;
#[path = "../../support/made_up.rs"]
pub(crate) mod made_up;
pub(crate) mod oracle;
pub(crate) mod ports;
#[path = "../../support/process.rs"]
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod rabbit_server;
pub(crate) mod redis_cli;
pub(crate) mod redis_server;
pub(crate) mod redis_store;
pub(crate) mod scene;
pub(crate) mod small_disk;
pub(crate) mod subscriber;
#[path = "../../support/verify.rs"]
pub(crate) mod verify;
