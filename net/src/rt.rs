//! The runtime under everything asynchronous: tokio, or madsim's simulation of it.
//!
//! ```text
//!   ordinary build       tokio, and hyper-util's glue between tokio and hyper, under the names below
//!   --cfg madsim         `tokio` names madsim-tokio; what it lacks is in `simulated`
//! ```
//!
//! Whatever opens a socket, spawns a set of tasks or hands hyper a timer takes it from here, so that the code above
//! reads the same in both builds. No ordinary build holds anything of madsim.

#[cfg(madsim)]
pub mod simulated;

#[cfg(not(madsim))]
pub use self::real::{attach, detach};
#[cfg(madsim)]
pub use self::simulated::{
    Detached, Executor, JoinSet, TcpListener, TcpStream, Timer, attach, detach, timeout_at,
};
#[cfg(not(madsim))]
pub use hyper_util::rt::{TokioExecutor as Executor, TokioTimer as Timer};
#[cfg(not(madsim))]
pub use std::net::TcpStream as Detached;
#[cfg(not(madsim))]
pub use tokio::net::{TcpListener, TcpStream};
#[cfg(not(madsim))]
pub use tokio::task::JoinSet;
#[cfg(not(madsim))]
pub use tokio::time::timeout_at;

#[cfg(not(madsim))]
mod real {
    use std::io;

    use super::{Detached, TcpStream};

    /// Takes a stream away from this thread's runtime, for another one.
    pub fn detach(stream: TcpStream) -> io::Result<Detached> {
        stream.into_std()
    }

    /// Gives a stream to this thread's runtime.
    pub fn attach(stream: Detached) -> io::Result<TcpStream> {
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream)
    }
}
