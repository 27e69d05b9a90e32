//! The link to one peer: its lanes, its pipeline, and the tasks that read from it and look whether it is there.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use quorate_core::MemberId;
use quorate_proto::raftpb::{Message, MessageType};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::claims::Claims;
use super::codec::Stream;
use super::lane::{Lane, Offer};
use super::limits::PIPELINE_WORKERS;
use super::picker::EndpointPicker;
use super::pipeline::{self, Pipeline};
use super::status::{PeerStatus, Status};
use super::transport::Shared;
use super::{probe, reader};

/// Everything that belongs to one peer; dropping it ends its tasks and streams.
#[derive(Debug)]
pub(super) struct Link {
    urls: Vec<String>,
    pub(super) picker: Arc<EndpointPicker>,
    pub(super) status: Arc<Status>,
    msgapp: Arc<Lane>,
    message: Arc<Lane>,
    pub(super) pipeline: Arc<Pipeline>,
    /// Which processes have opened streams as this member.
    claims: Mutex<Claims>,
    _tasks: Tasks,
}

/// A sender that is no member yet, as far as this one knows; dropping it ends its tasks.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) pipeline: Arc<Pipeline>,
    _tasks: Tasks,
}

/// Ends its tasks when dropped.
#[derive(Debug)]
struct Tasks(Vec<AbortHandle>);

/// The ways to a peer, as far as waking goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Lane(Stream),
    Pipeline,
}

impl Link {
    /// Connects to a member: begins to read its streams, and to look whether it is there.
    pub(super) fn start(shared: &Arc<Shared>, member: MemberId, urls: Vec<String>) -> Self {
        info!(peer = %format_args!("{:x}", member.0), ?urls, "added remote peer");
        let picker = Arc::new(EndpointPicker::default());
        picker.replace(urls.iter().map(String::as_str));
        let status = Arc::new(Status::new(member));
        let pipeline = Arc::new(Pipeline::default());
        let mut tasks = start_pipeline(shared, member, &picker, &status, &pipeline);
        for stream in Stream::ALL {
            let reader = reader::Reader {
                shared: Arc::clone(shared),
                peer: member,
                stream,
                picker: Arc::clone(&picker),
                status: Arc::clone(&status),
            };
            tasks.push(shared.runtime.spawn(reader.run()).abort_handle());
        }
        let probe = probe::run(Arc::clone(shared), Arc::clone(&picker), Arc::clone(&status));
        tasks.push(shared.runtime.spawn(probe).abort_handle());
        Self {
            urls,
            picker,
            status,
            msgapp: Arc::new(Lane::new(Stream::MsgApp)),
            message: Arc::new(Lane::new(Stream::Message)),
            pipeline,
            claims: Mutex::default(),
            _tasks: Tasks(tasks),
        }
    }

    /// A process opens a stream as this member. Says so if another one has done that since this one did.
    pub(super) fn claim(&self, member: MemberId, process: &str) {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if claims.claim(process, Instant::now()) {
            error!(
                peer = %format_args!("{:x}", member.0),
                "two processes run with the data of one member: its data directory was copied. Acknowledged writes may \
                 be lost; end the copy, remove its data, and let it join as a new member"
            );
        }
    }

    /// Goes on with these URLs.
    pub(super) fn update(&mut self, urls: Vec<String>) {
        if self.urls != urls {
            self.picker.replace(urls.iter().map(String::as_str));
            self.urls = urls;
        }
    }

    /// The state of the link.
    pub(super) fn read(&self) -> PeerStatus {
        self.status
            .read(Stream::ALL.map(|stream| self.lane(stream).is_attached()))
    }

    /// The lane that the peer drains through this stream.
    pub(super) fn lane(&self, stream: Stream) -> &Arc<Lane> {
        match stream {
            Stream::MsgApp => &self.msgapp,
            Stream::Message => &self.message,
        }
    }

    /// Queues a message on the best way that is open; `None` when it was dropped.
    pub(super) fn offer(&self, mut message: Message) -> Option<Way> {
        if message.r#type == i32::from(MessageType::MsgSnap) {
            // A snapshot is more than this message: it has a way of its own.
            return self.dropped("a snapshot cannot be sent as a message");
        }
        let is_append = message.r#type == i32::from(MessageType::MsgApp);
        let streams: &[Stream] = if is_append {
            &Stream::ALL
        } else {
            &[Stream::Message]
        };
        for stream in streams {
            match self.lane(*stream).offer(message) {
                Offer::Queued => return Some(Way::Lane(*stream)),
                Offer::Full => return self.dropped("sending buffer is full"),
                Offer::Detached(back) => message = back,
            }
        }
        if self.pipeline.offer(message) {
            return Some(Way::Pipeline);
        }
        self.dropped("sending buffer is full")
    }

    fn dropped(&self, reason: &str) -> Option<Way> {
        let before = self.status.sent_failures.fetch_add(1, Ordering::Relaxed);
        // Of a burst, the first and then every thousandth.
        if before.is_multiple_of(1000) {
            let peer = self.status.member().0;
            warn!(peer = %format_args!("{peer:x}"), reason, failures = before + 1, "dropped raft message");
        }
        None
    }
}

impl Remote {
    /// A way to answer at these URLs; `None` if none of them is one.
    pub(super) fn start(shared: &Arc<Shared>, member: MemberId, urls: &str) -> Option<Self> {
        let picker = Arc::new(EndpointPicker::default());
        picker.replace(urls.split(','));
        if picker.all().is_empty() {
            return None;
        }
        let status = Arc::new(Status::new(member));
        let pipeline = Arc::new(Pipeline::default());
        let tasks = start_pipeline(shared, member, &picker, &status, &pipeline);
        Some(Self {
            pipeline,
            _tasks: Tasks(tasks),
        })
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.msgapp.close();
        self.message.close();
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

fn start_pipeline(
    shared: &Arc<Shared>,
    peer: MemberId,
    picker: &Arc<EndpointPicker>,
    status: &Arc<Status>,
    pipeline: &Arc<Pipeline>,
) -> Vec<AbortHandle> {
    let worker = pipeline::Worker {
        shared: Arc::clone(shared),
        peer,
        picker: Arc::clone(picker),
        status: Arc::clone(status),
        pipeline: Arc::clone(pipeline),
    };
    (0..PIPELINE_WORKERS)
        .map(|_| shared.runtime.spawn(worker.clone().run()).abort_handle())
        .collect()
}
