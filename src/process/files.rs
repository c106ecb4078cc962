//! Files that commands read and make: compressed or not, and never half a file under its name.

use std::fs::{File, Permissions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use tempfile::TempPath;

/// Bytes that are read, decompressed or written at once.
const BUFFER_BYTES: usize = 256 << 10;
/// Level of zstd: its own default.
const ZSTD_LEVEL: i32 = 3;

/// Compression of a text file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// Gzip.
    Gz,
    /// Zstandard.
    Zst,
}

impl Compression {
    /// What the name of such a file ends with.
    #[must_use]
    pub const fn name_suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gz => ".gz",
            Self::Zst => ".zst",
        }
    }

    /// What the name of a file promises.
    #[must_use]
    pub fn of_name(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz") => Self::Gz,
            Some("zst") => Self::Zst,
            Some(_) | None => Self::None,
        }
    }
}

/// Opens a text file for reading. Whether it is compressed, its first bytes say.
///
/// # Errors
///
/// What the system says.
pub fn open_text(path: &Path) -> io::Result<Box<dyn BufRead>> {
    let mut raw = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
    let text: Box<dyn BufRead> = match raw.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(raw))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let decoder = zstd::stream::read::Decoder::with_buffer(raw)?;
            Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
        }
        _ => Box::new(raw),
    };
    Ok(text)
}

/// A file in the making. Under its name there is nothing, or the old file, until [`Finished::publish`].
pub struct NewFile {
    sink: Sink,
    temporary: TempPath,
    target: PathBuf,
}

enum Sink {
    Plain(BufWriter<File>),
    Gz(Box<BufWriter<GzEncoder<File>>>),
    Zst(Box<BufWriter<zstd::Encoder<'static, File>>>),
}

impl NewFile {
    /// Begins the file `target`, in its directory.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn create(target: &Path, compression: Compression) -> io::Result<Self> {
        let dir = directory_of(target);
        let (file, temporary) = tempfile::Builder::new()
            .prefix(".unfinished-")
            // As any other new file; what the process's mask takes away is taken away.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(dir)?
            .into_parts();
        let sink = match compression {
            Compression::None => Sink::Plain(BufWriter::with_capacity(BUFFER_BYTES, file)),
            Compression::Gz => {
                let encoder = GzEncoder::new(file, flate2::Compression::default());
                Sink::Gz(Box::new(BufWriter::with_capacity(BUFFER_BYTES, encoder)))
            }
            Compression::Zst => {
                let mut encoder = zstd::Encoder::new(file, ZSTD_LEVEL)?;
                encoder.include_checksum(true)?;
                Sink::Zst(Box::new(BufWriter::with_capacity(BUFFER_BYTES, encoder)))
            }
        };
        Ok(Self { sink, temporary, target: target.to_owned() })
    }

    /// Writes the rest out and waits until the disk has it.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn finish(self) -> io::Result<Finished> {
        let file = match self.sink {
            Sink::Plain(writer) => flush_into_inner(writer)?,
            Sink::Gz(writer) => flush_into_inner(*writer)?.finish()?,
            Sink::Zst(writer) => flush_into_inner(*writer)?.finish()?,
        };
        file.sync_all()?;
        Ok(Finished { temporary: self.temporary, target: self.target })
    }
}

fn flush_into_inner<W: Write>(writer: BufWriter<W>) -> io::Result<W> {
    writer.into_inner().map_err(io::IntoInnerError::into_error)
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.sink {
            Sink::Plain(writer) => writer.write(bytes),
            Sink::Gz(writer) => writer.write(bytes),
            Sink::Zst(writer) => writer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.sink {
            Sink::Plain(writer) => writer.flush(),
            Sink::Gz(writer) => writer.flush(),
            Sink::Zst(writer) => writer.flush(),
        }
    }
}

/// A whole file that has no name yet. Dropped, it is gone.
pub struct Finished {
    temporary: TempPath,
    target: PathBuf,
}

impl Finished {
    /// Gives it its name.
    ///
    /// # Errors
    ///
    /// What the system says; [`io::ErrorKind::AlreadyExists`] when there is a file of that name and `replace` is not
    /// set.
    pub fn publish(self, replace: bool) -> io::Result<PathBuf> {
        let named = match replace {
            true => self.temporary.persist(&self.target),
            false => self.temporary.persist_noclobber(&self.target),
        };
        named.map_err(|error| error.error)?;
        File::open(directory_of(&self.target))?.sync_all()?;
        Ok(self.target)
    }
}

fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_is_read_as_it_was_written_whatever_its_compression() {
        let dir = tempfile::tempdir().unwrap();
        let text: String = (0..100_000).map(|number| format!("line {number}\n")).collect();
        for compression in [Compression::None, Compression::Gz, Compression::Zst] {
            let path = dir.path().join(format!("file{}", compression.name_suffix()));
            assert_eq!(Compression::of_name(&path), compression);
            let mut file = NewFile::create(&path, compression).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.finish().unwrap().publish(false).unwrap();

            let mut read = String::new();
            open_text(&path).unwrap().read_to_string(&mut read).unwrap();

            assert!(read == text, "{compression:?}");
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            let usual = dir.path().join("usual");
            std::fs::write(&usual, "").unwrap();
            assert_eq!(mode, std::fs::metadata(&usual).unwrap().permissions().mode());
        }
    }

    #[test]
    fn until_it_is_published_the_old_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "old").unwrap();
        let make = || {
            let mut file = NewFile::create(&path, Compression::None).unwrap();
            file.write_all(b"new").unwrap();
            file.finish().unwrap()
        };

        drop(make());
        let refused = make().publish(false).unwrap_err();

        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(dir.path()), ["file"]);
        make().publish(true).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(dir.path()), ["file"]);
    }
}
