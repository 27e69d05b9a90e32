//! The queue in front of a thread: the consensus thread's inbox, the log writer's work.
//!
//! Many threads add, one takes everything at once. A thread adds what it has as one batch: one lock, and one
//! wake-up only if the taker sleeps. The queue itself has no bound: each thread that adds for clients bounds what it
//! has open (`io::core`), peers are bounded by their transport, and the node bounds what it has in flight.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What waits for one thread.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    arrived: Condvar,
    /// Where a task waits instead of a thread.
    #[cfg(madsim)]
    news: tokio::sync::Notify,
}

#[derive(Debug)]
struct Waiting<T> {
    items: Vec<T>,
    /// Whether the taker sleeps and has not been woken yet.
    asleep: bool,
    /// Set once: the taker ends after what is queued.
    closed: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let waiting = Waiting {
            items: Vec::new(),
            asleep: false,
            closed: false,
        };
        Self {
            waiting: Mutex::new(waiting),
            arrived: Condvar::new(),
            #[cfg(madsim)]
            news: tokio::sync::Notify::new(),
        }
    }
}

impl<T> Queue<T> {
    /// Adds one item.
    pub fn push(&self, item: T) {
        let mut waiting = self.lock();
        waiting.items.push(item);
        self.wake(waiting);
    }

    /// Adds all items of `batch`, in order, and leaves it empty.
    pub fn append(&self, batch: &mut Vec<T>) {
        if batch.is_empty() {
            return;
        }
        let mut waiting = self.lock();
        waiting.items.append(batch);
        self.wake(waiting);
    }

    /// How many items wait at this moment; for metrics.
    pub fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes [`Queue::take`] answer false once everything queued so far was taken.
    pub fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        self.wake(waiting);
    }

    /// Waits until there is something, or until `deadline`, and moves everything into `into`, which must be empty.
    /// False when it is closed and drained.
    pub fn take(&self, into: &mut Vec<T>, deadline: Option<Instant>) -> bool {
        assert!(into.is_empty(), "the last batch was handled");
        let mut waiting = self.lock();
        while waiting.items.is_empty() {
            if waiting.closed {
                return false;
            }
            waiting.asleep = true;
            waiting = match deadline {
                None => self
                    .arrived
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let patience = deadline.saturating_duration_since(Instant::now());
                    if patience.is_zero() {
                        break;
                    }
                    self.arrived
                        .wait_timeout(waiting, patience)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
        waiting.asleep = false;
        std::mem::swap(&mut waiting.items, into);
        true
    }

    /// As [`Queue::take`], for a task in simulated time.
    #[cfg(madsim)]
    pub(crate) async fn arrive(&self, into: &mut Vec<T>, deadline: Option<Instant>) -> bool {
        assert!(into.is_empty(), "the last batch was handled");
        loop {
            {
                let mut waiting = self.lock();
                if !waiting.items.is_empty() {
                    std::mem::swap(&mut waiting.items, into);
                    return true;
                }
                if waiting.closed {
                    return false;
                }
                waiting.asleep = true;
            }
            match deadline {
                None => self.news.notified().await,
                Some(deadline) => {
                    tokio::select! {
                        () = self.news.notified() => {}
                        () = tokio::time::sleep_until(deadline) => return true,
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut waiting: MutexGuard<'_, Waiting<T>>) {
        let asleep = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if asleep {
            self.arrived.notify_one();
            #[cfg(madsim)]
            self.news.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn batches_of_one_thread_keep_their_order() {
        let queue = Queue::default();
        queue.push(1);
        queue.append(&mut vec![2, 3]);
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, None));
        assert_eq!(taken, [1, 2, 3]);
    }

    #[test]
    fn every_item_of_many_threads_is_taken_once() {
        let queue = Arc::new(Queue::default());
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    for number in 0..1_000 {
                        queue.push(writer * 1_000 + number);
                    }
                })
            })
            .collect();
        let mut all = Vec::new();
        let mut taken = Vec::new();
        while all.len() < 4_000 {
            assert!(queue.take(&mut taken, None));
            all.append(&mut taken);
        }
        for writer in writers {
            writer.join().expect("the writer only pushes");
        }
        all.sort_unstable();
        assert_eq!(all, (0..4_000).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_queue_answers_at_the_deadline() {
        let queue: Queue<u8> = Queue::default();
        let mut taken = Vec::new();
        let deadline = Instant::now() + Duration::from_millis(5);
        assert!(queue.take(&mut taken, Some(deadline)));
        assert!(taken.is_empty());
        assert!(Instant::now() >= deadline);
    }

    #[test]
    fn a_closed_queue_gives_what_it_holds_and_then_ends() {
        let queue = Queue::default();
        queue.push(7);
        queue.close();
        let mut taken = Vec::new();
        assert!(queue.take(&mut taken, None));
        assert_eq!(taken.len(), 1);
        taken.clear();
        assert!(!queue.take(&mut taken, None));
    }
}
