//! Members whose data differ: the alarm for the one that is wrong, and the member that refuses to start.

use bytes::Bytes;
use prost::Message as _;
use quorate_core::checkpoint::{self, DATABASE, Job};
use quorate_core::disk::{Disk as _, DiskFile as _};
use quorate_core::mvcc::{Row, Store};
use quorate_proto::etcdserverpb as pb;
use quorate_proto::mvccpb::KeyValue;
use quorate_server::disk::MmapDisk;
use tonic::Code;

use crate::support::Member;
use crate::three_members::{leader, start};

const CORRUPT: &str = "etcdserver: corrupt cluster";

async fn put(member: &Member, key: &str) -> Result<(), tonic::Status> {
    let put = pb::PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::from_static(b"value"),
        ..Default::default()
    };
    member.kv().await.put(put).await.map(|_| ())
}

/// Gives the newest key of a stopped member another value, in an image that is sound in itself.
fn alter(member: &Member) {
    let mut disk = MmapDisk::open(member.data_dir()).expect("nobody uses it");
    let image = disk.open(DATABASE).expect("it ended with a checkpoint");
    let image = image.read().expect("readable");
    let loaded = checkpoint::load(Bytes::copy_from_slice(&image)).expect("sound");
    let mut rows: Vec<Row> = loaded.rows.map(|row| row.expect("sound")).collect();
    let newest = rows.last_mut().expect("there are keys");
    let mut record = KeyValue::decode(newest.key_value.clone()).expect("sound");
    record.value = Bytes::from_static(b"other");
    newest.key_value = Bytes::from(record.encode_to_vec());
    let contents = loaded.contents;
    let rows = rows.into_iter().map(Ok::<_, ()>);
    let (store, _) = Store::restore(rows, contents.scheduled_compact, contents.finished_compact)
        .expect("its rows were a store");
    Job::new(contents, &store.view())
        .write(&mut disk)
        .expect("there is room");
}

async fn corrupt_alarms(member: &Member) -> Vec<u64> {
    let mut maintenance = member.maintenance().await;
    let answer = maintenance.alarm(pb::AlarmRequest::default()).await;
    let alarms = answer.expect("alarms are listed").into_inner().alarms;
    let corrupt = alarms
        .iter()
        .filter(|it| it.alarm() == pb::AlarmType::Corrupt);
    corrupt.map(|it| it.member_id).collect()
}

async fn id_of(member: &Member) -> u64 {
    let mut maintenance = member.maintenance().await;
    let status = maintenance.status(pb::StatusRequest {}).await;
    let header = status.expect("it serves").into_inner().header;
    header.expect("there is one").member_id
}

#[tokio::test]
async fn the_member_with_another_value_is_alarmed_and_writes_are_refused() {
    let members = Member::cluster(3).into_iter();
    let compared = |member: Member| member.with(&["--corrupt-check-time", "500ms"]);
    let mut members: Vec<_> = members.map(compared).collect();
    start(&mut members);
    put(&members[0], "key").await.expect("three members");
    let leading = leader(&members).await;
    let damaged = (leading + 1) % 3;
    let id = id_of(&members[damaged]).await;
    assert!(members[damaged].terminate().success());
    alter(&members[damaged]);
    members[damaged].start();
    members[leading].wait_for_log("same compact revision then hashes must match");
    // The alarm is proposed before the line is written, so it is in the log before whatever is asked now.
    let alarms = corrupt_alarms(&members[leading]).await;
    assert_eq!(alarms, [id]);
    let refused = put(&members[leading], "key").await.expect_err("an alarm");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::DataLoss, CORRUPT)
    );
    let range = pb::RangeRequest {
        key: Bytes::from_static(b"key"),
        ..Default::default()
    };
    let read = members[leading].kv().await.range(range).await;
    let read = read
        .expect("reads pass the alarm by, as in etcd")
        .into_inner();
    assert_eq!(read.kvs[0].value, "value");
}

#[tokio::test]
async fn a_member_that_finds_itself_different_at_its_start_does_not_start() {
    let members = Member::cluster(3).into_iter();
    let gate = ["--feature-gates", "InitialCorruptCheck=true"];
    let mut members: Vec<_> = members.map(|member| member.with(&gate)).collect();
    start(&mut members);
    put(&members[0], "key").await.expect("three members");
    let id = id_of(&members[2]).await;
    assert!(members[2].terminate().success());
    members[2].start();
    members[2].wait_for_log("initial corruption checking passed; no corruption");
    assert!(members[2].terminate().success());
    alter(&members[2]);
    members[2].launch();
    let (status, log) = members[2].wait_exit();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("checkInitialHashKV failed"), "{log}");
    let reason = format!("{id:x} found data inconsistency with peers");
    assert!(log.contains(&reason), "{log}");
    assert!(corrupt_alarms(&members[0]).await.is_empty());
    put(&members[0], "key").await.expect("two of three go on");
}
