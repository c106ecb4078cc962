//! The commands of a consumer group, and what their errors mean.

use std::time::Duration;

use orchestrator_kernel::ports::source::SourceError;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, Value, cmd};

use super::Looked;
use super::entries::{self, Claimed, EntryId, StreamEntry};
use super::look;

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
pub(super) enum ReadFrom {
    /// Behind this entry among those that were delivered to us and not acknowledged.
    Pending(EntryId),
    /// With what no consumer of the group was given yet.
    New,
}

/// Reason for which a command gave nothing.
#[derive(Debug)]
pub(super) enum GroupFault {
    /// The group is not there, or its stream.
    GroupGone,
    /// The source has to be opened again, or cannot be.
    Failed(SourceError),
}

impl Group {
    /// Makes the group, and the stream when there is none. `false` when it is there already.
    pub(super) async fn create_group(
        &self,
        mut connection: MultiplexedConnection,
        start: &str,
    ) -> Result<bool, GroupFault> {
        let mut create = cmd("XGROUP");
        create.arg("CREATE").arg(&self.stream).arg(&self.group).arg(start).arg("MKSTREAM");
        match create.query_async::<()>(&mut connection).await {
            Ok(()) => Ok(true),
            Err(error) if error.code() == Some("BUSYGROUP") => Ok(false),
            Err(error) => Err(self.fault_of(&error)),
        }
    }

    /// Reads up to `count` entries; new ones are waited for.
    pub(super) async fn read_entries(
        &self,
        connection: MultiplexedConnection,
        from: ReadFrom,
        count: usize,
        block: Duration,
    ) -> Result<Vec<StreamEntry>, GroupFault> {
        let mut read = cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.group).arg(&self.consumer).arg("COUNT").arg(count);
        match from {
            ReadFrom::Pending(after) => {
                read.arg("STREAMS").arg(&self.stream).arg(after.to_string());
            }
            ReadFrom::New => {
                let ms = u64::try_from(block.as_millis()).unwrap_or(u64::MAX);
                read.arg("BLOCK").arg(ms).arg("STREAMS").arg(&self.stream).arg(">");
            }
        }
        let answer = self.send_command(&read, connection).await?;
        entries::of_read(answer, &self.field).map_err(|error| self.lost_fault(&error))
    }

    /// What the server says of the stream and of how far the group is, before what it has not read is read. One that is
    /// lost fails the step: asked for entries next, it would be waited for a second time.
    pub(super) async fn look_up_stream(
        &self,
        mut connection: MultiplexedConnection,
    ) -> Result<Looked, GroupFault> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("XINFO").arg("STREAM").arg(&self.stream);
        pipeline.cmd("XINFO").arg("GROUPS").arg(&self.stream);
        match pipeline.query_async::<[Value; 2]>(&mut connection).await {
            Ok([stream, groups]) => Ok(Ok(look::parse_info(&stream, &groups, &self.group))),
            Err(error) if error.is_io_error() => Err(self.fault_of(&error)),
            // An answer all the same: it does not let us see.
            Err(_) => Ok(Err(())),
        }
    }

    /// Takes over what other consumers were given more than `idle` ago and did not acknowledge. Ours is among it.
    pub(super) async fn claim_idle(
        &self,
        connection: MultiplexedConnection,
        idle: Duration,
        from: EntryId,
        count: usize,
    ) -> Result<Claimed, GroupFault> {
        let ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let mut claim = cmd("XAUTOCLAIM");
        claim.arg(&self.stream).arg(&self.group).arg(&self.consumer).arg(ms);
        claim.arg(from.to_string()).arg("COUNT").arg(count);
        let answer = self.send_command(&claim, connection).await?;
        entries::of_claim(answer, &self.field).map_err(|error| self.lost_fault(&error))
    }

    /// Acknowledges; harmless when it was done before.
    pub(super) async fn acknowledge_entries(
        &self,
        mut connection: MultiplexedConnection,
        ids: &[EntryId],
    ) -> Result<(), GroupFault> {
        let mut acknowledge = cmd("XACK");
        acknowledge.arg(&self.stream).arg(&self.group);
        for id in ids {
            acknowledge.arg(id.to_string());
        }
        acknowledge.query_async::<()>(&mut connection).await.map_err(|error| self.fault_of(&error))
    }

    async fn send_command(
        &self,
        command: &Cmd,
        mut connection: MultiplexedConnection,
    ) -> Result<Value, GroupFault> {
        command.query_async(&mut connection).await.map_err(|error| self.fault_of(&error))
    }

    fn fault_of(&self, error: &RedisError) -> GroupFault {
        match error.code() {
            // UNBLOCKED: the stream went away while we waited for it.
            Some("NOGROUP" | "UNBLOCKED") => GroupFault::GroupGone,
            Some("WRONGTYPE") => GroupFault::Failed(SourceError::Fatal {
                detail: format!(
                    "the key {:?} of redis at {} is no stream; name another one, or remove it and start again",
                    self.stream, self.place
                ),
            }),
            Some(_) | None => self.lost_fault(error),
        }
    }

    fn lost_fault(&self, error: &dyn std::error::Error) -> GroupFault {
        GroupFault::Failed(SourceError::Lost { detail: format!("redis at {}: {error}", self.place) })
    }
}
