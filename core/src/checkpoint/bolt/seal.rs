//! The seal of an image: what tells that a disk has given back other bytes than were written.
//!
//! bbolt's format has sums of its two meta pages only; a bit that changes anywhere else would be served as data. The
//! seal is in both meta pages, behind the meta. bbolt writes meta pages whole, so the first transaction that changes
//! the image takes a seal away and moves the current meta on: such an image is no longer ours, and not judged here.

use super::read::Image;
use super::{META_BYTES, Meta, PAGE_HEADER, PAGE_SIZE, TXID};
use crate::checkpoint::ImageError;

const SEAL_BYTES: usize = 16;

/// How much is summed up at a time.
const PIECE_BYTES: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"quorate\x01";

/// What the pages of an image add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    /// CRC-32 of all pages but the two metas: zlib's, which every tool can compute.
    pub(super) sum: u32,
}

impl Seal {
    pub(super) fn encode(self) -> [u8; SEAL_BYTES] {
        let mut bytes = [0; SEAL_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.sum.to_le_bytes());
        let own = crc32fast::hash(&bytes[..12]);
        bytes[12..].copy_from_slice(&own.to_le_bytes());
        bytes
    }
}

impl Image {
    /// Refuses an image that was sealed and has changed since, though no bbolt has changed it.
    pub fn check_seal(&self) -> Result<(), ImageError> {
        self.check_seal_noting(|_| {})
    }

    /// The same, and says after each piece how many bytes were read.
    pub fn check_seal_noting(&self, mut on_read: impl FnMut(usize)) -> Result<(), ImageError> {
        if self.meta.txid > TXID || self.meta.page_size as usize != PAGE_SIZE {
            return Ok(());
        }
        let seals = [0, 1].map(|page| {
            let at = page * PAGE_SIZE + PAGE_HEADER + META_BYTES;
            self.bytes.get(at..at + SEAL_BYTES).unwrap_or_default()
        });
        if seals.iter().all(|seal| seal.iter().all(|byte| *byte == 0)) {
            return Ok(());
        }
        for (page, txid) in [(0, TXID), (1, TXID - 1)] {
            let at = page * PAGE_SIZE + PAGE_HEADER;
            let meta = self.bytes.get(at..at + META_BYTES).unwrap_or_default();
            let is_whole = Meta::decode(meta).is_ok_and(|meta| meta.txid == txid);
            if !is_whole {
                return Err(changed(page as u64, "a meta page is not as it was written"));
            }
        }
        let length = usize::try_from(self.length()).expect("the image is in memory");
        let mut sum = crc32fast::Hasher::new();
        for piece in self.bytes[2 * PAGE_SIZE..length].chunks(PIECE_BYTES) {
            sum.update(piece);
            on_read(piece.len());
        }
        let sum = sum.finalize();
        let expected = Seal { sum }.encode();
        if seals.iter().any(|seal| *seal != expected) {
            return Err(changed(0, "the pages are not as they were written"));
        }
        Ok(())
    }
}

fn changed(page: u64, problem: &str) -> ImageError {
    ImageError::Damaged {
        page,
        offset: page * PAGE_SIZE as u64,
        bucket: String::new(),
        problem: problem.to_owned(),
    }
}

/// The image as a writer would leave it that does not seal.
#[cfg(test)]
pub(in crate::checkpoint) fn without_seal(image: &[u8]) -> Vec<u8> {
    let mut image = image.to_vec();
    for page in [0, PAGE_SIZE] {
        let seal = &mut image[page + PAGE_HEADER + META_BYTES..][..SEAL_BYTES];
        assert_eq!(seal[..8], MAGIC, "every image is sealed");
        seal.fill(0);
    }
    image
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::{MemoryFile, Writer};
    use super::*;

    fn image() -> Vec<u8> {
        let mut writer = Writer::new(MemoryFile::default()).unwrap();
        writer.bucket(b"key").unwrap();
        for number in 0..300_u32 {
            writer.put(&number.to_be_bytes(), &[7; 40]).unwrap();
        }
        writer.finish().unwrap().0.0
    }

    fn is_taken(bytes: &[u8]) -> bool {
        Image::open(Bytes::copy_from_slice(bytes)).is_ok_and(|image| image.check_seal().is_ok())
    }

    #[test]
    fn any_bit_that_matters_is_missed_when_it_changes() {
        let whole = image();
        assert!(is_taken(&whole));
        for byte in 0..whole.len() {
            let mut rotten = whole.clone();
            rotten[byte] ^= 1 << (byte % 8);
            let in_page = byte % PAGE_SIZE;
            let is_unused = byte < 2 * PAGE_SIZE
                && !(PAGE_HEADER..PAGE_HEADER + META_BYTES + SEAL_BYTES).contains(&in_page);
            assert_eq!(is_taken(&rotten), is_unused, "byte {byte}");
        }
    }

    #[test]
    fn a_sector_that_was_never_written_is_missed() {
        let whole = image();
        for sector in 0..whole.len() / 512 {
            let mut lost = whole.clone();
            lost[sector * 512..][..512].fill(0);
            assert!(!is_taken(&lost) || lost == whole, "sector {sector}");
        }
    }

    #[test]
    fn an_image_that_bbolt_has_changed_is_not_judged() {
        let mut changed = image();
        let meta = Meta::decode(&changed[PAGE_HEADER..]).unwrap();
        let next = Meta { txid: 3, ..meta };
        let page = &mut changed[PAGE_SIZE..2 * PAGE_SIZE];
        page.fill(0);
        page[PAGE_HEADER..PAGE_HEADER + META_BYTES].copy_from_slice(&next.encode());
        *changed.last_mut().unwrap() ^= 1;
        assert!(is_taken(&changed));
    }

    #[test]
    fn an_image_without_seals_is_not_judged() {
        let mut foreign = without_seal(&image());
        *foreign.last_mut().unwrap() ^= 1;
        assert!(is_taken(&foreign));
    }
}
