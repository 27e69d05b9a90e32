//! Attacks by HTTP/1.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::Attack;

/// Between two bytes of a client that is slow on purpose.
const SLOWNESS: Duration = Duration::from_millis(100);

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "connections that say nothing",
        connections: 500,
        tactic: |stream| Box::pin(listen(stream)),
    },
    Attack {
        name: "connections that come and go",
        connections: 50,
        tactic: |_stream| Box::pin(async { Ok(()) }),
    },
    Attack {
        name: "noise",
        connections: 20,
        tactic: |stream| Box::pin(noise(stream)),
    },
    Attack {
        name: "headers a few bytes at a time",
        connections: 500,
        tactic: |stream| {
            Box::pin(slowly(
                stream,
                "GET /health HTTP/1.1\r\nHost: a\r\n",
                b"B: c\r\n",
            ))
        },
    },
    Attack {
        name: "a body a byte at a time",
        connections: 500,
        tactic: |stream| Box::pin(slowly(stream, LONG_BODY, b" ")),
    },
    Attack {
        name: "a header without end",
        connections: 8,
        tactic: |stream| {
            Box::pin(endlessly(
                stream,
                "GET /health HTTP/1.1\r\nA: ",
                &[b'a'; 16384],
            ))
        },
    },
    Attack {
        name: "headers without end",
        connections: 8,
        tactic: |stream| {
            Box::pin(endlessly(
                stream,
                "GET /health HTTP/1.1\r\n",
                b"A: b\r\nC: d\r\n",
            ))
        },
    },
    Attack {
        name: "a body without end",
        connections: 8,
        tactic: |stream| Box::pin(endlessly(stream, CHUNKED, b"8\r\n        \r\n")),
    },
    Attack {
        name: "requests whose answers nobody reads",
        connections: 8,
        tactic: |stream| {
            let request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n";
            Box::pin(endlessly(stream, "", request))
        },
    },
    Attack {
        name: "JSON nested 100,000 deep",
        connections: 8,
        tactic: |stream| Box::pin(nested(stream)),
    },
];

const LONG_BODY: &str = "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n";

const CHUNKED: &str = "POST /v3/kv/put HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Reads until the server closes.
async fn listen(mut stream: TcpStream) -> io::Result<()> {
    let mut heard = [0; 4096];
    while stream.read(&mut heard).await? > 0 {}
    Err(io::ErrorKind::ConnectionReset.into())
}

async fn noise(mut stream: TcpStream) -> io::Result<()> {
    let bytes: [u8; 512] = rand::random();
    stream.write_all(&bytes).await?;
    let mut heard = [0; 4096];
    stream.read(&mut heard).await.map(|_| ())
}

async fn slowly(mut stream: TcpStream, first: &str, piece: &[u8]) -> io::Result<()> {
    stream.write_all(first.as_bytes()).await?;
    loop {
        sleep(SLOWNESS).await;
        stream.write_all(piece).await?;
    }
}

async fn endlessly(mut stream: TcpStream, first: &str, piece: &[u8]) -> io::Result<()> {
    stream.write_all(first.as_bytes()).await?;
    let pieces = piece.repeat((64 * 1024 / piece.len()).max(1));
    loop {
        stream.write_all(&pieces).await?;
    }
}

async fn nested(mut stream: TcpStream) -> io::Result<()> {
    let body = "{\"success\":[".repeat(50_000);
    let head = format!(
        "POST /v3/kv/txn HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut heard = [0; 4096];
    stream.read(&mut heard).await.map(|_| ())
}
