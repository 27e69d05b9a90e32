//! Segments: the files of the log, by name.
//!
//! ```text
//! member/wal/0000000000000003-0000000000001a2b.wal
//!            sequence         first index that may be in it, both in hex
//! ```

use bytes::Bytes;

use crate::disk::{DiskError, DiskErrorKind, DiskFile};
use crate::types::Index;

/// One file of the log, open (and thereby locked) as long as the log is.
#[derive(Debug)]
pub(super) struct Segment<F> {
    /// Its place in the row, from 0.
    pub(super) sequence: u64,
    /// The first index that may be in it, by its name.
    pub(super) first: Index,
    /// Its path on the disk.
    pub(super) path: String,
    /// The open file.
    pub(super) file: F,
    /// Bytes of whole frames that are written; what follows is zeros.
    pub(super) length: u64,
    /// The content up to some length that is written, as last read.
    pub(super) content: Bytes,
}

impl<F: DiskFile> Segment<F> {
    /// The whole content that is written, without a copy where the disk can map it.
    pub(super) fn content(&mut self) -> Result<Bytes, DiskError> {
        let length = usize::try_from(self.length).expect("a segment fits the address space");
        if self.content.len() != length {
            // Cut before anybody looks at it: the bytes after the content change under the map.
            let mut content = self.file.read()?;
            if content.len() < length {
                return Err(self.shorter(content.len()));
            }
            content.truncate(length);
            self.content = content;
        }
        Ok(self.content.clone())
    }

    fn shorter(&self, found: usize) -> DiskError {
        DiskError {
            operation: "read",
            path: self.path.clone(),
            kind: DiskErrorKind::Failed,
            message: format!("{} bytes were written, {found} are left", self.length),
        }
    }
}

/// The file name of a segment.
pub(super) fn name(sequence: u64, first: Index) -> String {
    format!("{sequence:016x}-{:016x}.wal", first.0)
}

/// The sequence and first index of a segment's file name; `None` for other files.
pub(super) fn parse_name(name: &str) -> Option<(u64, Index)> {
    let (sequence, first) = name.strip_suffix(".wal")?.split_once('-')?;
    Some((parse_number(sequence)?, Index(parse_number(first)?)))
}

fn parse_number(text: &str) -> Option<u64> {
    let plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(text, 16).expect("16 hex digits are a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_etcds() {
        assert_eq!(name(0, Index(0)), "0000000000000000-0000000000000000.wal");
        assert_eq!(
            name(10, Index(0x1a2b)),
            "000000000000000a-0000000000001a2b.wal"
        );
        assert_eq!(
            parse_name("000000000000000a-0000000000001a2b.wal"),
            Some((10, Index(0x1a2b)))
        );
    }

    #[test]
    fn other_files_are_not_segments() {
        for other in [
            "0.tmp",
            "a-b.wal",
            "0000000000000000-0000000000000000.wal.broken",
            "x.wal",
            ".wal",
            "-.wal",
        ] {
            assert_eq!(parse_name(other), None, "{other}");
        }
        assert_eq!(parse_name("+000000000000000-0000000000000000.wal"), None);
    }
}
