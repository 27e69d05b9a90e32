//! The translation against what real etcd 3.7.1 took and gave.

use std::collections::BTreeSet;

use prost_reflect::DynamicMessage;
use quorate_proto::etcdserverpb as pb;
use tokio_stream::StreamExt as _;

use super::requests::{next_request, read_all};
use super::responses::write_json;
use super::*;

fn transcoder(path: &str) -> Transcoder {
    let gateway = Gateway::new();
    gateway.find(path).expect("a known path").clone()
}

/// The message that the services read.
fn request<M: prost::Message + Default>(path: &str, json: &str) -> M {
    let (frame, used) = next_request(&transcoder(path).request, json.as_bytes())
        .expect("it can be read")
        .expect("it is whole");
    assert_eq!(used, json.len());
    let length = u32::from_be_bytes(frame[1..5].try_into().expect("four bytes"));
    assert_eq!(length as usize, frame.len() - FRAME_HEADER_BYTES);
    M::decode(&frame[FRAME_HEADER_BYTES..]).expect("the services can read it")
}

fn refusal(path: &str, json: &str) -> Status {
    next_request(&transcoder(path).request, json.as_bytes()).expect_err("it cannot be read")
}

fn response(path: &str, message: &impl prost::Message) -> String {
    let bytes = message.encode_to_vec();
    let message = DynamicMessage::decode(transcoder(path).response, bytes.as_slice())
        .expect("the descriptors know it");
    let mut text = Vec::new();
    write_json(&message, &mut text).expect("it can be written");
    String::from_utf8(text).expect("JSON is UTF-8")
}

#[test]
fn every_path_leads_to_a_method() {
    assert_eq!(Gateway::new().calls.len(), ROUTES.len());
    assert!(Gateway::new().find("/v3beta/kv/put").is_some());
    assert!(Gateway::new().find("/v3/kv/rangestream").is_none());
    let (requests, responses) = (
        |path| transcoder(path).streams_requests,
        |path| transcoder(path).streams_responses,
    );
    assert!(requests("/v3/watch") && responses("/v3/watch"));
    assert!(!requests("/v3/maintenance/snapshot") && responses("/v3/maintenance/snapshot"));
}

#[test]
fn numbers_bytes_and_enums_are_read_as_etcd_reads_them() {
    let range: pb::RangeRequest = request(
        "/v3/kv/range",
        r#"{"nokey":1,"key":"Zm9v","rangeEnd":"Zm9-","limit":"7","revision":3,"sort_order":"DESCEND","sort_target":1}"#,
    );
    let expected = pb::RangeRequest {
        key: "foo".into(),
        range_end: Bytes::from_static(b"fo~"),
        limit: 7,
        revision: 3,
        sort_order: pb::range_request::SortOrder::Descend.into(),
        sort_target: pb::range_request::SortTarget::Version.into(),
        ..pb::RangeRequest::default()
    };
    assert_eq!(range, expected);
    let unknown: pb::RangeRequest = request("/v3/kv/range", r#"{"sort_order":"NOPE"}"#);
    assert_eq!(unknown, pb::RangeRequest::default());
}

#[test]
fn members_of_a_oneof_are_named() {
    let txn: pb::TxnRequest = request(
        "/v3/kv/txn",
        r#"{"compare":[{"key":"Zm9v","result":"EQUAL","target":"VERSION","version":"1"}],"success":[{"request_put":{"key":"YQ==","lease":"5"}}]}"#,
    );
    let compare = &txn.compare[0];
    assert_eq!(
        compare.target_union,
        Some(pb::compare::TargetUnion::Version(1))
    );
    let put = pb::PutRequest {
        key: "a".into(),
        lease: 5,
        ..pb::PutRequest::default()
    };
    assert_eq!(
        txn.success[0].request,
        Some(pb::request_op::Request::RequestPut(put))
    );
    let watch: pb::WatchRequest = request("/v3/watch", r#"{"create_request":{"key":"YQ=="}}"#);
    assert!(matches!(
        watch.request_union,
        Some(pb::watch_request::RequestUnion::CreateRequest(_))
    ));
}

#[test]
fn what_is_not_the_message_is_an_invalid_argument() {
    for json in [
        r#"{"key":"@@@"}"#,
        r#"{"limit":"x"}"#,
        r#"{"key":["a"]}"#,
        "[]",
        "7",
        "}",
    ] {
        assert_eq!(
            refusal("/v3/kv/range", json).code(),
            Code::InvalidArgument,
            "{json}"
        );
    }
}

#[test]
fn a_request_that_has_not_come_whole_is_waited_for() {
    let descriptor = transcoder("/v3/lease/keepalive").request;
    let json = br#"{"ID":77} {"ID":"78"}"#;
    for end in 1..9 {
        assert!(
            next_request(&descriptor, &json[..end])
                .expect("no error")
                .is_none()
        );
    }
    let (_, used) = next_request(&descriptor, json)
        .expect("no error")
        .expect("whole");
    assert_eq!(used, 9);
}

#[test]
fn responses_leave_zeros_out_and_write_large_numbers_as_text() {
    let range = pb::RangeResponse {
        header: Some(pb::ResponseHeader {
            cluster_id: 16_128_400_632_968_936_350,
            revision: 2,
            ..pb::ResponseHeader::default()
        }),
        kvs: vec![quorate_proto::mvccpb::KeyValue {
            key: "foo".into(),
            create_revision: 2,
            value: Bytes::from_static(&[0xff, 0xfe]),
            ..quorate_proto::mvccpb::KeyValue::default()
        }],
        count: 1,
        more: false,
    };
    assert_eq!(
        response("/v3/kv/range", &range),
        r#"{"header":{"cluster_id":"16128400632968936350","revision":"2"},"kvs":[{"key":"Zm9v","create_revision":"2","value":"//4="}],"count":"1"}"#
    );
    let hash = pb::HashKvResponse {
        hash: 7,
        ..pb::HashKvResponse::default()
    };
    assert_eq!(response("/v3/maintenance/hashkv", &hash), r#"{"hash":7}"#);
    let members = pb::MemberListResponse {
        header: None,
        members: vec![pb::Member {
            id: 1,
            peer_urls: vec!["http://a:1".to_owned()],
            ..pb::Member::default()
        }],
    };
    assert_eq!(
        response("/v3/cluster/member/list", &members),
        r#"{"members":[{"ID":"1","peerURLs":["http://a:1"]}]}"#
    );
}

#[test]
fn errors_have_a_code_and_a_message() {
    let refused = Status::not_found("Not Found");
    assert_eq!(
        error_object(&refused).to_string(),
        r#"{"code":5,"message":"Not Found"}"#
    );
    assert_eq!(
        error_line(&refused),
        "{\"error\":{\"code\":5,\"message\":\"Not Found\"}}\n"
    );
    assert_eq!(http_code(refused.code()), StatusCode::NOT_FOUND);
}

#[test]
fn metadata_is_what_the_caller_named_so() {
    let mut asked = HeaderMap::new();
    asked.insert("grpc-metadata-hasleader", HeaderValue::from_static("true"));
    asked.insert("authorization", HeaderValue::from_static("token"));
    asked.insert("cookie", HeaderValue::from_static("no"));
    let metadata = metadata(&asked);
    assert_eq!(metadata["hasleader"], "true");
    assert_eq!(metadata["authorization"], "token");
    assert!(metadata.contains_key(ACCEPT));
    assert!(!metadata.contains_key("cookie"));
}

/// A piece of a body that tells how many like it are held.
struct Piece {
    _held: Arc<()>,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        b" "
    }
}

#[tokio::test]
async fn the_pieces_of_a_body_are_not_kept() {
    let held = Arc::new(());
    let pieces = tokio_stream::iter(0..1_000).map({
        let held = Arc::clone(&held);
        move |number| {
            assert!(
                Arc::strong_count(&held) <= 3,
                "pieces are held when piece {number} is asked for"
            );
            let piece = Bytes::from_owner(Piece {
                _held: Arc::clone(&held),
            });
            Ok::<_, std::convert::Infallible>(http_body::Frame::data(piece))
        }
    });
    let body = http_body_util::StreamBody::new(pieces);
    let read = read_all(body, 1_000).await.expect("it is small enough");
    assert_eq!(read.len(), 1_000);
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_its_end() {
    let endless = tokio_stream::iter(std::iter::repeat(Bytes::from_static(b"12345678")));
    let body = http_body_util::StreamBody::new(
        endless.map(|piece| Ok::<_, std::convert::Infallible>(http_body::Frame::data(piece))),
    );
    let refusal = read_all(body, 1_000).await.expect_err("it has no end");
    assert_eq!(
        refusal.message(),
        "quorate: the request has more than 1000 bytes of JSON"
    );
}

#[test]
fn the_paths_are_those_of_etcd() {
    let theirs: BTreeSet<_> = include_str!("etcd-3.7.1.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let ours: BTreeSet<_> = ROUTES
        .iter()
        .map(|(path, ..)| format!("/v3/{path}"))
        .collect();
    assert_eq!(ours, theirs);
    assert!(theirs.iter().all(|path| Gateway::owns(path)));
}
