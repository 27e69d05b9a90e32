//! JSON as Go's `encoding/json` writes it: struct order, zero values left out where etcd's types say so, 64-bit numbers
//! as numbers, enums as numbers, bytes as base64, `<`, `>` and `&` escaped.

use std::borrow::Cow;
use std::fmt::Write;

use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::{Event, KeyValue};

use super::{Answer, HashKv, Health, MemberChange, Printer, Status};
use crate::failure::Failure;

/// Finished JSON, and whether it is what Go's `omitempty` leaves out.
#[derive(Clone, Debug)]
pub(crate) struct Json {
    text: String,
    is_empty: bool,
}

impl Json {
    /// A string.
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let mut json = String::from('"');
        for character in text.chars() {
            match character {
                '"' => json.push_str("\\\""),
                '\\' => json.push_str("\\\\"),
                '\n' => json.push_str("\\n"),
                '\r' => json.push_str("\\r"),
                '\t' => json.push_str("\\t"),
                '\x08' => json.push_str("\\b"),
                '\x0c' => json.push_str("\\f"),
                '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    write!(json, "\\u{:04x}", u32::from(character)).expect("memory takes it");
                }
                character => json.push(character),
            }
        }
        json.push('"');
        Self {
            text: json,
            is_empty: text.is_empty(),
        }
    }

    fn number(number: impl Into<i128>) -> Self {
        let number = number.into();
        Self {
            text: number.to_string(),
            is_empty: number == 0,
        }
    }

    fn flag(flag: bool) -> Self {
        Self {
            text: flag.to_string(),
            is_empty: !flag,
        }
    }

    fn bytes(bytes: &[u8]) -> Self {
        Self {
            text: format!("\"{}\"", base64(bytes)),
            is_empty: bytes.is_empty(),
        }
    }

    fn null() -> Self {
        Self {
            text: "null".to_string(),
            is_empty: true,
        }
    }

    fn list(items: impl IntoIterator<Item = Self>) -> Self {
        let items: Vec<String> = items.into_iter().map(|item| item.text).collect();
        Self {
            is_empty: items.is_empty(),
            text: format!("[{}]", items.join(",")),
        }
    }

    /// A nil slice of Go is `null`, not `[]`.
    fn list_or_null(items: impl IntoIterator<Item = Self>) -> Self {
        let list = Self::list(items);
        if list.is_empty { Self::null() } else { list }
    }

    /// Starts an object.
    pub(crate) fn object() -> Object {
        Object::default()
    }
}

/// An object that is being written.
#[derive(Debug, Default)]
pub(crate) struct Object {
    members: Vec<String>,
}

impl Object {
    /// Adds a member.
    pub(crate) fn field(mut self, name: &str, value: Json) -> Self {
        self.members.push(format!("\"{name}\":{}", value.text));
        self
    }

    /// Adds a member unless it is empty.
    fn optional(self, name: &str, value: Json) -> Self {
        if value.is_empty {
            self
        } else {
            self.field(name, value)
        }
    }

    /// Adds a message if there is one.
    fn message(self, name: &str, value: Option<Json>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    fn end(self) -> Json {
        Json {
            text: self.finish(),
            is_empty: false,
        }
    }

    /// The text.
    pub(crate) fn finish(self) -> String {
        format!("{{{}}}", self.members.join(","))
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (place, byte)| {
            bits | u32::from(*byte) << (16 - 8 * place)
        });
        for place in 0..4 {
            if place <= group.len() {
                let digit = (bits >> (18 - 6 * place)) & 63;
                text.push(char::from(DIGITS[digit as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

pub(super) fn render(printer: &Printer, answer: &Answer<'_>) -> Result<Vec<u8>, Failure> {
    let json = match answer {
        Answer::Put(response) => put(response),
        Answer::Range(response) => range(response),
        Answer::Delete(response) => delete(response),
        Answer::Txn(response) => txn(response),
        Answer::Watch(response) => watch(response),
        Answer::Grant(response) => flat_header(response.header.as_ref())
            .field("ID", Json::number(response.id))
            .field("TTL", Json::number(response.ttl))
            .field("Error", Json::text(&response.error))
            .end(),
        Answer::Revoke(_, response) => header_only(response.header.as_ref()),
        Answer::KeepAlive(response) => flat_header(response.header.as_ref())
            .field("ID", Json::number(response.id))
            .field("TTL", Json::number(response.ttl))
            .end(),
        Answer::TimeToLive(response, _) => flat_header(response.header.as_ref())
            .field("id", Json::number(response.id))
            .field("ttl", Json::number(response.ttl))
            .field("granted-ttl", Json::number(response.granted_ttl))
            .field(
                "keys",
                Json::list_or_null(response.keys.iter().map(|key| Json::bytes(key))),
            )
            .end(),
        Answer::Leases(response) => flat_header(response.header.as_ref())
            .field(
                "leases",
                Json::list(
                    response
                        .leases
                        .iter()
                        .map(|lease| Json::object().field("id", Json::number(lease.id)).end()),
                ),
            )
            .end(),
        Answer::Members(response) => members(response, printer.is_hex),
        Answer::Health(list) => Json::list_or_null(list.iter().map(health)),
        Answer::Status(list) => Json::list_or_null(list.iter().map(status)),
        Answer::HashKv(list) => Json::list_or_null(list.iter().map(hash_kv)),
        Answer::Alarms(response) => alarms(response),
        Answer::AuthStatus(response) => Json::object()
            .message("header", header(response.header.as_ref()))
            .optional("enabled", Json::flag(response.enabled))
            .optional("authRevision", Json::number(response.auth_revision))
            .end(),
        Answer::User(_, response) => names(&response.header, "roles", &response.roles),
        Answer::Users(response) => names(&response.header, "users", &response.users),
        Answer::Role(_, response) => role(response),
        Answer::Roles(response) => names(&response.header, "roles", &response.roles),
        Answer::Done { header, .. } => header_only(header.as_ref()),
        Answer::Downgrade { response, .. } => Json::object()
            .message("header", header(response.header.as_ref()))
            .optional("version", Json::text(&response.version))
            .end(),
        Answer::MemberChange(change) => member_change(change),
        Answer::MoveLeader { response, .. } => header_only(response.header.as_ref()),
    };
    let mut line = json.text.into_bytes();
    line.push(b'\n');
    Ok(line)
}

/// A lease answer has the header's fields as its own.
fn flat_header(header: Option<&pb::ResponseHeader>) -> Object {
    let header = header.map_or(Cow::Owned(pb::ResponseHeader::default()), Cow::Borrowed);
    Json::object()
        .optional("cluster_id", Json::number(header.cluster_id))
        .optional("member_id", Json::number(header.member_id))
        .optional("revision", Json::number(header.revision))
        .optional("raft_term", Json::number(header.raft_term))
}

fn header(header: Option<&pb::ResponseHeader>) -> Option<Json> {
    header.map(|header| flat_header(Some(header)).end())
}

fn header_only(response: Option<&pb::ResponseHeader>) -> Json {
    Json::object().message("header", header(response)).end()
}

fn key_value(kv: &KeyValue) -> Json {
    Json::object()
        .optional("key", Json::bytes(&kv.key))
        .optional("create_revision", Json::number(kv.create_revision))
        .optional("mod_revision", Json::number(kv.mod_revision))
        .optional("version", Json::number(kv.version))
        .optional("value", Json::bytes(&kv.value))
        .optional("lease", Json::number(kv.lease))
        .end()
}

fn put(response: &pb::PutResponse) -> Json {
    Json::object()
        .message("header", header(response.header.as_ref()))
        .message("prev_kv", response.prev_kv.as_ref().map(key_value))
        .end()
}

fn range(response: &pb::RangeResponse) -> Json {
    Json::object()
        .message("header", header(response.header.as_ref()))
        .optional("kvs", Json::list(response.kvs.iter().map(key_value)))
        .optional("more", Json::flag(response.more))
        .optional("count", Json::number(response.count))
        .end()
}

fn delete(response: &pb::DeleteRangeResponse) -> Json {
    Json::object()
        .message("header", header(response.header.as_ref()))
        .optional("deleted", Json::number(response.deleted))
        .optional(
            "prev_kvs",
            Json::list(response.prev_kvs.iter().map(key_value)),
        )
        .end()
}

fn txn(response: &pb::TxnResponse) -> Json {
    use pb::response_op::Response;
    let responses = response.responses.iter().map(|operation| {
        let inner = match &operation.response {
            Some(Response::ResponseRange(response)) => {
                Json::object().field("response_range", range(response))
            }
            Some(Response::ResponsePut(response)) => {
                Json::object().field("response_put", put(response))
            }
            Some(Response::ResponseDeleteRange(response)) => {
                Json::object().field("response_delete_range", delete(response))
            }
            Some(Response::ResponseTxn(response)) => {
                Json::object().field("response_txn", txn(response))
            }
            None => Json::object(),
        };
        Json::object().field("Response", inner.end()).end()
    });
    Json::object()
        .message("header", header(response.header.as_ref()))
        .optional("succeeded", Json::flag(response.succeeded))
        .optional("responses", Json::list(responses))
        .end()
}

fn event(event: &Event) -> Json {
    Json::object()
        .optional("type", Json::number(event.r#type))
        .message("kv", event.kv.as_ref().map(key_value))
        .message("prev_kv", event.prev_kv.as_ref().map(key_value))
        .end()
}

/// The client library's own type in Go, without tags: all fields, capitalised.
fn watch(response: &pb::WatchResponse) -> Json {
    let head = header(response.header.as_ref()).unwrap_or_else(Json::null);
    Json::object()
        .field("Header", head)
        .field(
            "Events",
            Json::list_or_null(response.events.iter().map(event)),
        )
        .field("CompactRevision", Json::number(response.compact_revision))
        .field("Canceled", Json::flag(response.canceled))
        .field("Created", Json::flag(response.created))
        .field("CancelReason", Json::text(&response.cancel_reason))
        .end()
}

/// A member after its id.
fn member_tail(object: Object, member: &pb::Member) -> Json {
    let texts = |texts: &[String]| Json::list(texts.iter().map(Json::text));
    object
        .optional("name", Json::text(&member.name))
        .optional("peerURLs", texts(&member.peer_urls))
        .optional("clientURLs", texts(&member.client_urls))
        .optional("isLearner", Json::flag(member.is_learner))
        .end()
}

fn member(member: &pb::Member) -> Json {
    let object = Json::object().optional("ID", Json::number(member.id));
    member_tail(object, member)
}

fn members(response: &pb::MemberListResponse, is_hex: bool) -> Json {
    if !is_hex {
        return with_members(response.header.as_ref(), None, &response.members);
    }
    let hex = |id: u64| Json::text(format!("{id:x}"));
    let head = response.header.as_ref().map_or_else(Json::null, |header| {
        Json::object()
            .field("cluster_id", hex(header.cluster_id))
            .field("member_id", hex(header.member_id))
            .optional("revision", Json::number(header.revision))
            .optional("raft_term", Json::number(header.raft_term))
            .end()
    });
    let list = response
        .members
        .iter()
        .map(|member| member_tail(Json::object().field("ID", hex(member.id)), member));
    Json::object()
        .field("header", head)
        .field("members", Json::list(list))
        .end()
}

fn with_members(
    head: Option<&pb::ResponseHeader>,
    changed: Option<&pb::Member>,
    members: &[pb::Member],
) -> Json {
    Json::object()
        .message("header", header(head))
        .message("member", changed.map(member))
        .optional("members", Json::list(members.iter().map(member)))
        .end()
}

fn member_change(change: &MemberChange<'_>) -> Json {
    match change {
        MemberChange::Added { response, .. } => with_members(
            response.header.as_ref(),
            response.member.as_ref(),
            &response.members,
        ),
        MemberChange::Removed { response, .. } => {
            with_members(response.header.as_ref(), None, &response.members)
        }
        MemberChange::Updated { response, .. } => {
            with_members(response.header.as_ref(), None, &response.members)
        }
        MemberChange::Promoted { response, .. } => {
            with_members(response.header.as_ref(), None, &response.members)
        }
    }
}

fn health(health: &Health) -> Json {
    Json::object()
        .field("endpoint", Json::text(&health.endpoint))
        .field("health", Json::flag(health.error.is_empty()))
        .field("took", Json::text(&health.took))
        .optional("error", Json::text(&health.error))
        .end()
}

fn status(status: &Status) -> Json {
    let response = &status.response;
    let downgrade = response.downgrade_info.as_ref().map(|downgrade| {
        Json::object()
            .optional("enabled", Json::flag(downgrade.enabled))
            .optional("targetVersion", Json::text(&downgrade.target_version))
            .end()
    });
    let inner = Json::object()
        .message("header", header(response.header.as_ref()))
        .optional("version", Json::text(&response.version))
        .optional("dbSize", Json::number(response.db_size))
        .optional("leader", Json::number(response.leader))
        .optional("raftIndex", Json::number(response.raft_index))
        .optional("raftTerm", Json::number(response.raft_term))
        .optional(
            "raftAppliedIndex",
            Json::number(response.raft_applied_index),
        )
        .optional("errors", Json::list(response.errors.iter().map(Json::text)))
        .optional("dbSizeInUse", Json::number(response.db_size_in_use))
        .optional("isLearner", Json::flag(response.is_learner))
        .optional("storageVersion", Json::text(&response.storage_version))
        .optional("dbSizeQuota", Json::number(response.db_size_quota))
        .message("downgradeInfo", downgrade);
    Json::object()
        .field("Endpoint", Json::text(&status.endpoint))
        .field("Status", inner.end())
        .end()
}

fn hash_kv(hash: &HashKv) -> Json {
    let inner = Json::object()
        .message("header", header(hash.response.header.as_ref()))
        .optional("hash", Json::number(hash.response.hash))
        .optional(
            "compact_revision",
            Json::number(hash.response.compact_revision),
        )
        .optional("hash_revision", Json::number(hash.response.hash_revision));
    Json::object()
        .field("Endpoint", Json::text(&hash.endpoint))
        .field("HashKV", inner.end())
        .end()
}

fn names(head: &Option<pb::ResponseHeader>, name: &str, names: &[String]) -> Json {
    Json::object()
        .message("header", header(head.as_ref()))
        .optional(name, Json::list(names.iter().map(Json::text)))
        .end()
}

fn role(response: &pb::AuthRoleGetResponse) -> Json {
    let permissions = response.perm.iter().map(|permission| {
        Json::object()
            .optional("permType", Json::number(permission.perm_type))
            .optional("key", Json::bytes(&permission.key))
            .optional("range_end", Json::bytes(&permission.range_end))
            .end()
    });
    Json::object()
        .message("header", header(response.header.as_ref()))
        .optional("perm", Json::list(permissions))
        .end()
}

fn alarms(response: &pb::AlarmResponse) -> Json {
    let alarms = response.alarms.iter().map(|alarm| {
        Json::object()
            .optional("memberID", Json::number(alarm.member_id))
            .optional("alarm", Json::number(alarm.alarm))
            .end()
    });
    Json::object()
        .message("header", header(response.header.as_ref()))
        .optional("alarms", Json::list(alarms))
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfd]), "//79");
    }

    #[test]
    fn strings_are_safe_in_a_page() {
        let json = Json::text("<a href=\"x\">&\u{2028}\x01");
        assert_eq!(json.text, r#""\u003ca href=\"x\"\u003e\u0026\u2028\u0001""#);
    }
}
