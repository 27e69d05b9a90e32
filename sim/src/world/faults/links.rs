//! Faults of the network: which links they concern.

use quorate_core::boundary::Input;
use quorate_core::types::MemberId;

use super::super::{Event, World};
use crate::network::Ill;
use crate::plan::{Shape, Way};

impl World {
    /// Cuts links, all in the name of one fault. `false` if there was nothing to cut.
    pub(super) fn partition(
        &mut self,
        number: usize,
        member: MemberId,
        shape: Shape,
        way: Way,
    ) -> bool {
        let members = self.members();
        let sides = self.draw_sides(number, member, shape);
        let mut has_cut = false;
        for (from, from_sides) in members.iter().zip(&sides) {
            for (to, to_sides) in members.iter().zip(&sides) {
                let meet = from_sides & to_sides != 0;
                let is_out = from_sides & 1 != 0;
                let is_cut = match way {
                    Way::Both => true,
                    Way::Out => is_out,
                    Way::In => !is_out,
                };
                if from != to && !meet && is_cut {
                    self.network.afflict(number, *from, *to, Ill::Cut);
                    has_cut = true;
                }
            }
        }
        if has_cut {
            self.count(match shape {
                Shape::Isolate => "one cut off",
                Shape::Split(_) => "some cut off",
                Shape::Halves => "halves cut apart",
                Shape::Bridge => "halves cut apart but for a bridge",
                Shape::Shatter => "all cut apart",
            });
            if way != Way::Both {
                self.count("cut in one direction");
            }
        }
        has_cut
    }

    /// On which sides each member is, as bits; members that share a side reach each other. The target is on side 0.
    fn draw_sides(&mut self, number: usize, member: MemberId, shape: Shape) -> Vec<u64> {
        let members = self.members();
        let stream = &mut self.faults[number].stream;
        match shape {
            Shape::Isolate => {
                let side = |other: &MemberId| if *other == member { 1 } else { 2 };
                members.iter().map(side).collect()
            }
            Shape::Shatter => (0..members.len()).map(|place| 1 << place).collect(),
            Shape::Halves => {
                let mut side = |other: &MemberId| {
                    if *other == member || stream.chance(500_000) {
                        1
                    } else {
                        2
                    }
                };
                members.iter().map(&mut side).collect()
            }
            Shape::Split(size) => {
                let mut others: Vec<_> = members.iter().filter(|it| **it != member).collect();
                let mut inside = vec![member];
                while (inside.len() as u64) < size && !others.is_empty() {
                    let place = stream.below(others.len() as u64) as usize;
                    inside.push(*others.swap_remove(place));
                }
                let side = |other: &MemberId| if inside.contains(other) { 1 } else { 2 };
                members.iter().map(side).collect()
            }
            Shape::Bridge => {
                let mut places = 0..;
                let mut side = |other: &MemberId| {
                    if *other == member {
                        3
                    } else if places
                        .next()
                        .is_some_and(|place: u64| place.is_multiple_of(2))
                    {
                        1
                    } else {
                        2
                    }
                };
                members.iter().map(&mut side).collect()
            }
        }
    }

    /// Makes all links of a member ill, both ways. `false` if it has none.
    pub(in super::super) fn afflict(&mut self, number: usize, member: MemberId, ill: Ill) -> bool {
        let members = self.members();
        let others = members.into_iter().filter(|other| *other != member);
        let mut has_links = false;
        for other in others {
            self.network.afflict(number, member, other, ill);
            self.network.afflict(number, other, member, ill);
            has_links = true;
        }
        has_links
    }

    /// Breaks the connections of a member with one other, or with all. `false` if nothing was under way.
    pub(super) fn reset_connections(&mut self, number: usize, member: MemberId) -> bool {
        let members = self.members();
        let mut others: Vec<_> = members.into_iter().filter(|it| *it != member).collect();
        let stream = &mut self.faults[number].stream;
        if others.len() > 1 && stream.chance(500_000) {
            others = vec![*stream.pick(&others)];
        }
        let mut lost = 0;
        for other in others {
            lost += self.network.reset(member, other);
            for (one, to) in [(member, other), (other, member)] {
                if self.machines[&one].process.is_some() {
                    self.give(one, Input::Unreachable(to));
                }
            }
        }
        lost > 0
    }

    /// The links that a fault has made ill are well again.
    pub(super) fn mend_links(&mut self, number: usize) {
        for delivery in self.network.end_fault(self.now_ns, number) {
            self.at(delivery.at_ns, Event::Deliver(delivery));
        }
    }

    pub(in super::super) fn heal_network(&mut self) {
        for delivery in self.network.heal(self.now_ns) {
            self.at(delivery.at_ns, Event::Deliver(delivery));
        }
    }
}
