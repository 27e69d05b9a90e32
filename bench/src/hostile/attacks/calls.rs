//! Attacks by calls that are well-formed HTTP/2 and mean harm.

use std::io;

use prost::Message as _;
use quorate_proto::etcdserverpb as pb;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::wire::{self, DATA, END_HEADERS, HEADERS, frame, whole_call};
use super::Attack;

const PUT: &str = "/etcdserverpb.KV/Put";
const RANGE: &str = "/etcdserverpb.KV/Range";
const TXN: &str = "/etcdserverpb.KV/Txn";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";

/// SETTINGS_INITIAL_WINDOW_SIZE: how much of an answer the client would take.
const INITIAL_WINDOW: u16 = 4;
const WINDOW_MAX: u32 = (1 << 31) - 1;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "a message said to have 4 GB",
        connections: 8,
        tactic: |stream| Box::pin(once(stream, prefixed(0, u32::MAX))),
    },
    Attack {
        name: "a message said to be compressed",
        connections: 8,
        tactic: |stream| Box::pin(once(stream, prefixed(1, 100))),
    },
    Attack {
        name: "transactions nested 10,000 deep",
        connections: 8,
        tactic: |stream| Box::pin(once(stream, whole_call(1, TXN, &nested(10_000)))),
    },
    Attack {
        name: "transactions of 50,000 operations",
        connections: 8,
        tactic: |stream| Box::pin(once(stream, whole_call(1, TXN, &wide(50_000)))),
    },
    Attack {
        name: "values beyond the limit",
        connections: 8,
        tactic: |stream| Box::pin(once(stream, whole_call(1, PUT, &put(3 << 20)))),
    },
    Attack {
        name: "ranges over everything",
        connections: 4,
        tactic: |stream| Box::pin(ranges(stream)),
    },
    Attack {
        name: "answers that nobody takes",
        connections: 2,
        tactic: |stream| Box::pin(stuck_ranges(stream)),
    },
    Attack {
        name: "watches that nobody listens to",
        connections: 4,
        tactic: |stream| Box::pin(watches(stream)),
    },
    Attack {
        name: "leases without end",
        connections: 4,
        tactic: |stream| Box::pin(grants(stream)),
    },
];

/// Sends this and waits for what the server says to it.
async fn once(mut stream: TcpStream, bytes: Vec<u8>) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    stream.write_all(&bytes).await?;
    until_trailers(&mut stream).await
}

/// Reads frames until a call has ended, or the connection.
async fn until_trailers(stream: &mut TcpStream) -> io::Result<()> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        stream.read_exact(&mut payload).await?;
        let ends_call = head[3] == HEADERS && head[4] & wire::END_STREAM != 0;
        if ends_call || head[3] == wire::RST_STREAM {
            return Ok(());
        }
    }
}

/// A call whose message has these five bytes before it, and some more.
fn prefixed(compressed: u8, length: u32) -> Vec<u8> {
    let mut data = vec![compressed];
    data.extend(length.to_be_bytes());
    data.extend([1; 100]);
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &wire::call(PUT));
    bytes.extend(frame(DATA, 0, 1, &data));
    bytes
}

/// A transaction in a transaction, and so on. The fields are `success` and `request_txn`.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(Vec::new(), |inner, _| {
        wire::field(2, &wire::field(4, &inner))
    })
}

fn wide(operations: usize) -> Vec<u8> {
    let get = pb::RangeRequest {
        key: "a".into(),
        ..pb::RangeRequest::default()
    };
    let operation = pb::RequestOp {
        request: Some(pb::request_op::Request::RequestRange(get)),
    };
    let txn = pb::TxnRequest {
        success: vec![operation; operations],
        ..pb::TxnRequest::default()
    };
    txn.encode_to_vec()
}

fn put(bytes: usize) -> Vec<u8> {
    let put = pb::PutRequest {
        key: "hostile".into(),
        value: vec![b'v'; bytes].into(),
        ..pb::PutRequest::default()
    };
    put.encode_to_vec()
}

fn everything() -> Vec<u8> {
    let range = pb::RangeRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        serializable: true,
        ..pb::RangeRequest::default()
    };
    range.encode_to_vec()
}

/// One after the other, each read to its end.
async fn ranges(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[(INITIAL_WINDOW, WINDOW_MAX)]).await?;
    let more = WINDOW_MAX - 65_535;
    let window = frame(wire::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
    stream.write_all(&window).await?;
    for number in (1..).step_by(2).take(20) {
        stream
            .write_all(&whole_call(number, RANGE, &everything()))
            .await?;
        until_trailers(&mut stream).await?;
    }
    Ok(())
}

/// Twenty at once, of which not one byte may be sent.
async fn stuck_ranges(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[(INITIAL_WINDOW, 0)]).await?;
    for number in (1..).step_by(2).take(20) {
        stream
            .write_all(&whole_call(number, RANGE, &everything()))
            .await?;
    }
    std::future::pending().await
}

/// Twenty thousand on one stream, from the first revision on.
async fn watches(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[(INITIAL_WINDOW, 0)]).await?;
    let create = pb::WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision: 1,
        ..pb::WatchCreateRequest::default()
    };
    let request = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    };
    let request = wire::message(&request.encode_to_vec());
    stream
        .write_all(&frame(HEADERS, END_HEADERS, 1, &wire::call(WATCH)))
        .await?;
    for _ in 0..20 {
        for piece in request.repeat(1_000).chunks(16 * 1024) {
            stream.write_all(&frame(DATA, 0, 1, piece)).await?;
        }
    }
    std::future::pending().await
}

async fn grants(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[(INITIAL_WINDOW, WINDOW_MAX)]).await?;
    let grant = pb::LeaseGrantRequest { ttl: 5, id: 0 }.encode_to_vec();
    for number in (1..).step_by(2).take(1_000) {
        stream.write_all(&whole_call(number, GRANT, &grant)).await?;
        until_trailers(&mut stream).await?;
    }
    Ok(())
}
