//! What the fuzzers call, and what `tests/fuzz_seeds.rs` calls with the saved inputs.
//!
//! A target panics when a property does not hold; that it does not panic otherwise is the first property. Everything
//! lies in memory, so that a run costs microseconds.

#[path = "../tests/node/memory_disk.rs"]
mod memory_disk;

use bytes::Bytes;
use prost::Message;
use quorate_core::boundary::Write;
use quorate_core::checkpoint::bolt::{Bucket, Image, Item, MemoryFile as MemoryImage};
use quorate_core::checkpoint::{ImageError, load, write_image};
use quorate_core::disk::{Disk, DiskFile};
use quorate_core::types::WriteNumber;
use quorate_core::wal::{Options, WalError, recover};
use quorate_proto::raftpb::{ConfChange, Entry, HardState};
use quorate_proto::walpb::Record;
use quorate_proto::{etcdserverpb, raftpb};

use self::memory_disk::MemoryDisk;

/// Recovers a log from arbitrary files. A log that is not refused makes sense, and can go on.
///
/// ```text
/// input = flags, then segments: first index, length u16, bytes
/// flags   bit 0: make the checksums right, so that what the records say is reached
/// ```
pub(crate) fn wal_recover(input: &[u8]) {
    let Some((&flags, mut rest)) = input.split_first() else {
        return;
    };
    let mut disk = MemoryDisk::default();
    let mut checksum = 0;
    for sequence in 0.. {
        let Some((&[first, low, high], after)) = rest.split_first_chunk() else {
            break;
        };
        let (segment, after) = after.split_at(
            after
                .len()
                .min(usize::from(u16::from_le_bytes([low, high]))),
        );
        rest = after;
        let bytes = if flags & 1 == 0 {
            segment.to_vec()
        } else {
            with_right_checksums(segment, &mut checksum)
        };
        let path = format!("member/wal/{sequence:016x}-{first:016x}.wal");
        let file = disk.create(&path, bytes.len() as u64);
        file.and_then(|mut file| file.write_at(0, &bytes))
            .expect("memory takes everything");
    }
    let options = Options {
        segment_bytes: 1 << 14,
        ..Options::default()
    };
    let mut recovered = match recover(disk.clone(), options.clone()) {
        Ok(recovered) => recovered,
        Err(WalError::Disk(error)) => panic!("this disk does not fail: {error}"),
        Err(WalError::Absent(_) | WalError::Damaged(_)) => return,
    };
    let begin = recovered
        .snapshots
        .last()
        .expect("a log begins at a snapshot")
        .index;
    let mut expected = recovered.entries.clone();
    for (index, entry) in (begin.0..).skip(1).zip(&expected) {
        assert_eq!(entry.index, index, "no gaps");
    }
    let last = recovered.wal.last_index();
    assert_eq!(expected.last().map_or(begin.0, |entry| entry.index), last.0);
    assert!(recovered.hard_state.commit <= last.0);
    if last.next() == last {
        return;
    }
    expected.push(Entry::normal(
        u64::MAX,
        last.next().0,
        Bytes::from_static(b"next"),
    ));
    let write = Write {
        number: WriteNumber(1),
        entries: expected[expected.len() - 1..].to_vec(),
        hard_state: None,
        snapshot: None,
        must_sync: true,
        ..Write::default()
    };
    recovered
        .wal
        .append(&write)
        .expect("a recovered log goes on");
    recovered.wal.sync().expect("this disk does not fail");
    drop(recovered);
    let again = recover(disk, options).expect("what was recovered and synced is recovered");
    assert_eq!(again.entries, expected);
    assert_eq!(again.repair, None);
}

/// Reads an image. Whatever the bytes are, it ends, and what the checker passes is read without an error.
pub(crate) fn image(input: &[u8]) {
    let mut bytes = input.to_vec();
    seal(&mut bytes);
    for bytes in [Bytes::copy_from_slice(input), Bytes::from(bytes)] {
        let Ok(image) = Image::open(bytes.clone()) else {
            continue;
        };
        let walked = walk(&image.root(), 0);
        assert!(
            walked.is_ok() || image.check().is_err(),
            "the checker passes what the reader refuses"
        );
        let Ok(loaded) = load(bytes) else { continue };
        let Ok(rows) = loaded.rows.collect::<Result<Vec<_>, _>>() else {
            continue;
        };
        let file = MemoryImage::default();
        let (file, _) =
            write_image(file, &loaded.contents, rows.iter().cloned()).expect("it was read");
        let again = load(file.0.into()).expect("we wrote it");
        let rows_again: Vec<_> = again.rows.collect::<Result<_, _>>().expect("we wrote it");
        assert_eq!(rows, rows_again);
    }
}

fn walk(bucket: &Bucket, depth: usize) -> Result<(), ImageError> {
    for item in bucket.items()? {
        if let Item::Bucket(inner) = item?
            && depth < 3
        {
            walk(&inner, depth + 1)?;
        }
    }
    Ok(())
}

/// Right checksums on the meta pages, so that the fuzzer gets beyond them.
fn seal(bytes: &mut [u8]) {
    for page in [0, 4096] {
        let Some(meta) = bytes.get_mut(page + 16..page + 80) else {
            continue;
        };
        let sum = meta[..56]
            .iter()
            .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
            });
        meta[56..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Decodes everything that lies in a log entry or comes from a peer. What decodes can be encoded and means the same.
pub(crate) fn raft_entry(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    if let Some(entry) = round_trip::<Entry>(bytes.clone()) {
        let _ = entry.kind();
        round_trip::<etcdserverpb::InternalRaftRequest>(entry.payload());
        if let Some(change) = round_trip::<ConfChange>(entry.payload()) {
            let _ = change.kind();
        }
    }
    round_trip::<etcdserverpb::InternalRaftRequest>(bytes.clone());
    round_trip::<ConfChange>(bytes.clone());
    round_trip::<HardState>(bytes.clone());
    round_trip::<raftpb::Message>(bytes);
}

fn round_trip<M: Message + Default + PartialEq>(bytes: Bytes) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let encoded = Bytes::from(message.encode_to_vec());
    let again = M::decode(encoded.clone()).expect("what was encoded decodes");
    // By bytes: equal messages with a NaN in them are not equal.
    assert!(encoded == again.encode_to_vec(), "another meaning");
    Some(message)
}

/// The frames of a segment, as far as they can be walked, with the checksums that a writer would have given them.
fn with_right_checksums(segment: &[u8], checksum: &mut u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = segment;
    while let Some((word, after)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        let length = (word & ((1 << 56) - 1)) as usize;
        let padding = length.wrapping_neg() % 8;
        let Some(record) = after.get(..length).filter(|record| !record.is_empty()) else {
            break;
        };
        let Ok(mut record) = Record::decode(record) else {
            break;
        };
        *checksum = crc32c::crc32c_append(*checksum, record.data.as_deref().unwrap_or_default());
        record.crc = *checksum;
        let encoded = record.encode_to_vec();
        let own = encoded.len().wrapping_neg() % 8;
        let flags = if own == 0 { 0 } else { 0x80 | own as u64 };
        bytes.extend((encoded.len() as u64 | flags << 56).to_le_bytes());
        bytes.extend(encoded);
        bytes.resize(bytes.len() + own, 0);
        rest = after.get(length + padding..).unwrap_or_default();
    }
    bytes.extend(rest);
    bytes
}
