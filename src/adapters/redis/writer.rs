//! Who writes in a namespace: a key that lives while its writer does, against a second start by mistake.
//!
//! It is a courtesy. What keeps two writers apart whatever happens is the epoch of each log.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use orchestrator_kernel::ids::TsMs;
use orchestrator_kernel::rfc3339::to_rfc3339;
use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

use super::connect::RedisLink;
use super::fault::RedisFault;
use super::scripts::{CLAIM, DROP_CLAIM, KEEP_CLAIM};

/// Claim of an instance that wants to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterClaim {
    /// Identity of the installation, the same after a restart: a claim of the same instance is taken over at once. The
    /// caller sees to it that its earlier process has ended.
    pub instance: String,
    /// Take over from another instance that still holds it.
    pub takeover: bool,
}

/// Reason for which the namespace cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another instance writes.
    #[error(
        "namespace {namespace} is written by {holder}: stop it, wait {} s, or start with --takeover",
        remaining.as_secs() + 1
    )]
    Held {
        /// Which namespace.
        namespace: String,
        /// Instance, host, process and since when.
        holder: String,
        /// When the claim ends unless it is renewed.
        remaining: Duration,
    },
    /// Redis did not answer, or refused.
    #[error("cannot claim the writer's place")]
    Io(#[from] std::io::Error),
}

/// The key's value.
#[derive(Serialize, Deserialize)]
struct Holder {
    instance: String,
    host: String,
    pid: u32,
    since_ms: u64,
}

/// A claim that was granted. Renewed in the background until it is dropped; then it ends by itself.
pub(super) struct NamespaceWriter {
    key: String,
    value: String,
    link: Arc<RedisLink>,
    _heartbeat: AbortOnDropHandle<()>,
}

impl NamespaceWriter {
    /// Claims `key` for `ttl`, and keeps it.
    pub(super) async fn claim_namespace(
        link: Arc<RedisLink>,
        namespace: &str,
        claim: &WriterClaim,
        ttl: Duration,
    ) -> Result<Self, ClaimError> {
        let key = format!("orch:{{{namespace}}}:writer");
        let value = value_of(&claim.instance)?;
        let mut invocation = CLAIM.key(&key);
        invocation.arg(&claim.instance).arg(&value).arg(to_millis(ttl)).arg(u8::from(claim.takeover));
        let (holder, remaining_ms): (Vec<u8>, i64) = link
            .run_once(0, |mut connection| async move { invocation.invoke_async(&mut connection).await })
            .await
            .map_err(RedisFault::into_io)?;
        if !holder.is_empty() {
            return Err(ClaimError::Held {
                namespace: namespace.to_owned(),
                holder: describe_holder(&holder),
                remaining: Duration::from_millis(u64::try_from(remaining_ms).unwrap_or(0)),
            });
        }
        let beat = keep_claim(Arc::clone(&link), key.clone(), value.clone(), ttl);
        let _heartbeat = AbortOnDropHandle::new(tokio::spawn(beat));
        Ok(Self { key, value, link, _heartbeat })
    }

    /// Gives the place up, so that another instance need not wait.
    pub(super) async fn release_claim(self) -> std::io::Result<()> {
        let Self { key, value, link, _heartbeat } = self;
        drop(_heartbeat);
        let mut invocation = DROP_CLAIM.key(key);
        invocation.arg(value);
        link.run_once(
            0,
            |mut connection| async move { invocation.invoke_async::<i64>(&mut connection).await },
        )
        .await
        .map(|_| ())
        .map_err(RedisFault::into_io)
    }
}

async fn keep_claim(link: Arc<RedisLink>, key: String, value: String, ttl: Duration) {
    let mut is_missed = false;
    loop {
        tokio::time::sleep(ttl / 3).await;
        let mut invocation = KEEP_CLAIM.key(&key);
        invocation.arg(&value).arg(to_millis(ttl));
        let kept = link.run_once(0, |mut connection| async move {
            invocation.invoke_async::<Vec<u8>>(&mut connection).await
        });
        match kept.await {
            Ok(holder) if holder.is_empty() => is_missed = false,
            Ok(holder) => {
                error!(holder = describe_holder(&holder), "another instance has become the writer");
                return;
            }
            Err(fault) => {
                if !std::mem::replace(&mut is_missed, true) {
                    warn!(error = %fault.into_io(), "cannot renew the writer's place");
                }
            }
        }
    }
}

fn value_of(instance: &str) -> std::io::Result<String> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let holder = Holder {
        instance: instance.to_owned(),
        host: host_name(),
        pid: std::process::id(),
        since_ms: to_millis(since),
    };
    serde_json::to_string(&holder).map_err(std::io::Error::other)
}

/// The holder for people, whatever stands in the key.
fn describe_holder(value: &[u8]) -> String {
    match serde_json::from_slice::<Holder>(value) {
        Ok(Holder { instance, host, pid, since_ms }) => {
            format!("instance {instance} on {host}, pid {pid}, since {}", to_the_second(since_ms))
        }
        Err(_) => String::from_utf8_lossy(value).chars().take(200).collect(),
    }
}

/// The moment without its fraction. It is what another process wrote, so any number.
fn to_the_second(since_ms: u64) -> String {
    let at = i64::try_from(since_ms).unwrap_or(i64::MAX);
    to_rfc3339(TsMs(at - at % 1000)).replace("+00:00", "Z")
}

/// The host's name as far as it can be told without asking anybody.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "unknown host".to_owned(),
        name => name.to_owned(),
    }
}

fn to_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Method: the holder wrote a time that no calendar has.
    #[test]
    fn a_holder_is_described_whatever_it_wrote() {
        for (since_ms, since) in [
            ("1767225600999", "2026-01-01T00:00:00Z"),
            ("253402300800000", "10000-01-01T00:00:00Z"),
            ("18446744073709551615", "292278994-08-17T07:12:55Z"),
        ] {
            let value = format!(r#"{{"instance":"a","host":"h","pid":7,"since_ms":{since_ms}}}"#);
            let described = describe_holder(value.as_bytes());

            assert_eq!(described, format!("instance a on h, pid 7, since {since}"));
        }
        assert_eq!(describe_holder(b"somebody"), "somebody");
    }
}
