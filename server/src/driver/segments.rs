//! Prepares log segments beside the log thread, so that no write waits for a file full of zeros.
//!
//! In a member's process that is a thread; under madsim, where no disk takes time, it is done at once.

use quorate_core::disk::{Disk as _, DiskError, DiskFile as _};
use quorate_core::wal::SegmentOrder;
use tracing::warn;

#[cfg(madsim)]
pub(crate) use self::at_once::Segments;
#[cfg(not(madsim))]
pub(crate) use self::beside::Segments;
use super::stepwise::{Stepwise, StepwiseFile};
use crate::host::SharedDisk;

/// A file of zeros; without one the log makes its own.
fn prepare<D: SharedDisk>(disk: &mut Stepwise<D>, order: &SegmentOrder) -> Option<D::File> {
    let mut make = || -> Result<D::File, DiskError> {
        let mut file: StepwiseFile<_> = disk.create(&order.path, order.length)?;
        file.sync()?;
        Ok(file.into_inner())
    };
    // The log tries again itself when it must, and then fails for good.
    make()
        .inspect_err(|error| warn!(error = %error, "cannot prepare a log segment"))
        .ok()
}

#[cfg(not(madsim))]
mod beside {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use quorate_core::wal::SegmentOrder;
    use tracing::warn;

    use super::{Stepwise, prepare};
    use crate::host::SharedDisk;

    /// The thread that prepares segments; it ends when this is dropped.
    #[derive(Debug)]
    pub(crate) struct Segments<D: SharedDisk> {
        orders: Sender<SegmentOrder>,
        made: Receiver<D::File>,
    }

    impl<D: SharedDisk> Segments<D> {
        pub(crate) fn start(disk: D) -> Self {
            let mut disk = Stepwise(disk);
            let (orders, ordered) = channel();
            let (maker, made) = channel();
            let thread = std::thread::Builder::new().name("segments".to_owned());
            let thread = thread.spawn(move || {
                while let Ok(order) = ordered.recv() {
                    if let Some(file) = prepare(&mut disk, &order)
                        && maker.send(file).is_err()
                    {
                        return;
                    }
                }
            });
            if let Err(error) = thread {
                // The log then makes its segments itself.
                warn!(error = %error, "cannot start the thread that prepares log segments");
            }
            Self { orders, made }
        }

        /// Has a segment prepared.
        pub(crate) fn order(&mut self, order: SegmentOrder) {
            // Without the thread the log makes its own.
            let _ = self.orders.send(order);
        }

        /// A segment that is ready.
        pub(crate) fn take(&mut self) -> Option<D::File> {
            self.made.try_recv().ok()
        }
    }
}

#[cfg(madsim)]
mod at_once {
    use quorate_core::wal::SegmentOrder;

    use super::{Stepwise, prepare};
    use crate::host::SharedDisk;

    /// The segment that was prepared last.
    #[derive(Debug)]
    pub(crate) struct Segments<D: SharedDisk> {
        disk: Stepwise<D>,
        made: Option<D::File>,
    }

    impl<D: SharedDisk> Segments<D> {
        pub(crate) fn start(disk: D) -> Self {
            let disk = Stepwise(disk);
            Self { disk, made: None }
        }

        /// Has a segment prepared.
        pub(crate) fn order(&mut self, order: SegmentOrder) {
            self.made = prepare(&mut self.disk, &order);
        }

        /// A segment that is ready.
        pub(crate) fn take(&mut self) -> Option<D::File> {
            self.made.take()
        }
    }
}
