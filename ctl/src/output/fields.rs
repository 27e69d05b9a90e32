//! Lines of `"Name" : value`, strings quoted as Go quotes them.

use std::fmt::{Display, LowerHex, Write};

use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;

use super::{Answer, HashKv, Health, Printer, Status};
use crate::failure::Failure;
use crate::go::quote::quote;

pub(super) fn render(printer: &Printer, answer: &Answer<'_>) -> Result<Vec<u8>, Failure> {
    let mut lines = Lines {
        is_hex: printer.is_hex,
        text: String::new(),
    };
    match answer {
        Answer::Put(response) => lines.put(response),
        Answer::Range(response) => lines.range(response),
        Answer::Delete(response) => lines.delete(response),
        Answer::Txn(response) => lines.txn(response),
        Answer::Watch(response) => lines.watch(response),
        Answer::Grant(response) => lines.lease(&response.header, response.id, response.ttl),
        Answer::Revoke(_, response) => lines.header(&response.header),
        Answer::KeepAlive(response) => lines.lease(&response.header, response.id, response.ttl),
        Answer::TimeToLive(response, _) => {
            lines.lease(&response.header, response.id, response.ttl);
            lines.line("GrantedTTL", response.granted_ttl);
            for key in &response.keys {
                lines.line("Key", quote(key));
            }
        }
        Answer::Leases(response) => {
            lines.header(&response.header);
            for lease in &response.leases {
                lines.lease_id("ID", lease.id);
            }
        }
        Answer::Members(response) => lines.members(response),
        Answer::Health(list) => list.iter().for_each(|health| lines.health(health)),
        Answer::Status(list) => list.iter().for_each(|status| lines.status(status)),
        Answer::HashKv(list) => list.iter().for_each(|hash| lines.hash_kv(hash)),
        Answer::Alarms(response) => {
            lines.header(&response.header);
            for alarm in &response.alarms {
                lines.id("MemberID", alarm.member_id);
                lines.line("AlarmType", alarm.alarm().as_str_name());
                lines.text.push('\n');
            }
        }
        Answer::Role(_, response) => lines.role(response),
        Answer::Roles(response) => {
            lines.header(&response.header);
            let roles = response.roles.iter().map(|role| quote(role.as_bytes()));
            lines.line("Roles", roles.collect::<Vec<_>>().join(" "));
        }
        Answer::Done { header, .. } => lines.header(header),
        Answer::AuthStatus(_)
        | Answer::Downgrade { .. }
        | Answer::User(..)
        | Answer::Users(_)
        | Answer::MoveLeader { .. }
        | Answer::MemberChange(_) => {
            return Err(super::unsupported("fields"));
        }
    }
    Ok(lines.text.into_bytes())
}

struct Lines {
    is_hex: bool,
    text: String,
}

impl Lines {
    fn line(&mut self, name: &str, value: impl Display) {
        writeln!(self.text, "\"{name}\" : {value}").expect("memory takes it");
    }

    /// A member's or cluster's number.
    fn id(&mut self, name: &str, id: impl Display + LowerHex) {
        if self.is_hex {
            self.line(name, format!("{id:x}"));
        } else {
            self.line(name, id);
        }
    }

    fn lease_id(&mut self, name: &str, id: i64) {
        if self.is_hex {
            self.line(name, format!("{id:016x}"));
        } else {
            self.line(name, id);
        }
    }

    fn header(&mut self, header: &Option<pb::ResponseHeader>) {
        let header = (*header).unwrap_or_default();
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        if header.revision > 0 {
            self.line("Revision", header.revision);
        }
        self.line("RaftTerm", header.raft_term);
    }

    fn key_value(&mut self, prefix: &str, kv: &KeyValue) {
        self.line(&format!("{prefix}Key"), quote(&kv.key));
        self.line(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.line(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.line(&format!("{prefix}Version"), kv.version);
        self.line(&format!("{prefix}Value"), quote(&kv.value));
        self.lease_id(&format!("{prefix}Lease"), kv.lease);
    }

    fn put(&mut self, response: &pb::PutResponse) {
        self.header(&response.header);
        if let Some(kv) = &response.prev_kv {
            self.key_value("Prev", kv);
        }
    }

    fn range(&mut self, response: &pb::RangeResponse) {
        self.header(&response.header);
        for kv in &response.kvs {
            self.key_value("", kv);
        }
        self.line("More", response.more);
        self.line("Count", response.count);
    }

    fn delete(&mut self, response: &pb::DeleteRangeResponse) {
        self.header(&response.header);
        self.line("Deleted", response.deleted);
        for kv in &response.prev_kvs {
            self.key_value("Prev", kv);
        }
    }

    fn txn(&mut self, response: &pb::TxnResponse) {
        use pb::response_op::Response;
        self.header(&response.header);
        self.line("Succeeded", response.succeeded);
        for operation in &response.responses {
            match &operation.response {
                Some(Response::ResponseRange(response)) => self.range(response),
                Some(Response::ResponsePut(response)) => self.put(response),
                Some(Response::ResponseDeleteRange(response)) => self.delete(response),
                // Nobody can write a nested transaction here, so that nobody gets its answer.
                Some(Response::ResponseTxn(_)) | None => self.line("Unknown", "\"\""),
            }
        }
    }

    fn watch(&mut self, response: &pb::WatchResponse) {
        self.header(&response.header);
        for event in &response.events {
            self.line("Type", event.r#type().as_str_name());
            if let Some(kv) = &event.prev_kv {
                self.key_value("Prev", kv);
            }
            self.key_value("", event.kv.as_ref().unwrap_or(&KeyValue::default()));
        }
    }

    fn lease(&mut self, header: &Option<pb::ResponseHeader>, id: i64, ttl: i64) {
        self.header(header);
        self.lease_id("ID", id);
        self.line("TTL", ttl);
    }

    fn members(&mut self, response: &pb::MemberListResponse) {
        self.header(&response.header);
        for member in &response.members {
            self.id("ID", member.id);
            self.line("Name", quote(member.name.as_bytes()));
            for url in &member.peer_urls {
                self.line("PeerURL", quote(url.as_bytes()));
            }
            for url in &member.client_urls {
                self.line("ClientURL", quote(url.as_bytes()));
            }
            self.line("IsLearner", member.is_learner);
            self.text.push('\n');
        }
    }

    fn health(&mut self, health: &Health) {
        self.line("Endpoint", quote(health.endpoint.as_bytes()));
        self.line("Health", health.error.is_empty());
        self.line("Took", &health.took);
        self.line("Error", &health.error);
        self.text.push('\n');
    }

    fn status(&mut self, status: &Status) {
        let response = &status.response;
        let downgrade = response.downgrade_info.clone().unwrap_or_default();
        self.header(&response.header);
        self.line("Version", quote(response.version.as_bytes()));
        self.line("StorageVersion", quote(response.storage_version.as_bytes()));
        self.line("DBSize", response.db_size);
        self.line("DBSizeInUse", response.db_size_in_use);
        self.line("DBSizeQuota", response.db_size_quota);
        self.line("Leader", response.leader);
        self.line("IsLearner", response.is_learner);
        self.line("RaftIndex", response.raft_index);
        self.line("RaftTerm", response.raft_term);
        self.line("RaftAppliedIndex", response.raft_applied_index);
        self.line("Errors", format!("[{}]", response.errors.join(" ")));
        self.line("Endpoint", quote(status.endpoint.as_bytes()));
        self.line(
            "DowngradeTargetVersion",
            quote(downgrade.target_version.as_bytes()),
        );
        self.line("DowngradeEnabled", downgrade.enabled);
        self.text.push('\n');
    }

    fn role(&mut self, response: &pb::AuthRoleGetResponse) {
        self.header(&response.header);
        for permission in &response.perm {
            // etcdctl has two spaces here.
            self.line(
                "PermType",
                format!(" {}", permission.perm_type().as_str_name()),
            );
            self.line("Key", quote(&permission.key));
            self.line("RangeEnd", quote(&permission.range_end));
        }
    }

    fn hash_kv(&mut self, hash: &HashKv) {
        self.header(&hash.response.header);
        self.line("Endpoint", quote(hash.endpoint.as_bytes()));
        self.line("Hash", hash.response.hash);
        self.line("HashRevision", hash.response.hash_revision);
        self.text.push('\n');
    }
}
