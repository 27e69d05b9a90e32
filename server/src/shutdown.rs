//! The end of the process: on a signal, or when the node itself stops.
//!
//! An orderly end hands leadership over and writes a checkpoint, each within a bound. Whatever hangs, the process
//! ends: a second signal ends it at once, and so does a watchdog.

use std::sync::Arc;
use std::time::Duration;

use quorate_core::boundary::Request;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::io::core;
use crate::state::ServerState;

/// From the first signal to the end of the process, whatever hangs.
const TOTAL_MAX: Duration = Duration::from_secs(10);

/// A leader that cannot hand over in this time leaves the others to elect.
const TRANSFER_MAX: Duration = Duration::from_millis(1500);

/// A checkpoint that takes longer is given up: the log holds everything.
const CHECKPOINT_MAX: Duration = Duration::from_secs(5);

#[cfg(madsim)]
pub(crate) use self::simulated::Signals;
#[cfg(not(madsim))]
pub(crate) use self::system::Signals;

#[cfg(not(madsim))]
mod system {
    use std::process;

    use tokio::signal::unix::{Signal, SignalKind, signal};
    use tracing::warn;

    use super::TOTAL_MAX;

    /// The signals that end the process.
    pub(crate) struct Signals {
        interrupt: Signal,
        terminate: Signal,
    }

    impl Signals {
        /// From now on the signals arrive here instead of ending the process.
        pub(crate) fn listen() -> std::io::Result<Self> {
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })
        }

        /// Waits for the next one and gives its name.
        pub(crate) async fn next(&mut self) -> &'static str {
            tokio::select! {
                _ = self.interrupt.recv() => "interrupt",
                _ = self.terminate.recv() => "terminated",
            }
        }

        /// From now on another signal ends the process at once, and the watchdog in any case.
        pub(crate) fn end_hard(mut self) {
            tokio::spawn(async move {
                let name = self.next().await;
                warn!(signal = name, "received another signal; ending at once");
                process::exit(1);
            });
            // A thread, since the runtime may be what hangs.
            std::thread::spawn(|| {
                std::thread::sleep(TOTAL_MAX);
                warn!("the shutdown takes too long; ending at once");
                process::exit(1);
            });
        }
    }
}

#[cfg(madsim)]
mod simulated {
    use super::TOTAL_MAX;

    /// The interrupt that the simulator sends.
    pub(crate) struct Signals;

    impl Signals {
        pub(crate) fn listen() -> std::io::Result<Self> {
            Ok(Self)
        }

        pub(crate) async fn next(&mut self) -> &'static str {
            // It always comes.
            let _ = tokio::signal::ctrl_c().await;
            "interrupt"
        }

        pub(crate) fn end_hard(self) {
            tokio::spawn(async {
                tokio::time::sleep(TOTAL_MAX).await;
                panic!("the shutdown of a simulated member takes too long");
            });
        }
    }
}

/// What a member does for the others and for its next start before it goes.
pub(crate) async fn take_leave(state: &Arc<ServerState>) {
    let status = state.status();
    if status.leader == Some(state.member) {
        if status
            .members
            .iter()
            .filter(|member| !member.is_learner)
            .count()
            > 1
        {
            hand_over().await;
        } else {
            info!("skipped leadership transfer for single voting member cluster");
        }
    }
    match timeout(CHECKPOINT_MAX, core::request(Request::Checkpoint)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn!(error = %error, "no checkpoint before the end"),
        Err(_) => warn!("no checkpoint before the end: it takes too long"),
    }
}

async fn hand_over() {
    info!("leadership transfer starting");
    match timeout(TRANSFER_MAX, core::request(Request::TransferLeader(None))).await {
        Ok(Ok(_)) => info!("leadership transfer finished"),
        Ok(Err(error)) => warn!(error = %error, "leadership transfer failed"),
        Err(_) => warn!("leadership transfer failed: it takes too long"),
    }
}
