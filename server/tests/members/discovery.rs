//! Members that find each other by a token, in a cluster that runs already.

use quorate_proto::etcdserverpb as pb;

use crate::authority::Authority;
use crate::changes::{member_ids, put};
use crate::support::{Member, free_port};
use crate::three_members::{has, start};

async fn plan(service: &Member, token: &str, size: &str) {
    write(
        service,
        format!("/_etcd/registry/{token}/_config/size"),
        size,
    )
    .await;
}

async fn write(service: &Member, key: String, value: &str) {
    let request = pb::PutRequest {
        key: key.into(),
        value: value.to_owned().into(),
        ..Default::default()
    };
    service.kv().await.put(request).await.expect("it serves");
}

fn refusal(mut member: Member) -> String {
    member.launch();
    let (status, log) = member.wait_exit();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

#[tokio::test]
async fn members_found_a_cluster_through_a_token_until_it_is_full() {
    let service = Member::alone();
    plan(&service, "t1", "3").await;
    let mut members: Vec<_> = (0..3)
        .map(|number| Member::discovering(&service, number, "t1"))
        .collect();
    // One that has to wait for the others can be told to end, and comes back as the same member.
    members[1].launch();
    members[1].wait_for_log("waiting for peers from discovery service");
    assert!(members[1].terminate().success());
    start(&mut members);
    put(&members[0], "key").await;
    let ids = member_ids(&members[0]).await;
    assert_eq!(ids.len(), 3);
    for member in &members {
        assert!(has(member, "key", false).await);
        assert_eq!(member_ids(member).await, ids);
    }
    let late = refusal(Member::discovering(&service, 3, "t1"));
    assert!(late.contains("failed to join discovery cluster (discovery: cluster is full)"));
    assert!(late.contains("do not reuse discovery token"), "{late}");

    // Who has data needs the service no more.
    drop(service);
    members[2].kill();
    members[2].start();
    assert!(has(&members[2], "key", false).await);
}

#[tokio::test]
async fn a_token_that_nobody_has_planned_well_is_refused_in_etcds_words() {
    let service = Member::alone();
    let log = refusal(Member::discovering(&service, 0, "unknown"));
    assert!(log.contains("(discovery: size key not found)"), "{log}");
    for (token, size) in [("zero", "0"), ("word", "three")] {
        plan(&service, token, size).await;
        let log = refusal(Member::discovering(&service, 0, token));
        assert!(log.contains("(discovery: size key is bad)"), "{log}");
    }
    plan(&service, "bad", "2").await;
    write(
        &service,
        "/_etcd/registry/bad/members/1".into(),
        "m9=nonsense",
    )
    .await;
    let log = refusal(Member::discovering(&service, 0, "bad"));
    assert!(log.contains("(discovery: invalid peer URL)"), "{log}");

    plan(&service, "twice", "2").await;
    let twin = Member::discovering(&service, 0, "twice");
    let entry = format!("m8={}", twin.peer_url);
    write(&service, "/_etcd/registry/twice/members/1".into(), &entry).await;
    let log = refusal(twin);
    assert!(log.contains("has duplicate url"), "{log}");
}

/// A service with certificates; whoever asks by TLS must show one. The second is where it does so.
fn secure_service(authority: &Authority) -> (Member, String) {
    authority.issue("service", "", &["localhost", "127.0.0.1"]);
    let member = Member::cluster(1).remove(0);
    let secure = format!("127.0.0.1:{}", free_port());
    let urls = format!("http://{},https://{secure}", member.client_address());
    let files = ["service.pem", "service.key"].map(|name| authority.path(name));
    let mut member = member.with(&[
        "--listen-client-urls",
        &urls,
        "--advertise-client-urls",
        &urls,
        "--cert-file",
        &files[0],
        "--key-file",
        &files[1],
        "--client-cert-auth",
        "--trusted-ca-file",
        &authority.certificate(),
    ]);
    member.start();
    (member, secure)
}

#[tokio::test]
async fn members_and_the_service_recognise_each_other_by_certificates() {
    let authority = Authority::new();
    let (service, secure) = secure_service(&authority);
    authority.issue("member", "", &[]);
    let ca = authority.certificate();
    let [certificate, key] = ["member.pem", "member.key"].map(|name| authority.path(name));
    let own = ["--discovery-cert", &certificate, "--discovery-key", &key];
    let verified = ["--discovery-cacert", &ca];
    let unverified = ["--discovery-insecure-skip-tls-verify"];
    let https = format!("https://{secure}");
    for (number, (endpoint, flags)) in [(&https, &verified[..]), (&secure, &unverified)]
        .into_iter()
        .enumerate()
    {
        let token = format!("t{number}");
        plan(&service, &token, "1").await;
        let mut member = Member::discovering(&service, number, &token)
            .with(&["--discovery-endpoints", endpoint])
            .with(&own)
            .with(flags);
        member.start();
        put(&member, "key").await;
    }

    // Whom nobody vouches for is not asked, and who shows no certificate gets no answer.
    plan(&service, "t", "1").await;
    for flags in [
        &own[..],
        &[
            "--discovery-insecure-transport=false",
            verified[0],
            verified[1],
        ],
    ] {
        let mut member = Member::discovering(&service, 8, "t")
            .with(&["--discovery-endpoints", &https])
            .with(flags);
        member.launch();
        member.wait_for_log("retry connecting to discovery service");
    }
    let half = Member::discovering(&service, 9, "t").with(&own[..2]);
    let log = refusal(half);
    let words = "KeyFile and CertFile must both be present";
    assert!(log.contains(words), "{log}");
}
