//! Snapshots on their way from one member to another, past the lanes: the message and the image of the checkpoint.
//!
//! As in the server, the receiver stores the image beside its own, durably, before its node hears of it; the sender
//! hears whether that has worked.

use bytes::Bytes;
use quorate_core::boundary::Input;
use quorate_core::checkpoint::{Arrival, DATABASE, Install, remove_arrived};
use quorate_core::disk::{Disk as _, DiskError, DiskFile as _};
use quorate_core::lease;
use quorate_core::node::ReceivedImage;
use quorate_core::types::{Index, MemberId};
use quorate_proto::raftpb::Message;

use super::{Event, World, name};
use crate::check::Violation;
use crate::network::Delivery;
use crate::trace::line;

/// A snapshot that will arrive.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) from: MemberId,
    pub(super) to: MemberId,
    message: Message,
    image: Bytes,
    /// Whether the sender's disk was damaged when the image was read from it.
    may_be_damaged: bool,
    /// Its way through the network; what that carries stands for the message.
    delivery: Delivery,
}

impl World {
    pub(super) fn send_snapshot(
        &mut self,
        from: MemberId,
        to: MemberId,
        message: Message,
    ) -> Result<(), Violation> {
        self.raft.on_send(&mut self.facts, from, &message)?;
        let mut disk = self.machines[&from].disk.clone();
        let image = disk.open(DATABASE).and_then(|file| file.read());
        if disk.is_dark() {
            return self.lose_power(from);
        }
        let delivery = self.network.send(self.now_ns, from, to, &message).first;
        let (Ok(image), Some(delivery)) = (image, delivery) else {
            self.give(from, Input::SnapshotSent { to, done: false });
            return Ok(());
        };
        self.count("snapshot sent");
        let words = [8, from.0, to.0, index_of(&message).0, image.len() as u64];
        self.trace.event(self.now_ns, &words, &[], || {
            let (index, bytes) = (index_of(&message).0, image.len());
            let what = format!("sends to {}", name(to));
            line(
                &name(from),
                what,
                format_args!("snapshot {index}, {bytes} bytes"),
            )
        });
        let at_ns = delivery.at_ns;
        let parcel = Parcel {
            from,
            to,
            message,
            image,
            may_be_damaged: disk.is_spoilt(),
            delivery,
        };
        self.at(at_ns, Event::Snapshot(Box::new(parcel)));
        Ok(())
    }

    pub(super) fn on_snapshot(&mut self, parcel: Parcel) -> Result<(), Violation> {
        let Parcel {
            from,
            to,
            message,
            image,
            may_be_damaged,
            delivery,
        } = parcel;
        self.note("is sent a snapshot", to, index_of(&message).0);
        let is_up = self.machines[&to].process.is_some();
        if self.network.arrive(delivery).is_none() || !is_up {
            self.give(from, Input::SnapshotSent { to, done: false });
            return Ok(());
        }
        let stored = self.store(to, index_of(&message), &image);
        if self.machines[&to].disk.is_dark() {
            self.give(from, Input::SnapshotSent { to, done: false });
            return self.lose_power(to);
        }
        let lease = lease::Config::new(self.options.tick, self.options.election_ticks, false);
        let content = image;
        let loaded = stored
            .ok()
            .map(|(path, content)| (path.clone(), ReceivedImage::load(path, content, lease)));
        let done = matches!(loaded, Some((_, Ok(_))));
        self.give(from, Input::SnapshotSent { to, done });
        match loaded {
            None => Ok(()),
            Some((_, Ok(image))) => {
                self.count("snapshot received");
                if self.corruption.is_altered(from) {
                    self.count("snapshot of altered data");
                    self.corruption.alter(to);
                }
                if !may_be_damaged {
                    self.judge_image(to, image.index().0, content)?;
                }
                let image = Box::new(image);
                self.give(
                    to,
                    Input::SnapshotReceived {
                        from,
                        message,
                        image,
                    },
                );
                Ok(())
            }
            Some((path, Err(error))) => {
                let _ = remove_arrived(&mut self.machines[&to].disk.clone(), &path);
                if may_be_damaged || self.machines[&to].disk.is_spoilt() {
                    self.count("damaged snapshot refused");
                    return Ok(());
                }
                let detail = format!("{from:?} sent a snapshot that cannot be read: {error}");
                Err(Violation::new("contract.output", detail))
            }
        }
    }

    fn store(
        &mut self,
        member: MemberId,
        index: Index,
        image: &Bytes,
    ) -> Result<(String, Bytes), DiskError> {
        let machine = self.machines.get_mut(&member).expect("a member");
        machine.arrivals += 1;
        let mut arrival = Arrival::begin(machine.disk.clone(), index, machine.arrivals)?;
        for part in image.chunks(4096) {
            arrival.write(part)?;
        }
        arrival.finish()
    }

    /// The node has no use for what came.
    pub(super) fn discard(&mut self, member: MemberId, install: &Install) -> Result<(), Violation> {
        let mut disk = self.machines[&member].disk.clone();
        // What cannot be removed now is removed at the next start.
        let _ = install.discard(&mut disk);
        if disk.is_dark() {
            return self.lose_power(member);
        }
        self.count("snapshot discarded");
        Ok(())
    }

    /// Puts a received image in its place, as the first step of a write.
    pub(super) fn install(&mut self, member: MemberId, install: &Install) -> Result<(), DiskError> {
        let mut disk = self.machines[&member].disk.clone();
        install.carry_out(&mut disk)?;
        self.count("snapshot installed");
        if self.is_struck() {
            self.counts.insert("run with snapshots under faults", 1);
        }
        self.images.on_image(member, install.index().0);
        let machine = self.machines.get_mut(&member).expect("a member");
        machine.snapshots += 1;
        let is_watched = machine
            .process
            .as_ref()
            .is_some_and(|process| !process.streams.is_empty());
        if machine.snapshots > 1 {
            self.count("snapshot installed again");
        }
        if is_watched {
            self.count("watch over a snapshot");
        }
        self.note("installs a snapshot", member, install.index().0);
        Ok(())
    }
}

fn index_of(message: &Message) -> Index {
    let snapshot = message.snapshot.as_ref();
    Index(snapshot.map_or(0, |snapshot| snapshot.metadata.index))
}
