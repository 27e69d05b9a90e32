//! A backup of a member, through `quorateutl`, to members of a new cluster; and backups that are no good.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use tempfile::TempDir;
use tokio_stream::wrappers::ReceiverStream;

use super::changes::add;
use super::support::Member;

/// Runs `quorateutl` in a directory.
fn quorateutl(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorateutl"))
        .current_dir(directory)
        .args(arguments)
        .output()
        .expect("the binary was built for this test")
}

/// What it prints when all is well.
fn printed(directory: &Path, arguments: &[&str]) -> String {
    let output = quorateutl(directory, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Its last words, when it fails with this exit code.
fn refused(directory: &Path, arguments: &[&str], code: i32) -> String {
    let output = quorateutl(directory, arguments);
    assert_eq!(
        output.status.code(),
        Some(code),
        "{arguments:?}: {output:?}"
    );
    let words = String::from_utf8(output.stderr).expect("text");
    let at = words.find("Error: ").expect("an error");
    words[at..].trim_end().to_owned()
}

/// A stopped member's backup in a file `backup.db`, and the hash that it had.
async fn backup() -> (TempDir, pb::HashKvResponse) {
    let mut member = Member::alone();
    let mut kv = member.kv().await;
    for number in 0..60 {
        let put = pb::PutRequest {
            key: format!("key{}", number % 20).into(),
            value: format!("value{number}").into(),
            ..pb::PutRequest::default()
        };
        kv.put(put).await.expect("it serves");
    }
    let delete = pb::DeleteRangeRequest {
        key: "key7".into(),
        ..pb::DeleteRangeRequest::default()
    };
    kv.delete_range(delete).await.expect("it serves");
    let mut lease = member.lease().await;
    let grant = pb::LeaseGrantRequest { ttl: 5000, id: 77 };
    lease.lease_grant(grant).await.expect("it serves");

    let mut maintenance = member.maintenance().await;
    let stream = maintenance.snapshot(pb::SnapshotRequest {}).await;
    let mut stream = stream.expect("it serves").into_inner();
    let mut content = Vec::new();
    while let Some(message) = stream.message().await.expect("it serves") {
        content.extend_from_slice(&message.blob);
    }
    let hash = maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await;
    let hash = hash.expect("it serves").into_inner();
    assert!(member.terminate().success());
    let directory = TempDir::new().expect("a directory");
    std::fs::write(directory.path().join("backup.db"), content).expect("room");
    (directory, hash)
}

fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("it is there");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("listed").path()).collect();
    names.sort();
    names
}

/// Restores the directory of each of these members, which have not been started.
fn restore(directory: &Path, members: &[Member], more: &[&str]) {
    let cluster: Vec<_> = members
        .iter()
        .map(|member| format!("{}={}", member.name, member.peer_url))
        .collect();
    for member in members {
        let data = member.data_dir();
        let mut arguments = vec!["snapshot", "restore", "backup.db", "--data-dir"];
        let cluster = cluster.join(",");
        arguments.extend([data.to_str().expect("UTF-8"), "--name", &member.name]);
        arguments.extend(["--initial-advertise-peer-urls", &member.peer_url]);
        arguments.extend(["--initial-cluster", &cluster]);
        arguments.extend(more);
        printed(directory, &arguments);
    }
}

#[tokio::test]
async fn a_backup_becomes_a_new_cluster_of_three() {
    let (directory, hash) = backup().await;
    let directory = directory.path();
    let before = std::fs::read(directory.join("backup.db")).expect("it is there");
    let status = printed(
        directory,
        &["snapshot", "status", "backup.db", "-w", "json"],
    );
    assert!(
        status.contains(r#""revision":62,"totalKey":19,"#),
        "{status}"
    );
    assert_eq!(
        printed(directory, &["hashkv", "backup.db"]),
        format!("{}, 62, -1\n", hash.hash)
    );
    assert!(
        std::fs::read(directory.join("backup.db")).expect("still there") == before,
        "looking at a backup does not change it"
    );

    let mut members = Member::cluster(3);
    restore(directory, &members, &[]);
    for member in &mut members {
        member.launch();
    }
    for member in &members {
        member.wait_ready();
        let mut maintenance = member.maintenance().await;
        let found = maintenance
            .hash_kv(pb::HashKvRequest { revision: 62 })
            .await;
        assert_eq!(found.expect("it serves").into_inner().hash, hash.hash);
        let mut lease = member.lease().await;
        let leases = lease.lease_leases(pb::LeaseLeasesRequest {}).await;
        let leases = leases.expect("it serves").into_inner().leases;
        assert_eq!(
            leases.iter().map(|lease| lease.id).collect::<Vec<_>>(),
            [77]
        );
    }
    let mut membership = members[0].membership().await;
    let list = membership
        .member_list(pb::MemberListRequest::default())
        .await;
    let list = list.expect("it serves").into_inner().members;
    assert_eq!(list.len(), 3);
    let put = pb::PutRequest {
        key: "after".into(),
        ..pb::PutRequest::default()
    };
    let mut kv = members[1].kv().await;
    let answer = kv.put(put).await.expect("it serves").into_inner();
    assert_eq!(answer.header.expect("a header").revision, 63);
}

#[tokio::test]
async fn who_joins_a_restored_cluster_gets_what_was_in_the_backup() {
    let (directory, hash) = backup().await;
    let mut members = Member::cluster(1);
    restore(directory.path(), &members, &[]);
    members[0].start();
    let mut joining = Member::joining(&members, 7);
    add(&members[0], &joining, false).await;
    joining.start();
    let mut maintenance = joining.maintenance().await;
    let found = maintenance
        .hash_kv(pb::HashKvRequest { revision: 62 })
        .await;
    assert_eq!(found.expect("it has all").into_inner().hash, hash.hash);
}

#[tokio::test]
async fn revisions_that_the_backup_never_had_are_compacted() {
    let (directory, _) = backup().await;
    let mut members = Member::cluster(1);
    let bump = ["--bump-revision", "1000", "--mark-compacted"];
    restore(directory.path(), &members, &bump);
    let member = &mut members[0];
    member.start();
    for round in ["restored", "restarted"] {
        let create = pb::WatchCreateRequest {
            key: "key1".into(),
            start_revision: 100,
            ..pb::WatchCreateRequest::default()
        };
        let request = pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        };
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        sender.send(request).await.expect("there is room");
        let stream = member
            .watch()
            .await
            .watch(ReceiverStream::new(receiver))
            .await;
        let mut stream = stream.expect("it serves").into_inner();
        let created = stream.message().await.expect("it serves").expect("created");
        assert!(created.created, "{round}");
        let canceled = stream
            .message()
            .await
            .expect("it serves")
            .expect("canceled");
        assert!(canceled.canceled, "{round}: {canceled:?}");
        assert_eq!(canceled.compact_revision, 1062, "{round}");
        let range = pb::RangeRequest {
            key: "key1".into(),
            ..pb::RangeRequest::default()
        };
        let mut kv = member.kv().await;
        let found = kv.range(range).await.expect("it serves").into_inner();
        assert_eq!(&found.kvs[0].value[..], b"value41", "{round}");
        assert_eq!(found.header.expect("a header").revision, 1062, "{round}");
        if round == "restored" {
            assert!(member.terminate().success());
            member.start();
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_a_backup_leaves_nothing_behind() {
    let member = Member::alone();
    let mut kv = member.kv().await;
    for number in 0..24 {
        let put = pb::PutRequest {
            key: format!("key{number}").into(),
            value: vec![number; 1 << 20].into(),
            ..pb::PutRequest::default()
        };
        kv.put(put).await.expect("it serves");
    }
    let mut maintenance = member.maintenance().await;
    let stream = maintenance.snapshot(pb::SnapshotRequest {}).await;
    let mut stream = stream.expect("it serves").into_inner();
    let first = stream.message().await.expect("it serves").expect("a blob");
    assert!(first.remaining_bytes > 20 << 20, "most of it is to come");
    drop(stream);
    // It would wait as long as rows are held for the backup.
    let compact = pb::CompactionRequest {
        revision: 20,
        physical: true,
    };
    kv.compact(compact).await.expect("nobody holds rows");
    let stream = maintenance.snapshot(pb::SnapshotRequest {}).await;
    let mut stream = stream.expect("its turn comes").into_inner();
    let mut bytes = 0;
    while let Some(message) = stream.message().await.expect("it serves") {
        bytes += message.blob.len();
    }
    assert!(bytes > 24 << 20);
    let images = names(&member.data_dir().join("member/snap"));
    let mut spilled = images
        .iter()
        .filter(|path| path.to_string_lossy().contains("db.tmp"));
    assert_eq!(spilled.next(), None);
}

#[tokio::test]
async fn a_bad_backup_is_refused_and_nothing_is_made() {
    let (directory, _) = backup().await;
    let directory = directory.path();
    let good = std::fs::read(directory.join("backup.db")).expect("it is there");
    let end = good.len() - 32;
    let write = |name: &str, content: &[u8]| {
        std::fs::write(directory.join(name), content).expect("room");
    };
    let mut broken = good.clone();
    broken[9000] ^= 1;
    write("broken.db", &broken);
    write("truncated.db", &good[..4096 * 4]);
    write("no-digest.db", &good[..end]);
    write("short.db", b"short");
    let mut bad_page = good.clone();
    let root = u64::from_le_bytes(good[32..40].try_into().expect("eight bytes")) as usize;
    bad_page[root * 4096..][..4096].fill(0);
    write("bad-page.db", &bad_page);
    let before = names(directory);

    let restore = |file: &str, more: &[&str]| {
        let arguments = [&["snapshot", "restore", file, "--data-dir", "data"], more].concat();
        refused(directory, &arguments, 1)
    };
    let words = restore("broken.db", &[]);
    assert!(words.starts_with("Error: expected sha256 ["), "{words}");
    assert!(words.contains("], got ["), "{words}");
    for file in ["truncated.db", "no-digest.db"] {
        assert_eq!(
            restore(file, &[]),
            "Error: snapshot missing hash but --skip-hash-check=false"
        );
    }
    assert_eq!(
        restore("short.db", &[]),
        "Error: seek short.db: invalid argument"
    );
    assert_eq!(
        restore("nothing.db", &[]),
        "Error: open nothing.db: no such file or directory"
    );
    for file in ["broken.db", "truncated.db", "bad-page.db"] {
        let damage = "Error: snapshot file integrity check failed. 1 errors found.\ndatabase image is damaged: ";
        let words = restore(file, &["--skip-hash-check"]);
        assert!(words.starts_with(damage), "{file}: {words}");
        let words = refused(directory, &["snapshot", "status", file], 1);
        assert!(words.starts_with(damage), "{file}: {words}");
    }
    let cluster = |text| ["--initial-cluster", text];
    assert_eq!(
        restore("backup.db", &cluster("other=http://localhost:2380")),
        "Error: couldn't find local name \"default\" in the initial cluster configuration"
    );
    assert_eq!(
        restore(
            "backup.db",
            &cluster("default=http://localhost:2380,b=http://localhost:2380")
        ),
        "Error: initial cluster b=http://localhost:2380,default=http://localhost:2380 has duplicate url"
    );
    assert_eq!(
        restore("backup.db", &cluster("default=x")),
        "Error: URL scheme must be http, https, unix, or unixs: x"
    );
    assert_eq!(
        refused(
            directory,
            &["snapshot", "restore", "backup.db", "--bump-revision", "1"],
            128
        ),
        "Error: --mark-compacted required if --revision-bump > 0"
    );
    assert_eq!(
        refused(
            directory,
            &["snapshot", "restore", "backup.db", "--data-dir", "."],
            1
        ),
        "Error: data-dir \".\" not empty or could not be read"
    );
    assert_eq!(
        restore("backup.db", &["--wal-dir", "."]),
        "Error: wal-dir \".\" exists"
    );
    assert_eq!(names(directory), before, "nothing was made or removed");
}

#[tokio::test]
async fn an_image_is_written_anew_and_serves_as_before() {
    let mut member = Member::alone();
    let put = pb::PutRequest {
        key: "key".into(),
        value: "value".into(),
        ..pb::PutRequest::default()
    };
    member.kv().await.put(put).await.expect("it serves");
    let data = member.data_dir();
    let data = data.to_str().expect("UTF-8");
    let here = Path::new(".");
    // A clean stop leaves an image.
    assert!(member.terminate().success());
    member.start();
    let words = refused(
        here,
        &["--timeout", "100ms", "defrag", "--data-dir", data],
        1,
    );
    assert!(words.contains("timeout"), "a member works on it: {words}");
    assert!(member.terminate().success());

    let status = |of: &str| printed(here, &["snapshot", "status", of]);
    let image = format!("{data}/member/snap/db");
    let before = status(&image);
    printed(here, &["defrag", "--data-dir", data]);
    assert_eq!(status(&image), before);
    printed(
        here,
        &["migrate", "--data-dir", data, "--target-version", "3.5"],
    );
    assert!(status(&image).ends_with(", \n"), "3.5 says no version");
    printed(
        here,
        &["migrate", "--data-dir", data, "--target-version", "3.7"],
    );
    assert_eq!(status(&image), before);
    assert_eq!(
        refused(
            here,
            &["migrate", "--data-dir", data, "--target-version", "3.8"],
            1
        ),
        "Error: cannot create migration plan: version \"3.8.0\" is not supported"
    );
    assert_eq!(status(&image), before);
    member.start();
    let range = pb::RangeRequest {
        key: "key".into(),
        ..pb::RangeRequest::default()
    };
    let found = member.kv().await.range(range).await.expect("it serves");
    assert_eq!(&found.into_inner().kvs[0].value[..], b"value");
}
