//! What a member asks of the system that it runs on: syncs, locked memory, and somebody to tell that it serves.

use std::os::unix::net::UnixDatagram;

use bytes::Bytes;
use quorate_proto::etcdserverpb as pb;

use crate::support::Member;

#[test]
fn systemd_is_told_once_that_the_member_serves() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("notify");
    let listening = UnixDatagram::bind(&path).expect("the name is free");
    let mut member = Member::cluster(1)
        .remove(0)
        .with_variable("NOTIFY_SOCKET", path.to_str().expect("it is UTF-8"));
    member.launch();
    let mut buffer = [0; 100];
    let length = listening.recv(&mut buffer).expect("somebody sends");
    assert_eq!(&buffer[..length], b"READY=1");
    // What was logged before may arrive here afterwards.
    member.wait_ready();
    member.wait_for_log("successfully notified init daemon");
    listening.set_nonblocking(true).expect("it is a socket");
    assert!(member.terminate().success());
    assert!(listening.recv(&mut buffer).is_err(), "it was told twice");
}

#[test]
fn a_socket_that_is_gone_does_not_keep_a_member_from_serving() {
    let mut member = Member::cluster(1)
        .remove(0)
        .with_variable("NOTIFY_SOCKET", "/nosuch/socket");
    member.start();
    member.wait_for_log("failed to notify systemd for readiness");
    assert!(member.terminate().success());
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest {
        key: Bytes::from_static(key.as_bytes()),
        ..Default::default()
    }
}

#[tokio::test]
async fn without_syncs_a_member_says_so_and_keeps_what_it_has_when_it_is_killed() {
    let mut member = Member::cluster(1).remove(0).with(&["--unsafe-no-fsync"]);
    member.start();
    member.wait_for_log("nothing is synced");
    let written = member.kv().await.put(put("k")).await.expect("it is legal");
    let revision = written
        .into_inner()
        .header
        .expect("answers have one")
        .revision;
    member.kill();
    member.start();
    let range = pb::RangeRequest {
        key: Bytes::from_static(b"k"),
        ..Default::default()
    };
    let read = member
        .kv()
        .await
        .range(range)
        .await
        .expect("it is legal")
        .into_inner();
    assert_eq!(read.kvs[0].mod_revision, revision);
}

/// A value of `/proc/PID/status`, in KB.
fn memory(member: &Member, name: &str) -> u64 {
    let path = format!("/proc/{}/status", member.process_id());
    let status = std::fs::read_to_string(path).expect("the process runs");
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    let value = value
        .expect("the kernel knows it")
        .trim_start_matches(':')
        .trim();
    value
        .trim_end_matches(" kB")
        .parse()
        .expect("it is a number")
}

#[tokio::test]
async fn memory_is_locked_where_that_is_permitted_and_a_limit_ends_the_start() {
    let mut member = Member::cluster(1).remove(0).with(&["--memory-mlock"]);
    member.launch();
    if let Err(refused) = quorate_server::memory::check() {
        let (status, log) = member.wait_exit();
        assert_eq!(status.code(), Some(1));
        assert!(
            log.contains("cannot start") && log.contains(&refused),
            "{log}"
        );
        return;
    }
    member.wait_ready();
    let value = Bytes::from(vec![7; 1 << 20]);
    let mut kv = member.kv().await;
    for _ in 0..16 {
        let put = pb::PutRequest {
            value: value.clone(),
            ..put("k")
        };
        kv.put(put).await.expect("it is legal");
    }
    // Reserved memory is locked as well, but not made real.
    assert!(memory(&member, "VmLck") > 16 << 10);
    assert!(
        memory(&member, "VmRSS") < 400 << 10,
        "{} KB",
        memory(&member, "VmRSS")
    );
}

/// How nice the member's threads of this name are.
fn niceness(member: &Member, name: &str) -> Vec<i32> {
    let threads = format!("/proc/{}/task", member.process_id());
    let threads = std::fs::read_dir(threads).expect("it runs");
    let mut found = Vec::new();
    for thread in threads {
        let stat = thread.expect("listed").path().join("stat");
        // A thread may have ended.
        let stat = std::fs::read_to_string(stat).unwrap_or_default();
        let (before, after) = stat.split_once(") ").unwrap_or_default();
        if before.ends_with(&format!("({name}")) {
            // The 19th field of all; the name is the second.
            let nice = after.split(' ').nth(16).expect("it has the field");
            found.push(nice.parse().expect("a number"));
        }
    }
    found
}

#[tokio::test]
async fn checkpoints_and_backups_let_all_other_threads_go_first() {
    let member = Member::alone();
    let mut kv = member.kv().await;
    for number in 0..24 {
        let value = vec![number; 1 << 20].into();
        let put = pb::PutRequest { value, ..put("k") };
        kv.put(put).await.expect("it is legal");
    }
    let mut maintenance = member.maintenance().await;
    let stream = maintenance.snapshot(pb::SnapshotRequest {}).await;
    let mut stream = stream.expect("it is legal").into_inner();
    // The backup waits for who does not go on reading.
    stream.message().await.expect("it serves");
    assert_eq!(niceness(&member, "backup"), [10]);
    assert_eq!(niceness(&member, "checkpoints"), [10]);
    for usual in ["consensus", "log", "io-0"] {
        assert!(niceness(&member, usual)[0] < 10, "{usual}");
    }
}
