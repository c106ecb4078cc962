//! The commands of a consumer group, and what their errors mean.

use std::time::Duration;

use orchestrator_kernel::ports::source::SourceError;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd};

use super::entries::{self, Claimed, Entry, EntryId};
use super::look::{self, Look};

/// One consumer of a group on a stream.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The server, for messages.
    pub(super) place: String,
    pub(super) stream: String,
    pub(super) group: String,
    pub(super) consumer: String,
    pub(super) field: String,
}

/// Beginning of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// Behind this entry among those that were delivered to us and not acknowledged.
    Pending(EntryId),
    /// With what no consumer of the group was given yet.
    New,
}

/// Reason for which a command gave nothing.
#[derive(Debug)]
pub(super) enum Fault {
    /// The group is not there, or its stream.
    GroupGone,
    /// The source has to be opened again, or cannot be.
    Failed(SourceError),
}

impl Group {
    /// Makes the group, and the stream when there is none. `false` when it is there already.
    pub(super) async fn create(
        &self,
        mut connection: MultiplexedConnection,
        start: &str,
    ) -> Result<bool, Fault> {
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(&self.group).arg(start).arg("MKSTREAM");
        match create.query_async::<()>(&mut connection).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(false),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Reads up to `count` entries; new ones are waited for.
    pub(super) async fn read(
        &self,
        connection: MultiplexedConnection,
        from: From,
        count: usize,
        block: Duration,
    ) -> Result<Vec<Entry>, Fault> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        match from {
            From::Pending(after) => {
                read.arg("STREAMS").arg(&self.stream).arg(after.to_string());
            }
            From::New => {
                let ms = u64::try_from(block.as_millis()).unwrap_or(u64::MAX);
                read.arg("BLOCK").arg(ms).arg("STREAMS").arg(&self.stream).arg(">");
            }
        }
        let answer = self.ask(&read, connection).await?;
        entries::of_read(answer, &self.field).map_err(|error| self.lost(&error))
    }

    /// What the server says of the stream and of how far the group is, before what it has not read is read.
    pub(super) async fn look(&self, mut connection: MultiplexedConnection) -> Result<Look, Fault> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("XINFO").arg("STREAM").arg(&self.stream);
        pipeline.cmd("XINFO").arg("GROUPS").arg(&self.stream);
        let answer: [Value; 2] =
            pipeline.query_async(&mut connection).await.map_err(|error| self.fault(&error))?;
        let [stream, groups] = answer;
        Ok(look::of(&stream, &groups, &self.group))
    }

    /// Takes over what other consumers were given more than `idle` ago and did not acknowledge. Ours is among it.
    pub(super) async fn claim(
        &self,
        connection: MultiplexedConnection,
        idle: Duration,
        from: EntryId,
        count: usize,
    ) -> Result<Claimed, Fault> {
        let ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let mut claim = cmd("XAUTOCLAIM");
        claim.arg(&self.stream).arg(&self.group).arg(&self.consumer).arg(ms);
        claim.arg(from.to_string()).arg("COUNT").arg(count);
        let answer = self.ask(&claim, connection).await?;
        entries::of_claim(answer, &self.field).map_err(|error| self.lost(&error))
    }

    /// Acknowledges; harmless when it was done before.
    pub(super) async fn acknowledge(
        &self,
        mut connection: MultiplexedConnection,
        ids: &[EntryId],
    ) -> Result<(), Fault> {
        let mut acknowledge = cmd("XACK");
        acknowledge.arg(&self.stream).arg(&self.group);
        for id in ids {
            acknowledge.arg(id.to_string());
        }
        acknowledge.query_async::<()>(&mut connection).await.map_err(|error| self.fault(&error))
    }

    async fn ask(&self, command: &Cmd, mut connection: MultiplexedConnection) -> Result<Value, Fault> {
        command.query_async(&mut connection).await.map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &RedisError) -> Fault {
        match error.code() {
            // UNBLOCKED: the stream went away while we waited for it.
            Some("NOGROUP" | "UNBLOCKED") => Fault::GroupGone,
            Some("WRONGTYPE") => Fault::Failed(SourceError::Fatal {
                detail: format!(
                    "the key {:?} of redis at {} is no stream; name another one, or remove it and start again",
                    self.stream, self.place
                ),
            }),
            Some(_) | None => self.lost(error),
        }
    }

    fn lost(&self, error: &dyn std::error::Error) -> Fault {
        Fault::Failed(SourceError::Lost { detail: format!("redis at {}: {error}", self.place) })
    }
}
