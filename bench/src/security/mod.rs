//! The auth matrix side by side: every RPC, called by everybody who may come, on two servers.
//!
//! Owns the two processes and their certificates. The program that asks is the one of the server's own test
//! (`server/tests/members/auth_matrix`), whose table was made here, from a real etcd.

#[path = "../../../server/tests/members/auth_matrix/mod.rs"]
mod auth_matrix;
#[path = "../../../server/tests/members/authority.rs"]
#[expect(dead_code, reason = "the server's tests want more of it")]
mod authority;

use std::path::{Path, PathBuf};

use clap::Args;
use quorate_net::grpc::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_net::tls::TlsInfo;
use quorate_proto::etcdserverpb::StatusRequest;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use self::auth_matrix::{CERTIFICATES, Doors, Table};
use self::authority::Authority;
use crate::cluster::free_ports;
use crate::patience;
use crate::process::Process;

/// Whom to ask.
#[derive(Args)]
pub(crate) struct Options {
    /// A server's binary; a member of its own is started.
    #[arg(long)]
    server: PathBuf,
    /// The binary of the server that is the measure. Without it the table of the other one is printed.
    #[arg(long)]
    beside: Option<PathBuf>,
}

/// Runs the matrix; `true` if both servers give the same answers.
pub(crate) async fn run(options: &Options) -> Result<bool, String> {
    let table = table_of(&options.server).await?;
    let Some(beside) = &options.beside else {
        print!("{}", auth_matrix::render(&table));
        return Ok(true);
    };
    let measure = table_of(beside).await?;
    let mut different = 0;
    let mut cells = 0;
    for ((name, ours), (_, theirs)) in table.iter().zip(&measure) {
        for ((column, ours), (_, theirs)) in ours.iter().zip(theirs) {
            cells += 1;
            if ours != theirs {
                different += 1;
                println!("{name}, {column}\n    server: {ours}\n    beside: {theirs}");
            }
        }
    }
    println!(
        "{} calls, {cells} answers, {different} differences",
        table.len()
    );
    Ok(different == 0)
}

/// Starts a member with two doors and asks it.
async fn table_of(binary: &Path) -> Result<Table, String> {
    let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", binary.display());
    let authority = Authority::new();
    authority.issue("server", "", &["127.0.0.1"]);
    let directory = TempDir::new().map_err(|error| fail(&error))?;
    let ports = free_ports(3)?;
    let (plain, secure) = (ports[0], ports[1]);
    let clients = format!("http://127.0.0.1:{plain},https://127.0.0.1:{secure}");
    let peer = format!("http://127.0.0.1:{}", ports[2]);
    let data = directory.path().join("data");
    let arguments = [
        ("--data-dir", data.to_string_lossy().into_owned()),
        ("--listen-client-urls", clients.clone()),
        ("--advertise-client-urls", clients),
        ("--listen-peer-urls", peer.clone()),
        ("--initial-advertise-peer-urls", peer.clone()),
        ("--initial-cluster", format!("default={peer}")),
        ("--cert-file", authority.path("server.pem")),
        ("--key-file", authority.path("server.key")),
        ("--trusted-ca-file", authority.certificate()),
        ("--bcrypt-cost", "4".to_owned()),
    ];
    let arguments = arguments.map(|(flag, value)| [flag.to_owned(), value]);
    let mut arguments = arguments.concat();
    arguments.push("--client-cert-auth".to_owned());
    let command = vec![binary.to_string_lossy().into_owned()];
    let mut process = Process::new(command, arguments, directory.path().join("log"));
    process.start()?;
    let asked = ask(&authority, plain, secure).await;
    asked.map_err(|error| format!("{}\n{}", fail(&error), process.last_lines()))
}

async fn ask(authority: &Authority, plain: u16, secure: u16) -> Result<Table, String> {
    let plain = connect(plain).await?;
    let mut by_certificate = Vec::new();
    for name in CERTIFICATES {
        authority.issue(name, name, &[]);
        let info = TlsInfo {
            trusted_ca_file: authority.certificate(),
            cert_file: authority.path(&format!("{name}.pem")),
            key_file: authority.path(&format!("{name}.key")),
            ..TlsInfo::default()
        };
        by_certificate.push(auth_matrix::connect_as(format!("127.0.0.1:{secure}"), &info).await?);
    }
    let doors = Doors {
        plain,
        by_certificate,
    };
    auth_matrix::run(doors).await
}

/// A connection to a member that has just been started.
async fn connect(port: u16) -> Result<Channel, String> {
    let url = format!("http://127.0.0.1:{port}");
    patience::until("a member that leads", async || {
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| error.to_string())?;
        let connected = endpoint.connect().await;
        let channel = connected.map_err(|error| error.to_string())?;
        let mut client = MaintenanceClient::new(channel.clone());
        let status = client.status(StatusRequest {}).await;
        let status = status.map_err(|error| error.to_string())?;
        match status.into_inner().leader {
            0 => Err("no leader yet".to_owned()),
            _ => Ok(channel),
        }
    })
    .await
}
