//! The tasks of the program under test: polled when woken, in the order in which they were spawned.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

/// Names a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskId(usize);

#[derive(Default)]
pub(super) struct Tasks {
    tasks: Vec<Task>,
}

struct Task {
    /// None once it has ended.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Flag>,
    is_paused: bool,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Tasks {
    pub(super) fn spawn(&mut self, future: Pin<Box<dyn Future<Output = ()>>>) -> TaskId {
        self.tasks.push(Task {
            future: Some(future),
            woken: Arc::new(Flag(AtomicBool::new(true))),
            is_paused: false,
        });
        TaskId(self.tasks.len() - 1)
    }

    pub(super) fn pause(&mut self, task: TaskId, is_paused: bool) {
        self.tasks[task.0].is_paused = is_paused;
    }

    /// Whether all have ended.
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.iter().all(|task| task.future.is_none())
    }

    /// Polls whatever was woken, until nothing is.
    pub(super) fn poll(&mut self) {
        loop {
            let mut polled = false;
            for task in &mut self.tasks {
                let Some(future) = &mut task.future else {
                    continue;
                };
                if task.is_paused || !task.woken.0.swap(false, Ordering::Relaxed) {
                    continue;
                }
                polled = true;
                let waker = Waker::from(Arc::clone(&task.woken));
                let ended = future.as_mut().poll(&mut Context::from_waker(&waker));
                if ended.is_ready() {
                    task.future = None;
                }
            }
            if !polled {
                return;
            }
        }
    }
}
