//! Which core a piece of code runs on.
//!
//! In a member's process a core is a thread, so that its state is the thread's. Under madsim one thread carries every
//! core of every member: there each task belongs to a core, and whoever runs it says so for as long as it runs. Only
//! this module knows the difference; everything else asks [`with`].

#[cfg(madsim)]
pub(crate) use self::task::{Home, if_alive, settle, with};
#[cfg(not(madsim))]
pub(crate) use self::thread::{Home, if_alive, settle, with};

#[cfg(not(madsim))]
mod thread {
    use std::cell::OnceCell;

    use super::super::core::Core;

    thread_local! {
        static CORE: OnceCell<Core> = const { OnceCell::new() };
    }

    /// The core of the code that asks: its thread's.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Home;

    impl Home {
        /// That of the code that calls.
        pub(crate) fn current() -> Self {
            Self
        }

        /// Runs a future on this core.
        pub(crate) fn run<F: Future>(self, future: F) -> F {
            future
        }
    }

    /// Makes this thread a core.
    pub(crate) fn settle(core: Core) {
        let fresh = CORE.with(|slot| slot.set(core).is_ok());
        assert!(fresh, "a thread is one core");
    }

    /// Runs `look` with this thread's core.
    pub(crate) fn with<R>(look: impl FnOnce(&Core) -> R) -> R {
        CORE.with(|slot| {
            look(
                slot.get()
                    .expect("services and connections run on an IO core"),
            )
        })
    }

    /// The same, unless the thread is ending and has lost its core already.
    pub(crate) fn if_alive(look: impl FnOnce(&Core)) {
        let _ = CORE.try_with(|slot| slot.get().map(look));
    }
}

#[cfg(madsim)]
mod task {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll};

    use super::super::core::Core;

    thread_local! {
        /// All cores of all members there ever were; those of dead ones answer nobody.
        static CORES: RefCell<BTreeMap<u64, Rc<Core>>> = const { RefCell::new(BTreeMap::new()) };
        /// The core of the task that runs; 0 is none.
        static CURRENT: Cell<u64> = const { Cell::new(0) };
    }

    /// The core of the code that asks: its task's.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Home(u64);

    impl Home {
        /// That of the code that calls; none yet if it is not on a core.
        pub(crate) fn current() -> Self {
            Self(CURRENT.get())
        }

        /// That of a task which is going to settle.
        pub(crate) fn none() -> Self {
            Self(0)
        }

        /// Runs a future on this core. One that settles moves to its own.
        pub(crate) fn run<F: Future>(self, future: F) -> Resident<F> {
            Resident {
                home: self.0,
                future: Some(Box::pin(future)),
            }
        }
    }

    /// A future at home on a core.
    pub(crate) struct Resident<F> {
        home: u64,
        /// There until it is dropped.
        future: Option<Pin<Box<F>>>,
    }

    impl<F: Future> Future for Resident<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
            let before = CURRENT.replace(self.home);
            let future = self.future.as_mut().expect("it is not dropped");
            let polled = future.as_mut().poll(context);
            self.home = CURRENT.replace(before);
            polled
        }
    }

    impl<F> Drop for Resident<F> {
        fn drop(&mut self) {
            let before = CURRENT.replace(self.home);
            self.future = None;
            CURRENT.set(before);
        }
    }

    /// Makes a core of the task that calls.
    pub(crate) fn settle(core: Core) {
        let home = CORES.with_borrow_mut(|cores| {
            let home = cores.len() as u64 + 1;
            cores.insert(home, Rc::new(core));
            home
        });
        CURRENT.set(home);
    }

    /// Runs `look` with this task's core.
    pub(crate) fn with<R>(look: impl FnOnce(&Core) -> R) -> R {
        let core = CORES.with_borrow(|cores| cores.get(&CURRENT.get()).cloned());
        look(&core.expect("services and connections run on an IO core"))
    }

    /// The same, unless there is none.
    pub(crate) fn if_alive(look: impl FnOnce(&Core)) {
        let core = CORES.try_with(|cores| cores.borrow().get(&CURRENT.get()).cloned());
        if let Ok(Some(core)) = core {
            look(&core);
        }
    }
}
