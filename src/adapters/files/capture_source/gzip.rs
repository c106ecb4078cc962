//! The members of a gzip file one after the other, and the zeros that may follow them.
//!
//! Tapes, block devices and some copies pad a file with zeros; `gzip -d` and Python's reader take them for what they
//! are. The decoder of all members would take the first zero for a damaged header.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// The decompressed text of every member.
pub(super) struct GzipMembers<R> {
    /// `None` once all is read.
    member: Option<GzDecoder<R>>,
}

impl<R: BufRead> GzipMembers<R> {
    pub(super) fn new(file: R) -> Self {
        Self { member: Some(GzDecoder::new(file)) }
    }
}

impl<R: BufRead> Read for GzipMembers<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let read = member.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            // The member has ended: its length and checksum were right.
            let mut file = match self.member.take() {
                Some(member) => member.into_inner(),
                None => break,
            };
            self.member = (!is_padding(&mut file)?).then(|| GzDecoder::new(file));
        }
        Ok(0)
    }
}

/// Whether nothing but zeros is left; they are consumed.
///
/// # Errors
///
/// Something stands behind zeros.
fn is_padding(file: &mut impl BufRead) -> io::Result<bool> {
    let mut zeros = 0_u64;
    loop {
        let left = file.fill_buf()?;
        if left.is_empty() {
            return Ok(true);
        }
        let padding = left.iter().take_while(|byte| **byte == 0).count();
        if padding < left.len() {
            if zeros == 0 && padding == 0 {
                return Ok(false);
            }
            let detail =
                format!("{} zeros behind a gzip member, then something else", zeros + padding as u64);
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
        file.consume(padding);
        zeros += padding as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};

    use super::*;

    fn member(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(file: &[u8]) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        GzipMembers::new(BufReader::with_capacity(7, file)).read_to_end(&mut text).map(|_| text)
    }

    #[test]
    fn members_follow_each_other_and_zeros_behind_the_last_are_padding() {
        let two = [member(b"one\n"), member(b""), member(b"two\n")].concat();

        assert_eq!(unpack(&two).unwrap(), b"one\ntwo\n");
        for zeros in [1, 6, 7, 8, 512] {
            assert_eq!(unpack(&[two.clone(), vec![0; zeros]].concat()).unwrap(), b"one\ntwo\n");
        }
    }

    #[test]
    fn what_is_cut_off_damaged_or_followed_by_something_else_is_an_error() {
        let whole = member(b"one\ntwo\nthree\n");
        for file in [
            whole[..whole.len() - 1].to_vec(),
            [whole.clone(), b"x".to_vec()].concat(),
            [whole.clone(), vec![0; 20], whole.clone()].concat(),
            [whole.clone(), whole[..5].to_vec()].concat(),
            Vec::new(),
        ] {
            assert!(unpack(&file).is_err(), "{file:?}");
        }
    }
}
