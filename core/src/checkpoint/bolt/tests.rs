use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::seal::without_seal;
use super::*;
use crate::checkpoint::ImageError;

/// A 16 KiB image in etcd's layout, made byte by byte from the format's description; bbolt and etcd accept it.
const MINIMAL: &[u8] = include_bytes!("../../../tests/data/etcd-formats-min.db");

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;
type Buckets = BTreeMap<Vec<u8>, Pairs>;

fn write(buckets: &Buckets) -> (Vec<u8>, Written) {
    let mut writer = Writer::new(MemoryFile::default()).unwrap();
    for (name, pairs) in buckets {
        writer.bucket(name).unwrap();
        for (key, value) in pairs {
            writer.put(key, value).unwrap();
        }
    }
    let (file, written) = writer.finish().unwrap();
    assert_eq!(written.bytes, file.0.len() as u64);
    (file.0, written)
}

fn read(bytes: &[u8]) -> Result<Buckets, ImageError> {
    let image = Image::open(Bytes::copy_from_slice(bytes))?;
    let mut buckets = Buckets::new();
    for item in image.root().items()? {
        let Item::Bucket(bucket) = item? else {
            continue;
        };
        let mut pairs = Pairs::new();
        for item in bucket.items()? {
            match item? {
                Item::Pair { key, value } => {
                    assert!(pairs.insert(key.to_vec(), value.to_vec()).is_none())
                }
                Item::Bucket(inner) => drop(inner.items()?.collect::<Result<Vec<_>, _>>()?),
            }
        }
        buckets.insert(bucket.name().to_vec(), pairs);
    }
    Ok(buckets)
}

fn check(bytes: &[u8]) -> Result<Pages, ImageError> {
    Image::open(Bytes::copy_from_slice(bytes))?.check()
}

/// Puts right checksums on both meta pages of an image that was tampered with.
fn seal(bytes: &mut [u8]) {
    for page in [0, PAGE_SIZE] {
        let meta = &mut bytes[page + PAGE_HEADER..page + PAGE_HEADER + META_BYTES];
        let sum = fnv1a(&meta[..56]);
        meta[56..].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Reads everything that a reader of these bytes can reach, whatever it is.
fn devour(bytes: &[u8]) -> bool {
    let read = read(bytes).is_ok();
    let checked = check(bytes).is_ok();
    assert!(
        read || !checked,
        "the checker passes what the reader refuses"
    );
    checked
}

fn many(count: usize, value_bytes: usize) -> Buckets {
    let pairs = (0..count).map(|number| {
        (
            format!("key-{number:08}").into_bytes(),
            vec![b'v'; value_bytes],
        )
    });
    Buckets::from([(b"bucket".to_vec(), pairs.collect())])
}

#[test]
fn meta_encodes_as_bbolt_does() {
    let meta = Meta {
        page_size: 4096,
        root: 3,
        freelist: 2,
        high_water: 4,
        txid: 1,
    };
    let sum = [0x0f, 0x48, 0x79, 0x51, 0x1a, 0x35, 0x4c, 0x26];
    assert_eq!(meta.encode()[56..], sum);
    assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
}

#[test]
fn minimal_image_is_reproduced_byte_for_byte() {
    let buckets = read(MINIMAL).unwrap();
    assert_eq!(buckets.len(), 10);
    let (bytes, written) = write(&buckets);
    assert!(without_seal(&bytes) == MINIMAL);
    assert_eq!(
        written.hash, 0xd9c6_3770,
        "what `etcdutl snapshot status` prints for this image"
    );
}

#[test]
fn no_bucket_makes_a_valid_image() {
    let (bytes, _) = write(&Buckets::new());
    assert_eq!(read(&bytes).unwrap(), Buckets::new());
    assert_eq!(
        check(&bytes).unwrap(),
        Pages {
            used: 4,
            free: 0,
            pairs: 0
        }
    );
}

#[test]
fn image_is_dense_and_its_leaves_are_nine_tenths_full() {
    let buckets = many(20_000, 100);
    let (bytes, written) = write(&buckets);
    let content: usize = buckets
        .values()
        .flatten()
        .map(|(key, value)| ELEMENT + key.len() + value.len())
        .sum();
    let fill = content as f64 / bytes.len() as f64;
    assert!((0.84..0.90).contains(&fill), "filled to {fill}");
    assert_eq!(
        check(&bytes).unwrap(),
        Pages {
            used: written.bytes / 4096,
            free: 0,
            pairs: 20_000
        }
    );
    assert_eq!(read(&bytes).unwrap(), buckets);
}

#[test]
fn items_of_many_pages_come_back() {
    let mut buckets = many(3, 100);
    let pairs = buckets.get_mut(&b"bucket"[..]).unwrap();
    pairs.insert(b"a".to_vec(), vec![1; 3 << 20]);
    pairs.insert(b"b".to_vec(), vec![2; 4096]);
    pairs.insert(b"z".to_vec(), vec![3; 4096 * 5 - PAGE_HEADER - ELEMENT - 1]);
    let (bytes, _) = write(&buckets);
    assert_eq!(read(&bytes).unwrap(), buckets);
    assert_eq!(check(&bytes).unwrap().free, 0);
}

#[test]
fn long_keys_make_deep_trees_without_single_children() {
    let pairs =
        (0..300_u16).map(|number| ([&number.to_be_bytes()[..], &[0; 3000]].concat(), vec![]));
    let buckets = Buckets::from([(b"deep".to_vec(), pairs.collect())]);
    let (bytes, _) = write(&buckets);
    assert_eq!(read(&bytes).unwrap(), buckets);
    check(&bytes).unwrap();
    for page in bytes.chunks(PAGE_SIZE) {
        let count = page::u16_at(page, 10);
        assert!(page::u16_at(page, 8) != FLAG_BRANCH || count >= 2 || page::u64_at(page, 0) == 0);
    }
}

#[test]
#[should_panic(expected = "keys come in order")]
fn disorder_is_a_bug_even_across_pages() {
    let mut writer = Writer::new(MemoryFile::default()).unwrap();
    writer.bucket(b"bucket").unwrap();
    for key in ["b", "c", "d"] {
        writer.put(key.as_bytes(), &[0; 4096]).unwrap();
    }
    writer.put(b"d", b"").unwrap();
}

#[test]
fn keys_that_the_format_cannot_hold_are_refused() {
    let mut writer = Writer::new(MemoryFile::default()).unwrap();
    writer.bucket(b"bucket").unwrap();
    assert!(writer.put(b"", b"value").is_err());
    assert!(writer.put(&[1; KEY_BYTES_MAX + 1], b"").is_err());
    writer.put(&[1; KEY_BYTES_MAX], b"").unwrap();
}

#[test]
fn one_damaged_meta_page_is_no_loss() {
    for page in [0, PAGE_SIZE] {
        let mut bytes = MINIMAL.to_vec();
        bytes[page + 20] ^= 1;
        assert_eq!(read(&bytes).unwrap().len(), 10);
    }
    let mut bytes = MINIMAL.to_vec();
    bytes[20] ^= 1;
    bytes[PAGE_SIZE + 20] ^= 1;
    let error = read(&bytes).unwrap_err().to_string();
    assert_eq!(
        error,
        "database image is damaged: page 0, offset 0: no valid meta page; page 0: not format version 2; page 1: not found"
    );
}

#[test]
fn every_damaged_byte_is_found_or_harmless() {
    for at in 0..MINIMAL.len() {
        for flip in [0xff, 0x01, 0x80] {
            let mut bytes = MINIMAL.to_vec();
            bytes[at] ^= flip;
            devour(&bytes);
            seal(&mut bytes);
            devour(&bytes);
        }
    }
}

#[test]
fn every_damaged_header_byte_of_a_branch_tree_is_found_or_harmless() {
    let (good, _) = write(&many(200, 300));
    let pages = good.len() / PAGE_SIZE;
    assert!(pages > 15);
    let headers = (0..pages).flat_map(|page| (0..96).map(move |at| page * PAGE_SIZE + at));
    for at in headers {
        for flip in [0xff, 0x01, 0x02] {
            let mut bytes = good.clone();
            bytes[at] ^= flip;
            devour(&bytes);
        }
    }
}

#[test]
fn every_truncation_is_found() {
    let (good, _) = write(&many(40, 300));
    for length in (0..good.len())
        .step_by(61)
        .chain(good.len() - 3..good.len())
    {
        assert!(read(&good[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn preallocated_space_behind_the_image_is_fine() {
    let mut bytes = MINIMAL.to_vec();
    bytes.extend_from_slice(&[0; 3 * PAGE_SIZE + 7]);
    assert_eq!(read(&bytes).unwrap().len(), 10);
    assert_eq!(
        Image::open(bytes.into()).unwrap().length(),
        MINIMAL.len() as u64
    );
}

/// The place of the first branch page that is not above another branch.
fn branch_page(bytes: &[u8]) -> usize {
    let is_branch =
        |page: &&[u8]| page::u64_at(page, 0) >= 2 && page::u16_at(page, 8) == FLAG_BRANCH;
    let page = bytes
        .chunks(PAGE_SIZE)
        .find(is_branch)
        .expect("a tree of two levels");
    usize::try_from(page::u64_at(page, 0)).unwrap() * PAGE_SIZE
}

#[test]
fn branch_that_points_to_itself_ends() {
    let (mut bytes, _) = write(&many(200, 300));
    let branch = branch_page(&bytes);
    let id = (branch / PAGE_SIZE) as u64;
    bytes[branch + PAGE_HEADER + 8..][..8].copy_from_slice(&id.to_le_bytes());
    assert!(
        read(&bytes)
            .unwrap_err()
            .to_string()
            .contains("deeper than 40")
    );
    assert!(
        check(&bytes)
            .unwrap_err()
            .to_string()
            .contains("used twice")
    );
}

#[test]
fn child_that_two_branches_share_is_found() {
    let (mut bytes, _) = write(&many(200, 300));
    let branch = branch_page(&bytes);
    bytes.copy_within(
        branch + PAGE_HEADER + 8..branch + PAGE_HEADER + 16,
        branch + PAGE_HEADER + ELEMENT + 8,
    );
    let error = read(&bytes).unwrap_err().to_string();
    assert!(
        error.contains("bucket \"bucket\"") && error.contains("outside the bounds"),
        "{error}"
    );
    assert!(
        check(&bytes)
            .unwrap_err()
            .to_string()
            .contains("used twice")
    );
}

#[test]
fn page_that_is_neither_used_nor_free_is_found() {
    let mut bytes = MINIMAL.to_vec();
    bytes.extend_from_slice(&[0; PAGE_SIZE]);
    for page in [0, PAGE_SIZE] {
        bytes[page + PAGE_HEADER + 40] = 5;
    }
    seal(&mut bytes);
    assert!(
        check(&bytes)
            .unwrap_err()
            .to_string()
            .contains("neither reachable nor free")
    );

    // The freelist may name it.
    bytes[2 * PAGE_SIZE + 10] = 1;
    bytes[2 * PAGE_SIZE + PAGE_HEADER] = 4;
    assert_eq!(check(&bytes).unwrap().free, 1);

    // Or there is no freelist, and page 2 is free too.
    for page in [0, PAGE_SIZE] {
        bytes[page + PAGE_HEADER + 32..][..8].fill(0xff);
    }
    seal(&mut bytes);
    assert_eq!(check(&bytes).unwrap().free, 2);

    // A page cannot be free and in use.
    for page in [0, PAGE_SIZE] {
        bytes[page + PAGE_HEADER + 32..][..8].copy_from_slice(&2_u64.to_le_bytes());
    }
    seal(&mut bytes);
    bytes[2 * PAGE_SIZE + PAGE_HEADER] = 3;
    assert!(
        check(&bytes)
            .unwrap_err()
            .to_string()
            .contains("used twice")
    );
}

#[test]
fn other_page_sizes_are_read() {
    // The minimal image again, with pages of 16 KiB.
    let size = 16_384;
    let mut bytes = vec![0; 4 * size];
    for page in 0..4 {
        bytes[page * size..][..PAGE_SIZE]
            .copy_from_slice(&MINIMAL[page * PAGE_SIZE..][..PAGE_SIZE]);
    }
    for page in [0, size] {
        let meta = &mut bytes[page + PAGE_HEADER..][..META_BYTES];
        meta[8..12].copy_from_slice(&(size as u32).to_le_bytes());
        let sum = fnv1a(&meta[..56]);
        meta[56..].copy_from_slice(&sum.to_le_bytes());
    }
    assert_eq!(read(&bytes).unwrap(), read(MINIMAL).unwrap());
    bytes[PAGE_HEADER] ^= 1;
    assert_eq!(
        read(&bytes).unwrap(),
        read(MINIMAL).unwrap(),
        "found by the second meta page"
    );
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![8 => 0..40_usize, 3 => 40..1200_usize, 1 => 3000..20_000_usize];
    (any::<u8>(), size).prop_map(|(byte, size)| vec![byte; size])
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    let short = proptest::collection::vec(any::<u8>(), 1..12);
    let long =
        (proptest::collection::vec(any::<u8>(), 3), 100..5000_usize).prop_map(|(mut key, size)| {
            key.resize(size, 7);
            key
        });
    prop_oneof![12 => short, 1 => long]
}

fn buckets() -> impl Strategy<Value = Buckets> {
    let size = prop_oneof![Just(0..1_usize), Just(0..8), Just(0..400)];
    let pairs = size.prop_flat_map(|size| proptest::collection::btree_map(key(), value(), size));
    proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 1..10), pairs, 0..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read(buckets in buckets()) {
        let (bytes, written) = write(&buckets);
        prop_assert_eq!(check(&bytes).unwrap(), Pages { used: written.bytes / 4096, free: 0, pairs: written.pairs });
        prop_assert_eq!(&read(&bytes).unwrap(), &buckets);
        prop_assert_eq!(write(&buckets).0, bytes);
    }

    #[test]
    fn random_damage_is_found_or_harmless(
        buckets in buckets(),
        hits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<[u8; 8]>(), 1..9_usize), 1..6),
    ) {
        let (mut bytes, _) = write(&buckets);
        for (at, junk, length) in hits {
            let at = at.index(bytes.len());
            let length = length.min(bytes.len() - at);
            bytes[at..at + length].copy_from_slice(&junk[..length]);
        }
        devour(&bytes);
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(read(&bytes).is_err());
    }
}
