//! A cluster of one, through its gRPC API and its signals.

use bytes::Bytes;
use quorate_net::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request as Operation;
use quorate_proto::etcdserverpb::response_op::Response as Outcome;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;

use crate::support::Member;

fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
        ..Default::default()
    }
}

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::from_static(key.as_bytes()),
        ..Default::default()
    }
}

async fn value(member: &Member, key: &'static str) -> Option<Bytes> {
    let range = member
        .kv()
        .await
        .range(get(key))
        .await
        .expect("it can be read")
        .into_inner();
    range.kvs.into_iter().next().map(|kv| kv.value)
}

#[tokio::test]
async fn a_put_is_read_back_with_etcds_revisions_and_header() {
    let member = Member::alone();
    let mut kv = member.kv().await;
    let first = kv
        .put(put("a", "1"))
        .await
        .expect("it is legal")
        .into_inner();
    let header = first.header.expect("every answer has one");
    assert_eq!(header.revision, 2);
    assert_ne!(header.cluster_id, 0);
    assert_ne!(header.member_id, 0);
    assert!(header.raft_term >= 1);

    kv.put(put("a", "2")).await.expect("it is legal");
    for serializable in [false, true] {
        let range = kv
            .range(pb::RangeRequest {
                serializable,
                ..get("a")
            })
            .await
            .expect("it is legal")
            .into_inner();
        assert_eq!(range.header.expect("every answer has one").revision, 3);
        assert_eq!(range.count, 1);
        let found = &range.kvs[0];
        assert_eq!((found.value.as_ref(), found.version), (b"2".as_ref(), 2));
        assert_eq!((found.create_revision, found.mod_revision), (2, 3));
    }

    let delete = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"a"),
        prev_kv: true,
        ..Default::default()
    };
    let deleted = kv
        .delete_range(delete)
        .await
        .expect("it is legal")
        .into_inner();
    assert_eq!(
        (deleted.deleted, deleted.prev_kvs[0].value.as_ref()),
        (1, b"2".as_ref())
    );
    assert_eq!(value(&member, "a").await, None);
}

#[tokio::test]
async fn a_transaction_takes_the_branch_of_its_compares() {
    let member = Member::alone();
    let mut kv = member.kv().await;
    let version_is = |version| pb::Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: Bytes::from_static(b"k"),
        target_union: Some(TargetUnion::Version(version)),
        ..Default::default()
    };
    let txn = |version| pb::TxnRequest {
        compare: vec![version_is(version)],
        success: vec![pb::RequestOp {
            request: Some(Operation::RequestPut(put("k", "v"))),
        }],
        failure: vec![pb::RequestOp {
            request: Some(Operation::RequestRange(get("k"))),
        }],
    };
    let created = kv.txn(txn(0)).await.expect("it is legal").into_inner();
    assert!(created.succeeded);
    assert_eq!(created.header.expect("every answer has one").revision, 2);

    let refused = kv.txn(txn(0)).await.expect("it is legal").into_inner();
    assert!(!refused.succeeded);
    let Some(Outcome::ResponseRange(range)) = &refused.responses[0].response else {
        panic!("a range answers a range: {refused:?}");
    };
    assert_eq!(range.kvs[0].value.as_ref(), b"v");

    let read_only = pb::TxnRequest {
        success: vec![pb::RequestOp {
            request: Some(Operation::RequestRange(get("k"))),
        }],
        ..Default::default()
    };
    let read = kv.txn(read_only).await.expect("it is legal").into_inner();
    assert!(read.succeeded);
    assert_eq!(read.header.expect("every answer has one").revision, 2);
}

#[tokio::test]
async fn bad_requests_get_etcds_words() {
    let member = Member::alone();
    let mut kv = member.kv().await;
    let refusals = [
        (
            kv.put(put("", "x")).await.expect_err("no key"),
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        ),
        (
            kv.put(pb::PutRequest {
                lease: 77,
                ..put("a", "")
            })
            .await
            .expect_err("no such lease"),
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
        (
            kv.put(pb::PutRequest {
                value: Bytes::from(vec![0; 1_572_864]),
                ..put("a", "")
            })
            .await
            .expect_err("too large for the log"),
            Code::InvalidArgument,
            "etcdserver: request is too large",
        ),
    ];
    for (refusal, code, message) in refusals {
        assert_eq!((refusal.code(), refusal.message()), (code, message));
    }

    let future = kv
        .range(pb::RangeRequest {
            revision: 99,
            ..get("a")
        })
        .await;
    assert_eq!(
        future.expect_err("not there yet").message(),
        "etcdserver: mvcc: required revision is a future revision"
    );
    let huge = kv
        .put(pb::PutRequest {
            value: Bytes::from(vec![0; 3 << 20]),
            ..put("a", "")
        })
        .await;
    let huge = huge.expect_err("too large to receive");
    assert_eq!(huge.code(), Code::ResourceExhausted);
    assert!(
        huge.message()
            .starts_with("grpc: received message larger than max ("),
        "{}",
        huge.message()
    );
    assert_eq!(value(&member, "a").await, None);
}

#[tokio::test]
async fn a_watch_sees_history_and_then_what_happens() {
    let member = Member::alone();
    let mut kv = member.kv().await;
    kv.put(put("w/1", "old")).await.expect("it is legal");

    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(b"w/"),
        range_end: Bytes::from_static(b"w0"),
        start_revision: 2,
        prev_kv: true,
        ..Default::default()
    };
    let (requests, outgoing) = tokio::sync::mpsc::channel(4);
    let ask = |union| pb::WatchRequest {
        request_union: Some(union),
    };
    requests
        .send(ask(RequestUnion::CreateRequest(create)))
        .await
        .expect("the stream is open");
    let stream = tokio_stream::wrappers::ReceiverStream::new(outgoing);
    let mut responses = member
        .watch()
        .await
        .watch(stream)
        .await
        .expect("it is legal")
        .into_inner();

    let created = responses
        .next()
        .await
        .expect("an answer")
        .expect("no error");
    assert!(created.created);
    assert_eq!(created.watch_id, 0);

    let old = responses
        .next()
        .await
        .expect("the history")
        .expect("no error");
    assert_eq!(old.events.len(), 1);
    assert_eq!(
        old.events[0]
            .kv
            .as_ref()
            .expect("an event has its key")
            .value
            .as_ref(),
        b"old"
    );

    kv.put(put("w/1", "new")).await.expect("it is legal");
    kv.put(put("other", "x")).await.expect("it is legal");
    let delete = pb::DeleteRangeRequest {
        key: Bytes::from_static(b"w/1"),
        ..Default::default()
    };
    kv.delete_range(delete).await.expect("it is legal");
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(
            responses
                .next()
                .await
                .expect("an event")
                .expect("no error")
                .events,
        );
    }
    assert_eq!(
        events[0]
            .kv
            .as_ref()
            .expect("an event has its key")
            .mod_revision,
        3
    );
    assert_eq!(
        events[0]
            .prev_kv
            .as_ref()
            .expect("it was asked for")
            .value
            .as_ref(),
        b"old"
    );
    assert_eq!(
        (
            events[1].r#type,
            events[1]
                .kv
                .as_ref()
                .expect("a tombstone has its key")
                .mod_revision
        ),
        (1, 5)
    );

    let cancel = pb::WatchCancelRequest { watch_id: 0 };
    requests
        .send(ask(RequestUnion::CancelRequest(cancel)))
        .await
        .expect("the stream is open");
    let canceled = responses
        .next()
        .await
        .expect("an answer")
        .expect("no error");
    assert!(canceled.canceled);
}

#[tokio::test]
async fn a_lease_is_kept_alive_and_its_keys_go_with_it() {
    let member = Member::alone();
    let mut lease = member.lease().await;
    let granted = lease
        .lease_grant(pb::LeaseGrantRequest { ttl: 60, id: 0 })
        .await
        .expect("it is legal")
        .into_inner();
    assert!(granted.id > 0);
    assert_eq!(granted.ttl, 60);
    let mut kv = member.kv().await;
    kv.put(pb::PutRequest {
        lease: granted.id,
        ..put("leased", "x")
    })
    .await
    .expect("the lease exists");

    let keep_alive =
        tokio_stream::iter([granted.id, 4711].map(|id| pb::LeaseKeepAliveRequest { id }));
    let mut renewed = lease
        .lease_keep_alive(keep_alive)
        .await
        .expect("it is legal")
        .into_inner();
    let first = renewed.next().await.expect("an answer").expect("no error");
    assert_eq!((first.id, first.ttl), (granted.id, 60));
    let unknown = renewed.next().await.expect("an answer").expect("no error");
    assert_eq!((unknown.id, unknown.ttl), (4711, 0));

    let left = lease
        .lease_time_to_live(pb::LeaseTimeToLiveRequest {
            id: granted.id,
            keys: true,
        })
        .await;
    let left = left.expect("it is legal").into_inner();
    assert_eq!(
        (left.granted_ttl, left.keys),
        (60, vec![Bytes::from_static(b"leased")])
    );
    let all = lease
        .lease_leases(pb::LeaseLeasesRequest {})
        .await
        .expect("it is legal")
        .into_inner();
    assert_eq!(all.leases, [pb::LeaseStatus { id: granted.id }]);

    lease
        .lease_revoke(pb::LeaseRevokeRequest { id: granted.id })
        .await
        .expect("it exists");
    assert_eq!(value(&member, "leased").await, None);
    let again = lease
        .lease_revoke(pb::LeaseRevokeRequest { id: granted.id })
        .await
        .expect_err("it is gone");
    assert_eq!(
        (again.code(), again.message()),
        (Code::NotFound, "etcdserver: requested lease not found")
    );
}

#[tokio::test]
async fn an_acked_put_survives_sigterm_and_kill() {
    let mut member = Member::alone();
    member
        .kv()
        .await
        .put(put("first", "1"))
        .await
        .expect("it is legal");
    assert!(member.terminate().success());
    member.start();
    assert_eq!(
        value(&member, "first").await.as_deref(),
        Some(b"1".as_ref())
    );

    member
        .kv()
        .await
        .put(put("second", "2"))
        .await
        .expect("it is legal");
    member.kill();
    member.start();
    assert_eq!(
        value(&member, "first").await.as_deref(),
        Some(b"1".as_ref())
    );
    assert_eq!(
        value(&member, "second").await.as_deref(),
        Some(b"2".as_ref())
    );
    let third = member
        .kv()
        .await
        .put(put("third", "3"))
        .await
        .expect("it is legal")
        .into_inner();
    assert_eq!(third.header.expect("every answer has one").revision, 4);
}

#[tokio::test]
async fn the_member_lists_itself_and_its_status() {
    let member = Member::alone();
    let members = member
        .membership()
        .await
        .member_list(pb::MemberListRequest { linearizable: true })
        .await;
    let members = members.expect("it is legal").into_inner().members;
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].name, "m0");
    assert_eq!(
        members[0].client_urls,
        [format!("http://{}", member.client_address())]
    );

    let status = member
        .maintenance()
        .await
        .status(pb::StatusRequest {})
        .await
        .expect("it is legal")
        .into_inner();
    assert_eq!(status.version, "3.7.1");
    assert_eq!(status.leader, members[0].id);
    assert!(status.errors.is_empty(), "{:?}", status.errors);
}

#[tokio::test]
async fn a_snapshot_is_the_image_and_its_digest() {
    let member = Member::alone();
    member
        .kv()
        .await
        .put(put("k", "v"))
        .await
        .expect("it is legal");
    let mut maintenance = member.maintenance().await;
    let stream = maintenance
        .snapshot(pb::SnapshotRequest {})
        .await
        .expect("it is legal");
    let blobs: Vec<_> = stream.into_inner().collect().await;
    let blobs: Vec<_> = blobs
        .into_iter()
        .map(|blob| blob.expect("no error"))
        .collect();
    let (last, image) = blobs.split_last().expect("there is a digest at least");
    let bytes: Vec<u8> = image
        .iter()
        .flat_map(|blob| blob.blob.iter().copied())
        .collect();
    maintenance
        .defragment(pb::DefragmentRequest {})
        .await
        .expect("it is legal");
    let on_disk = std::fs::read(member.data_dir().join("member/snap/db")).expect("it was written");
    assert!(
        bytes == on_disk,
        "{} bytes sent, {} on the disk",
        bytes.len(),
        on_disk.len()
    );
    assert_eq!((last.remaining_bytes, last.blob.len()), (0, 32));
    assert_eq!(
        image[0].remaining_bytes as usize,
        bytes.len() - image[0].blob.len()
    );

    let hash = async |mut client: MaintenanceClient<Channel>| {
        client
            .hash(pb::HashRequest {})
            .await
            .expect("it is legal")
            .into_inner()
            .hash
    };
    let before = hash(maintenance.clone()).await;
    assert_eq!(hash(maintenance.clone()).await, before);
    member
        .kv()
        .await
        .put(put("k", "w"))
        .await
        .expect("it is legal");
    assert_ne!(hash(maintenance.clone()).await, before);
    maintenance
        .defragment(pb::DefragmentRequest {})
        .await
        .expect("it is legal");
}

#[tokio::test]
async fn range_chunks_merge_into_the_range() {
    let member = Member::alone();
    let mut kv = member.kv().await;
    for number in 0..57 {
        let put = pb::PutRequest {
            key: format!("k{number:02}").into(),
            ..Default::default()
        };
        kv.put(put).await.expect("it is legal");
    }
    let all = pb::RangeRequest {
        range_end: Bytes::from_static(b"l"),
        ..get("k")
    };
    for limit in [0, 1, 10, 33, 57, 99] {
        let range = pb::RangeRequest {
            limit,
            ..all.clone()
        };
        let whole = kv
            .range(range.clone())
            .await
            .expect("it is legal")
            .into_inner();
        let stream = kv
            .range_stream(range)
            .await
            .expect("it is legal")
            .into_inner();
        let chunks: Vec<_> = stream.collect().await;
        let mut merged = pb::RangeResponse::default();
        for chunk in chunks {
            let chunk = chunk
                .expect("no error")
                .range_response
                .expect("a chunk holds a range");
            assert!(merged.header.is_none(), "the header is in the last chunk");
            merged.kvs.extend(chunk.kvs);
            (merged.header, merged.more, merged.count) = (chunk.header, chunk.more, chunk.count);
        }
        assert_eq!(merged, whole, "limit {limit}");
    }
}

#[tokio::test]
async fn a_second_process_cannot_have_the_data_or_the_port() {
    let member = Member::alone();
    let mut rival = Member::cluster(1).remove(0);
    let address = format!("http://{}", member.client_address());
    rival = rival.with(&["--listen-client-urls", &address]);
    rival.launch();
    let (status, log) = rival.wait_exit();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("in use"), "{log}");
}

#[tokio::test]
async fn old_revisions_are_compacted_by_time() {
    let mut members = Member::cluster(1);
    let flags = ["--auto-compaction-retention", "200ms"];
    let mut member = members.remove(0).with(&flags);
    member.start();
    let mut kv = member.kv().await;
    loop {
        let put = pb::PutRequest {
            key: Bytes::from_static(b"key"),
            ..Default::default()
        };
        kv.put(put).await.expect("it serves");
        let range = pb::RangeRequest {
            key: Bytes::from_static(b"key"),
            revision: 2,
            ..Default::default()
        };
        if let Err(error) = kv.range(range).await {
            let words = "etcdserver: mvcc: required revision has been compacted";
            assert_eq!(error.message(), words);
            return;
        }
    }
}
