//! The bare way to the same durable bytes as a journal's: one file, or one client of the same server.

use std::path::Path;
use std::time::Instant;

use super::journal::Appended;
use super::medium::{BareAppender, Rig};
use super::support::{BareFile, Outcome, noise};

/// Bare commits beside a journal.
pub(crate) enum BareCommits {
    /// One preallocated file, one write and one fdatasync a commit.
    File(BareFile),
    /// The same script on the same server, and nothing else.
    Redis(BareAppender),
}

/// What one commit has.
pub(crate) struct CommitShape {
    records: u64,
    payload: Vec<u8>,
}

impl CommitShape {
    /// A commit of everything that was appended.
    pub(crate) fn of(appended: Appended) -> Outcome<Self> {
        Ok(Self { records: appended.records.max(1), payload: noise(usize::try_from(appended.bytes)?) })
    }

    /// The mean of the commits in which it was appended.
    pub(crate) fn mean_of(appended: Appended) -> Outcome<Self> {
        let appends = appended.appends.max(1);
        let (bytes, records) = (appended.bytes / appends, appended.records / appends);
        Self::of(Appended { bytes, records, appends: 1 })
    }
}

impl BareCommits {
    /// Room for `commits` of this shape.
    pub(crate) async fn create(rig: &Rig, dir: &Path, shape: &CommitShape, commits: u64) -> Outcome<Self> {
        Ok(match rig.redis_url() {
            Some(url) => Self::Redis(BareAppender::connect(&url).await?),
            None => {
                let size = shape.payload.len() as u64 * commits;
                Self::File(BareFile::create(&dir.join("bare"), size)?)
            }
        })
    }

    /// The words for it.
    pub(crate) const fn words(&self) -> &'static str {
        match self {
            Self::File(_) => "a bare write + fdatasync of the same bytes",
            Self::Redis(_) => "a bare client, same bytes, same script",
        }
    }

    /// Milliseconds for one commit.
    pub(crate) async fn commit(&mut self, shape: &CommitShape) -> Outcome<f64> {
        let begin = Instant::now();
        match self {
            Self::File(file) => tokio::task::block_in_place(|| file.commit(&shape.payload))?,
            Self::Redis(appender) => {
                let entry = shape.payload.len() / usize::try_from(shape.records)?;
                appender.append(shape.records, shape.payload.get(..entry).unwrap_or_default()).await?;
            }
        }
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}
