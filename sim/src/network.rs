//! The network between members: it loses, delays, repeats, resets and holds back, but never changes what it carries.
//!
//! It owns the links and what is held on them; the world owns the queue of what is on its way. Every message is
//! encoded when it is sent and decoded when it arrives.
//!
//! As between real members there are two lanes in each direction, appends and the rest, each of them in order unless
//! a run allows otherwise. A proposal is never repeated: it has no identity that the log would know it by, and the
//! connection that carries it does not repeat either.
//!
//! What is wrong with a link is a set of [`Ill`]s, each named by the fault that brought it, so that faults may overlap
//! and end one by one.
//!
//! ```text
//!   send ─► loss? ─► queue full? ─► bandwidth ─► delay, lane order ─► under way ─► cut or reset meanwhile? ─► arrive
//!                       │ refused                    cut and holding: kept until the cut ends
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::types::MemberId;
use quorate_proto::raftpb::{Message, MessageType};

use crate::random::{Purpose, Stream};

/// What would wait longer for bandwidth finds the lane full, and no message needs more for itself: a narrow link must not
/// be late for minutes after it has become wide.
const WAIT_NS_MAX: u64 = 1_000_000_000;

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
    /// Bytes that a link carries in a second; 0 is no limit.
    pub bandwidth: u64,
    /// Messages that may be under way in a lane; what comes then is refused.
    pub queue_max: u32,
}

/// Something that is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ill {
    /// Nothing passes.
    Cut,
    /// Every message takes so many times as long.
    Slow(u64),
    /// So many messages in a million are lost.
    Lossy(u32),
    /// It carries only so many bytes in a second.
    Narrow(u64),
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
    /// Its number on its link.
    pub number: u64,
    /// The connection that carries it; what an earlier one carried is lost.
    connection: u32,
    /// The lane that it takes room in; a repetition takes none.
    lane: Option<u8>,
}

/// The way from one member to another.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// Whether nothing passes.
    pub is_cut: bool,
    /// The usual delay.
    pub delay_ns: u64,
    /// What is lost, in a million.
    pub loss_ppm: u32,
}

/// What became of a message that was sent.
#[derive(Debug, Default)]
pub struct Sent {
    /// It will arrive.
    pub first: Option<Delivery>,
    /// It will arrive once more.
    pub again: Option<Delivery>,
    /// The lane was full, and the sender knows.
    pub is_refused: bool,
}

/// What a network has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Messages given to it.
    pub sent: u64,
    /// Lost on their way without any other reason.
    pub lost: u64,
    /// Lost in a cut.
    pub cut: u64,
    /// Repeated.
    pub repeated: u64,
    /// Delivered before one that was sent earlier in the same lane.
    pub overtaken: u64,
    /// Held back by a cut link and delivered later.
    pub held: u64,
    /// Refused, since the lane was full.
    pub refused: u64,
    /// Lost with their connection.
    pub reset: u64,
    /// Sent on a slow link.
    pub slowed: u64,
    /// Lost on a lossy link.
    pub lost_on_bad_link: u64,
    /// That had to wait for bandwidth.
    pub queued: u64,
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
    /// What is wrong with it, by fault.
    ills: Vec<(usize, Ill)>,
    /// What the ills come to.
    is_cut: bool,
    slowness: u64,
    loss_ppm: u32,
    bandwidth: u64,
    /// When the last message of each lane arrives.
    last_ns: [u64; 2],
    /// Messages under way in each lane.
    under_way: [u32; 2],
    /// When everything that was sent is on the wire.
    free_ns: u64,
    /// Messages sent.
    sent: u64,
    /// Counts connections.
    connection: u32,
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

    /// From now on it is a good network: nothing is lost, repeated, overtaken or refused.
    pub fn calm(&mut self) {
        self.options.loss_ppm = 0;
        self.options.repeat_ppm = 0;
        self.options.overtake_ppm = 0;
        self.options.bandwidth = 0;
        self.options.queue_max = u32::MAX;
        for link in self.links.values_mut() {
            link.assess(&self.options);
        }
    }

    /// Sends a message; it may arrive once, more often, or never.
    pub fn send(&mut self, now_ns: u64, from: MemberId, to: MemberId, message: &Message) -> Sent {
        let options = self.options;
        let (link, counts) = self.link(from, to);
        counts.sent += 1;
        link.sent += 1;
        let is_proposal = message.r#type == MessageType::MsgProp as i32;
        let lane = u8::from(message.r#type == MessageType::MsgApp as i32);
        let room = &mut link.under_way[usize::from(lane)];
        if link.stream.chance(options.loss_ppm) {
            counts.lost += 1;
            return Sent::default();
        }
        if link.loss_ppm > 0 && link.stream.chance(link.loss_ppm) {
            counts.lost_on_bad_link += 1;
            return Sent::default();
        }
        if link.is_cut && !options.hold {
            counts.cut += 1;
            return Sent::default();
        }
        let waits_ns = match link.bandwidth {
            0 => 0,
            _ => link.free_ns.saturating_sub(now_ns),
        };
        if *room >= options.queue_max || waits_ns > WAIT_NS_MAX {
            counts.refused += 1;
            return Sent {
                is_refused: true,
                ..Sent::default()
            };
        }
        *room += 1;
        let bytes = Bytes::from(message.encode_to_vec());
        let leaves_ns = link.leaves_ns(now_ns, bytes.len() as u64, counts);
        counts.slowed += u64::from(link.slowness > 1);
        let delay_ns = options.delay_ns * link.slowness;
        let mut at_ns = leaves_ns + link.stream.with_tail(delay_ns);
        let last_ns = &mut link.last_ns[usize::from(lane)];
        let overtakes = at_ns <= *last_ns && link.stream.chance(options.overtake_ppm);
        if !overtakes {
            at_ns = at_ns.max(*last_ns + 1);
            *last_ns = at_ns;
        }
        let first = Delivery {
            at_ns,
            from,
            to,
            bytes,
            number: link.sent,
            connection: link.connection,
            lane: Some(lane),
        };
        if link.is_cut {
            link.held.push(first);
            counts.held += 1;
            return Sent::default();
        }
        counts.overtaken += u64::from(overtakes);
        let repeats = !is_proposal && link.stream.chance(options.repeat_ppm);
        counts.repeated += u64::from(repeats);
        let again = repeats.then(|| Delivery {
            at_ns: at_ns + link.stream.with_tail(options.delay_ns * 4),
            lane: None,
            ..first.clone()
        });
        Sent {
            first: Some(first),
            again,
            is_refused: false,
        }
    }

    /// What arrives now. `None` when the link was cut or its connection reset meanwhile; it may come later.
    pub fn arrive(&mut self, delivery: Delivery) -> Option<Message> {
        let options = self.options;
        let (link, counts) = self.link(delivery.from, delivery.to);
        if delivery.connection != link.connection {
            counts.reset += 1;
            return None;
        }
        if link.is_cut && options.hold {
            link.held.push(delivery);
            counts.held += 1;
            return None;
        }
        if let Some(lane) = delivery.lane {
            link.under_way[usize::from(lane)] -= 1;
        }
        if link.is_cut {
            counts.cut += 1;
            return None;
        }
        Some(Message::decode(delivery.bytes).expect("what was encoded can be decoded"))
    }

    /// A fault makes the way from one member to another ill, in this direction only.
    pub fn afflict(&mut self, fault: usize, from: MemberId, to: MemberId, ill: Ill) {
        let options = self.options;
        let (link, _) = self.link(from, to);
        link.ills.push((fault, ill));
        link.assess(&options);
    }

    /// The connections between two members break: what is under way on them is lost. Returns how much that was.
    pub fn reset(&mut self, one: MemberId, other: MemberId) -> u64 {
        let mut lost = 0;
        for (from, to) in [(one, other), (other, one)] {
            let (link, _) = self.link(from, to);
            lost += u64::from(link.under_way.iter().sum::<u32>());
            link.connection += 1;
            link.under_way = [0; 2];
            link.last_ns = [0; 2];
            link.held.clear();
        }
        lost
    }

    /// How it stands with the way from one member to another, for what goes beside the lanes.
    pub fn way(&mut self, from: MemberId, to: MemberId) -> Way {
        let options = self.options;
        let (link, _) = self.link(from, to);
        Way {
            is_cut: link.is_cut,
            delay_ns: options.delay_ns * link.slowness,
            loss_ppm: options.loss_ppm.max(link.loss_ppm),
        }
    }

    /// Whether that way is cut.
    pub fn is_cut(&self, from: MemberId, to: MemberId) -> bool {
        self.links.get(&(from, to)).is_some_and(|link| link.is_cut)
    }

    /// A fault ends; returns what was held back, to be delivered from now on.
    pub fn end_fault(&mut self, now_ns: u64, fault: usize) -> Vec<Delivery> {
        self.mend(now_ns, |(by, _)| *by != fault)
    }

    /// All faults end.
    pub fn heal(&mut self, now_ns: u64) -> Vec<Delivery> {
        self.mend(now_ns, |_| false)
    }

    fn mend(&mut self, now_ns: u64, stays: impl Fn(&(usize, Ill)) -> bool) -> Vec<Delivery> {
        let options = self.options;
        let mut deliveries = Vec::new();
        for link in self.links.values_mut() {
            link.ills.retain(&stays);
            link.assess(&options);
            if link.is_cut {
                continue;
            }
            for held in std::mem::take(&mut link.held) {
                let at_ns = now_ns + link.stream.with_tail(options.delay_ns);
                deliveries.push(Delivery { at_ns, ..held });
            }
        }
        deliveries
    }

    fn link(&mut self, from: MemberId, to: MemberId) -> (&mut Link, &mut NetworkCounts) {
        let (seed, bandwidth) = (self.seed, self.options.bandwidth);
        let link = self.links.entry((from, to)).or_insert_with(|| Link {
            stream: Stream::new(seed, Purpose::Network, from.0.rotate_left(32) ^ to.0),
            ills: Vec::new(),
            is_cut: false,
            slowness: 1,
            loss_ppm: 0,
            bandwidth,
            last_ns: [0; 2],
            under_way: [0; 2],
            free_ns: 0,
            sent: 0,
            connection: 0,
            held: Vec::new(),
        });
        (link, &mut self.counts)
    }
}

impl Link {
    /// Sums up what is wrong with it.
    fn assess(&mut self, options: &NetworkOptions) {
        self.is_cut = false;
        self.slowness = 1;
        self.loss_ppm = 0;
        self.bandwidth = options.bandwidth;
        for (_, ill) in &self.ills {
            match *ill {
                Ill::Cut => self.is_cut = true,
                Ill::Slow(times) => self.slowness = self.slowness.max(times),
                Ill::Lossy(ppm) => self.loss_ppm = self.loss_ppm.max(ppm),
                Ill::Narrow(bytes) if self.bandwidth == 0 => self.bandwidth = bytes,
                Ill::Narrow(bytes) => self.bandwidth = self.bandwidth.min(bytes),
            }
        }
    }

    /// When the last byte of a message of this length is on the wire.
    fn leaves_ns(&mut self, now_ns: u64, length: u64, counts: &mut NetworkCounts) -> u64 {
        if self.bandwidth == 0 {
            return now_ns;
        }
        counts.queued += u64::from(self.free_ns > now_ns);
        let takes_ns = (length * 1_000_000_000 / self.bandwidth).min(WAIT_NS_MAX);
        self.free_ns = self.free_ns.max(now_ns) + takes_ns;
        self.free_ns
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
        bandwidth: 0,
        queue_max: u32::MAX,
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
            let sent = network.send(index * 1000, A, B, &message(kind, index));
            for delivery in [sent.first, sent.again].into_iter().flatten() {
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
        let under_way = network.send(0, A, B, &ping).first.unwrap();
        network.afflict(0, A, B, Ill::Cut);
        assert_eq!(network.arrive(under_way), None);
        assert_eq!(network.send(0, A, B, &ping).first, None);
        assert!(network.send(0, B, A, &ping).first.is_some());
        assert_eq!(network.heal(5), []);
        assert!(network.send(0, A, B, &ping).first.is_some());
        assert_eq!(network.counts().cut, 2);
    }

    #[test]
    fn what_a_cut_holds_back_arrives_after_the_heal() {
        let mut network = Network::new(1, NetworkOptions { hold: true, ..GOOD });
        network.afflict(0, A, B, Ill::Cut);
        let ping = message(MessageType::MsgHeartbeat, 3);
        assert_eq!(network.send(0, A, B, &ping).first, None);
        let held = network.heal(1_000_000_000).pop().unwrap();
        assert!(held.at_ns > 1_000_000_000);
        assert_eq!(network.arrive(held).unwrap().index, 3);
    }

    #[test]
    fn overlapping_cuts_end_one_by_one() {
        let mut network = Network::new(1, GOOD);
        network.afflict(1, A, B, Ill::Cut);
        network.afflict(2, A, B, Ill::Cut);
        network.end_fault(0, 1);
        assert!(network.is_cut(A, B));
        network.end_fault(0, 2);
        assert!(!network.is_cut(A, B));
    }

    #[test]
    fn a_full_lane_refuses_until_something_has_arrived() {
        let options = NetworkOptions {
            queue_max: 2,
            ..GOOD
        };
        let mut network = Network::new(1, options);
        let ping = message(MessageType::MsgHeartbeat, 0);
        let first = network.send(0, A, B, &ping).first.unwrap();
        assert!(!network.send(0, A, B, &ping).is_refused);
        assert!(network.send(0, A, B, &ping).is_refused);
        assert!(
            !network
                .send(0, A, B, &message(MessageType::MsgApp, 0))
                .is_refused
        );
        network.arrive(first).unwrap();
        assert!(!network.send(0, A, B, &ping).is_refused);
    }

    #[test]
    fn a_narrow_link_spreads_what_it_carries() {
        let mut network = Network::new(1, GOOD);
        network.afflict(0, A, B, Ill::Narrow(100));
        let ping = message(MessageType::MsgHeartbeat, 7);
        let length = ping.encoded_len() as u64;
        let last = (0..10).map(|_| network.send(0, A, B, &ping).first.unwrap().at_ns);
        assert!(last.max().unwrap() >= 10 * length * 1_000_000_000 / 100);
        assert_eq!(network.counts().queued, 9);
    }

    #[test]
    fn a_message_that_is_long_for_its_link_is_not_late_for_minutes() {
        let mut network = Network::new(1, GOOD);
        network.afflict(0, A, B, Ill::Narrow(1));
        let ping = message(MessageType::MsgHeartbeat, 7);
        let at_ns = network.send(0, A, B, &ping).first.unwrap().at_ns;
        assert!((WAIT_NS_MAX..2 * WAIT_NS_MAX).contains(&at_ns));
    }

    #[test]
    fn a_narrow_link_refuses_what_would_wait_for_long() {
        let mut network = Network::new(1, GOOD);
        network.afflict(0, A, B, Ill::Narrow(100));
        let ping = message(MessageType::MsgHeartbeat, 7);
        let sent: Vec<_> = (0..100).map(|_| network.send(0, A, B, &ping)).collect();
        assert!(sent[0].first.is_some());
        assert!(sent[99].is_refused);
        let last = sent
            .iter()
            .filter_map(|it| it.first.as_ref())
            .map(|it| it.at_ns);
        assert!(last.max().unwrap() < 2 * WAIT_NS_MAX);
    }

    #[test]
    fn a_reset_loses_what_is_under_way_and_nothing_else() {
        let mut network = Network::new(1, GOOD);
        let ping = message(MessageType::MsgHeartbeat, 1);
        let lost = network.send(0, A, B, &ping).first.unwrap();
        assert_eq!(network.reset(B, A), 1);
        let kept = network.send(0, A, B, &ping).first.unwrap();
        assert_eq!(network.arrive(lost), None);
        assert!(network.arrive(kept).is_some());
        assert_eq!(network.counts().reset, 1);
    }
}
