//! The JSON that members exchange, with the names and omissions of etcd's.

use quorate_proto::etcdserverpb as pb;
use serde::{Deserialize, Serialize};

/// What a member runs, as `/version` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The version of its server.
    #[serde(rename = "etcdserver")]
    pub server: String,
    /// The version that the cluster agreed on; `not_decided` before it did.
    #[serde(rename = "etcdcluster")]
    pub cluster: String,
    /// The version of its storage; `unknown` before it is known.
    #[serde(default)]
    pub storage: String,
}

/// One element of `/members`.
#[derive(Serialize, Deserialize)]
struct MemberJson {
    id: u64,
    #[serde(rename = "peerURLs", default)]
    peer_urls: Option<Vec<String>>,
    #[serde(
        rename = "isLearner",
        default,
        skip_serializing_if = "std::ops::Not::not"
    )]
    is_learner: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    client_urls: Vec<String>,
}

/// The array of `/members`, sorted by id, with the newline that etcd ends it with.
pub(crate) fn write_members(mut members: Vec<pb::Member>) -> Vec<u8> {
    members.sort_by_key(|member| member.id);
    let members: Vec<MemberJson> = members.into_iter().map(MemberJson::from).collect();
    let text = serde_json::to_string(&members).expect("strings and numbers");
    // Go writes these so; in JSON they occur inside strings only.
    let escaped = text
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026");
    (escaped + "\n").into_bytes()
}

pub(crate) fn read_members(body: &[u8]) -> Result<Vec<pb::Member>, serde_json::Error> {
    let members: Vec<MemberJson> = serde_json::from_slice(body)?;
    Ok(members.into_iter().map(MemberJson::into_member).collect())
}

impl From<pb::Member> for MemberJson {
    fn from(member: pb::Member) -> Self {
        let pb::Member {
            id,
            name,
            peer_urls,
            client_urls,
            is_learner,
        } = member;
        Self {
            id,
            peer_urls: Some(peer_urls),
            is_learner,
            name,
            client_urls,
        }
    }
}

impl MemberJson {
    fn into_member(self) -> pb::Member {
        pb::Member {
            id: self.id,
            name: self.name,
            peer_urls: self.peer_urls.unwrap_or_default(),
            client_urls: self.client_urls,
            is_learner: self.is_learner,
        }
    }
}

/// The question of `/members/hashkv`.
#[derive(Default, Serialize, Deserialize)]
struct HashRequest {
    #[serde(default, skip_serializing_if = "is_zero")]
    revision: i64,
}

/// Its answer; zeros are left out, the header holds the revision only.
#[derive(Serialize, Deserialize)]
struct HashAnswer {
    #[serde(default)]
    header: HashRequest,
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    hash: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    compact_revision: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    hash_revision: i64,
}

pub(crate) fn write_hash_request(revision: i64) -> Vec<u8> {
    serde_json::to_vec(&HashRequest { revision }).expect("a number")
}

pub(crate) fn read_hash_request(body: &[u8]) -> Result<i64, serde_json::Error> {
    serde_json::from_slice::<HashRequest>(body).map(|request| request.revision)
}

pub(crate) fn write_hash_answer(answer: &pb::HashKvResponse) -> Vec<u8> {
    let answer = HashAnswer {
        header: HashRequest {
            revision: answer.header.as_ref().map_or(0, |header| header.revision),
        },
        hash: answer.hash,
        compact_revision: answer.compact_revision,
        hash_revision: answer.hash_revision,
    };
    serde_json::to_vec(&answer).expect("numbers")
}

pub(crate) fn read_hash_answer(body: &[u8]) -> Result<pb::HashKvResponse, serde_json::Error> {
    let answer: HashAnswer = serde_json::from_slice(body)?;
    let header = pb::ResponseHeader {
        revision: answer.header.revision,
        ..pb::ResponseHeader::default()
    };
    Ok(pb::HashKvResponse {
        header: Some(header),
        hash: answer.hash,
        compact_revision: answer.compact_revision,
        hash_revision: answer.hash_revision,
    })
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_read_as_etcds() {
        let voter = pb::Member {
            id: 10_501_334_649_042_878_790,
            name: "m1".to_owned(),
            peer_urls: vec!["http://a:2380".to_owned()],
            client_urls: vec!["http://a:2379".to_owned()],
            is_learner: false,
        };
        let learner = pb::Member {
            id: 5,
            peer_urls: vec!["http://b:1".to_owned()],
            is_learner: true,
            ..voter.clone()
        };
        let unstarted = pb::Member {
            id: 6,
            peer_urls: vec!["http://b:2".to_owned()],
            ..pb::Member::default()
        };
        let members = vec![voter, learner, unstarted];
        let written = write_members(members.clone());
        let expected = concat!(
            r#"[{"id":5,"peerURLs":["http://b:1"],"isLearner":true,"name":"m1","clientURLs":["http://a:2379"]},"#,
            r#"{"id":6,"peerURLs":["http://b:2"]},"#,
            r#"{"id":10501334649042878790,"peerURLs":["http://a:2380"],"name":"m1","clientURLs":["http://a:2379"]}]"#,
            "\n"
        );
        assert_eq!(std::str::from_utf8(&written).expect("text"), expected);
        let mut read = read_members(&written).expect("own text");
        read.rotate_left(2);
        assert_eq!(
            read,
            [&members[0], &members[1], &members[2]].map(Clone::clone)
        );
    }

    #[test]
    fn hashes_keep_the_revision_that_says_never_compacted() {
        let answer = pb::HashKvResponse {
            header: Some(pb::ResponseHeader {
                revision: 7,
                ..Default::default()
            }),
            hash: 12,
            compact_revision: -1,
            hash_revision: 7,
        };
        let written = write_hash_answer(&answer);
        let expected =
            r#"{"header":{"revision":7},"hash":12,"compact_revision":-1,"hash_revision":7}"#;
        assert_eq!(std::str::from_utf8(&written).expect("text"), expected);
        assert_eq!(read_hash_answer(&written).expect("own text"), answer);
        assert_eq!(
            read_hash_request(&write_hash_request(3)).expect("own text"),
            3
        );
        assert_eq!(read_hash_request(b"{}").expect("zero is left out"), 0);
    }
}
