//! A name server for tests: it knows a few services and addresses, and that there is nothing else.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::Command;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// What the name server knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Zone {
    records: Vec<(Name, RData)>,
}

impl Zone {
    /// A service at a host.
    pub(crate) fn service(mut self, name: &str, priority: u16, host: &str, port: u16) -> Self {
        let data = SRV::new(priority, 0, port, parse(host));
        self.records.push((parse(name), RData::SRV(data)));
        self
    }

    /// A host's address.
    pub(crate) fn host(mut self, name: &str, address: Ipv4Addr) -> Self {
        self.records.push((parse(name), RData::A(A(address))));
        self
    }

    /// Answers on this address until the test ends; where, if any port will do.
    pub(crate) fn serve(self, address: &str) -> SocketAddr {
        let socket = UdpSocket::bind(address).expect("the address is free");
        let bound = socket.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).expect("it stays bound");
                if let Some(answer) = self.answer(&buffer[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        bound
    }

    fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        let known = |(name, _): &&(Name, RData)| name == query.name();
        if !self.records.iter().any(|record| known(&record)) {
            answer.metadata.response_code = ResponseCode::NXDomain;
        }
        for (name, data) in self.records.iter().filter(known) {
            if data.record_type() == query.query_type() || query.query_type() == RecordType::ANY {
                answer.add_answer(Record::from_rdata(name.clone(), 60, data.clone()));
            }
        }
        answer.add_query(query);
        answer.to_vec().ok()
    }
}

fn parse(name: &str) -> Name {
    name.parse().expect("a name")
}

/// Runs an ignored test in a network of its own, where the system asks 127.0.0.1 for names and nobody has port 53 yet.
/// `false` where the system does not permit that.
pub(crate) fn in_own_network(test: &str) -> bool {
    let own: &[&str] = &["--net", "--mount"];
    let as_root: &[&str] = &["--user", "--map-root-user", "--net", "--mount"];
    let is_permitted = |how: &&&[&str]| {
        let mut tried = Command::new("unshare");
        tried
            .args(**how)
            .arg("true")
            .output()
            .is_ok_and(|tried| tried.status.success())
    };
    let Some(how) = [own, as_root].iter().find(is_permitted).copied() else {
        println!("{test} is left out: no namespaces here");
        return false;
    };
    let directory = tempfile::TempDir::new().expect("the system has a temporary directory");
    let configuration = directory.path().join("resolv.conf");
    std::fs::write(&configuration, "nameserver 127.0.0.1\n").expect("written");
    let script = "ip link set lo up && mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
    let status = Command::new("unshare")
        .args(how)
        .args(["sh", "-c", script])
        .arg(configuration)
        .arg(std::env::current_exe().expect("it runs"))
        .args(["--exact", test, "--ignored", "--nocapture"])
        .status();
    assert!(status.expect("a shell").success(), "{test}");
    true
}
