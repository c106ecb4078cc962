//! Checkpoints as hashes: one key a name, replaced as a whole, never by a superseded writer.
//!
//! ```text
//! orch:{NAMESPACE}:checkpoint:NAME    epoch    value:  0  version u8 (1)    1  crc u32 of the rest    5  content
//! ```

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use orchestrator_kernel::ids::Epoch;
use orchestrator_kernel::ports::checkpoint::{CheckpointStore, LoadError, SaveError};
use redis::RedisResult;

use super::connect::RedisLink;
use super::fault::RedisFault;
use super::scripts::SAVE;

/// Largest value that is kept.
const VALUE_BYTES_MAX: usize = 64 << 20;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 5;

/// Checkpoints beside the logs, as durable as they are.
///
/// A value of another format version, and a key that is no hash, count as damaged.
#[derive(Clone)]
pub struct RedisCheckpoints {
    link: Arc<RedisLink>,
    namespace: String,
}

impl RedisCheckpoints {
    pub(super) const fn new(link: Arc<RedisLink>, namespace: String) -> Self {
        Self { link, namespace }
    }

    fn checkpoint_key(&self, name: &str) -> io::Result<String> {
        if !super::is_plain_name(name) {
            let text =
                format!("{name:?} is no name for a checkpoint: use 1 to 128 letters, digits, '_' and '-'");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(format!("orch:{{{}}}:checkpoint:{name}", self.namespace))
    }
}

/// Content of a checkpoint's key.
enum Stored {
    Nothing,
    Value(Vec<u8>),
    /// Not what checkpoints are kept in.
    Else,
}

#[async_trait]
impl CheckpointStore for RedisCheckpoints {
    async fn load(&self, name: &str) -> Result<Option<Bytes>, LoadError> {
        let key = self.checkpoint_key(name)?;
        let mut command = redis::cmd("HGET");
        command.arg(&key).arg("value");
        let stored: Stored = self
            .link
            .run_again(VALUE_BYTES_MAX, |mut connection| {
                let command = &command;
                async move {
                    let answer: RedisResult<Option<Vec<u8>>> = command.query_async(&mut connection).await;
                    match answer {
                        Ok(None) => Ok(Stored::Nothing),
                        Ok(Some(value)) => Ok(Stored::Value(value)),
                        Err(error) if error.code() == Some("WRONGTYPE") => Ok(Stored::Else),
                        Err(error) => Err(error),
                    }
                }
            })
            .await?;
        let value = match stored {
            Stored::Nothing => return Ok(None),
            Stored::Value(stored) => decode_checkpoint(&Bytes::from(stored)),
            Stored::Else => Err("it is no hash"),
        };
        value.map(Some).map_err(|detail| LoadError::Damaged { place: key, detail: detail.to_owned() })
    }

    async fn save(&self, name: &str, epoch: Epoch, value: Bytes) -> Result<(), SaveError> {
        let key = self.checkpoint_key(name)?;
        if VALUE_BYTES_MAX < value.len() {
            let text =
                format!("checkpoint {name} has {} bytes, at most {VALUE_BYTES_MAX} are kept", value.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text).into());
        }
        let mut invocation = SAVE.key(key);
        invocation.arg(epoch.0).arg(encode_checkpoint(&value));
        let current: u64 =
            self.link
                .run_once(value.len(), |mut connection| async move {
                    invocation.invoke_async(&mut connection).await
                })
                .await
                .map_err(RedisFault::into_io)?;
        match Epoch(current) == epoch {
            true => Ok(()),
            false => Err(SaveError::Fenced { mine: epoch, current: Epoch(current) }),
        }
    }
}

pub(super) fn encode_checkpoint(value: &[u8]) -> Vec<u8> {
    let mut stored = Vec::with_capacity(HEADER_BYTES + value.len());
    stored.push(VERSION);
    stored.extend_from_slice(&crc32c::crc32c(value).to_le_bytes());
    stored.extend_from_slice(value);
    stored
}

pub(super) fn decode_checkpoint(stored: &Bytes) -> Result<Bytes, &'static str> {
    let header = stored.first_chunk::<HEADER_BYTES>().ok_or("it is too short")?;
    let value = stored.slice(HEADER_BYTES..);
    if header[0] != VERSION {
        return Err("it has another format version");
    }
    if header[1..] != crc32c::crc32c(&value).to_le_bytes() {
        return Err("it fails its checksum");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_byte_and_every_cut_is_seen() {
        let stored = encode_checkpoint(b"value");
        assert_eq!(decode_checkpoint(&Bytes::from(stored.clone())).as_deref(), Ok(b"value" as &[u8]));

        for at in 0..stored.len() {
            let mut flipped = stored.clone();
            flipped[at] ^= 0x10;
            assert!(decode_checkpoint(&Bytes::from(flipped)).is_err(), "byte {at}");
            assert!(decode_checkpoint(&Bytes::copy_from_slice(&stored[..at])).is_err(), "cut at {at}");
        }
    }
}
