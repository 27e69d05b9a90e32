//! What goes wrong: which fault, where, and for how long.

use quorate_core::types::MemberId;

use super::{Event, World};
use crate::check::Violation;

/// A fault that will end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Pause {
        member: MemberId,
        life: u64,
    },
    SlowDisk(MemberId),
    FullDisk(MemberId),
    /// The network's cuts; they heal together.
    Partition,
}

/// The kinds, in the order of their weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Crash,
    PowerLoss,
    PowerLossAll,
    Fuse,
    FailedSync,
    FullDisk,
    Pause,
    SlowDisk,
    Partition,
    Transfer,
}

/// The leader is hit more often than chance would have it, in a million.
const LEADER_PPM: u32 = 350_000;
/// Disk operations until a fuse blows, at most.
const FUSE_OPERATIONS_MAX: u64 = 30;

impl World {
    /// When the next fault comes.
    pub(super) fn next_fault_ns(&mut self) -> Option<u64> {
        let interval_ns = self.options.faults.interval_ns?;
        Some(self.now_ns + self.faults.with_tail(interval_ns))
    }

    fn draw_kind(&mut self) -> Option<Kind> {
        let options = &self.options.faults;
        let weights = [
            (Kind::Crash, options.crash),
            (Kind::PowerLoss, options.power_loss),
            (Kind::PowerLossAll, options.power_loss_all),
            (Kind::Fuse, options.fuse),
            (Kind::FailedSync, options.failed_sync),
            (Kind::FullDisk, options.full_disk),
            (Kind::Pause, options.pause),
            (Kind::SlowDisk, options.pause),
            (Kind::Partition, options.partition),
            (Kind::Transfer, options.transfer),
        ];
        let total = weights.iter().map(|(_, weight)| weight).sum::<u64>();
        let mut left = (total > 0).then(|| self.faults.below(total))?;
        for (kind, weight) in weights {
            match left.checked_sub(weight) {
                None => return Some(kind),
                Some(rest) => left = rest,
            }
        }
        None
    }

    fn draw_member(&mut self) -> MemberId {
        if self.faults.chance(LEADER_PPM)
            && let Some(leader) = self.leader()
        {
            return leader;
        }
        let members: Vec<_> = self.machines.keys().copied().collect();
        *self.faults.pick(&members)
    }

    pub(super) fn begin_fault(&mut self) -> Result<(), Violation> {
        if !self.is_safety() {
            return Ok(());
        }
        if let Some(next_ns) = self.next_fault_ns() {
            self.at(next_ns, Event::FaultBegins);
        }
        let Some(kind) = self.draw_kind() else {
            return Ok(());
        };
        let member = self.draw_member();
        if self.machines[&member].process.is_none() && kind != Kind::Partition {
            return Ok(());
        }
        match kind {
            Kind::Crash => {
                self.count("crash");
                self.crash(member);
                self.boot_later(member);
            }
            Kind::PowerLoss => self.lose_power(member)?,
            Kind::PowerLossAll => self.lose_all_power()?,
            Kind::Fuse => {
                let operations = self.faults.below(FUSE_OPERATIONS_MAX);
                self.note("has a fuse", member, operations);
                self.count("fuse set");
                self.machines[&member].disk.set_fuse(operations);
            }
            Kind::FailedSync => {
                self.note("will fail a sync", member, 0);
                self.count("sync failed");
                self.machines[&member].disk.fail_next_sync();
            }
            Kind::Transfer => self.transfer_leadership(member),
            Kind::FullDisk | Kind::Pause | Kind::SlowDisk | Kind::Partition => {
                self.begin_lasting(kind, member);
            }
        }
        Ok(())
    }

    fn begin_lasting(&mut self, kind: Kind, member: MemberId) {
        let fault = match kind {
            Kind::FullDisk => {
                let disk = &self.machines[&member].disk;
                disk.set_capacity(Some(disk.bytes_used() + 4096));
                self.count("disk full");
                self.note("has a full disk", member, 0);
                Fault::FullDisk(member)
            }
            Kind::Pause => {
                self.count("pause");
                self.pause(member);
                Fault::Pause {
                    member,
                    life: self.machines[&member].life,
                }
            }
            Kind::SlowDisk => {
                self.count("disk slow");
                self.note("has a slow disk", member, 0);
                self.machines.get_mut(&member).expect("a member").is_slow = true;
                Fault::SlowDisk(member)
            }
            _ => {
                self.count("partition");
                self.partition(member);
                Fault::Partition
            }
        };
        let length_ns = self.faults.with_tail(self.options.faults.length_ns);
        self.at(self.now_ns + length_ns, Event::FaultEnds(fault));
    }

    /// Cuts some links: all of one member, or between two halves; both ways, or one.
    fn partition(&mut self, member: MemberId) {
        let members: Vec<_> = self.machines.keys().copied().collect();
        let isolates = self.faults.chance(500_000);
        let one_way = self.faults.chance(300_000);
        let inside: Vec<_> = members
            .iter()
            .map(|other| {
                if isolates {
                    *other == member
                } else {
                    self.faults.chance(500_000)
                }
            })
            .collect();
        self.note("is cut off, or others are", member, u64::from(one_way));
        for (from, &from_inside) in members.iter().zip(&inside) {
            for (to, &to_inside) in members.iter().zip(&inside) {
                let is_cut = if one_way {
                    from_inside && !to_inside
                } else {
                    from_inside != to_inside
                };
                if is_cut {
                    self.network.cut(*from, *to);
                }
            }
        }
    }

    pub(super) fn lose_all_power(&mut self) -> Result<(), Violation> {
        self.count("power lost everywhere");
        let members: Vec<_> = self.machines.keys().copied().collect();
        for member in members {
            self.lose_power(member)?;
        }
        Ok(())
    }

    pub(super) fn end_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Pause { member, life } => {
                if self.machines[&member].life == life && self.machines[&member].is_paused {
                    self.note("goes on", member, 0);
                    self.resume(member);
                }
            }
            Fault::SlowDisk(member) => {
                self.machines.get_mut(&member).expect("a member").is_slow = false;
            }
            Fault::FullDisk(member) => self.machines[&member].disk.set_capacity(None),
            Fault::Partition => self.heal_network(),
        }
    }

    pub(super) fn heal_network(&mut self) {
        for delivery in self.network.heal(self.now_ns) {
            self.at(delivery.at_ns, Event::Deliver(delivery));
        }
    }
}
