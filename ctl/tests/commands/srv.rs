//! Endpoints that DNS lists. Words are etcdctl 3.7.1's.

use std::net::Ipv4Addr;

use super::authority::Authority;
use super::name_server::{Zone, in_own_network};
use super::{run_at, security, server};

#[test]
fn dns_lists_the_endpoints() {
    in_own_network("srv::with_dns_of_its_own");
}

fn run(line: &str) -> String {
    let arguments: Vec<_> = line.split_whitespace().collect();
    run_at("127.0.0.1:1", &arguments, b"", &[])
}

#[test]
#[ignore = "it needs a network of its own, which another test gives it"]
fn with_dns_of_its_own() {
    let authority = Authority::new();
    authority.issue("server", "server", &["secure.test"]);
    let (plain, _) = server::start();
    let secure = security::serve(&authority, false);
    Zone::default()
        .host("m1.plain.test.", Ipv4Addr::LOCALHOST)
        .service(
            "_etcd-client._tcp.plain.test.",
            0,
            "m1.plain.test.",
            plain.port(),
        )
        .service(
            "_etcd-client-blue._tcp.plain.test.",
            0,
            "m1.plain.test.",
            plain.port(),
        )
        .service(
            "_etcd-client-ssl._tcp.secure.test.",
            0,
            "m1.plain.test.",
            secure.port(),
        )
        .serve("127.0.0.1:53");
    let answered = run("--discovery-srv plain.test put a b");
    assert_eq!(answered, "OK\nexit 0\n");
    assert_eq!(
        run("-d plain.test --discovery-srv-name blue put a b"),
        answered
    );

    // What is not secure can be refused; the flag counts then, at which there is nobody.
    let refused =
        run("--discovery-srv plain.test --insecure-discovery=false --dial-timeout 100ms put a b");
    let words = format!(
        "2> ignoring discovered insecure endpoint \"http://m1.plain.test.:{}\"\n",
        plain.port()
    );
    assert!(refused.starts_with(&words), "{refused}");
    assert!(refused.ends_with("exit 1\n"), "{refused}");

    // The certificate must be the domain's, not that of the host.
    let ca = authority.certificate();
    let verified =
        format!("--discovery-srv secure.test --insecure-discovery=false --cacert {ca} put a b");
    assert_eq!(run(&verified), answered);
    let by_host = format!("--discovery-srv secure.test --cacert {ca} --command-timeout 1s put a b");
    assert!(run(&by_host).ends_with("exit 1\n"));

    assert_eq!(
        run("--discovery-srv nowhere.test get a"),
        "2> Error: dns lookup errors: lookup _etcd-client-ssl._tcp.nowhere.test on 127.0.0.1:53: no such host and \
         lookup _etcd-client._tcp.nowhere.test on 127.0.0.1:53: no such host\nexit 1\n"
    );
}
