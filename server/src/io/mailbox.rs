//! What other threads hand to one IO core: answers of the node, and the news that the store went on.
//!
//! However much is handed over between two looks of the core, it costs one wake-up.

use std::sync::{Mutex, MutexGuard, PoisonError};

use quorate_core::boundary::Response;
use quorate_core::error::RequestError;
use quorate_core::types::Ticket;
use tokio::sync::Notify;

/// One answered request.
#[derive(Debug)]
pub struct Reply {
    /// The request.
    pub ticket: Ticket,
    /// Its answer.
    pub result: Result<Response, RequestError>,
}

/// Everything that arrived since the last look.
#[derive(Debug, Default)]
pub struct Delivery {
    /// Answers, in the node's order.
    pub replies: Vec<Reply>,
    /// Whether the store reached a new revision.
    pub store_advanced: bool,
    /// Whether the node is gone: no request gets an answer any more.
    pub stopped: bool,
}

/// The letter box of one IO core.
#[derive(Debug, Default)]
pub struct Mailbox {
    inner: Mutex<Inner>,
    tick: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    delivery: Delivery,
    /// Whether the core was woken and has not looked yet.
    woken: bool,
}

impl Mailbox {
    /// Hands over a batch of answers, leaving `replies` empty, and the news that the store reached a new revision.
    pub fn deliver(&self, replies: &mut Vec<Reply>, store_advanced: bool) {
        if replies.is_empty() && !store_advanced {
            return;
        }
        let mut inner = self.lock();
        inner.delivery.replies.append(replies);
        inner.delivery.store_advanced |= store_advanced;
        self.wake(inner);
    }

    /// Tells that the node is gone.
    pub fn stopped(&self) {
        let mut inner = self.lock();
        inner.delivery.stopped = true;
        self.wake(inner);
    }

    /// Wakes the core's tick task from the core itself.
    pub(super) fn schedule(&self) {
        self.tick.notify_one();
    }

    /// Waits for the next reason to tick.
    pub(super) async fn wait(&self) {
        self.tick.notified().await;
    }

    /// Moves everything that arrived into `into`, whose replies must be empty.
    pub(super) fn take(&self, into: &mut Delivery) {
        assert!(into.replies.is_empty(), "the last delivery was handed out");
        let mut inner = self.lock();
        inner.woken = false;
        std::mem::swap(&mut inner.delivery.replies, &mut into.replies);
        into.store_advanced = std::mem::take(&mut inner.delivery.store_advanced);
        into.stopped = inner.delivery.stopped;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, mut inner: MutexGuard<'_, Inner>) {
        let woken = std::mem::replace(&mut inner.woken, true);
        drop(inner);
        if !woken {
            self.tick.notify_one();
        }
    }
}
