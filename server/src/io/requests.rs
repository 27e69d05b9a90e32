//! The requests that one IO core has open at the node.
//!
//! A request is taken up in three steps: its ticket is drawn and it joins the outbox; the tick hands the whole
//! outbox to the consensus thread; the answer comes back in a delivery and wakes the waiting future. A future that
//! is dropped before (the client went away) leaves its ticket behind, since the node still answers it.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Poll, Waker};

use quorate_core::boundary::{Input, Request, RequestIds, Response};
use quorate_core::error::RequestError;
use quorate_core::types::Ticket;

use super::mailbox::Reply;

type Answer = Result<Response, RequestError>;

/// Open requests and those about to leave.
#[derive(Debug)]
pub(super) struct Requests {
    ids: RequestIds,
    /// What the next tick hands over.
    outbox: Vec<Input>,
    open: HashMap<u64, Open, BuildHasherDefault<TicketHasher>>,
    /// The sum of `Open::bytes`.
    open_bytes: usize,
    requests_max: usize,
    bytes_max: usize,
    /// Set once the node is gone.
    stopped: bool,
}

#[derive(Debug)]
struct Open {
    /// The size of the proposal, for the bound.
    bytes: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Option<Waker>),
    Answered(Answer),
    /// Nobody waits any more.
    Abandoned,
}

impl Requests {
    pub(super) fn new(ids: RequestIds, requests_max: usize, bytes_max: usize) -> Self {
        Self {
            ids,
            outbox: Vec::new(),
            open: HashMap::default(),
            open_bytes: 0,
            requests_max,
            bytes_max,
            stopped: false,
        }
    }

    /// Draws a ticket: a request id that no other request of this member has.
    pub(super) fn take_ticket(&mut self) -> Ticket {
        Ticket(self.ids.take())
    }

    /// Whether another request is refused for now.
    pub(super) fn is_full(&self) -> bool {
        self.open.len() >= self.requests_max || self.open_bytes >= self.bytes_max
    }

    /// Opens a request; it leaves with the next tick.
    pub(super) fn open(&mut self, ticket: Ticket, request: Request) -> Result<(), RequestError> {
        if self.stopped {
            return Err(RequestError::Stopped);
        }
        if self.is_full() {
            return Err(RequestError::RequestTooManyRequests);
        }
        let bytes = match &request {
            Request::Propose(entry) => entry.len(),
            _ => 0,
        };
        self.open_bytes += bytes;
        let before = self.open.insert(
            ticket.0,
            Open {
                bytes,
                state: State::Waiting(None),
            },
        );
        assert!(before.is_none(), "ticket {} is open twice", ticket.0);
        self.outbox.push(Input::Request { ticket, request });
        Ok(())
    }

    /// What leaves now; the caller empties it.
    pub(super) fn outbox(&mut self) -> &mut Vec<Input> {
        &mut self.outbox
    }

    /// The answer of an open request, or a note to wake `waker` when it comes.
    pub(super) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Poll<Answer> {
        let open = self
            .open
            .get_mut(&ticket.0)
            .expect("a future polls its ticket until it has the answer");
        match &mut open.state {
            State::Waiting(waiting) => {
                match waiting {
                    Some(known) => known.clone_from(waker),
                    None => *waiting = Some(waker.clone()),
                }
                Poll::Pending
            }
            State::Answered(_) => {
                let open = self.open.remove(&ticket.0).expect("it was found above");
                let State::Answered(answer) = open.state else {
                    unreachable!("matched above")
                };
                Poll::Ready(answer)
            }
            State::Abandoned => unreachable!("an abandoned ticket has no future"),
        }
    }

    /// Nobody waits for this ticket any more.
    pub(super) fn abandon(&mut self, ticket: Ticket) {
        let Some(open) = self.open.get_mut(&ticket.0) else {
            return;
        };
        if matches!(open.state, State::Answered(_)) {
            self.open.remove(&ticket.0);
        } else {
            open.state = State::Abandoned;
        }
    }

    /// Takes in answers and collects who waits for them.
    pub(super) fn answer(&mut self, replies: &mut Vec<Reply>, wakers: &mut Vec<Waker>) {
        for Reply { ticket, result } in replies.drain(..) {
            let Some(open) = self.open.get_mut(&ticket.0) else {
                continue;
            };
            self.open_bytes -= std::mem::take(&mut open.bytes);
            match std::mem::replace(&mut open.state, State::Answered(result)) {
                State::Waiting(waker) => wakers.extend(waker),
                State::Abandoned => {
                    self.open.remove(&ticket.0);
                }
                State::Answered(_) => panic!("request {} was answered twice", ticket.0),
            }
        }
    }

    /// The node is gone: answers everything that is open, and every later request.
    pub(super) fn stop(&mut self, wakers: &mut Vec<Waker>) {
        self.stopped = true;
        self.outbox.clear();
        self.open
            .retain(|_, open| !matches!(open.state, State::Abandoned));
        for open in self.open.values_mut() {
            if let State::Waiting(waker) = &mut open.state {
                wakers.extend(waker.take());
                open.state = State::Answered(Err(RequestError::Stopped));
            }
        }
    }
}

/// Tickets are sequential numbers of our own making: one multiplication spreads them.
#[derive(Debug, Default)]
pub(super) struct TicketHasher(u64);

impl Hasher for TicketHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("only tickets are hashed");
    }

    fn write_u64(&mut self, ticket: u64) {
        self.0 = ticket.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use bytes::Bytes;
    use quorate_core::types::MemberId;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn requests() -> Requests {
        Requests::new(RequestIds::new(MemberId(1), 0, 0, 1), 2, 100)
    }

    fn answer(requests: &mut Requests, ticket: Ticket) -> Vec<Waker> {
        let mut wakers = Vec::new();
        requests.answer(
            &mut vec![Reply {
                ticket,
                result: Ok(Response::ReadReady),
            }],
            &mut wakers,
        );
        wakers
    }

    #[test]
    fn an_answer_wakes_its_future_and_is_given_once() {
        let mut requests = requests();
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let ticket = requests.take_ticket();
        requests
            .open(ticket, Request::ReadIndex)
            .expect("there is room");
        assert!(requests.poll(ticket, &waker).is_pending());
        answer(&mut requests, ticket)
            .into_iter()
            .for_each(Waker::wake);
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(
            requests.poll(ticket, &waker),
            Poll::Ready(Ok(Response::ReadReady))
        );
        assert!(requests.open.is_empty());
    }

    #[test]
    fn abandoned_requests_count_until_the_node_answers() {
        let mut requests = requests();
        let (first, second) = (requests.take_ticket(), requests.take_ticket());
        requests
            .open(first, Request::ReadIndex)
            .expect("there is room");
        requests
            .open(second, Request::ReadIndex)
            .expect("there is room");
        requests.abandon(first);
        let third = requests.take_ticket();
        assert_eq!(
            requests.open(third, Request::ReadIndex),
            Err(RequestError::RequestTooManyRequests)
        );
        assert!(answer(&mut requests, first).is_empty());
        requests
            .open(third, Request::ReadIndex)
            .expect("the answer made room");
    }

    #[test]
    fn open_proposals_are_bounded_in_bytes() {
        let mut requests = requests();
        let first = requests.take_ticket();
        requests
            .open(first, Request::Propose(Bytes::from(vec![0; 100])))
            .expect("there is room");
        assert!(requests.is_full());
        answer(&mut requests, first);
        assert!(!requests.is_full());
    }

    #[test]
    fn a_stopped_node_answers_everything() {
        let mut requests = requests();
        let ticket = requests.take_ticket();
        requests
            .open(ticket, Request::ReadIndex)
            .expect("there is room");
        requests.stop(&mut Vec::new());
        assert_eq!(
            requests.poll(ticket, Waker::noop()),
            Poll::Ready(Err(RequestError::Stopped))
        );
        let late = requests.take_ticket();
        assert_eq!(
            requests.open(late, Request::ReadIndex),
            Err(RequestError::Stopped)
        );
    }
}
