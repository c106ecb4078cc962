//! Facts of commands, schedules, alerts and configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::chain::to_hex;
use crate::ids::{RunSeq, TsMs};
use crate::trading::ids::{CommandId, CycleId, ScheduleName};
use crate::trading::schedule::FireSkipReason;

/// A command, before anything follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandReceived {
    /// The command.
    pub command_id: CommandId,
    /// Its name, as `agent/start`.
    pub name: String,
    /// Its body, as JSON text.
    pub body: String,
    /// Where it came from: an address, a queue.
    pub from: String,
}

/// Outcome of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// It was done.
    Done {
        /// The answer's body, as JSON text.
        answer: String,
    },
    /// It was refused and changed nothing.
    Refused {
        /// The status of the answer, as HTTP has it.
        status: u16,
        /// Why.
        detail: String,
    },
}

/// The result of a command. Answered only after it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnded {
    /// The command.
    pub command_id: CommandId,
    /// What became of it.
    pub outcome: CommandOutcome,
}

/// Trigger of a schedule's fire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FireTrigger {
    /// Its interval.
    Interval,
    /// Its cron line.
    Cron,
    /// Its place in the market's calendar.
    Calendar,
    /// An event of its topics.
    Event {
        /// The topic that it came by.
        topic: String,
        /// Its identifier.
        event_id: String,
    },
    /// An output of the engine plane.
    Output {
        /// The run record's position: the cursor that stands in our own records.
        run_seq: RunSeq,
    },
}

impl FireTrigger {
    /// The text that a cycle's id derives from.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Interval => "interval".to_owned(),
            Self::Cron => "cron".to_owned(),
            Self::Calendar => "calendar".to_owned(),
            Self::Event { event_id, .. } => format!("event:{event_id}"),
            Self::Output { run_seq } => format!("output:{run_seq}"),
        }
    }

    /// Whether its fires have times that increase: an event may come for any time.
    #[must_use]
    pub const fn is_planned(&self) -> bool {
        match self {
            Self::Interval | Self::Cron | Self::Calendar => true,
            Self::Event { .. } | Self::Output { .. } => false,
        }
    }
}

/// Consequence of a fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FireDisposition {
    /// Its cycle starts next.
    Start,
    /// Its cycle waits for the one that runs.
    Queue,
}

/// A fire that leads to a cycle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleFired {
    /// The schedule.
    pub schedule: ScheduleName,
    /// Number of the fire: 1, 2, 3 … without gap among the schedule's fires, skipped ones counted (CYC-2).
    pub fire: u64,
    /// When it was planned for.
    pub planned_ts_ms: TsMs,
    /// What made it fire.
    pub trigger: FireTrigger,
    /// Its cycle.
    pub cycle_id: CycleId,
    /// What it leads to.
    pub disposition: FireDisposition,
}

/// Fires that lead to no cycle: new ones, or one that waited. A year of missed seconds is one record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleSkipped {
    /// The schedule.
    pub schedule: ScheduleName,
    /// Number of the first one.
    pub first_fire: u64,
    /// How many, ≥ 1.
    pub fires: u64,
    /// When the first one was planned for.
    pub first_planned_ts_ms: TsMs,
    /// When the last one was planned for.
    pub last_planned_ts_ms: TsMs,
    /// What made them fire, the last one of them.
    pub trigger: FireTrigger,
    /// Why they lead to nothing.
    pub reason: FireSkipReason,
}

/// An alert that is raised until it is cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertRaised {
    /// Its name, as `journal_append_failing`.
    pub alert: String,
    /// What exactly.
    pub detail: String,
}

/// An alert that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertCleared {
    /// Its name.
    pub alert: String,
}

/// SHA-256 of a configuration's settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct ConfigHash(pub [u8; 32]);

impl Serialize for ConfigHash {
    /// Hexadecimal text where people read it, 32 bytes in stored records.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match serializer.is_human_readable() {
            true => serializer.serialize_str(&to_hex(&self.0)),
            false => self.0.serialize(serializer),
        }
    }
}

/// Configuration that is in force from this record on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationSnapshot {
    /// The settings that decide, by path; secrets are not among them.
    pub settings: BTreeMap<String, String>,
    /// Version of the time-zone database.
    pub tz_database: String,
    /// Version and commit of the program.
    pub code: String,
}

impl ConfigurationSnapshot {
    /// What cycles name it by: equal for equal settings, zones and code.
    #[must_use]
    pub fn config_hash(&self) -> ConfigHash {
        let mut hash = Sha256::new();
        let facts = [("tz_database", &self.tz_database), ("code", &self.code)];
        let settings = self.settings.iter().map(|(path, value)| (path.as_str(), value));
        for (path, value) in facts.into_iter().chain(settings) {
            // Lengths, so that no two different settings give the same bytes.
            hash.update(format!("{}:{path}={}:{value}\n", path.len(), value.len()));
        }
        ConfigHash(hash.finalize().into())
    }
}

/// Trading is latched as stopped, whatever the kill switch's store says; only an operator releases it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillLatched {
    /// Whether it is stopped since.
    pub latched: bool,
    /// Why, or why no longer.
    pub reason: String,
}
