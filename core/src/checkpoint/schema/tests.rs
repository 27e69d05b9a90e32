use bytes::Bytes;
use expect_test::expect;
use proptest::prelude::*;
use quorate_proto::authpb::{Permission, Role, User};
use quorate_proto::etcdserverpb::AlarmMember;

use super::super::bolt::without_seal;
use super::*;
use crate::checkpoint::bolt::MemoryFile;
use crate::checkpoint::{ImageError, STORAGE_VERSION, load, write_image};
use crate::mvcc::Row;

const MINIMAL: &[u8] = include_bytes!("../../../tests/data/etcd-formats-min.db");

fn image(contents: &Contents, rows: &[Row]) -> Bytes {
    write_image(MemoryFile::default(), contents, rows.iter().cloned())
        .unwrap()
        .0
        .0
        .into()
}

fn reload(bytes: Bytes) -> Result<(Contents, Vec<Row>), ImageError> {
    let loaded = load(bytes)?;
    Ok((loaded.contents, loaded.rows.collect::<Result<_, _>>()?))
}

fn full() -> Contents {
    let permission = Permission {
        perm_type: 2,
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"b"),
    };
    Contents {
        consistent_index: Index(77),
        term: Term(3),
        conf_state: ConfState::simple(vec![1, 0xffff_ffff_ffff_ffff], vec![2]),
        storage_version: Some(STORAGE_VERSION.to_owned()),
        scheduled_compact: Some(Revision(9)),
        finished_compact: Some(Revision(8)),
        leases: vec![
            Lease {
                id: 5,
                ttl: 60,
                remaining_ttl: 0,
            },
            Lease {
                id: -3,
                ttl: 7,
                remaining_ttl: 4,
            },
        ],
        alarms: vec![
            AlarmMember {
                member_id: 1,
                alarm: 1,
            },
            AlarmMember {
                member_id: 1,
                alarm: 2,
            },
        ],
        auth: AuthContents {
            enabled: Some(true),
            revision: 12,
            users: vec![User {
                name: Bytes::from_static(b"root"),
                roles: vec!["root".to_owned()],
                ..User::default()
            }],
            roles: vec![Role {
                name: Bytes::from_static(b"root"),
                key_permission: vec![permission],
            }],
        },
        cluster_version: Some("3.7.0".to_owned()),
        downgrade: Some(Downgrade {
            target_version: "3.6.0".to_owned(),
            enabled: true,
        }),
        members: vec![
            MemberRecord {
                id: MemberId(1),
                peer_urls: vec!["http://a:1".to_owned()],
                ..MemberRecord::default()
            },
            MemberRecord {
                id: MemberId(0xab),
                peer_urls: vec!["http://b:1".to_owned(), "http://b:2".to_owned()],
                name: "b".to_owned(),
                client_urls: vec!["http://b:3".to_owned()],
                is_learner: true,
            },
        ],
        members_removed: vec![MemberId(0xdead)],
    }
}

fn some_rows() -> Vec<Row> {
    let row = |main, sub, tombstone, key_value: &'static [u8]| Row {
        main,
        sub,
        tombstone,
        key_value: Bytes::from_static(key_value),
    };
    // The last one is what `etcdutl snapshot restore --bump-revision` writes.
    vec![
        row(2, 0, false, b"\x0a\x03foo"),
        row(3, 0, true, b"\x0a\x03foo"),
        row(3, 1, false, b"\x0a\x01x"),
        row(1_000, 0, false, b""),
    ]
}

#[test]
fn minimal_image_is_understood_and_reproduced() {
    let (contents, rows) = reload(Bytes::from_static(MINIMAL)).unwrap();
    expect![[r#"
        Contents {
            consistent_index: Index(
                5,
            ),
            term: Term(
                2,
            ),
            conf_state: ConfState {
                voters: [
                    10276657743932975437,
                ],
                learners: [],
                voters_outgoing: [],
                learners_next: [],
                auto_leave: false,
            },
            storage_version: Some(
                "3.7.0",
            ),
            scheduled_compact: None,
            finished_compact: None,
            leases: [],
            alarms: [],
            auth: AuthContents {
                enabled: None,
                revision: 1,
                users: [],
                roles: [],
            },
            cluster_version: Some(
                "3.7.0",
            ),
            downgrade: Some(
                Downgrade {
                    target_version: "",
                    enabled: false,
                },
            ),
            members: [
                MemberRecord {
                    id: MemberId(
                        10276657743932975437,
                    ),
                    peer_urls: [
                        "http://localhost:2380",
                    ],
                    name: "default",
                    client_urls: [
                        "http://localhost:2379",
                    ],
                    is_learner: false,
                },
            ],
            members_removed: [],
        }
    "#]]
    .assert_debug_eq(&contents);
    let foo = Row {
        main: 2,
        sub: 0,
        tombstone: false,
        key_value: Bytes::from_static(b"\x0a\x03foo\x10\x02\x18\x02\x20\x01\x2a\x03bar"),
    };
    assert_eq!(rows, [foo]);
    assert!(without_seal(&image(&contents, &rows)) == MINIMAL);
}

#[test]
fn everything_comes_back() {
    let (contents, rows) = reload(image(&full(), &some_rows())).unwrap();
    assert_eq!(contents, full());
    assert_eq!(rows, some_rows());
    assert_eq!(
        reload(image(&Contents::default(), &[])).unwrap(),
        (Contents::default(), vec![])
    );
}

#[test]
fn order_of_lists_does_not_show_in_the_image() {
    let mut turned = full();
    turned.leases.reverse();
    turned.alarms.reverse();
    turned.members.reverse();
    assert_eq!(image(&turned, &[]), image(&full(), &[]));
}

#[test]
fn json_is_etcds() {
    let text = |json: Vec<u8>| String::from_utf8(json).unwrap();
    let mut member = full().members[1].clone();
    assert_eq!(
        text(member.to_json()),
        r#"{"id":171,"peerURLs":["http://b:1","http://b:2"],"isLearner":true,"name":"b","clientURLs":["http://b:3"]}"#
    );
    member.name = "<b>".to_owned();
    assert!(text(member.to_json()).contains(r#""name":"\u003cb\u003e""#));
    assert_eq!(MemberRecord::from_json(&member.to_json()).unwrap(), member);
    let bare =
        MemberRecord::from_json(br#"{"id":1,"peerURLs":null,"clientURLs":null,"isPromote":false}"#)
            .unwrap();
    assert_eq!(
        bare,
        MemberRecord {
            id: MemberId(1),
            ..MemberRecord::default()
        }
    );
    assert_eq!(text(bare.to_json()), r#"{"id":1,"peerURLs":[]}"#);
    let state = |voters, learners| {
        text(to_go_json(&ConfStateJson::from(&ConfState::simple(
            voters, learners,
        ))))
    };
    assert_eq!(
        state(vec![1, 2], vec![]),
        r#"{"voters":[1,2],"auto_leave":false}"#
    );
    assert_eq!(
        state(vec![1], vec![3]),
        r#"{"voters":[1],"learners":[3],"auto_leave":false}"#
    );
    assert_eq!(
        text(to_go_json(&Downgrade::default())),
        r#"{"target-version":"","enabled":false}"#
    );
}

#[test]
fn versions_that_etcd_refuses_are_refused_in_its_words() {
    let refusal = |version: &str| {
        let contents = Contents {
            storage_version: Some(version.to_owned()),
            ..Contents::default()
        };
        reload(image(&contents, &[]))
            .err()
            .map(|error| error.to_string())
    };
    let refused = |words: &str| Some(words.to_owned());
    for fine in ["3.5.0", "3.6.0", "3.7.0", "3.7.4-alpha.0"] {
        assert_eq!(refusal(fine), None, "{fine}");
    }
    assert_eq!(
        refusal("3.8.0"),
        refused("version \"3.8.0\" is not supported")
    );
    assert_eq!(
        refusal("3.3.9"),
        refused("version \"3.4.0\" is not supported")
    );
    assert_eq!(
        refusal("4.0.0"),
        refused("changing major storage version is not supported")
    );
    for junk in ["", "3", "3.7", "3.7.x", "3.7.0.1", "v3.7.0"] {
        assert!(
            matches!(refusal(junk), Some(text) if text.contains("is not a version")),
            "{junk}"
        );
    }
}

/// An image of one bucket with one pair.
fn single(bucket: &str, key: &[u8], value: &[u8]) -> Bytes {
    let mut writer = crate::checkpoint::bolt::Writer::new(MemoryFile::default()).unwrap();
    writer.bucket(bucket.as_bytes()).unwrap();
    writer.put(key, value).unwrap();
    writer.finish().unwrap().0.0.into()
}

#[test]
fn records_that_mean_nothing_are_refused_by_name() {
    let refused =
        |bucket: &'static str, key: &[u8], value: &[u8]| match reload(single(bucket, key, value)) {
            Err(ImageError::Record { bucket: found, .. }) => found == bucket,
            _ => false,
        };
    assert!(refused("key", b"short", b""));
    assert!(refused("key", b"\0\0\0\0\0\0\0\x02-\0\0\0\0\0\0\0\0", b""));
    assert!(refused("key", b"\0\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0x", b""));
    assert!(refused(
        "key",
        b"\xff\0\0\0\0\0\0\x02_\0\0\0\0\0\0\0\0",
        b""
    ));
    assert!(refused("meta", b"consistent_index", b"1"));
    assert!(refused("meta", b"confState", b"{"));
    assert!(refused("meta", b"storageVersion", b"\xff"));
    assert!(refused("meta", b"scheduledCompactRev", b"5"));
    assert!(refused("auth", b"authRevision", b""));
    assert!(refused("cluster", b"downgrade", b"no"));
    assert!(refused("lease", b"00000000", b"\xff"));
    assert!(refused("alarm", b"\xff", b""));
    assert!(refused("members", b"+1", br#"{"id":1}"#));
    assert!(refused("members", b"2", br#"{"id":1}"#));
    assert!(refused("members_removed", b"xyz", b""));
    assert!(refused("members_removed", b"0a", b""));
    assert!(refused("lease", b"\0\0\0\0\0\0\0\x02", b"\x08\x01"));
    assert!(refused("authUsers", b"mallory", b"\x0a\x04root"));
    assert!(refused("authRoles", b"reader", b"\x0a\x04root"));
    assert!(refused("alarm", b"\x10\x01\x08\x01", b""));
    assert!(reload(single("unknown", b"key", b"value")).is_ok());
}

#[test]
fn image_without_auth_revision_has_the_first() {
    let (contents, _) = reload(single("auth", b"authEnabled", &[0])).unwrap();
    assert_eq!(
        (contents.auth.enabled, contents.auth.revision),
        (Some(false), 1)
    );
}

fn contents() -> impl Strategy<Value = Contents> {
    let lists = (
        proptest::collection::btree_map(any::<u64>(), any::<(i64, i64)>(), 0..300),
        proptest::collection::btree_map(any::<u64>(), (".{0,40}", any::<bool>(), ".{0,30}"), 0..12),
        proptest::collection::btree_set(any::<u64>(), 0..200),
        proptest::collection::btree_map(
            proptest::collection::vec(any::<u8>(), 1..40),
            proptest::collection::vec(any::<u8>(), 0..90),
            0..60,
        ),
    );
    (any::<(u64, u64, Option<bool>, u64)>(), lists).prop_map(
        |(numbers, (leases, members, removed, users))| {
            let (index, term, enabled, revision) = numbers;
            let leases = leases.into_iter().map(|(id, (ttl, left))| Lease {
                id: id as i64,
                ttl,
                remaining_ttl: left,
            });
            let users = users.into_iter().map(|(name, password)| User {
                name: name.into(),
                password: password.into(),
                ..User::default()
            });
            Contents {
                consistent_index: Index(index),
                term: Term(term),
                leases: leases.collect(),
                auth: AuthContents {
                    enabled,
                    revision,
                    users: users.collect(),
                    roles: Vec::new(),
                },
                members: members
                    .into_iter()
                    .map(|(id, (url, is_learner, name))| MemberRecord {
                        id: MemberId(id),
                        peer_urls: vec![url],
                        name,
                        client_urls: Vec::new(),
                        is_learner,
                    })
                    .collect(),
                members_removed: removed.into_iter().map(MemberId).collect(),
                ..Contents::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_contents_come_back(contents in contents()) {
        let (mut read, rows) = reload(image(&contents, &[])).unwrap();
        // Members stand in the order of their hexadecimal names.
        read.members.sort_by_key(|member| member.id);
        read.members_removed.sort_unstable();
        prop_assert_eq!(read, contents);
        prop_assert!(rows.is_empty());
    }

    #[test]
    fn damaged_contents_are_refused_or_read(at in 0..16_384_usize, junk in any::<u8>()) {
        let mut bytes = MINIMAL.to_vec();
        bytes[at] = junk;
        // Whatever comes of it, it comes.
        drop(reload(bytes.into()));
    }
}
