//! Snapshots from one member to another: the message and the image, stored beside the receiver's own before its node
//! hears of it.

use bytes::Bytes;
use quorate_core::boundary::Input;
use quorate_core::checkpoint::{Arrival, DATABASE};
use quorate_core::disk::{Disk as _, DiskFile as _};
use quorate_core::lease;
use quorate_core::node::ReceivedImage;
use quorate_core::types::{Index, MemberId};
use quorate_proto::raftpb::Message;

use super::member::INTACT;
use super::{Event, State};

/// A snapshot on its way.
#[derive(Debug)]
pub(super) struct Parcel {
    from: usize,
    to: usize,
    message: Message,
    image: Bytes,
}

impl State {
    pub(super) fn send_snapshot(&mut self, from: usize, to: MemberId, message: Message) {
        let place = self.members.iter().position(|member| member.id == to);
        let Some(place) = place.filter(|place| !self.cut.contains(&(from, *place))) else {
            return self.give(from, Input::SnapshotSent { to, done: false });
        };
        let image = self.members[from].disk.open(DATABASE);
        let image = image.and_then(|file| file.read()).expect(INTACT);
        let parcel = Parcel {
            from,
            to: place,
            message,
            image,
        };
        let way_ns = self.delay_ns();
        self.after(way_ns, Event::Snapshot(Box::new(parcel)));
    }

    pub(super) fn on_snapshot(&mut self, parcel: Parcel) {
        let Parcel {
            from,
            to,
            message,
            image,
        } = parcel;
        let (sender, receiver) = (self.members[from].id, self.members[to].id);
        let done = self.members[to].is_up() && !self.cut.contains(&(from, to));
        if done {
            let index = message.snapshot.as_ref().map_or(0, |it| it.metadata.index);
            self.scheduled += 1;
            let disk = self.members[to].disk.clone();
            let mut arrival = Arrival::begin(disk, Index(index), self.scheduled).expect(INTACT);
            arrival.write(&image).expect(INTACT);
            let (path, content) = arrival.finish().expect(INTACT);
            let lease = lease::Config::new(self.options.heartbeat, 10, false);
            let image = ReceivedImage::load(path, content, lease);
            let image = Box::new(image.expect("a member's own checkpoint can be read"));
            let from = sender;
            self.give(
                to,
                Input::SnapshotReceived {
                    from,
                    message,
                    image,
                },
            );
        }
        self.give(from, Input::SnapshotSent { to: receiver, done });
    }
}
