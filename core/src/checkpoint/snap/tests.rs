use expect_test::expect;
use quorate_proto::raftpb::ConfState;

use super::*;
use crate::types::{Index, MemberId, Term};

fn contents() -> Contents {
    let member = |id, name: &str, client_urls: Vec<String>| MemberRecord {
        id: MemberId(id),
        peer_urls: vec![format!("http://{id}:2380/?a&b")],
        name: name.to_owned(),
        client_urls,
        is_learner: id == 0x1f,
    };
    Contents {
        consistent_index: Index(0x2711),
        term: Term(2),
        conf_state: ConfState::simple(vec![1], vec![0x1f]),
        cluster_version: Some("3.7.0".to_owned()),
        members: vec![
            member(0x1f, "", Vec::new()),
            member(1, "one", vec!["http://1:2379".to_owned()]),
        ],
        members_removed: vec![MemberId(7)],
        ..Contents::default()
    }
}

#[test]
fn name_is_term_and_index_in_hexadecimal() {
    let name = file_name(&contents());
    assert_eq!(name, "0000000000000002-0000000000002711.snap");
    assert!(is_file_name(&name));
    for other in [
        "db",
        "db.tmp",
        "0000000000002711.snap.db",
        "2-2711.snap",
        "0000000000000002-0000000000002711.snap.broken",
    ] {
        assert!(!is_file_name(other), "{other}");
    }
}

#[test]
fn frame_is_etcds() {
    let snapshot = raftpb::Snapshot::new(
        5,
        2,
        ConfState::simple(vec![0x8e9e_05c5_2164_694d], vec![]),
        Bytes::from_static(b"{}"),
    );
    let expected = "08f9d3c3bb0a12190a027b7d12130a0d08cdd2918bd2b881cf8e01280010051802".to_owned();
    let bytes = frame(&snapshot);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected);
}

#[test]
fn membership_stands_in_the_tree_of_the_v2_store() {
    let file = snappb::Snapshot::decode(&encode(&contents())[..]).unwrap();
    assert_eq!(file.crc, crc32c::crc32c(&file.data));
    let snapshot = raftpb::Snapshot::decode(file.data).unwrap();
    assert_eq!(
        (snapshot.metadata.index, snapshot.metadata.term),
        (0x2711, 2)
    );
    assert_eq!(snapshot.metadata.conf_state, contents().conf_state);
    let tree: serde_json::Value = serde_json::from_slice(&snapshot.data.unwrap()).unwrap();
    expect![[r#"
        /0 null
        /0/members null
        /0/members/1 null
        /0/members/1/attributes "{\"name\":\"one\",\"clientURLs\":[\"http://1:2379\"]}"
        /0/members/1/raftAttributes "{\"peerURLs\":[\"http://1:2380/?a\\u0026b\"]}"
        /0/members/1f null
        /0/members/1f/raftAttributes "{\"peerURLs\":[\"http://31:2380/?a\\u0026b\"],\"isLearner\":true}"
        /0/removed_members null
        /0/removed_members/7 ""
        /0/version "3.7.0"
        /1 null
    "#]]
    .assert_eq(&lines(&tree["Root"]));
    assert_eq!(tree["CurrentIndex"], 5);
    assert_eq!(tree["CurrentVersion"], 2);
}

/// A line for each node: path, and the value of files.
fn lines(node: &serde_json::Value) -> String {
    let mut text = String::new();
    if let Some(children) = node["Children"].as_object() {
        for child in children.values() {
            let value = if child["Children"].is_null() {
                &child["Value"]
            } else {
                &serde_json::Value::Null
            };
            text += &format!("{} {value}\n", child["Path"].as_str().unwrap());
            text += &lines(child);
        }
    }
    text
}
