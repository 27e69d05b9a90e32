//! The `.snap` file: the membership at a checkpoint, in the form of etcd's old v2 store.
//!
//! etcd 3.7 writes it and does not read it when it starts; its log dump, and etcd 3.6, do. What is left out here
//! (watch history, statistics) a reader makes up afresh.
//!
//! ```text
//! snappb.Snapshot { crc: CRC-32C of data, data: raftpb.Snapshot { metadata, data: JSON of the tree } }
//!
//! /0/members/<id>/raftAttributes    {"peerURLs":[..],"isLearner":true}
//! /0/members/<id>/attributes        {"name":"..","clientURLs":[..]}, once published
//! /0/removed_members/<id>           empty
//! /0/version                        3.7.0
//! /1                                empty directory
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use quorate_proto::{raftpb, snappb};
use serde::Serialize;

use super::json::to_go_json;
use super::schema::{Contents, MemberRecord};

/// `<term>-<index>.snap`, hexadecimal; note that the log's files name the index last as well, but no term.
pub fn file_name(contents: &Contents) -> String {
    format!(
        "{:016x}-{:016x}.snap",
        contents.term.0, contents.consistent_index.0
    )
}

/// Whether [`file_name`] makes such a name.
pub fn is_file_name(name: &str) -> bool {
    let numbers = name
        .strip_suffix(".snap")
        .and_then(|stem| stem.split_once('-'));
    let is_number =
        |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    numbers.is_some_and(|(term, index)| is_number(term) && is_number(index))
}

/// The whole content of the file.
pub fn encode(contents: &Contents) -> Vec<u8> {
    let json = Bytes::from(to_go_json(&v2_store(contents)));
    let (index, term) = (contents.consistent_index.0, contents.term.0);
    frame(&raftpb::Snapshot::new(
        index,
        term,
        contents.conf_state.clone(),
        json,
    ))
}

/// The membership in such a file, as a snapshot to an etcd carries it; `None` for a file that is not sound.
pub fn membership(file: &Bytes) -> Option<Bytes> {
    let snappb::Snapshot { crc, data } = snappb::Snapshot::decode(file.clone()).ok()?;
    if crc32c::crc32c(&data) != crc {
        return None;
    }
    raftpb::Snapshot::decode(data).ok()?.data
}

fn frame(snapshot: &raftpb::Snapshot) -> Vec<u8> {
    let data = Bytes::from(snapshot.encode_to_vec());
    let crc = crc32c::crc32c(&data);
    snappb::Snapshot { crc, data }.encode_to_vec()
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct V2Store {
    root: Node,
    current_index: u64,
    current_version: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    path: String,
    created_index: u64,
    modified_index: u64,
    expire_time: &'static str,
    value: String,
    /// `null` for a file.
    children: Option<BTreeMap<String, Node>>,
}

#[derive(Serialize)]
struct RaftAttributes<'a> {
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
}

#[derive(Serialize)]
struct Attributes<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs")]
    client_urls: &'a [String],
}

fn v2_store(contents: &Contents) -> V2Store {
    let mut store = V2Store {
        root: Node::directory("/".to_owned(), 0),
        current_index: 0,
        current_version: 2,
    };
    for top in ["0", "1"] {
        store.root.child(top, 0);
    }
    let mut members: Vec<&MemberRecord> = contents.members.iter().collect();
    members.sort_by_key(|member| member.id);
    for member in members {
        let id = format!("{:x}", member.id.0);
        let raft = RaftAttributes {
            peer_urls: &member.peer_urls,
            is_learner: member.is_learner,
        };
        store.create(&["0", "members", &id, "raftAttributes"], to_go_json(&raft));
        if !member.client_urls.is_empty() {
            let attributes = Attributes {
                name: &member.name,
                client_urls: &member.client_urls,
            };
            store.create(
                &["0", "members", &id, "attributes"],
                to_go_json(&attributes),
            );
        }
    }
    let mut removed = contents.members_removed.clone();
    removed.sort_unstable();
    for id in removed {
        store.create(
            &["0", "removed_members", &format!("{:x}", id.0)],
            Vec::new(),
        );
    }
    if let Some(version) = &contents.cluster_version {
        store.create(&["0", "version"], version.clone().into_bytes());
    }
    store
}

impl V2Store {
    /// Makes a file and the directories on the way to it.
    fn create(&mut self, path: &[&str], value: Vec<u8>) {
        self.current_index += 1;
        let mut node = &mut self.root;
        for part in path {
            node = node.child(part, self.current_index);
        }
        node.children = None;
        node.value = String::from_utf8(value).expect("JSON and versions are text");
    }
}

impl Node {
    fn directory(path: String, index: u64) -> Self {
        Self {
            path,
            created_index: index,
            modified_index: index,
            expire_time: "0001-01-01T00:00:00Z",
            value: String::new(),
            children: Some(BTreeMap::new()),
        }
    }

    /// The child of that name, made a directory at `index` if it is not there.
    fn child(&mut self, name: &str, index: u64) -> &mut Self {
        let path = if self.path == "/" {
            format!("/{name}")
        } else {
            format!("{}/{name}", self.path)
        };
        let children = self.children.as_mut().expect("files have no children");
        children
            .entry(name.to_owned())
            .or_insert_with(|| Self::directory(path, index))
    }
}

#[cfg(test)]
mod tests;
