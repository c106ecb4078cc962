//! Files that can be replaced where there is no room: what makes room must not need any.
//!
//! ```text
//! NAME            the content, replaced as a whole
//! NAME.reserve    an inode and blocks for the next content, taken while there is room
//! ```
//!
//! With room a file is replaced as any other, and its reserve is brought up to its size. Without room the reserve is
//! written in place and takes the name; the file before it gives its own blocks and inode for the next reserve.

use std::io;
use std::path::Path;

use super::fs::{Fs, is_full, replace_file};

/// Ends the name of a reserve. What it holds means nothing.
const RESERVE: &str = ".reserve";

/// Reserves are multiples of this.
const BLOCK_BYTES: u64 = 4096;

/// As [`replace_file`], also where there is no room, as long as the content did not grow by more than a quarter since
/// there was some.
///
/// # Errors
///
/// As [`replace_file`]; the old file stays.
pub(super) fn replace_with_reserve(fs: &dyn Fs, dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    if let Err(error) = replace_file(fs, dir, name, content) {
        if !is_full(&error) {
            return Err(error);
        }
        spend_reserve(fs, dir, name, content, error)?;
    }
    if let Err(error) = keep_reserve(fs, dir, name, content.len() as u64) {
        tracing::debug!(path = %dir.join(name).display(), %error, "there is no reserve for a file");
    }
    Ok(())
}

/// Replaces the file by its reserve; without one of enough bytes it fails as it did before.
fn spend_reserve(fs: &dyn Fs, dir: &Path, name: &str, content: &[u8], failed: io::Error) -> io::Result<()> {
    let reserve = dir.join(format!("{name}{RESERVE}"));
    let Ok(file) = fs.open_file(&reserve) else { return Err(failed) };
    if file.size()? < content.len() as u64 {
        return Err(failed);
    }
    file.write_at(content, 0)?;
    file.truncate(content.len() as u64)?;
    file.sync()?;
    fs.rename_file(&reserve, &dir.join(name))?;
    fs.sync_dir(dir)
}

/// Takes room for a next content of so many bytes, which may be a quarter longer.
///
/// # Errors
///
/// There is none, or the storage failed.
pub(super) fn keep_reserve(fs: &dyn Fs, dir: &Path, name: &str, bytes: u64) -> io::Result<()> {
    let reserve = dir.join(format!("{name}{RESERVE}"));
    let has = match fs.open_file(&reserve) {
        Ok(file) => file.size()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    if bytes <= has {
        return Ok(());
    }
    let file = fs.create_file(&reserve)?;
    file.allocate((bytes + bytes / 4).next_multiple_of(BLOCK_BYTES))?;
    file.sync()
}

#[cfg(test)]
mod tests {
    use super::super::fs::read_small;
    use super::super::tests::fault_fs::FaultFs;
    use super::*;
    use orchestrator_kernel::random::Rng;

    const DIR: &str = "/dir";

    fn content(fs: &dyn Fs) -> Vec<u8> {
        read_small(fs, &Path::new(DIR).join("name"), 1 << 20).unwrap().unwrap()
    }

    fn put(fs: &FaultFs, content: &[u8]) -> io::Result<()> {
        replace_with_reserve(fs, Path::new(DIR), "name", content)
    }

    #[test]
    fn a_full_disk_takes_the_next_content_and_no_longer_one() {
        let fs = FaultFs::default();
        put(&fs, &[1; 5000]).unwrap();

        fs.set_full(true);
        let too_long = put(&fs, &[2; 9000]).unwrap_err();
        assert!(is_full(&too_long), "{too_long}");
        assert_eq!(content(&fs), [1; 5000]);
        put(&fs, &[2; 5500]).unwrap();
        assert_eq!(content(&fs), [2; 5500]);
        // Spent: here the file before it does not give its room to the next reserve.
        assert!(is_full(&put(&fs, &[3; 10]).unwrap_err()));
        assert_eq!(content(&fs), [2; 5500]);

        fs.set_full(false);
        put(&fs, &[3; 10]).unwrap();
        fs.set_full(true);
        put(&fs, &[4; 10]).unwrap();
        assert_eq!(content(&fs), [4; 10]);
    }

    /// Method: the power fails at each step of a replacement on a full disk.
    #[test]
    fn a_crash_on_a_full_disk_leaves_the_old_or_the_new_content() {
        let mut seen = [0, 0];
        for operations in 0..8 {
            for seed in 0..200 {
                let fs = FaultFs::default();
                put(&fs, &[1; 5000]).unwrap();
                fs.set_full(true);
                fs.fail_power_after(operations);
                let done = put(&fs, &[2; 4000]);

                fs.fail_power(&mut Rng::new(seed));

                let content = content(&fs);
                assert!(content == [1; 5000] || content == [2; 4000], "after {operations}: torn");
                assert!(done.is_err() || content == [2; 4000], "after {operations}: it was said to be there");
                seen[usize::from(content == [2; 4000])] += 1;
            }
        }
        assert!(seen.iter().all(|count| 0 < *count), "{seen:?}");
    }
}
