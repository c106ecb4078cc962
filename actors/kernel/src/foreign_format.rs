//! Formats that are no text of receipts, recognised by how they begin.
//!
//! A whole file or body in the wrong format is a mistake of whoever gave it. Cut into lines it would be settled in
//! shreds, so it is recognised before the first line is cut.

/// The byte order mark of UTF-8: framing at the very beginning of a text, no part of its first line.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Bytes of the beginning that [`ForeignFormat::recognise_format`] looks at.
pub const LOOKED_AT_BYTES: usize = 8;

/// A format that people have their recordings in, and that holds no lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignFormat {
    /// gzip, RFC 1952.
    Gzip,
    /// A zstd frame, or a skippable frame before one, RFC 8878.
    Zstd,
    /// An xz stream.
    Xz,
    /// bzip2.
    Bzip2,
    /// An lz4 frame.
    Lz4,
    /// A zip archive, an npz file among them.
    Zip,
    /// A 7-Zip archive.
    SevenZip,
    /// A Parquet file.
    Parquet,
    /// UTF-16, in either byte order, with or without a mark.
    Utf16,
    /// UTF-32, in either byte order, with or without a mark.
    Utf32,
}

impl ForeignFormat {
    /// Tells the format from the first [`LOOKED_AT_BYTES`] of a file or body; none when it may be text in UTF-8.
    ///
    /// No JSON text in UTF-8 begins like any of these: it begins with one of ``{[" -0…9 t f n`` or white space, and
    /// `B`, `P`, `7` followed by what is asked for here is no JSON either.
    #[must_use]
    pub const fn recognise_format(start: &[u8]) -> Option<Self> {
        Some(match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0x04, 0x22, 0x4d, 0x18, ..] => Self::Lz4,
            [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => Self::Zip,
            [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => Self::SevenZip,
            [b'P', b'A', b'R', b'1', ..] | [b'P', b'A', b'R', b'E', ..] => Self::Parquet,
            // Before UTF-16: one mark of UTF-32 begins with one of UTF-16.
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Self::Utf32,
            [1..=255, 0, 0, 0, ..] | [0, 0, 0, 1..=255, ..] => Self::Utf32,
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Self::Utf16,
            [1..=255, 0, 1..=255, 0, ..] | [0, 1..=255, 0, 1..=255, ..] => Self::Utf16,
            _ => return None,
        })
    }

    /// The name that people know it by.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Xz => "xz",
            Self::Bzip2 => "bzip2",
            Self::Lz4 => "lz4",
            Self::Zip => "zip",
            Self::SevenZip => "7-Zip",
            Self::Parquet => "Parquet",
            Self::Utf16 => "UTF-16",
            Self::Utf32 => "UTF-32",
        }
    }

    /// How a file of this format becomes one that is read: a command, or where to look.
    #[must_use]
    pub const fn conversion_advice(self) -> &'static str {
        match self {
            Self::Gzip | Self::Zstd => "it is unpacked as it is",
            Self::Xz => "unpack it with xz -d, or pack it again with zstd",
            Self::Bzip2 => "unpack it with bzip2 -d, or pack it again with zstd",
            Self::Lz4 => "unpack it with lz4 -d, or pack it again with zstd",
            Self::Zip => "unpack it with unzip and give the file inside",
            Self::SevenZip => "unpack it with 7z x and give the file inside",
            Self::Parquet => "write it as one JSON object a line",
            Self::Utf16 => "convert it with iconv -f UTF-16 -t UTF-8",
            Self::Utf32 => "convert it with iconv -f UTF-32 -t UTF-8",
        }
    }
}

/// `text` without the byte order mark at its very beginning.
#[must_use]
pub fn without_byte_order_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (start, format) in [
            (&b"\x1f\x8b\x08\0\0\0\0\0"[..], ForeignFormat::Gzip),
            (b"\x28\xb5\x2f\xfd\x04\0", ForeignFormat::Zstd),
            (b"\x51\x2a\x4d\x18\x04\0", ForeignFormat::Zstd),
            (b"\xfd7zXZ\0\0\x04", ForeignFormat::Xz),
            (b"BZh91AY&", ForeignFormat::Bzip2),
            (b"\x04\x22\x4d\x18d@", ForeignFormat::Lz4),
            (b"PK\x03\x04\x14\0", ForeignFormat::Zip),
            (b"PK\x05\x06", ForeignFormat::Zip),
            (b"7z\xbc\xaf\x27\x1c\0", ForeignFormat::SevenZip),
            (b"PAR1\x15\0", ForeignFormat::Parquet),
            (b"\xff\xfe{\0", ForeignFormat::Utf16),
            (b"\xfe\xff\0{", ForeignFormat::Utf16),
            (b"{\0\"\0", ForeignFormat::Utf16),
            (b"\0{\0\"", ForeignFormat::Utf16),
            (b"\xff\xfe\0\0{\0\0\0", ForeignFormat::Utf32),
            (b"{\0\0\0\"\0\0\0", ForeignFormat::Utf32),
            (b"\0\0\0{", ForeignFormat::Utf32),
        ] {
            assert_eq!(ForeignFormat::recognise_format(start), Some(format), "{start:?}");
        }
    }

    #[test]
    fn texts_and_beginnings_that_say_nothing_are_none_of_them() {
        for start in
            [&b""[..], b"\0", b"\0\0\0\0", b"{", b"{\"a\":1}", b"\xef\xbb\xbf{", b"PA", b"BZh", b"7", b"PK"]
        {
            assert_eq!(ForeignFormat::recognise_format(start), None, "{start:?}");
        }
        assert_eq!(without_byte_order_mark(b"\xef\xbb\xbf\xef\xbb\xbf{"), b"\xef\xbb\xbf{");
        assert_eq!(without_byte_order_mark(b"{"), b"{");
    }

    proptest! {
        /// A JSON document is never taken for something else.
        #[test]
        fn no_json_is_foreign(text in "[ \t\r\n]{0,3}(\\{|\\[|\"|-?[0-9]|true|false|null)[ -~é]{0,8}") {
            prop_assert_eq!(ForeignFormat::recognise_format(text.as_bytes()), None);
        }
    }
}
