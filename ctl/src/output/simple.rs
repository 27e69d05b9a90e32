//! The format for people.

use std::fmt::Write;

use quorate_proto::authpb::{Permission, permission};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use super::{Answer, Health, MemberChange, Printer, table};
use crate::commands::{NO_END, prefix_end};

pub(super) fn render(printer: &Printer, answer: &Answer<'_>) -> Vec<u8> {
    let text = match answer {
        Answer::Put(response) => return put(printer, response),
        Answer::Range(response) => return key_values(printer, &response.kvs),
        Answer::Delete(response) => return delete(printer, response),
        Answer::Txn(response) => return txn(printer, response),
        Answer::Watch(response) => return watch(printer, response),
        Answer::Grant(response) => format!(
            "lease {:016x} granted with TTL({}s)\n",
            response.id, response.ttl
        ),
        Answer::Revoke(id, _) => format!("lease {id:016x} revoked\n"),
        Answer::KeepAlive(response) => format!(
            "lease {:016x} keepalived with TTL({})\n",
            response.id, response.ttl
        ),
        Answer::TimeToLive(response, keys) => return time_to_live(response, *keys),
        Answer::Leases(response) => leases(response),
        Answer::Members(response) => rows(&table::member_rows(response)),
        Answer::Health(list) => health(list),
        Answer::Status(list) => rows(&table::status_rows(list)),
        Answer::HashKv(list) => rows(&table::hash_kv_rows(list)),
        Answer::Alarms(response) => alarms(response),
        Answer::AuthStatus(response) => format!(
            "Authentication Status: {}\nAuthRevision: {}\n",
            response.enabled, response.auth_revision
        ),
        Answer::User(name, response) => {
            let roles = response.roles.iter().map(|role| format!(" {role}"));
            format!("User: {name}\nRoles:{}\n", roles.collect::<String>())
        }
        Answer::Users(response) => lines(&response.users),
        Answer::Role(name, response) => return role(name, response),
        Answer::Roles(response) => lines(&response.roles),
        Answer::Done { words, .. } => format!("{words}\n"),
        Answer::Downgrade { verb, response } => {
            let version = &response.version;
            format!("Downgrade {verb} success, cluster version {version}\n")
        }
        Answer::MemberChange(change) => member_change(change),
        Answer::MoveLeader { from, to, .. } => {
            format!("Leadership transferred from {from:x} to {to:x}\n")
        }
    };
    text.into_bytes()
}

fn member_change(change: &MemberChange<'_>) -> String {
    let of = |header: &Option<pb::ResponseHeader>| header.unwrap_or_default().cluster_id;
    match change {
        MemberChange::Added { name, response } => added(name, response),
        MemberChange::Removed { id, response } => {
            let cluster = of(&response.header);
            format!("Member {id:16x} removed from cluster {cluster:16x}\n")
        }
        MemberChange::Updated { id, response } => {
            let cluster = of(&response.header);
            format!("Member {id:16x} updated in cluster {cluster:16x}\n")
        }
        MemberChange::Promoted { id, response } => {
            let cluster = of(&response.header);
            format!("Member {id:16x} promoted in cluster {cluster:16x}\n")
        }
    }
}

/// What the new member must be started with.
fn added(name: &str, response: &pb::MemberAddResponse) -> String {
    let cluster = response.header.unwrap_or_default().cluster_id;
    let member = response.member.clone().unwrap_or_default();
    let role = if member.is_learner { " as learner" } else { "" };
    let all = response.members.iter().flat_map(|known| {
        let name = if known.id == member.id {
            name
        } else {
            &known.name
        };
        let urls = known.peer_urls.iter();
        urls.map(move |url| format!("{name}={url}"))
    });
    let all = all.collect::<Vec<_>>().join(",");
    let (id, urls) = (member.id, member.peer_urls.join(","));
    format!(
        "Member {id:16x} added{role} to cluster {cluster:16x}\n\nETCD_NAME={name:?}\nETCD_INITIAL_CLUSTER={all:?}\n\
         ETCD_INITIAL_ADVERTISE_PEER_URLS={urls:?}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n"
    )
}

fn key_value(printer: &Printer, kv: &KeyValue, out: &mut Vec<u8>) {
    let mut line = |bytes: &[u8]| {
        if printer.is_hex {
            out.extend(
                bytes
                    .iter()
                    .flat_map(|byte| format!("\\x{byte:02x}").into_bytes()),
            );
        } else {
            out.extend_from_slice(bytes);
        }
        out.push(b'\n');
    };
    if !printer.values_only {
        line(&kv.key);
    }
    line(&kv.value);
}

fn key_values<'a>(printer: &Printer, kvs: impl IntoIterator<Item = &'a KeyValue>) -> Vec<u8> {
    let mut out = Vec::new();
    for kv in kvs {
        key_value(printer, kv, &mut out);
    }
    out
}

fn put(printer: &Printer, response: &pb::PutResponse) -> Vec<u8> {
    let mut out = b"OK\n".to_vec();
    out.extend(key_values(printer, &response.prev_kv));
    out
}

fn delete(printer: &Printer, response: &pb::DeleteRangeResponse) -> Vec<u8> {
    let mut out = format!("{}\n", response.deleted).into_bytes();
    out.extend(key_values(printer, &response.prev_kvs));
    out
}

fn txn(printer: &Printer, response: &pb::TxnResponse) -> Vec<u8> {
    use pb::response_op::Response;
    let mut out = if response.succeeded {
        b"SUCCESS\n".to_vec()
    } else {
        b"FAILURE\n".to_vec()
    };
    for operation in &response.responses {
        out.push(b'\n');
        match &operation.response {
            Some(Response::ResponseRange(response)) => {
                out.extend(key_values(printer, &response.kvs));
            }
            Some(Response::ResponsePut(response)) => out.extend(put(printer, response)),
            Some(Response::ResponseDeleteRange(response)) => out.extend(delete(printer, response)),
            // Nobody can write a nested transaction here, so that nobody gets its answer.
            Some(Response::ResponseTxn(_)) | None => out.extend(b"unexpected response\n"),
        }
    }
    out
}

fn watch(printer: &Printer, response: &pb::WatchResponse) -> Vec<u8> {
    let mut out = Vec::new();
    for event in &response.events {
        out.extend_from_slice(event.r#type().as_str_name().as_bytes());
        out.push(b'\n');
        out.extend(key_values(printer, &event.prev_kv));
        out.extend(key_values(printer, &event.kv));
    }
    out
}

fn time_to_live(response: &pb::LeaseTimeToLiveResponse, keys: bool) -> Vec<u8> {
    let id = response.id;
    if response.granted_ttl == 0 && response.ttl == -1 {
        return format!("lease {id:016x} already expired\n").into_bytes();
    }
    let (granted, remaining) = (response.granted_ttl, response.ttl);
    let mut out = format!("lease {id:016x} granted with TTL({granted}s), remaining({remaining}s)")
        .into_bytes();
    if keys {
        out.extend_from_slice(b", attached keys([");
        out.extend(response.keys.join(&b' '));
        out.extend_from_slice(b"])");
    }
    out.push(b'\n');
    out
}

fn leases(response: &pb::LeaseLeasesResponse) -> String {
    let mut text = format!("found {} leases\n", response.leases.len());
    for lease in &response.leases {
        writeln!(text, "{:016x}", lease.id).expect("memory takes it");
    }
    text
}

fn lines(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text}\n")).collect()
}

/// Readable keys, then writable ones; what may be both read and written is in both lists.
fn role(name: &str, response: &pb::AuthRoleGetResponse) -> Vec<u8> {
    let mut out = format!("Role {name}\n").into_bytes();
    for (title, other) in [
        ("KV Read:\n", permission::Type::Write),
        ("KV Write:\n", permission::Type::Read),
    ] {
        out.extend_from_slice(title.as_bytes());
        for permission in &response.perm {
            if permission.perm_type() != other {
                keys_of(permission, &mut out);
            }
        }
    }
    out
}

fn keys_of(permission: &Permission, out: &mut Vec<u8>) {
    let (key, end) = (&permission.key[..], &permission.range_end[..]);
    let parts: &[&[u8]] = match end {
        b"" => &[b"\t", key],
        NO_END => &[b"\t[", key, b", <open ended>"],
        end => &[b"\t[", key, b", ", end, b")"],
    };
    out.extend(parts.concat());
    if !end.is_empty() && !key.is_empty() && prefix_end(key) == end {
        out.extend([b" (prefix ", key, b")"].concat());
    }
    out.push(b'\n');
}

fn rows(rows: &[Vec<String>]) -> String {
    rows.iter().map(|row| row.join(", ") + "\n").collect()
}

/// Endpoints that are well go to stdout, others to stderr.
fn health(list: &[Health]) -> String {
    let mut text = String::new();
    for health in list {
        let Health {
            endpoint,
            took,
            error,
        } = health;
        if error.is_empty() {
            text +=
                &format!("{endpoint} is healthy: successfully committed proposal: took = {took}\n");
        } else {
            eprintln!("{endpoint} is unhealthy: failed to commit proposal: {error}");
        }
    }
    text
}

fn alarms(response: &pb::AlarmResponse) -> String {
    let mut text = String::new();
    for alarm in &response.alarms {
        let mut words = Vec::new();
        if alarm.member_id != 0 {
            words.push(format!("memberID:{}", alarm.member_id));
        }
        if alarm.alarm != 0 {
            words.push(format!("alarm:{}", alarm.alarm().as_str_name()));
        }
        text += &(words.join(" ") + "\n");
    }
    text
}
