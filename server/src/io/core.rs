//! One IO core: a thread with its own single-threaded runtime, and the tick that does its hand-offs in batches.
//!
//! ```text
//!   ready connections ──► requests ─► outbox ─┐            (a) take the delivery, wake its futures locally
//!                     └─► writes ─► dirty ────┤  tick ───► (b) hand the outbox over: one lock, one wake-up
//!   node's delivery ─────────────────────────┘            (c) one write per dirty socket
//! ```
//!
//! The tick is woken by the first request, the first dirty socket or the node, and runs after the connections that
//! were ready by then. Everything of a core stays on its thread: the futures of services hold a ticket only and find
//! the rest through the thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use quorate_core::boundary::{Input, Request, RequestIds, Response};
use quorate_core::error::RequestError;
use quorate_core::types::{Ticket, Time};
use quorate_core::watch::HubConfig;
use quorate_net::peer::Transport;

use super::home;
pub(crate) use super::home::{Home, if_alive, with};
use super::mailbox::{Delivery, Mailbox};
use super::requests::Requests;
use super::socket::Socket;
use super::watches::Watches;
use crate::driver::clock::Clock;
use crate::driver::queue::Queue;
use crate::state::ServerState;

/// How old the numbers of watches may be.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// What an IO core needs of the rest of the server.
#[derive(Clone, Debug)]
pub struct CoreParts {
    /// Where requests go.
    pub inbox: Arc<Queue<Input>>,
    /// Where answers come from.
    pub mailbox: Arc<Mailbox>,
    /// What services look at.
    pub state: Arc<ServerState>,
    /// The tickets of this core.
    pub ids: RequestIds,
    /// The server's clock.
    pub clock: Clock,
    /// The randomness of this core.
    pub seed: u64,
    /// The links to the other members, for what only the leader answers; none for a thread that never asks them.
    pub peers: Option<Arc<Transport>>,
}

/// The state of this thread's core.
pub(crate) struct Core {
    inbox: Arc<Queue<Input>>,
    mailbox: Arc<Mailbox>,
    state: Arc<ServerState>,
    requests: RefCell<Requests>,
    watches: RefCell<Watches>,
    clock: Clock,
    peers: Option<Arc<Transport>>,
    dirty: RefCell<Vec<Arc<Socket>>>,
    /// Whether the tick is going to look at the outbox and the dirty sockets anyway.
    scheduled: Cell<bool>,
    /// Until when the tick sleeps if nothing happens.
    waits_until: Cell<Time>,
}

impl fmt::Debug for Core {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Core").finish_non_exhaustive()
    }
}

/// Makes this thread an IO core; its runtime must then run [`tick_forever`].
pub(crate) fn install(parts: CoreParts) {
    let limits = &parts.state.limits;
    let hub = HubConfig {
        response_bytes_max: limits.receive_bytes_max(),
        progress_interval: limits.watch_progress_interval,
        seed: parts.seed,
    };
    let core = Core {
        watches: RefCell::new(Watches::new(
            hub,
            parts.clock,
            parts.state.view.clone(),
            parts.state.watch_numbers(),
        )),
        clock: parts.clock,
        peers: parts.peers,
        requests: RefCell::new(Requests::new(
            parts.ids,
            limits.open_requests_max,
            limits.open_bytes_max,
        )),
        inbox: parts.inbox,
        mailbox: parts.mailbox,
        state: parts.state,
        dirty: RefCell::default(),
        scheduled: Cell::new(false),
        waits_until: Cell::new(Time::NEVER),
    };
    home::settle(core);
}

/// The server's state, from any task of an IO core.
pub(crate) fn state() -> Arc<ServerState> {
    with(|core| Arc::clone(&core.state))
}

/// The links to the other members.
pub(crate) fn peers() -> Option<Arc<Transport>> {
    with(|core| core.peers.clone())
}

/// How many inputs wait for the node.
pub(crate) fn inputs_waiting() -> u64 {
    with(|core| core.inbox.len() as u64)
}

/// Asks the node something. The answer comes once; dropping the future drops the answer only.
pub(crate) fn request(request: Request) -> Answer {
    let ticket = take_ticket();
    request_as(ticket, request)
}

/// Draws a ticket for [`request_as`]: a proposal needs it inside its header.
pub(crate) fn take_ticket() -> Ticket {
    with(|core| core.requests.borrow_mut().take_ticket())
}

/// Asks the node something under a ticket drawn before.
pub(crate) fn request_as(ticket: Ticket, request: Request) -> Answer {
    let refused = with(|core| {
        let opened = core.requests.borrow_mut().open(ticket, request);
        if opened.is_ok() {
            core.schedule();
        }
        opened.err()
    });
    Answer {
        ticket,
        refused,
        open: true,
    }
}

/// Whether the node has more open requests of this core than it should.
pub(crate) fn is_overloaded() -> bool {
    with(|core| core.requests.borrow().is_full())
}

/// The answer to one request.
#[derive(Debug)]
pub(crate) struct Answer {
    ticket: Ticket,
    refused: Option<RequestError>,
    /// Whether the core still knows the ticket on behalf of this future.
    open: bool,
}

impl Future for Answer {
    type Output = Result<Response, RequestError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(self.open, "polled after it was ready");
        if let Some(refused) = self.refused.take() {
            self.open = false;
            return Poll::Ready(Err(refused));
        }
        let answer = with(|core| {
            core.requests
                .borrow_mut()
                .poll(self.ticket, context.waker())
        });
        self.open = answer.is_pending();
        answer
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.open && self.refused.is_none() {
            if_alive(|core| core.requests.borrow_mut().abandon(self.ticket));
        }
    }
}

/// The tick task of this thread's core.
pub(crate) async fn tick_forever() {
    let mailbox = with(|core| Arc::clone(&core.mailbox));
    let mut delivery = Delivery::default();
    let mut wakers = Vec::new();
    loop {
        wait(&mailbox).await;
        mailbox.take(&mut delivery);
        with(|core| core.hand_out(&mut delivery, &mut wakers));
        // What was just woken runs first, so that its writes and requests leave with this tick.
        requeue().await;
        with(|core| {
            core.send();
            core.write();
        });
    }
}

/// Keeps the numbers of this core's watches fresh for metrics.
pub(super) async fn count_forever() {
    let mut interval = tokio::time::interval(COUNT_INTERVAL);
    loop {
        interval.tick().await;
        with(|core| core.watches.borrow().count());
    }
}

/// Waits for the next reason to tick: something to hand over, or the hub's time.
async fn wait(mailbox: &Mailbox) {
    let due = with(|core| {
        let deadline = core.watches.borrow().deadline();
        core.waits_until.set(deadline);
        if deadline == Time::NEVER {
            return None;
        }
        Some(
            core.clock
                .instant(deadline)
                .expect("only NEVER never comes"),
        )
    });
    match due {
        None => mailbox.wait().await,
        Some(due) => {
            tokio::select! {
                () = mailbox.wait() => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }
}

impl Core {
    /// Works with the watch streams of this core.
    pub(crate) fn watches<R>(&self, work: impl FnOnce(&mut Watches) -> R) -> R {
        let mut watches = self.watches.borrow_mut();
        let done = work(&mut watches);
        if watches.deadline() < self.waits_until.get() {
            self.schedule();
        }
        done
    }

    /// What services look at.
    pub(crate) fn state(&self) -> &ServerState {
        &self.state
    }

    /// Has the tick write this socket.
    pub(super) fn schedule_write(&self, socket: Arc<Socket>) {
        self.dirty.borrow_mut().push(socket);
        self.schedule();
    }

    fn schedule(&self) {
        if !self.scheduled.replace(true) {
            self.mailbox.schedule();
        }
    }

    fn hand_out(&self, delivery: &mut Delivery, wakers: &mut Vec<Waker>) {
        {
            let mut requests = self.requests.borrow_mut();
            requests.answer(&mut delivery.replies, wakers);
            if delivery.stopped {
                requests.stop(wakers);
            }
        }
        self.watches
            .borrow_mut()
            .tick(delivery.store_advanced, wakers);
        // Woken outside of the borrow: a waker may run code that asks for something.
        for waker in wakers.drain(..) {
            waker.wake();
        }
    }

    fn send(&self) {
        self.scheduled.set(false);
        self.inbox.append(self.requests.borrow_mut().outbox());
    }

    fn write(&self) {
        let dirty = mem::take(&mut *self.dirty.borrow_mut());
        for socket in &dirty {
            socket.write_waiting();
        }
        let mut emptied = dirty;
        emptied.clear();
        let mut current = self.dirty.borrow_mut();
        if current.is_empty() {
            *current = emptied;
        }
    }
}

/// Lets everything that is ready now run first.
async fn requeue() {
    let mut requeued = false;
    poll_fn(|context| {
        if mem::replace(&mut requeued, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
