//! Profiles of a member that works.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb as pb;

use crate::support::Member;

/// Head and body.
fn get(address: &str, path: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).expect("the member listens");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )
    .expect("the member reads");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the member answers");
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("an answer has a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("a head is text");
    (head, answer.split_off(end + 4))
}

/// What this test reads of a profile.
#[derive(Clone, PartialEq, prost::Message)]
struct Profile {
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
    #[prost(string, repeated, tag = "6")]
    texts: Vec<String>,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    locations: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    values: Vec<i64>,
}

#[tokio::test]
async fn a_profile_names_what_a_busy_member_does() {
    let mut member = Member::cluster(1).remove(0).with(&["--enable-pprof"]);
    member.start();
    member.wait_for_log("pprof is enabled");
    let address = member.client_address();
    let asked = address.clone();
    let mut profile =
        tokio::task::spawn_blocking(move || get(&asked, "/debug/pprof/profile?seconds=1"));
    let mut kv = member.kv().await;
    let (head, body) = loop {
        tokio::select! {
            answer = &mut profile => break answer.expect("no assertion fails"),
            put = kv.put(pb::PutRequest { key: Bytes::from_static(b"k"), ..Default::default() }) => {
                put.expect("a member that is profiled serves");
            }
        }
    };
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/octet-stream"),
        "{head}"
    );
    let mut message = Vec::new();
    flate2::read::GzDecoder::new(&body[..])
        .read_to_end(&mut message)
        .expect("it is compressed");
    let profile = Profile::decode(&message[..]).expect("it is a profile");
    assert_eq!(profile.period, 10_000_000);
    assert!(profile.duration_nanos >= 1_000_000_000);
    assert!(!profile.samples.is_empty());
    for sample in &profile.samples {
        assert_eq!(sample.values[1], sample.values[0] * profile.period);
    }
    assert!(
        profile
            .samples
            .iter()
            .any(|sample| sample.locations.len() > 3),
        "no stack is deeper than three calls"
    );
    let names = profile
        .texts
        .iter()
        .filter(|text| text.starts_with("quorate_"));
    assert!(names.count() > 0, "{:?}", profile.texts);

    // The next one can be had, and one at a time.
    let first = tokio::task::spawn_blocking({
        let address = address.clone();
        move || get(&address, "/debug/pprof/profile?seconds=2").0
    });
    let second =
        tokio::task::spawn_blocking(move || get(&address, "/debug/pprof/profile?seconds=2"));
    let (first, second) = (
        first.await.expect("it answers"),
        second.await.expect("it answers").0,
    );
    let mut codes = [&first[9..12], &second[9..12]];
    codes.sort_unstable();
    assert_eq!(codes, ["200", "500"]);
    assert!(member.terminate().success());
}

#[test]
fn nothing_is_profiled_unless_that_is_asked_for() {
    let member = Member::alone();
    for path in [
        "/debug/pprof/",
        "/debug/pprof/profile?seconds=1",
        "/debug/requests",
    ] {
        let (head, body) = get(&member.client_address(), path);
        assert!(head.starts_with("HTTP/1.1 404 "), "{path}: {head}");
        assert_eq!(body, b"404 page not found\n");
    }
}
