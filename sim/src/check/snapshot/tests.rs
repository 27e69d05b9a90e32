use prost::Message as _;
use quorate_core::checkpoint::{DATABASE, Job, MemberRecord, STORAGE_VERSION};
use quorate_core::disk::{Disk as _, DiskFile as _};
use quorate_core::types::LeaseId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::leasepb::Lease;
use quorate_proto::raftpb::{ConfState, Entry};

use super::*;
use crate::disk::{DiskFaults, SimDisk};
use crate::model::Model;
use crate::random::{Purpose, Stream};

const A: MemberId = MemberId(1);

/// A log with a lease and a key on it, and the store that it makes.
fn beginning() -> (Ledger, Store) {
    let mut ledger = Ledger::new(Model::new(1));
    let grant = pb::InternalRaftRequest {
        lease_grant: Some(pb::LeaseGrantRequest { id: 7, ttl: 9 }),
        ..Default::default()
    };
    let put = pb::InternalRaftRequest {
        put: Some(pb::PutRequest {
            key: "k".into(),
            value: "v".into(),
            lease: 7,
            ..Default::default()
        }),
        ..Default::default()
    };
    for (index, request) in [(1, grant), (2, put)] {
        ledger.push(Entry::normal(3, index, request.encode_to_vec().into()));
    }
    let mut store = Store::new();
    let mut write = store.begin();
    write.put(b"k", b"v", LeaseId(7));
    write.end();
    (ledger, store)
}

fn contents() -> Contents {
    Contents {
        consistent_index: Index(2),
        term: Term(3),
        conf_state: ConfState::simple(vec![1], vec![]),
        storage_version: Some(STORAGE_VERSION.to_owned()),
        members: vec![MemberRecord {
            id: A,
            ..MemberRecord::default()
        }],
        leases: vec![Lease {
            id: 7,
            ttl: 9,
            ..Lease::default()
        }],
        ..Contents::default()
    }
}

fn image(contents: &Contents, store: &Store) -> Bytes {
    let mut disk = SimDisk::new(Stream::new(1, Purpose::Disk, 1), DiskFaults::default());
    disk.make_directory("member").unwrap();
    let job = Job::new(contents.clone(), &store.view());
    job.write(&mut disk).unwrap();
    disk.open(DATABASE).unwrap().read().unwrap()
}

fn check(images: &mut Images, index: u64, contents: &Contents) -> Result<(), Violation> {
    let (ledger, store) = beginning();
    let history = History::new(&[A]);
    let image = image(contents, &store);
    let known = (&ledger, &history);
    images.check(&mut Facts::new(), known, A, index, image)
}

#[test]
fn an_image_of_what_the_log_makes_is_accepted() {
    check(&mut Images::default(), 2, &contents()).unwrap();
}

#[test]
fn an_image_of_another_index_or_with_other_content_is_seen() {
    let property = |index, contents: Contents| {
        let checked = check(&mut Images::default(), index, &contents);
        checked.unwrap_err().property
    };
    assert_eq!(property(1, contents()), "state.revision");
    let another = Contents {
        consistent_index: Index(1),
        ..contents()
    };
    assert_eq!(property(2, another), "snapshot.content");
    let without_leases = Contents {
        leases: Vec::new(),
        ..contents()
    };
    assert_eq!(property(2, without_leases), "snapshot.content");
    let without_members = Contents {
        members: Vec::new(),
        ..contents()
    };
    assert_eq!(property(2, without_members), "raft.members");
    let counts_by_others = Contents {
        conf_state: ConfState::simple(vec![1, 2], vec![]),
        ..contents()
    };
    assert_eq!(property(2, counts_by_others), "raft.conf-state");
}

#[test]
fn a_damaged_image_is_seen() {
    let (ledger, store) = beginning();
    let mut bytes = image(&contents(), &store).to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let known = (&ledger, &History::new(&[A]));
    let checked = Images::default().check(&mut Facts::new(), known, A, 2, bytes.into());
    assert_eq!(checked.unwrap_err().property, "snapshot.content");
}

#[test]
fn two_images_of_one_index_that_differ_are_seen() {
    let mut images = Images::default();
    check(&mut images, 2, &contents()).unwrap();
    check(&mut images, 2, &contents()).unwrap();
    let another = Contents {
        cluster_version: Some("3.7.0".to_owned()),
        ..contents()
    };
    let checked = check(&mut images, 2, &another);
    assert_eq!(checked.unwrap_err().property, "snapshot.content");
}
