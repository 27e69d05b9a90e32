//! What the operating system gives a member: threads, entropy, and an end.
//!
//! ```text
//!   a worker       takes all that waits in its queue, works, and parks until there is more or its deadline comes
//!   a loop of IO   runs on a single-threaded runtime of its own
//! ```
//!
//! What a thread does is written once, as a [`Worker`] or as a future; how it waits is here. In a member's process
//! these are threads that park on a condition variable or in the runtime. Under madsim they are tasks, so that the
//! same work runs in simulated time.

#[cfg(not(madsim))]
pub(crate) use self::real::{
    Movable, Runtime, Thread, entropy, exit, start_background, start_worker,
};
#[cfg(madsim)]
pub(crate) use self::simulated::{
    Movable, Runtime, Thread, entropy, exit, start_background, start_worker,
};

use std::time::Instant;

use quorate_core::disk::Disk;

/// What a thread with a queue does.
pub(crate) trait Worker: Movable + 'static {
    /// What waits in its queue.
    type Item: Send + 'static;

    /// Whether nobody waits for it who could notice: all other threads go first where processors are short.
    const IN_BACKGROUND: bool = false;

    /// When it works although nothing has arrived.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Works off everything that has arrived; `batch` is empty when the deadline has come.
    fn work(&mut self, batch: &mut Vec<Self::Item>);

    /// The queue was closed and is empty.
    fn end(self);
}

/// A disk that the threads of a member share.
pub(crate) trait SharedDisk: Disk<File: Movable> + Clone + Movable + 'static {}

impl<D: Disk<File: Movable> + Clone + Movable + 'static> SharedDisk for D {}

#[cfg(not(madsim))]
mod real {
    use std::io;
    use std::sync::Arc;
    use std::thread::JoinHandle;

    use tracing::warn;

    use super::Worker;
    use crate::driver::queue::Queue;

    /// How nice threads in the background are. On Linux this concerns the thread alone.
    #[cfg(target_os = "linux")]
    const NICE: i32 = 10;

    /// What may go to another thread.
    pub(crate) trait Movable: Send {}

    impl<T: Send> Movable for T {}

    /// A thread that was started.
    #[derive(Debug)]
    pub(crate) struct Thread(JoinHandle<()>);

    impl Thread {
        fn start(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<Self> {
            let builder = std::thread::Builder::new().name(name.to_owned());
            builder.spawn(body).map(Self)
        }

        /// Waits for its end. This blocks: who ends threads has nothing else to do any more.
        pub(crate) async fn join(self) {
            if self.0.join().is_err() {
                warn!("a thread had panicked");
            }
        }
    }

    /// Lets all threads of usual priority go first. It gets a tenth of a processor beside one of them, so that what it
    /// holds of the store's lock, for some hundred rows at a time, is not held for long.
    fn yield_to_others() {
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{getpriority_process, setpriority_process};
            // A process that was started nicer than that stays as it is.
            let is_usual = getpriority_process(None).is_ok_and(|nice| nice < NICE);
            if is_usual && let Err(error) = setpriority_process(None, NICE) {
                warn!(%error, "a thread keeps its priority");
            }
        }
    }

    /// Starts a thread for one piece of work beside everything else.
    pub(crate) fn start_background(
        name: &str,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<Thread> {
        Thread::start(name, move || {
            yield_to_others();
            body();
        })
    }

    /// Starts a thread that works off a queue until it is closed.
    pub(crate) fn start_worker<W: Worker>(
        name: &str,
        queue: Arc<Queue<W::Item>>,
        mut worker: W,
    ) -> io::Result<Thread> {
        Thread::start(name, move || {
            if W::IN_BACKGROUND {
                yield_to_others();
            }
            let mut batch = Vec::new();
            while queue.take(&mut batch, worker.deadline()) {
                worker.work(&mut batch);
            }
            worker.end();
        })
    }

    /// A single-threaded runtime before its thread runs.
    pub(crate) struct Runtime(tokio::runtime::Runtime);

    impl Runtime {
        /// One that nothing runs on yet.
        pub(crate) fn new() -> io::Result<Self> {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().map(Self)
        }

        /// For whoever wants to run something on it.
        pub(crate) fn handle(&self) -> tokio::runtime::Handle {
            self.0.handle().clone()
        }

        /// Starts its thread, which ends with the future.
        pub(crate) fn start<F: Future<Output = ()>>(
            self,
            name: &str,
            body: impl FnOnce() -> F + Send + 'static,
        ) -> io::Result<Thread> {
            Thread::start(name, move || self.0.block_on(body()))
        }
    }

    /// Random bits from the operating system.
    pub(crate) fn entropy() -> u64 {
        rand::random()
    }

    /// Ends the process.
    pub(crate) fn exit(code: i32) -> ! {
        std::process::exit(code)
    }
}

#[cfg(madsim)]
mod simulated {
    use std::io;
    use std::sync::Arc;

    use tokio::task::JoinHandle;

    use super::Worker;
    use crate::driver::queue::Queue;
    use crate::io::home::Home;

    /// Anything: there is one thread.
    pub(crate) trait Movable {}

    impl<T> Movable for T {}

    /// A task in place of a thread.
    #[derive(Debug)]
    pub(crate) struct Thread(JoinHandle<()>);

    impl Thread {
        /// Waits for its end.
        pub(crate) async fn join(self) {
            // One that was killed with its machine is not waited for.
            let _ = self.0.await;
        }
    }

    /// Starts a task that works off a queue until it is closed.
    pub(crate) fn start_worker<W: Worker>(
        name: &str,
        queue: Arc<Queue<W::Item>>,
        mut worker: W,
    ) -> io::Result<Thread> {
        let name = name.to_owned();
        let task = tokio::task::spawn_local(async move {
            let mut batch = Vec::new();
            while queue.arrive(&mut batch, worker.deadline()).await {
                if !batch.is_empty() {
                    crate::simulated::work_takes_time(&name).await;
                }
                worker.work(&mut batch);
            }
            worker.end();
        });
        Ok(Thread(task))
    }

    /// Starts a task for one piece of work.
    pub(crate) fn start_background(
        _name: &str,
        body: impl FnOnce() + 'static,
    ) -> io::Result<Thread> {
        Ok(Thread(tokio::task::spawn_local(async move { body() })))
    }

    /// A core's place among the tasks.
    pub(crate) struct Runtime;

    impl Runtime {
        /// There is always room.
        pub(crate) fn new() -> io::Result<Self> {
            Ok(Self)
        }

        /// The runtime of the simulated machine.
        pub(crate) fn handle(&self) -> tokio::runtime::Handle {
            tokio::runtime::Handle::current()
        }

        /// Starts its task, which ends with the future.
        pub(crate) fn start<F: Future<Output = ()> + 'static>(
            self,
            _name: &str,
            body: impl FnOnce() -> F + 'static,
        ) -> io::Result<Thread> {
            let task = Home::none().run(async move { body().await });
            Ok(Thread(tokio::task::spawn_local(task)))
        }
    }

    /// Random bits of the seed.
    pub(crate) fn entropy() -> u64 {
        use tokio::madsim::rand::RngCore as _;
        tokio::madsim::rand::thread_rng().next_u64()
    }

    /// Ends the simulated process: the machine's supervisor starts it again.
    pub(crate) fn exit(code: i32) -> ! {
        panic!("{}{code}", crate::simulated::EXITED)
    }
}
