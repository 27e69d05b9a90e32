//! A member under madsim: how the simulator starts it, what it decides for it, and what it sees of it.

use std::cell::RefCell;
use std::time::Duration;

use quorate_core::boundary::Write;
use quorate_core::types::MemberId;

pub use crate::run::{StartError, Tuning, run};

/// What a simulated process ends with when it exits by itself; the code follows.
pub const EXITED: &str = "the simulated process exits with code ";

/// The simulator's side of all members.
pub trait Director {
    /// How long a thread of a member takes for a batch. The threads are `consensus`, `log` and `checkpoints`.
    fn work_time(&mut self, thread: &str) -> Duration;

    /// A member has appended to its log; nothing of it is synced yet.
    fn on_write(&mut self, member: MemberId, write: &Write);
}

thread_local! {
    static DIRECTOR: RefCell<Option<Box<dyn Director>>> = const { RefCell::new(None) };
}

/// Has all members of this thread directed from now on.
pub fn direct(director: Box<dyn Director>) {
    DIRECTOR.set(Some(director));
}

/// Spends what a thread of this name takes for a batch.
pub(crate) async fn work_takes_time(thread: &str) {
    let time = DIRECTOR.with_borrow_mut(|director| {
        let director = director.as_mut()?;
        Some(director.work_time(thread))
    });
    match time {
        Some(time) if !time.is_zero() => tokio::time::sleep(time).await,
        _ => {}
    }
}

/// Shows what a member appends.
pub(crate) fn note_write(member: MemberId, write: &Write) {
    DIRECTOR.with_borrow_mut(|director| {
        if let Some(director) = director {
            director.on_write(member, write);
        }
    });
}
