//! The network between members: it loses, delays, repeats and holds back, but never changes what it carries.
//!
//! It owns the links and what is held on them; the world owns the queue of what is on its way. Every message is
//! encoded when it is sent and decoded when it arrives.
//!
//! As between real members there are two lanes in each direction, appends and the rest, each of them in order unless
//! a run allows otherwise. A proposal is never repeated: it has no identity that the log would know it by, and the
//! connection that carries it does not repeat either.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::types::MemberId;
use quorate_proto::raftpb::{Message, MessageType};

use crate::random::{Purpose, Stream};

/// How bad the network of a run is.
#[derive(Clone, Copy, Debug)]
pub struct NetworkOptions {
    /// The usual delay of a message.
    pub delay_ns: u64,
    /// Messages lost, in a million.
    pub loss_ppm: u32,
    /// Messages repeated, in a million.
    pub repeat_ppm: u32,
    /// Messages that overtake those before them in their lane, in a million.
    pub overtake_ppm: u32,
    /// Whether a cut link holds messages back until it heals, instead of losing them.
    pub hold: bool,
}

/// A message that will arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at_ns: u64,
    /// Who sent it.
    pub from: MemberId,
    /// Whom it is for.
    pub to: MemberId,
    /// The encoded message.
    pub bytes: Bytes,
}

/// What a network has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Messages given to it.
    pub sent: u64,
    /// Lost on their way, cut links included.
    pub lost: u64,
    /// Repeated.
    pub repeated: u64,
    /// Delivered before one that was sent earlier in the same lane.
    pub overtaken: u64,
    /// Held back by a cut link and delivered later.
    pub held: u64,
}

/// All links of a cluster.
#[derive(Debug)]
pub struct Network {
    seed: u64,
    options: NetworkOptions,
    links: BTreeMap<(MemberId, MemberId), Link>,
    counts: NetworkCounts,
}

#[derive(Debug)]
struct Link {
    stream: Stream,
    is_cut: bool,
    /// When the last message of each lane arrives.
    last_ns: [u64; 2],
    /// Kept until the link heals.
    held: Vec<Delivery>,
}

impl Network {
    /// A network without messages.
    pub fn new(seed: u64, options: NetworkOptions) -> Self {
        Self {
            seed,
            options,
            links: BTreeMap::new(),
            counts: NetworkCounts::default(),
        }
    }

    /// What it has done so far.
    pub fn counts(&self) -> NetworkCounts {
        self.counts
    }

    /// From now on it is a good network: nothing is lost, repeated or overtaken.
    pub fn calm(&mut self) {
        self.options.loss_ppm = 0;
        self.options.repeat_ppm = 0;
        self.options.overtake_ppm = 0;
    }

    /// Sends a message; it may arrive once, more often, or never.
    pub fn send(
        &mut self,
        now_ns: u64,
        from: MemberId,
        to: MemberId,
        message: &Message,
    ) -> Vec<Delivery> {
        self.counts.sent += 1;
        let options = self.options;
        let link = self.link(from, to);
        let is_proposal = message.r#type == MessageType::MsgProp as i32;
        let lane = usize::from(message.r#type == MessageType::MsgApp as i32);
        if link.stream.chance(options.loss_ppm) || (link.is_cut && !options.hold) {
            self.counts.lost += 1;
            return Vec::new();
        }
        let mut at_ns = now_ns + link.stream.with_tail(options.delay_ns);
        let overtakes = at_ns <= link.last_ns[lane] && link.stream.chance(options.overtake_ppm);
        if !overtakes {
            at_ns = at_ns.max(link.last_ns[lane] + 1);
            link.last_ns[lane] = at_ns;
        }
        let bytes = Bytes::from(message.encode_to_vec());
        let first = Delivery {
            at_ns,
            from,
            to,
            bytes,
        };
        if link.is_cut {
            link.held.push(first);
            self.counts.held += 1;
            return Vec::new();
        }
        let repeats = !is_proposal && link.stream.chance(options.repeat_ppm);
        let again_ns = at_ns + link.stream.with_tail(options.delay_ns * 4);
        self.counts.overtaken += u64::from(overtakes);
        if !repeats {
            return vec![first];
        }
        self.counts.repeated += 1;
        let again = Delivery {
            at_ns: again_ns,
            ..first.clone()
        };
        vec![first, again]
    }

    /// What arrives now. `None` when the link was cut meanwhile; it may come later.
    pub fn arrive(&mut self, delivery: Delivery) -> Option<Message> {
        let options = self.options;
        let link = self.link(delivery.from, delivery.to);
        if link.is_cut {
            if options.hold {
                link.held.push(delivery);
                self.counts.held += 1;
            } else {
                self.counts.lost += 1;
            }
            return None;
        }
        Some(Message::decode(delivery.bytes).expect("what was encoded can be decoded"))
    }

    /// Cuts the way from one member to another, in this direction only.
    pub fn cut(&mut self, from: MemberId, to: MemberId) {
        self.link(from, to).is_cut = true;
    }

    /// Whether that way is cut.
    pub fn is_cut(&self, from: MemberId, to: MemberId) -> bool {
        self.links.get(&(from, to)).is_some_and(|link| link.is_cut)
    }

    /// Heals all ways; returns what was held back, to be delivered from now on.
    pub fn heal(&mut self, now_ns: u64) -> Vec<Delivery> {
        let delay_ns = self.options.delay_ns;
        let mut deliveries = Vec::new();
        for link in self.links.values_mut() {
            link.is_cut = false;
            for held in std::mem::take(&mut link.held) {
                let at_ns = now_ns + link.stream.with_tail(delay_ns);
                deliveries.push(Delivery { at_ns, ..held });
            }
        }
        deliveries
    }

    fn link(&mut self, from: MemberId, to: MemberId) -> &mut Link {
        let seed = self.seed;
        self.links.entry((from, to)).or_insert_with(|| Link {
            stream: Stream::new(seed, Purpose::Network, from.0.rotate_left(32) ^ to.0),
            is_cut: false,
            last_ns: [0; 2],
            held: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: NetworkOptions = NetworkOptions {
        delay_ns: 1_000_000,
        loss_ppm: 0,
        repeat_ppm: 0,
        overtake_ppm: 0,
        hold: false,
    };
    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);

    fn message(kind: MessageType, index: u64) -> Message {
        Message {
            r#type: kind as i32,
            index,
            ..Message::default()
        }
    }

    /// Sends 200 messages, one a microsecond, and returns (arrival, index), sorted by arrival.
    fn exchange(options: NetworkOptions, kind: MessageType) -> (Vec<(u64, u64)>, NetworkCounts) {
        let mut network = Network::new(5, options);
        let mut arrivals = Vec::new();
        for index in 0..200 {
            for delivery in network.send(index * 1000, A, B, &message(kind, index)) {
                let at_ns = delivery.at_ns;
                let arrived = network.arrive(delivery).expect("nothing is cut");
                arrivals.push((at_ns, arrived.index));
            }
        }
        arrivals.sort_unstable();
        (arrivals, network.counts())
    }

    fn indexes(arrivals: &[(u64, u64)]) -> Vec<u64> {
        arrivals.iter().map(|&(_, index)| index).collect()
    }

    #[test]
    fn a_lane_keeps_its_order() {
        let (arrivals, _) = exchange(GOOD, MessageType::MsgApp);
        assert_eq!(indexes(&arrivals), (0..200).collect::<Vec<_>>());
    }

    #[test]
    fn messages_overtake_only_where_that_is_allowed() {
        let options = NetworkOptions {
            overtake_ppm: 500_000,
            ..GOOD
        };
        let (arrivals, counts) = exchange(options, MessageType::MsgApp);
        assert!(!indexes(&arrivals).is_sorted());
        assert!(counts.overtaken > 0);
    }

    #[test]
    fn messages_are_lost_and_repeated_at_about_the_given_rate() {
        let options = NetworkOptions {
            loss_ppm: 300_000,
            repeat_ppm: 300_000,
            ..GOOD
        };
        let (arrivals, counts) = exchange(options, MessageType::MsgHeartbeat);
        assert!((30..90).contains(&counts.lost), "{counts:?}");
        assert!((20..80).contains(&counts.repeated), "{counts:?}");
        assert_eq!(
            arrivals.len() as u64,
            counts.sent - counts.lost + counts.repeated
        );
    }

    #[test]
    fn a_proposal_is_never_repeated() {
        let options = NetworkOptions {
            repeat_ppm: 1_000_000,
            ..GOOD
        };
        let (arrivals, _) = exchange(options, MessageType::MsgProp);
        assert_eq!(arrivals.len(), 200);
    }

    #[test]
    fn a_cut_is_one_way_and_catches_what_is_under_way() {
        let mut network = Network::new(1, GOOD);
        let ping = message(MessageType::MsgHeartbeat, 0);
        let under_way = network.send(0, A, B, &ping).pop().unwrap();
        network.cut(A, B);
        assert_eq!(network.arrive(under_way), None);
        assert_eq!(network.send(0, A, B, &ping), []);
        assert_eq!(network.send(0, B, A, &ping).len(), 1);
        assert_eq!(network.heal(5), []);
        assert_eq!(network.send(0, A, B, &ping).len(), 1);
        assert_eq!(network.counts().lost, 2);
    }

    #[test]
    fn what_a_cut_holds_back_arrives_after_the_heal() {
        let mut network = Network::new(1, NetworkOptions { hold: true, ..GOOD });
        network.cut(A, B);
        let ping = message(MessageType::MsgHeartbeat, 3);
        assert_eq!(network.send(0, A, B, &ping), []);
        let held = network.heal(1_000_000_000).pop().unwrap();
        assert!(held.at_ns > 1_000_000_000);
        assert_eq!(network.arrive(held).unwrap().index, 3);
    }
}
