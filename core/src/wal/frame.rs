//! Frames: how records lie in a segment.
//!
//! This module owns the length word, the padding and the question whether a broken frame looks like a write that
//! a power loss interrupted. It never looks into a record.
//!
//! ```text
//! | length word, u64 little endian      | record   | zeros up to a multiple of 8 |
//! | bits 0..55: bytes of the record     |
//! | bits 56..63: 0, or 0x80 | padding   |
//! ```
//!
//! Every frame begins at a multiple of 8, so that a sector boundary never cuts a length word. A zero length word
//! ends the segment's content: segments are filled with zeros before they are used.

use std::ops::Range;

/// Bytes of a length word, and what every frame is aligned to.
pub(super) const LENGTH_BYTES: usize = 8;

/// The unit in which written bytes survive a power loss.
pub(super) const SECTOR_BYTES: usize = 512;

/// Bits of the length word that count the record's bytes.
const RECORD_BITS: u64 = (1 << 56) - 1;

/// Zeros after a record of `record_bytes`.
pub(super) fn padding(record_bytes: usize) -> usize {
    record_bytes.wrapping_neg() % LENGTH_BYTES
}

/// The length word of a record of `record_bytes`.
pub(super) fn length_word(record_bytes: usize) -> u64 {
    let padding = padding(record_bytes) as u64;
    let flags = if padding == 0 { 0 } else { 0x80 | padding };
    record_bytes as u64 | flags << 56
}

/// What stands where a frame should begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing more: a zero length word, or the end of the file.
    End,
    /// A frame that lies wholly inside the file.
    Frame {
        /// The record, padding excluded.
        record: Range<usize>,
        /// Where the next frame begins.
        next: usize,
    },
    /// The file ends before the frame does.
    CutShort,
    /// A length word that no writer produces: its padding does not fit its length.
    Malformed(u64),
}

/// Reads the length word at `offset`. Nothing is believed of it but what the file's length confirms.
pub(super) fn read(bytes: &[u8], offset: usize) -> Place {
    let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) else {
        return Place::End;
    };
    let Some(word) = rest.first_chunk::<LENGTH_BYTES>() else {
        return Place::CutShort;
    };
    let word = u64::from_le_bytes(*word);
    if word == 0 {
        return Place::End;
    }
    let record_bytes = word & RECORD_BITS;
    if record_bytes > (rest.len() - LENGTH_BYTES) as u64 {
        return Place::CutShort;
    }
    let record_bytes = record_bytes as usize;
    if word != length_word(record_bytes) || record_bytes == 0 {
        return Place::Malformed(word);
    }
    let start = offset + LENGTH_BYTES;
    let next = start + record_bytes + padding(record_bytes);
    if next > bytes.len() {
        return Place::CutShort;
    }
    Place::Frame {
        record: start..start + record_bytes,
        next,
    }
}

/// Whether some sector's share of `body` holds nothing but zeros: the trace of a sector that never reached the
/// disk. `body` is all that follows a length word, padding included.
pub(super) fn has_zero_sector(bytes: &[u8], body: Range<usize>) -> bool {
    let mut start = body.start;
    while start < body.end {
        let sector_end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
        let end = sector_end.min(body.end);
        if bytes[start..end].iter().all(|&byte| byte == 0) {
            return true;
        }
        start = end;
    }
    false
}

/// The offset after the last byte of `bytes` that is not zero.
pub(super) fn content_end(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_words_equal_etcds() {
        // From a segment that etcd wrote: records of 4, 32, 14, 114, 16 and 43 bytes.
        for (record_bytes, word) in [
            (4, "0400000000000084"),
            (32, "2000000000000000"),
            (14, "0e00000000000082"),
            (114, "7200000000000086"),
            (16, "1000000000000000"),
            (43, "2b00000000000085"),
        ] {
            let bytes = length_word(record_bytes).to_le_bytes();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, word);
        }
    }

    #[test]
    fn a_length_beyond_the_file_is_cut_short_whatever_it_claims() {
        for length in [9_u64, 1 << 20, RECORD_BITS, RECORD_BITS - 7] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.extend([1; 8]);
            assert_eq!(read(&bytes, 0), Place::CutShort, "{length}");
        }
        assert_eq!(read(&[1, 2, 3], 0), Place::CutShort);
    }

    #[test]
    fn zero_and_the_end_of_the_file_end_the_content() {
        assert_eq!(read(&[0; 16], 8), Place::End);
        assert_eq!(read(&[1; 16], 16), Place::End);
        assert_eq!(read(&[1; 16], usize::MAX), Place::End);
    }

    #[test]
    fn padding_that_does_not_fit_is_malformed() {
        let mut bytes = [1; 32];
        for word in [8 | 0x81 << 56, 6 | 0x83 << 56, 6, 8 | 1 << 56, 0x80 << 56] {
            bytes[..8].copy_from_slice(&u64::to_le_bytes(word));
            assert_eq!(read(&bytes, 0), Place::Malformed(word));
        }
    }

    #[test]
    fn a_zero_sector_is_found_in_every_part_of_a_body() {
        let mut bytes = vec![7; 3 * SECTOR_BYTES];
        assert!(!has_zero_sector(&bytes, 8..1400));
        bytes[8..SECTOR_BYTES].fill(0);
        assert!(has_zero_sector(&bytes, 8..1400));
        assert!(!has_zero_sector(&bytes, SECTOR_BYTES..1400));
        bytes[2 * SECTOR_BYTES..1400].fill(0);
        assert!(has_zero_sector(&bytes, SECTOR_BYTES..1400));
        assert!(!has_zero_sector(&bytes, SECTOR_BYTES..1401));
    }
}
