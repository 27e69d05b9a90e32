//! One lane to one peer: a bounded queue, and the response body through which the peer's stream drains it.
//!
//! ```text
//! send() ──> Lane.queue ──poll_frame──> one buffer of many frames ──> hyper ──> one write
//!                 │ full: refused, the caller reports the peer unreachable
//!                 └ nobody attached: refused, the caller takes the next way
//! ```
//!
//! A lane has at most one reader: the stream that attached last. An older one ends when it is polled next. What a
//! stream leaves behind when it breaks is thrown away, since raft repeats what matters, and is reported once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use hyper::body::Frame;
use prost::Message as _;
use quorate_proto::raftpb::Message;
use tokio::time::{Instant, Sleep, sleep_until};

use super::codec::Stream;
use super::limits::{LANE_BYTES_MAX, LANE_MESSAGES_MAX, STREAM_HEARTBEAT, WRITE_BATCH_BYTES};
use super::status::Status;

/// A bounded queue of messages that one attached stream drains.
#[derive(Debug)]
pub(crate) struct Lane {
    stream: Stream,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Empty while nobody is attached.
    queue: VecDeque<Queued>,
    /// Encoded bytes of the queue.
    bytes: usize,
    /// The attachment that may drain the queue; 0 is none.
    attached: u64,
    /// The newest attachment there ever was.
    newest: u64,
    /// Wakes the attached body.
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Queued {
    message: Message,
    bytes: usize,
}

/// What became of a message that was offered to a lane.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the message came by value and goes on by value"
)]
pub(crate) enum Offer {
    Queued,
    /// The lane is full; the message is gone.
    Full,
    /// No stream is attached; try the next way.
    Detached(Message),
}

impl Lane {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            state: Mutex::default(),
        }
    }

    /// Queues a message without waking anybody: [`Self::wake`] follows once per batch.
    pub(crate) fn offer(&self, message: Message) -> Offer {
        let mut state = self.lock();
        if state.attached == 0 {
            return Offer::Detached(message);
        }
        let bytes = message.encoded_len();
        // One message may exceed the bytes on its own, or it could never be sent.
        let full = state.queue.len() >= LANE_MESSAGES_MAX
            || state.bytes.saturating_add(bytes) > LANE_BYTES_MAX;
        if full && !state.queue.is_empty() {
            return Offer::Full;
        }
        state.bytes += bytes;
        state.queue.push_back(Queued { message, bytes });
        Offer::Queued
    }

    /// Wakes the attached stream.
    pub(crate) fn wake(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn is_attached(&self) -> bool {
        self.lock().attached != 0
    }

    /// Ends the attached stream and forgets what waits.
    pub(crate) fn close(&self) {
        {
            let mut state = self.lock();
            state.attached = 0;
            state.clear();
        }
        self.wake();
    }

    /// Makes a body that drains this lane from now on; what the stream before it left is thrown away.
    pub(crate) fn attach(self: &Arc<Self>, status: Arc<Status>, on_lost: OnLost) -> LaneBody {
        let attachment = {
            let mut state = self.lock();
            state.newest += 1;
            state.attached = state.newest;
            state.clear();
            state.newest
        };
        self.wake();
        LaneBody {
            lane: Arc::clone(self),
            attachment,
            status,
            on_lost,
            taken: VecDeque::new(),
            heartbeat: Box::pin(sleep_until(Instant::now() + STREAM_HEARTBEAT)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under this lock leaves the state half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn clear(&mut self) {
        self.queue.clear();
        self.bytes = 0;
    }
}

/// Called once when a stream breaks with messages on it.
pub(crate) type OnLost = Box<dyn Fn() + Send + Sync>;

/// The body of the answer to a stream request; lives as long as the stream.
pub struct LaneBody {
    lane: Arc<Lane>,
    attachment: u64,
    status: Arc<Status>,
    on_lost: OnLost,
    /// Taken from the queue and not yet encoded.
    taken: VecDeque<Queued>,
    heartbeat: Pin<Box<Sleep>>,
}

impl LaneBody {
    /// Moves the queue here; false when another stream has taken the lane, or when the lane was closed.
    fn take(&mut self, cx: &Context<'_>) -> bool {
        let mut state = self.lane.lock();
        if state.attached != self.attachment {
            return false;
        }
        if self.taken.is_empty() {
            std::mem::swap(&mut self.taken, &mut state.queue);
            state.bytes = 0;
        }
        state.waker = Some(cx.waker().clone());
        true
    }

    /// Encodes what was taken, up to one batch.
    fn encode(&mut self, out: &mut BytesMut) {
        let batch = self.taken.iter().scan(0, |total, queued| {
            let before = *total;
            *total += queued.bytes;
            (before < WRITE_BATCH_BYTES).then_some(queued.bytes)
        });
        let (count, bytes) = batch.fold((0, 0), |(count, total), bytes| (count + 1, total + bytes));
        const FRAME_BYTES: usize = 9;
        out.reserve(bytes + count * FRAME_BYTES);
        for queued in self.taken.drain(..count) {
            self.lane.stream.encode(&queued.message, out);
        }
    }
}

impl hyper::body::Body for LaneBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.take(cx) {
            return Poll::Ready(None);
        }
        let mut out = BytesMut::new();
        self.encode(&mut out);
        while self.heartbeat.as_mut().poll(cx).is_ready() {
            self.lane.stream.encode_heartbeat(&mut out);
            self.heartbeat
                .as_mut()
                .reset(Instant::now() + STREAM_HEARTBEAT);
        }
        if out.is_empty() {
            return Poll::Pending;
        }
        self.status
            .sent_bytes
            .fetch_add(out.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(out.freeze()))))
    }
}

impl Drop for LaneBody {
    fn drop(&mut self) {
        let mut lost = !self.taken.is_empty();
        {
            let mut state = self.lane.lock();
            if state.attached == self.attachment {
                lost |= !state.queue.is_empty();
                state.attached = 0;
                state.clear();
                self.status
                    .deactivate(self.lane.stream.name(), "the peer closed the stream");
            }
        }
        if lost {
            self.status.sent_failures.fetch_add(1, Ordering::Relaxed);
            (self.on_lost)();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use quorate_core::MemberId;
    use quorate_proto::raftpb::MessageType;

    use super::super::codec::Decoder;
    use super::*;

    fn attach(lane: &Arc<Lane>) -> (LaneBody, Arc<AtomicUsize>) {
        let lost = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&lost);
        let on_lost = Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        (
            lane.attach(Arc::new(Status::new(MemberId(2))), on_lost),
            lost,
        )
    }

    fn message(index: u64) -> Message {
        Message {
            r#type: MessageType::MsgApp.into(),
            from: 1,
            to: 2,
            index,
            ..Message::default()
        }
    }

    /// The indexes in the next frame of the body; `None` when there is none yet.
    fn indexes(body: &mut LaneBody) -> Option<Vec<u64>> {
        let frame = body
            .frame()
            .now_or_never()?
            .expect("not the end")
            .expect("infallible");
        let mut buffer = BytesMut::from(frame.into_data().expect("data"));
        let mut messages = Vec::new();
        Decoder::new(Stream::MsgApp, MemberId(2), MemberId(1))
            .decode(&mut buffer, &mut messages)
            .expect("own frames");
        Some(messages.iter().map(|message| message.index).collect())
    }

    #[tokio::test]
    async fn messages_that_wait_together_leave_together() {
        let lane = Arc::new(Lane::new(Stream::MsgApp));
        let (mut body, _) = attach(&lane);
        assert_eq!(indexes(&mut body), None);
        for index in 1..=3 {
            assert!(matches!(lane.offer(message(index)), Offer::Queued));
        }
        assert_eq!(indexes(&mut body), Some(vec![1, 2, 3]));
        assert_eq!(indexes(&mut body), None);
    }

    #[tokio::test]
    async fn nothing_waits_while_nobody_is_attached() {
        let lane = Arc::new(Lane::new(Stream::MsgApp));
        assert!(matches!(lane.offer(message(1)), Offer::Detached(_)));
        drop(attach(&lane));
        assert!(matches!(lane.offer(message(1)), Offer::Detached(_)));
    }

    #[tokio::test]
    async fn a_full_lane_refuses() {
        let lane = Arc::new(Lane::new(Stream::MsgApp));
        let (_body, lost) = attach(&lane);
        for index in 0..LANE_MESSAGES_MAX as u64 {
            assert!(matches!(lane.offer(message(index)), Offer::Queued));
        }
        assert!(matches!(lane.offer(message(0)), Offer::Full));
        drop(_body);
        assert_eq!(
            lost.load(Ordering::Relaxed),
            1,
            "one report for all that was lost"
        );
    }

    #[tokio::test]
    async fn the_newest_stream_takes_the_lane() {
        let lane = Arc::new(Lane::new(Stream::MsgApp));
        let (mut old, _) = attach(&lane);
        let (mut new, _) = attach(&lane);
        assert!(old.frame().now_or_never().expect("ended").is_none());
        drop(old);
        assert!(matches!(lane.offer(message(7)), Offer::Queued));
        assert_eq!(indexes(&mut new), Some(vec![7]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_stream_beats() {
        let lane = Arc::new(Lane::new(Stream::MsgApp));
        let (mut body, _) = attach(&lane);
        let start = Instant::now();
        let frame = body
            .frame()
            .await
            .expect("not the end")
            .expect("infallible");
        assert_eq!(frame.into_data().expect("data").as_ref(), [0]);
        assert!(start.elapsed() >= STREAM_HEARTBEAT);
    }
}
