//! A client that costs almost nothing: requests are encoded once, HTTP/2 is spoken by hand, one thread drives one
//! connection with blocking reads and one write per read.
//!
//! It knows as much of HTTP/2 as a gRPC server needs to see from a well-behaved client: preface, settings, windows,
//! pings. It sends headers without touching the compression table, and of the answers it looks at nothing but the end
//! of each stream and whether a message came before it (gRPC sends none with an error).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// The largest window there is.
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// The connection's window is given back in steps of this size.
const WINDOW_STEP: u32 = 1 << 29;
/// Stream numbers end here; a run is shorter.
const STREAM_MAX: u32 = (1 << 31) - 2;

/// What one connection saw.
pub(super) struct Seen {
    /// Microseconds.
    pub(super) latency: Histogram<u64>,
    pub(super) answered: u64,
    pub(super) refused: u64,
}

/// One connection of the load.
struct Connection<'a> {
    socket: TcpStream,
    head: Vec<u8>,
    out: Vec<u8>,
    next_stream: u32,
    /// (stream, when it was sent, whether a message has come), oldest first.
    open: VecDeque<(u32, Instant, bool)>,
    /// What the server still takes.
    send_window: i64,
    /// What was received since the window was last given back.
    received: u32,
    request: &'a mut dyn FnMut(&mut Vec<u8>),
    message: Vec<u8>,
    seen: Seen,
}

/// Keeps `in_flight` requests open on a connection until `until` or until `count` were sent, then waits for the last
/// answers.
///
/// `request` appends one encoded request message to its buffer.
pub(super) fn run(
    address: &str,
    path: &str,
    in_flight: usize,
    until: Instant,
    count: u64,
    request: &mut dyn FnMut(&mut Vec<u8>),
) -> io::Result<Seen> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut connection = Connection {
        socket,
        head: header_block(address, path),
        out: Vec::with_capacity(1 << 20),
        next_stream: 1,
        open: VecDeque::new(),
        send_window: 65_535,
        received: 0,
        request,
        message: Vec::new(),
        seen: Seen {
            latency: Histogram::new_with_bounds(1, 60_000_000, 3).expect("legal bounds"),
            answered: 0,
            refused: 0,
        },
    };
    connection.greet();
    connection.drive(in_flight, until, count)?;
    Ok(connection.seen)
}

/// The header block of every request, with literals that leave the table alone.
fn header_block(authority: &str, path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86]; // :method POST, :scheme http
    let mut literal = |name: &[u8], value: &str| {
        block.extend_from_slice(name);
        block.push(u8::try_from(value.len()).expect("a short value"));
        block.extend_from_slice(value.as_bytes());
    };
    literal(&[0x04], path);
    literal(&[0x01], authority);
    literal(&[0x0f, 0x10], "application/grpc");
    literal(&[0x00, 2, b't', b'e'], "trailers");
    block
}

impl Connection<'_> {
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len())
            .expect("a short frame")
            .to_be_bytes();
        self.out.extend_from_slice(&length[1..]);
        self.out.extend_from_slice(&[kind, flags]);
        self.out.extend_from_slice(&stream.to_be_bytes());
        self.out.extend_from_slice(payload);
    }

    fn greet(&mut self) {
        self.out.extend_from_slice(PREFACE);
        let mut settings = Vec::new();
        for (name, value) in [(1u16, 0u32), (2, 0), (4, WINDOW_MAX)] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        self.frame(SETTINGS, 0, 0, &settings);
        self.frame(WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - 65_535).to_be_bytes());
    }

    fn drive(&mut self, in_flight: usize, until: Instant, count: u64) -> io::Result<()> {
        let mut left = count;
        let mut buffer = vec![0u8; 1 << 18];
        let mut filled = 0;
        loop {
            let now = Instant::now();
            while now < until
                && left > 0
                && self.open.len() < in_flight
                && self.send_window > 1 << 14
            {
                self.send_request(now);
                left -= 1;
            }
            if (now >= until || left == 0) && self.open.is_empty() {
                return Ok(());
            }
            self.socket.write_all(&self.out)?;
            self.out.clear();
            let count = self.socket.read(&mut buffer[filled..])?;
            if count == 0 {
                return Err(io::Error::other("the server closed the connection"));
            }
            filled += count;
            let consumed = self.take_frames(&buffer[..filled])?;
            buffer.copy_within(consumed..filled, 0);
            filled -= consumed;
            if filled == buffer.len() {
                buffer.resize(buffer.len() * 2, 0);
            }
        }
    }

    fn send_request(&mut self, now: Instant) {
        let stream = self.next_stream;
        assert!(stream < STREAM_MAX, "a run opens fewer streams");
        self.next_stream += 2;
        let mut message = std::mem::take(&mut self.message);
        message.clear();
        message.extend_from_slice(&[0; 5]);
        (self.request)(&mut message);
        let length = u32::try_from(message.len() - 5).expect("a short message");
        message[1..5].copy_from_slice(&length.to_be_bytes());
        let head = std::mem::take(&mut self.head);
        self.frame(HEADERS, END_HEADERS, stream, &head);
        self.frame(DATA, END_STREAM, stream, &message);
        self.send_window -= i64::try_from(message.len()).expect("a short message");
        self.head = head;
        self.message = message;
        self.open.push_back((stream, now, false));
    }

    /// Takes all whole frames; returns how many bytes they were.
    fn take_frames(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        let now = Instant::now();
        while let Some(head) = bytes.get(at..at + FRAME_HEAD) {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let Some(payload) = bytes.get(at + FRAME_HEAD..at + FRAME_HEAD + length) else {
                break;
            };
            let stream =
                u32::from_be_bytes(head[5..9].try_into().expect("four bytes")) & WINDOW_MAX;
            self.take_frame(head[3], head[4], stream, payload, now)?;
            at += FRAME_HEAD + length;
        }
        Ok(at)
    }

    fn take_frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        now: Instant,
    ) -> io::Result<()> {
        match kind {
            DATA => {
                self.received += u32::try_from(payload.len()).expect("a frame");
                if let Some(open) = self.open.iter_mut().find(|(open, ..)| *open == stream) {
                    open.2 |= payload.len() >= 5;
                }
                if self.received >= WINDOW_STEP {
                    let step = std::mem::take(&mut self.received);
                    self.frame(WINDOW_UPDATE, 0, 0, &step.to_be_bytes());
                }
            }
            SETTINGS if flags & ACK == 0 => self.frame(SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, payload),
            WINDOW_UPDATE if stream == 0 => {
                let step = u32::from_be_bytes(payload.try_into().map_err(io::Error::other)?);
                self.send_window += i64::from(step & WINDOW_MAX);
            }
            GOAWAY => return Err(io::Error::other("the server says goodbye")),
            _ => {}
        }
        let ends = matches!(kind, DATA | HEADERS | CONTINUATION) && flags & END_STREAM != 0
            || kind == RST_STREAM;
        if ends && let Some(at) = self.open.iter().position(|(open, ..)| *open == stream) {
            let (_, sent, has_message) = self.open.remove(at).expect("just found");
            if has_message {
                self.seen.answered += 1;
                let micros =
                    u64::try_from(now.duration_since(sent).as_micros()).expect("a short wait");
                self.seen.latency.saturating_record(micros.max(1));
            } else {
                self.seen.refused += 1;
            }
        }
        Ok(())
    }
}
