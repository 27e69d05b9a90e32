//! What will happen, in order of time; what is due at one time, in the order in which it was queued.
//!
//! The heap holds numbers only: events are large, and would be moved again and again inside it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A queue of events.
#[derive(Debug)]
pub(super) struct Queue<E> {
    /// (time, number, slot), the first on top.
    heap: BinaryHeap<Reverse<(u64, u64, u32)>>,
    /// The events; an empty slot is one of `free`.
    slots: Vec<Option<E>>,
    free: Vec<u32>,
    /// Counts events.
    queued: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            queued: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Adds an event.
    pub(super) fn push(&mut self, at_ns: u64, event: E) {
        self.queued += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("far fewer events wait")
        });
        self.slots[slot as usize] = Some(event);
        self.heap.push(Reverse((at_ns, self.queued, slot)));
    }

    /// Takes the first event, with its time.
    pub(super) fn pop(&mut self) -> Option<(u64, E)> {
        let Reverse((at_ns, _, slot)) = self.heap.pop()?;
        let event = self.slots[slot as usize].take();
        self.free.push(slot);
        Some((at_ns, event.expect("a queued slot holds an event")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_queued() {
        let mut queue = Queue::default();
        for (at_ns, event) in [(5, "c"), (1, "a"), (5, "d"), (3, "b")] {
            queue.push(at_ns, event);
        }
        assert_eq!(queue.pop(), Some((1, "a")));
        queue.push(5, "e");
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest, [(3, "b"), (5, "c"), (5, "d"), (5, "e")]);
    }
}
