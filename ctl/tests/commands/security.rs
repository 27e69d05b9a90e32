//! TLS of the command line. Words and exit codes are etcdctl 3.7.1's, but for the log lines on stderr.

use std::net::SocketAddr;

use expect_test::expect;
use quorate_net::tls::{ServerTls, TlsInfo};

use super::authority::Authority;
use super::{run_at, server};

const HERE: &[&str] = &["localhost", "127.0.0.1"];

/// A server with canned answers behind TLS, which may demand certificates of clients.
pub(crate) fn serve(authority: &Authority, is_mutual: bool) -> SocketAddr {
    let (inner, _) = server::start();
    let mut info = TlsInfo {
        cert_file: authority.path("server.pem"),
        key_file: authority.path("server.key"),
        ..TlsInfo::default()
    };
    if is_mutual {
        info.trusted_ca_file = authority.certificate();
    }
    let tls = ServerTls::new(&info).expect("the files are there");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
            let listener = listener.expect("a port");
            let address = listener.local_addr().expect("bound");
            sender.send(address).expect("the test waits");
            loop {
                let (stream, _) = listener.accept().await.expect("it is bound");
                let tls = tls.clone();
                tokio::spawn(async move {
                    let mut accepted = tls.accept(stream, None).await?;
                    let mut behind = tokio::net::TcpStream::connect(inner).await?;
                    tokio::io::copy_bidirectional(&mut accepted.stream, &mut behind).await
                });
            }
        });
    });
    receiver.recv().expect("the server starts")
}

fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue("server", "server", HERE);
    authority.issue("client", "client", HERE);
    authority
}

#[test]
fn servers_and_clients_recognise_each_other() {
    let authority = authority();
    let address = serve(&authority, true);
    let (ca, cert, key) = (
        authority.certificate(),
        authority.path("client.pem"),
        authority.path("client.key"),
    );
    let get = ["put", "a", "2"];
    let given = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    let done = "OK\nexit 0\n";
    let call = |endpoint: &str, flags: &[&str], variables: &[(&str, &str)]| {
        run_at(endpoint, &[flags, &get].concat(), b"", variables)
    };
    for endpoint in [format!("https://{address}"), address.to_string()] {
        assert_eq!(call(&endpoint, &given, &[]), done, "{endpoint}");
    }
    let variables = [
        ("ETCDCTL_CACERT", ca.as_str()),
        ("ETCDCTL_CERT", cert.as_str()),
        ("ETCDCTL_KEY", key.as_str()),
    ];
    assert_eq!(call(&address.to_string(), &[], &variables), done);
    let unverified = ["--insecure-skip-tls-verify", "--cert", &cert, "--key", &key];
    assert_eq!(call(&address.to_string(), &unverified, &[]), done);
    // The scheme is stronger than the files.
    let (plain, _) = server::start();
    assert_eq!(call(&format!("http://{plain}"), &given, &[]), done);
}

#[test]
fn a_server_that_is_not_recognised_is_not_asked() {
    let (authority, other) = (authority(), authority());
    let address = serve(&authority, true);
    let (ca, cert, key) = (
        other.certificate(),
        authority.path("client.pem"),
        authority.path("client.key"),
    );
    let short = ["--command-timeout=500ms", "put", "a", "2"];
    let given = ["--cacert", &ca, "--cert", &cert, "--key", &key];
    for flags in [&given[..], &[]] {
        let text = run_at(
            &format!("https://{address}"),
            &[flags, &short].concat(),
            b"",
            &[],
        );
        assert!(
            text.contains("x509: certificate signed by unknown authority"),
            "{text}"
        );
        assert!(
            text.ends_with("2> Error: context deadline exceeded\nexit 1\n"),
            "{text}"
        );
    }
}

#[test]
fn files_that_are_of_no_use_are_refused() {
    let authority = authority();
    authority.issue("other", "other", HERE);
    let refused = |flags: &[(&str, &str)]| {
        let flags: Vec<_> = flags
            .iter()
            .map(|(flag, file)| format!("--{flag}={}", authority.path(file)))
            .collect();
        let mut arguments: Vec<_> = flags.iter().map(String::as_str).collect();
        arguments.extend(["get", "a"]);
        let text = run_at("127.0.0.1:1", &arguments, b"", &[]);
        text.replace(&authority.path(""), "")
    };
    expect![[r#"
        2> Error: KeyFile and CertFile must both be present[key: , cert: client.pem]
        exit 128
    "#]]
    .assert_eq(&refused(&[("cert", "client.pem")]));
    expect![[r#"
        2> Error: open nosuch: no such file or directory
        exit 128
    "#]]
    .assert_eq(&refused(&[("cacert", "nosuch")]));
    expect![[r#"
        2> Error: tls: private key does not match public key
        exit 128
    "#]]
    .assert_eq(&refused(&[("cert", "client.pem"), ("key", "other.key")]));
}
