//! What a connection says by TLS, after its handshake: bytes in the clear on one side, records on the other.
//!
//! Owns no socket; under madsim there is no TLS.

#[cfg(not(madsim))]
pub(super) use self::real::Session;
#[cfg(madsim)]
pub(super) use self::simulated::Session;

#[cfg(not(madsim))]
mod real {
    use std::io::{self, IoSlice, Read as _, Write};

    use quorate_net::rt::Stream;
    use quorate_net::tls::ServerConnection;

    /// One connection's keys and half-done records.
    #[derive(Debug)]
    pub(in super::super) struct Session(Box<ServerConnection>);

    impl Session {
        pub(in super::super) fn new(connection: ServerConnection) -> Self {
            Self(Box::new(connection))
        }

        /// Takes what has arrived in the clear; zero is the end.
        pub(in super::super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.reader().read(into)
        }

        /// Reads records from the socket; zero is its end.
        pub(in super::super) fn receive(&mut self, stream: &Stream) -> io::Result<usize> {
            let received = self.0.read_tls(&mut Direct(stream))?;
            self.0
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            Ok(received)
        }

        /// Makes records of as much as there is room for; gives how much that was.
        pub(in super::super) fn encrypt(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.writer().write(bytes)
        }

        /// Whether there are records to send.
        pub(in super::super) fn wants_write(&self) -> bool {
            self.0.wants_write()
        }

        /// Writes records to the socket.
        pub(in super::super) fn send(&mut self, stream: &Stream) -> io::Result<usize> {
            self.0.write_tls(&mut Direct(stream))
        }

        /// Says that nothing comes any more.
        pub(in super::super) fn say_goodbye(&mut self) {
            self.0.send_close_notify();
        }
    }

    /// The socket as rustls reads and writes it: never waiting.
    struct Direct<'a>(&'a Stream);

    impl io::Read for Direct<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.try_read(into)
        }
    }

    impl Write for Direct<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.try_write(bytes)
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.0.try_write_vectored(slices)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

#[cfg(madsim)]
mod simulated {
    use std::io;

    use quorate_net::rt::Stream;

    /// There is none.
    #[derive(Debug)]
    pub(in super::super) enum Session {}

    impl Session {
        pub(in super::super) fn read(&mut self, _into: &mut [u8]) -> io::Result<usize> {
            match *self {}
        }

        pub(in super::super) fn receive(&mut self, _stream: &Stream) -> io::Result<usize> {
            match *self {}
        }

        pub(in super::super) fn encrypt(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            match *self {}
        }

        pub(in super::super) fn wants_write(&self) -> bool {
            match *self {}
        }

        pub(in super::super) fn send(&mut self, _stream: &Stream) -> io::Result<usize> {
            match *self {}
        }

        pub(in super::super) fn say_goodbye(&mut self) {
            match *self {}
        }
    }
}
