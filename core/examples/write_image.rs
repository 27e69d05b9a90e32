//! Writes a database image to check with etcd's own tools:
//!
//! ```text
//! write_image OUT              an image with many keys of many sizes, leases, users and members
//! write_image OUT DB           the image DB read and written again
//! write_image OUT DB VERSION   the same with another storage version
//! ```
//!
//! Prints the hash as `etcdutl snapshot status` prints it, the pairs in all buckets, and the size.

use std::error::Error;

use bytes::Bytes;
use prost::Message;
use quorate_core::checkpoint::bolt::MemoryFile;
use quorate_core::checkpoint::{self, AuthContents, Contents, MemberRecord};
use quorate_core::mvcc::Row;
use quorate_core::{Index, MemberId, Term};
use quorate_proto::authpb::User;
use quorate_proto::leasepb::Lease;
use quorate_proto::mvccpb::KeyValue;
use quorate_proto::raftpb::ConfState;

#[expect(clippy::disallowed_methods, reason = "an example is its own shell")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments
        .next()
        .ok_or("usage: write_image OUT [DB [VERSION]]")?;
    let (mut contents, rows) = match arguments.next() {
        Some(database) => read(Bytes::from(std::fs::read(database)?))?,
        None => (made_up(), made_up_rows()),
    };
    if let Some(version) = arguments.next() {
        contents.storage_version = Some(version);
    }
    let (file, written) =
        checkpoint::write_image(MemoryFile::default(), &contents, rows.into_iter())?;
    std::fs::write(out, file.0)?;
    println!("{:x}, {}, {}", written.hash, written.pairs, written.bytes);
    Ok(())
}

fn read(bytes: Bytes) -> Result<(Contents, Vec<Row>), Box<dyn Error>> {
    checkpoint::bolt::Image::open(bytes.clone())?.check()?;
    let loaded = checkpoint::load(bytes)?;
    Ok((loaded.contents, loaded.rows.collect::<Result<_, _>>()?))
}

fn made_up() -> Contents {
    let member = |id: u64| MemberRecord {
        id: MemberId(id),
        peer_urls: vec![format!("http://127.0.0.1:{}", 20_000 + id)],
        name: format!("member-{id}"),
        client_urls: vec![format!("http://127.0.0.1:{}", 30_000 + id)],
        is_learner: id == 3,
    };
    let user = |id: u32| User {
        name: format!("user-{id:04}").into_bytes().into(),
        password: Bytes::from(vec![b'x'; 60]),
        ..User::default()
    };
    Contents {
        consistent_index: Index(50_000),
        term: Term(7),
        conf_state: ConfState::simple(vec![1, 2], vec![3]),
        storage_version: Some(checkpoint::STORAGE_VERSION.to_owned()),
        leases: (1..5_000)
            .map(|id| Lease {
                id: id * 7,
                ttl: 60 + id,
                remaining_ttl: 0,
            })
            .collect(),
        auth: AuthContents {
            users: (0..500).map(user).collect(),
            ..AuthContents::default()
        },
        cluster_version: Some("3.7.0".to_owned()),
        members: (1..=3).map(member).collect(),
        members_removed: vec![MemberId(0xdead_beef)],
        ..Contents::default()
    }
}

/// One key a revision; every seventh is deleted right after, some values are larger than many pages.
fn made_up_rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for number in 0..30_000_i64 {
        let main = number + 2;
        let size = match number % 1000 {
            0 => 100_000,
            1 => 1_500_000 / 100,
            2..10 => 3_000,
            rest => (rest % 200) as usize,
        };
        let key = Bytes::from(format!("/registry/pods/default/pod-{number:06}"));
        let key_value = KeyValue {
            key: key.clone(),
            create_revision: main,
            mod_revision: main,
            version: 1,
            value: Bytes::from(vec![b'v'; size]),
            lease: 0,
        };
        rows.push(Row {
            main,
            sub: 0,
            tombstone: false,
            key_value: key_value.encode_to_vec().into(),
        });
        if number % 7 == 0 {
            let key_value = KeyValue {
                key,
                ..KeyValue::default()
            };
            rows.push(Row {
                main,
                sub: 1,
                tombstone: true,
                key_value: key_value.encode_to_vec().into(),
            });
        }
    }
    rows
}
