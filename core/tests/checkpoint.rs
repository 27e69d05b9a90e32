//! Images that real etcd servers wrote, and what etcd's tools say about them.
//!
//! The fixtures are `member/snap/db` of etcd 3.7.1 and 3.5.1 after some hundred requests, cut at the high water
//! mark. The hashes are what `etcdutl snapshot status` printed for the original: CRC-32C over all names, keys and
//! values, so that equal hashes mean equal contents.

use std::io::Read;

use bytes::Bytes;
use expect_test::expect;
use quorate_core::checkpoint::bolt::{Image, MemoryFile, Written};
use quorate_core::checkpoint::{self, Contents, load};
use quorate_core::mvcc::Row;

const SINGLE: &[u8] = include_bytes!("data/etcd-3.7.1-single.db.gz");
const THREE_M1: &[u8] = include_bytes!("data/etcd-3.7.1-three-m1.db.gz");
const THREE_M2: &[u8] = include_bytes!("data/etcd-3.7.1-three-m2.db.gz");
const AUTH_ALARM: &[u8] = include_bytes!("data/etcd-3.7.1-auth-alarm.db.gz");
const OLD: &[u8] = include_bytes!("data/etcd-3.5.1.db.gz");

fn unzip(bytes: &[u8]) -> Bytes {
    let mut image = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut image)
        .unwrap();
    image.into()
}

fn read(image: &Bytes) -> (Contents, Vec<Row>) {
    Image::open(image.clone()).unwrap().check().unwrap();
    let loaded = load(image.clone()).unwrap();
    (
        loaded.contents,
        loaded.rows.collect::<Result<_, _>>().unwrap(),
    )
}

fn rewrite(image: &Bytes) -> (Bytes, Written) {
    let (contents, rows) = read(image);
    let (file, written) =
        checkpoint::write_image(MemoryFile::default(), &contents, rows.into_iter()).unwrap();
    (file.0.into(), written)
}

#[test]
fn real_images_come_back_with_the_hash_that_etcd_gives_them() {
    let images = [
        (unzip(SINGLE), "847554a5"),
        (unzip(THREE_M1), "91a85b50"),
        (unzip(AUTH_ALARM), "8e8fbbbb"),
        (unzip(OLD), "7f72b34f"),
    ];
    for (image, hash) in images {
        let (ours, written) = rewrite(&image);
        assert_eq!(format!("{:x}", written.hash), hash);
        assert_eq!(read(&ours), read(&image));
        assert!(
            ours.len() <= image.len(),
            "dense: {} of {}",
            ours.len(),
            image.len()
        );
    }
}

#[test]
fn members_of_a_real_cluster_have_one_image_although_their_files_differ() {
    let (first, second) = (unzip(THREE_M1), unzip(THREE_M2));
    assert_ne!(first, second);
    assert_eq!(rewrite(&first), rewrite(&second));
}

#[test]
fn rows_of_a_real_image_are_its_history() {
    let (contents, rows) = read(&unzip(SINGLE));
    let compacted = contents.finished_compact.unwrap();
    assert_eq!(Some(compacted), contents.scheduled_compact);
    assert_eq!((compacted.0, rows.last().unwrap().main), (135, 257));
    assert!(rows.iter().any(|row| row.tombstone));
    assert!(rows.is_sorted_by_key(|row| (row.main, row.sub)));
}

#[test]
fn image_of_etcd_3_5_is_read_without_a_storage_version() {
    let (contents, rows) = read(&unzip(OLD));
    assert_eq!(contents.storage_version, None);
    assert_eq!(contents.cluster_version.as_deref(), Some("3.5.0"));
    assert_eq!(contents.leases.len(), 1);
    assert_eq!(rows.last().unwrap().main, 63);
}

#[test]
fn users_roles_alarms_and_learners_of_a_real_image_are_understood() {
    let (contents, _) = read(&unzip(AUTH_ALARM));
    let auth = &contents.auth;
    assert_eq!((auth.enabled, auth.revision), (Some(true), 9));
    let names: Vec<_> = auth
        .users
        .iter()
        .map(|user| (&user.name[..], &user.roles[..]))
        .collect();
    assert_eq!(
        names,
        [
            (&b"al<ice"[..], &["reader".to_owned()][..]),
            (b"root", &["root".to_owned()])
        ]
    );
    assert_eq!(auth.roles[0].key_permission.len(), 2);
    assert_eq!(contents.alarms.len(), 1);
    expect![[r#"
        ConfState {
            voters: [
                7383792418829112008,
            ],
            learners: [
                11885842042890164807,
            ],
            voters_outgoing: [],
            learners_next: [],
            auto_leave: false,
        }
    "#]]
    .assert_debug_eq(&contents.conf_state);
    let learners: Vec<_> = contents
        .members
        .iter()
        .map(|member| member.is_learner)
        .collect();
    assert_eq!(learners, [false, true]);
}
