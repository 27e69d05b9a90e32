//! The journal of systemd, by its own protocol: one datagram a line, with fields beside the text.
//!
//! Never blocks the member for long and never loses a line: what the journal does not take goes to standard error.

use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use super::line::Line;

/// A journal that takes nothing for this long does not get the line.
const WRITE_MAX: Duration = Duration::from_millis(200);

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";

/// An open way to the journal.
pub(super) struct Journal {
    socket: UnixDatagram,
    /// The name that lines are found by: the last part of the binary's path.
    identifier: String,
}

impl Journal {
    /// The journal of this machine.
    pub(super) fn open() -> io::Result<Self> {
        Self::open_at(Path::new(SOCKET))
    }

    fn open_at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", path.display()))
        })?;
        socket.set_write_timeout(Some(WRITE_MAX))?;
        let binary = std::env::args_os().next().unwrap_or_default();
        let name = Path::new(&binary).file_name().unwrap_or_default();
        Ok(Self {
            socket,
            identifier: name.to_string_lossy().into_owned(),
        })
    }

    /// Hands a line over.
    pub(super) fn write(&self, line: &Line) -> io::Result<()> {
        let text = line.text.trim_end_matches('\n');
        let mut fields = Vec::with_capacity(text.len() + 100);
        append(&mut fields, "PRIORITY", priority(line.level));
        append(&mut fields, "MESSAGE", text);
        let package = line
            .caller
            .rsplit_once('/')
            .map_or(".", |(package, _)| package);
        append(&mut fields, "PACKAGE", package);
        append(&mut fields, "SYSLOG_IDENTIFIER", &self.identifier);
        match self.socket.send(&fields) {
            Ok(_) => Ok(()),
            Err(_) => io::stderr().lock().write_all(line.text.as_bytes()),
        }
    }
}

/// As syslog counts.
fn priority(level: &str) -> &'static str {
    match level {
        "debug" => "7",
        "info" => "6",
        "warn" => "4",
        "error" => "3",
        _ => "2",
    }
}

/// A text of several lines comes with its length instead of an end.
fn append(fields: &mut Vec<u8>, name: &str, value: &str) {
    fields.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        fields.push(b'\n');
        fields.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        fields.push(b'=');
    }
    fields.extend_from_slice(value.as_bytes());
    fields.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: &'static str, text: &str) -> Line {
        Line {
            text: text.to_owned(),
            level,
            caller: "log/lines.rs:42".to_owned(),
        }
    }

    #[test]
    fn a_line_is_one_datagram_with_its_priority_and_origin() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listening = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open_at(&path).unwrap();
        let tail = format!("PACKAGE=log\nSYSLOG_IDENTIFIER={}\n", journal.identifier);
        let mut buffer = [0; 1000];
        for (level, priority) in [
            ("info", 6),
            ("warn", 4),
            ("error", 3),
            ("fatal", 2),
            ("debug", 7),
        ] {
            journal.write(&line(level, "{\"msg\":\"x\"}\n")).unwrap();
            let length = listening.recv(&mut buffer).unwrap();
            assert_eq!(
                std::str::from_utf8(&buffer[..length]).unwrap(),
                format!("PRIORITY={priority}\nMESSAGE={{\"msg\":\"x\"}}\n{tail}")
            );
        }
        journal.write(&line("info", "a\nb\n")).unwrap();
        let length = listening.recv(&mut buffer).unwrap();
        let mut want = b"PRIORITY=6\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n".to_vec();
        want.extend_from_slice(tail.as_bytes());
        assert_eq!(&buffer[..length], want);
    }

    #[test]
    fn a_journal_that_takes_nothing_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _silent = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open_at(&path).unwrap();
        let is_late = |_| {
            let began = std::time::Instant::now();
            journal.write(&line("info", "one too many\n")).unwrap();
            began.elapsed() >= WRITE_MAX
        };
        // Its queue is full after some hundred lines.
        assert!((0..10_000).any(is_late));
    }

    #[test]
    fn without_a_journal_there_is_no_way_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let error = Journal::open_at(&path).map(drop).unwrap_err();
        assert!(error.to_string().starts_with(&path.display().to_string()));
        // One that goes away while the process runs costs no line: they go to standard error.
        let listening = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open_at(&path).unwrap();
        drop(listening);
        journal.write(&line("info", "after the journal\n")).unwrap();
    }
}
