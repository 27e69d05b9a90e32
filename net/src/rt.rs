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
mod socket;

#[cfg(madsim)]
pub use self::simulated::{Executor, JoinSet, TcpListener, TcpStream, Timer, timeout_at};
#[cfg(not(madsim))]
pub use self::socket::SocketFile;
pub use self::socket::{Bound, Detached, Listener, Remote, Stream, attach, detach};
#[cfg(not(madsim))]
pub use hyper_util::rt::{TokioExecutor as Executor, TokioTimer as Timer};
#[cfg(not(madsim))]
pub use tokio::net::{TcpListener, TcpStream};
#[cfg(not(madsim))]
pub use tokio::task::JoinSet;
#[cfg(not(madsim))]
pub use tokio::time::timeout_at;
