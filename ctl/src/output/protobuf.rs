//! The response messages' own bytes, without a newline.

use prost::Message;
use quorate_proto::etcdserverpb as pb;

use super::{Answer, MemberChange};
use crate::failure::{Exit, Failure};

pub(super) fn render(answer: &Answer<'_>) -> Result<Vec<u8>, Failure> {
    // etcdctl holds most lease answers as Go types around a header, so that the header is all that it can marshal.
    let header = |header: &Option<pb::ResponseHeader>| {
        header
            .as_ref()
            .map(Message::encode_to_vec)
            .unwrap_or_default()
    };
    Ok(match answer {
        Answer::Put(response) => response.encode_to_vec(),
        Answer::Range(response) => response.encode_to_vec(),
        Answer::Delete(response) => response.encode_to_vec(),
        Answer::Txn(response) => response.encode_to_vec(),
        Answer::Watch(response) => pb::WatchResponse {
            watch_id: 0,
            cancel_reason: String::new(),
            fragment: false,
            ..(*response).clone()
        }
        .encode_to_vec(),
        Answer::Grant(response) => header(&response.header),
        Answer::Revoke(..) => {
            let message = "marshal unsupported for type *clientv3.LeaseRevokeResponse";
            return Err(Failure::new(Exit::Feature, message));
        }
        Answer::KeepAlive(response) => header(&response.header),
        Answer::TimeToLive(response, _) => header(&response.header),
        Answer::Leases(response) => header(&response.header),
        Answer::Members(response) => response.encode_to_vec(),
        Answer::Health(_) | Answer::Status(_) | Answer::HashKv(_) => {
            return Err(super::unsupported("protobuf"));
        }
        Answer::Alarms(response) => response.encode_to_vec(),
        Answer::AuthStatus(response) => response.encode_to_vec(),
        Answer::User(_, response) => response.encode_to_vec(),
        Answer::Users(response) => response.encode_to_vec(),
        Answer::Role(_, response) => response.encode_to_vec(),
        Answer::Roles(response) => response.encode_to_vec(),
        // Any message that holds a header and nothing else has these bytes.
        Answer::Done { header, .. } => pb::AuthEnableResponse { header: **header }.encode_to_vec(),
        Answer::Downgrade { response, .. } => response.encode_to_vec(),
        Answer::MoveLeader { response, .. } => response.encode_to_vec(),
        Answer::MemberChange(change) => match change {
            MemberChange::Added { response, .. } => response.encode_to_vec(),
            MemberChange::Removed { response, .. } => response.encode_to_vec(),
            MemberChange::Updated { response, .. } => response.encode_to_vec(),
            MemberChange::Promoted { response, .. } => response.encode_to_vec(),
        },
    })
}
