//! Doors to what reads the files of a log, for the fuzz targets.

use std::io;
use std::sync::Arc;

use orchestrator_kernel::ids::Seq;
use orchestrator_kernel::ports::log::{ReadError, ReadLimit};

use super::super::fs::{FileId, FsFile};
use super::meta::LogMeta;
use super::scan::{SegmentExtent, check_last, index_segment};
use super::segment::{HEADER_BYTES, Header};

/// A file in memory that nobody writes to.
struct Content(Vec<u8>);

impl FsFile for Content {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        Ok(length)
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn allocate(&self, _size: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn truncate(&self, _size: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn file_id(&self) -> io::Result<FileId> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A segment that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its first record.
    pub first: u64,
    /// Its last record; one before the first when there is none.
    pub last: u64,
    /// Where its frames end.
    pub end: u64,
    /// Bytes of a torn write behind them.
    pub torn_bytes: u64,
    /// The records, read again from the start.
    pub records: Vec<Vec<u8>>,
}

/// Reads a segment as a start of the service does, and then its records as a reader does.
///
/// # Errors
///
/// Why it is refused.
pub fn segment(content: &[u8]) -> Result<Segment, String> {
    let file: Arc<dyn FsFile> = Arc::new(Content(content.to_vec()));
    let header = Header::read(&*file).map_err(|error| error.to_string())?;
    let Header { log_id, first, .. } = header.map_err(|error| format!("header: {error:?}"))?;
    let scan = check_last(&*file, first, log_id).map_err(|error| error.to_string())?;
    let scan = scan.map_err(|damage| format!("byte {}: {}", damage.at, damage.detail))?;
    index_segment(&*file, log_id, first, scan.last, scan.end).map_err(|error| error.to_string())?;
    let extent = SegmentExtent { file, log_id, first, at: HEADER_BYTES, end: scan.end };
    let records = read_all(&extent, first, scan.last).map_err(|error| error.to_string())?;
    Ok(Segment { first: first.0, last: scan.last.0, end: scan.end, torn_bytes: scan.torn_bytes, records })
}

fn read_all(extent: &SegmentExtent, first: Seq, last: Seq) -> Result<Vec<Vec<u8>>, ReadError> {
    let mut records = Vec::new();
    let mut from = first;
    while from <= last {
        let batch = extent.read_records(from, ReadLimit { records: 3, ..ReadLimit::default() })?;
        if batch.is_empty() {
            break;
        }
        records.extend(batch.iter().map(|(_, payload)| payload.to_vec()));
        from = batch.last_seq().next();
    }
    Ok(records)
}

/// The file of what is remembered beside the segments, written again; `None` when it is refused.
pub fn meta_again(content: &[u8]) -> Option<Vec<u8>> {
    LogMeta::parse(content).ok().map(|meta| meta.encode().to_vec())
}
