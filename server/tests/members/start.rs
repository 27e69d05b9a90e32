//! What a member refuses to start from, and that it always ends.

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;

use crate::support::{Member, free_port};

/// The log of a start that must fail.
fn refused(member: &mut Member) -> String {
    member.launch();
    let (status, log) = member.wait_exit();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

#[test]
fn the_data_directory_of_a_running_member_is_in_use() {
    let member = Member::alone();
    let directory = member.data_dir();
    let directory = directory.to_str().expect("the system's names are UTF-8");
    let mut rival = Member::cluster(1)
        .remove(0)
        .with(&["--data-dir", directory]);
    let log = refused(&mut rival);
    assert!(
        log.contains(directory) && log.contains("in use by another process"),
        "{log}"
    );
}

#[test]
fn an_image_without_a_log_is_not_taken_for_an_empty_directory() {
    let mut member = Member::alone();
    assert!(member.terminate().success());
    std::fs::remove_dir_all(member.data_dir().join("member/wal")).expect("the log is there");
    let log = refused(&mut member);
    assert!(
        log.contains("member/snap/db is there, but member/wal holds no log"),
        "{log}"
    );
}

#[test]
fn a_damaged_log_is_refused_by_name_and_left_alone() {
    let mut member = Member::alone();
    assert!(member.terminate().success());
    let name = "member/wal/0000000000000000-0000000000000000.wal";
    let path = member.data_dir().join(name);
    let mut bytes = std::fs::read(&path).expect("the log is there");
    // Inside of the first records, which a whole member was started from.
    bytes[70] ^= 0xff;
    std::fs::write(&path, &bytes).expect("the log can be written");
    let log = refused(&mut member);
    assert!(log.contains(name) && log.contains("damaged"), "{log}");
    assert!(
        std::fs::read(&path).expect("the log is there") == bytes,
        "the log was changed"
    );
}

#[test]
fn a_damaged_image_is_refused_by_name() {
    let mut member = Member::alone();
    assert!(member.terminate().success());
    let path = member.data_dir().join("member/snap/db");
    let length = std::fs::metadata(&path).expect("the image is there").len();
    std::fs::write(
        &path,
        vec![0x5a; usize::try_from(length).expect("it is small")],
    )
    .expect("the image can be written");
    assert!(refused(&mut member).contains("snap/db"));
}

#[test]
fn a_name_that_the_cluster_does_not_list_is_refused() {
    let mut member = Member::cluster(1).remove(0).with(&["--name", "stranger"]);
    let log = refused(&mut member);
    assert!(
        log.contains("couldn't find local name") && log.contains("stranger"),
        "{log}"
    );
}

#[test]
fn a_member_without_a_quorum_still_ends_on_a_signal() {
    let mut member = Member::cluster(3).remove(0);
    member.launch();
    member.wait_for_log("serving peer traffic");
    assert!(member.terminate().success());
}

#[tokio::test]
async fn open_watches_do_not_hold_up_the_end() {
    let mut member = Member::alone();
    let create = pb::WatchCreateRequest {
        key: Bytes::from_static(b"k"),
        ..Default::default()
    };
    let create = pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let requests =
        tokio_stream::StreamExt::chain(tokio_stream::iter([create]), tokio_stream::pending());
    let mut responses = member
        .watch()
        .await
        .watch(requests)
        .await
        .expect("it is legal")
        .into_inner();
    assert!(
        responses
            .message()
            .await
            .expect("no error")
            .expect("an answer")
            .created
    );
    assert!(member.terminate().success());
    assert!(
        !matches!(responses.message().await, Ok(Some(_))),
        "the stream ends with the member"
    );
}

#[test]
fn a_log_directory_of_its_own_is_used() {
    let logs = tempfile::tempdir().expect("the system has a temporary directory");
    let directory = logs.path().join("wal");
    let directory = directory.to_str().expect("the system's names are UTF-8");
    let mut member = Member::cluster(1).remove(0).with(&["--wal-dir", directory]);
    member.start();
    assert!(member.terminate().success());
    assert!(!member.data_dir().join("member/wal").exists());
    member.start();
    assert!(
        std::fs::read_dir(directory)
            .expect("the log is there")
            .count()
            > 0
    );
}

#[test]
fn two_listeners_cannot_have_one_address() {
    let url = format!("http://127.0.0.1:{}", free_port());
    let mut member = Member::cluster(1).remove(0).with(&[
        "--listen-client-urls",
        &url,
        "--listen-metrics-urls",
        &url,
    ]);
    assert!(refused(&mut member).contains("in use"));
}
