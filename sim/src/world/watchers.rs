//! Watchers: clients that follow some keys through one member at a time, and go on elsewhere when that one dies.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use quorate_core::types::MemberId;
use quorate_core::watch::StreamId;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::watch_create_request::FilterType;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;

use super::workload::{key, probe_key};
use super::{Doing, Event, World, name};
use crate::check::ledger::Ledger;
use crate::check::watch::{Follow, Heard};
use crate::check::{Facts, Violation};
use crate::load::{Group, Target, WatchStart, WatchWork, Work};
use crate::random::{Purpose, Stream};
use crate::trace::line;

/// Responses that a watcher takes before it lets the member do something else.
const RESPONSES_PER_PULL: usize = 8;

/// One watcher.
pub(super) struct Watcher {
    stream: Stream,
    /// The longest time that it does not read.
    think_ns: u64,
    target: Target,
    /// How often it asks for progress or leaves, in a million times that it has read.
    restless_ppm: u32,
    /// The only member that it asks, if it is one of those that look in the end whether each member tells of changes.
    home: Option<MemberId>,
    /// Events that it has heard since that end began.
    pub(super) events: u64,
    /// Where it begins, until that is known.
    start: Option<WatchStart>,
    /// Its watches, all on one stream: the first has the id 1, and so on.
    follows: Vec<Follow>,
    progress_notify: bool,
    /// Where it is connected.
    at: Option<(MemberId, StreamId)>,
    /// Whether it will read, and when is known already.
    is_pulling: bool,
}

impl Watcher {
    pub(super) fn new(seed: u64, number: u64, group: &Group, work: WatchWork) -> Self {
        let mut stream = Stream::new(seed, Purpose::Client, 1_000 + number);
        let watches = stream.between(1, work.watches_max.max(1));
        let follows = (0..watches).map(|_| draw_follow(&mut stream, group.keys));
        let follows = follows.collect();
        let start = work.start.unwrap_or_else(|| WatchStart::draw(&mut stream));
        Self {
            think_ns: group.think_ns,
            target: group.target,
            restless_ppm: work.restless_ppm,
            home: None,
            events: 0,
            start: Some(start),
            progress_notify: stream.chance(500_000),
            stream,
            follows,
            at: None,
            is_pulling: false,
        }
    }

    /// One that asks only this member, for what settling writes.
    fn probe(seed: u64, number: u64, home: MemberId) -> Self {
        let mut watcher = Self::new(seed, number, &Group::of(Work::Put), WatchWork::USUAL);
        watcher.home = Some(home);
        watcher.start = Some(WatchStart::Now);
        watcher.think_ns = 1_000_000;
        watcher.follows = vec![Follow {
            key: probe_key(),
            range_end: Bytes::new(),
            prev_kv: false,
            no_delete: false,
            next: 0,
        }];
        watcher
    }

    fn requests(&self) -> impl Iterator<Item = pb::WatchRequest> {
        (1..)
            .zip(&self.follows)
            .map(|(id, follow)| self.request(id, follow))
    }

    fn request(&self, watch_id: i64, follow: &Follow) -> pb::WatchRequest {
        let filters = if follow.no_delete {
            vec![FilterType::Nodelete as i32]
        } else {
            Vec::new()
        };
        let create = pb::WatchCreateRequest {
            key: follow.key.clone(),
            range_end: follow.range_end.clone(),
            start_revision: follow.next,
            progress_notify: self.progress_notify,
            filters,
            prev_kv: follow.prev_kv,
            watch_id,
            ..pb::WatchCreateRequest::default()
        };
        pb::WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(create)),
        }
    }

    /// Decides where it begins, when it first connects to a store at this revision and compact revision.
    fn begin(&mut self, revision: i64, compacted: i64) {
        let (start, stream) = (self.start.take(), &mut self.stream);
        for follow in &mut self.follows {
            follow.next = first_revision(start, follow.next, stream, (revision, compacted));
        }
    }

    /// Takes a response: for the watch that it names, or news of how far all of them are.
    fn hear(
        &mut self,
        facts: &mut Facts,
        ledger: &Ledger,
        response: &pb::WatchResponse,
    ) -> Result<Heard, Violation> {
        let is_for_all = response.watch_id == -1 && response.events.is_empty();
        let mut named: Vec<_> = (1..)
            .zip(&mut self.follows)
            .filter(|(id, _)| is_for_all || *id == response.watch_id)
            .collect();
        facts.expect("watch.delivery", !named.is_empty(), || {
            format!("no watch of this stream has the id of {response:?}")
        })?;
        let mut heard = Heard::Going;
        for (_, follow) in &mut named {
            heard = follow.hear(facts, ledger, response)?;
            if let Heard::Compacted(revision) = heard {
                follow.next = revision;
            }
        }
        Ok(heard)
    }

    /// The member that it is connected to, or waits for and no other.
    pub(super) fn place(&self, number: usize, members: &[MemberId]) -> Option<MemberId> {
        let waits_for = (self.target == Target::Each).then(|| members[number % members.len()]);
        let waits_for = self.home.or(waits_for);
        self.at.map(|(member, _)| member).or(waits_for)
    }

    /// What it has not heard although it is committed.
    pub(super) fn missing(&self, ledger: &Ledger) -> Option<String> {
        if self.at.is_none() {
            return Some(format!("{:?} are not connected", self.follows));
        }
        self.follows.iter().find_map(|follow| {
            let missed = follow.outstanding(ledger).next()?;
            Some(format!("{follow:?} has not heard of {:?}", missed.kv))
        })
    }
}

/// Some keys, and how they are followed.
fn draw_follow(stream: &mut Stream, keys: u64) -> Follow {
    let first = stream.below(keys);
    let range_end = match stream.below(4) {
        0 => Bytes::new(),
        1 => key(first + 3),
        _ => Bytes::from_static(b"\0"),
    };
    Follow {
        key: key(first),
        range_end,
        prev_kv: stream.chance(400_000),
        no_delete: stream.chance(150_000),
        next: 0,
    }
}

/// Where a watch begins at a store with this revision and compact revision; one that has begun goes on.
fn first_revision(
    start: Option<WatchStart>,
    next: i64,
    stream: &mut Stream,
    (revision, compacted): (i64, i64),
) -> i64 {
    match start {
        None => next,
        Some(WatchStart::Now) => 0,
        Some(WatchStart::Beginning) => 1,
        Some(WatchStart::Past { behind_max }) => {
            (revision - stream.below(behind_max.max(1)) as i64).max(1)
        }
        Some(WatchStart::Future {
            ahead_min,
            ahead_max,
        }) => revision + stream.between(ahead_min, ahead_max.max(ahead_min)) as i64,
        Some(WatchStart::Compacted) => (compacted - 1).max(1),
    }
}

impl World {
    /// From now on each of these members must tell of a change, to a watch of its own.
    pub(super) fn watch_probes(&mut self, members: &BTreeSet<MemberId>) {
        for &member in members {
            let is_there = |watcher: &Watcher| watcher.home == Some(member);
            let number = self.watchers.iter().position(is_there).unwrap_or_else(|| {
                let number = self.watchers.len();
                let watcher = Watcher::probe(self.seed, number as u64, member);
                self.watchers.push(watcher);
                number
            });
            self.watchers[number].events = 0;
            self.at(self.now_ns, Event::WatcherConnects(number));
        }
    }

    /// A member is gone for good: its own watch goes on elsewhere.
    pub(super) fn leave_home(&mut self, member: MemberId) {
        for watcher in &mut self.watchers {
            watcher.home = watcher.home.filter(|home| *home != member);
        }
    }

    /// Whether a member has told its own watch of a change.
    pub(super) fn has_told(&self, member: MemberId) -> bool {
        let mut own = self.watchers.iter().filter(|it| it.home == Some(member));
        own.all(|watcher| watcher.events > 0)
    }

    pub(super) fn watcher_connects(&mut self, number: usize) {
        let members = self.members();
        let leader = self.leader();
        let watcher = &mut self.watchers[number];
        if watcher.at.is_some() {
            return;
        }
        let leader = leader.filter(|_| members.len() > 1);
        let member = match (watcher.target, leader) {
            _ if watcher.home.is_some() => watcher.home.expect("just looked at"),
            (Target::Each, _) => members[number % members.len()],
            (Target::Leader, Some(leader)) => leader,
            (Target::Follower, Some(leader)) => {
                let followers = members.into_iter().filter(|member| *member != leader);
                *watcher.stream.pick(&followers.collect::<Vec<_>>())
            }
            _ => *watcher.stream.pick(&members),
        };
        let retry_ns = watcher.stream.with_tail(100_000_000);
        let machine = self.machines.get_mut(&member).expect("a member");
        let now = machine.clock.read(self.now_ns);
        let Some(process) = machine.process.as_mut().filter(|_| !machine.is_paused) else {
            return self.at(self.now_ns + retry_ns, Event::WatcherConnects(number));
        };
        let view = process.node.view();
        let (start, revision) = (watcher.start, view.revision().0);
        watcher.begin(revision, view.compact_revision().0);
        let stream = process.hub.open(now);
        process.streams.insert(stream, number);
        for request in watcher.requests() {
            process.hub.handle(now, stream, request, &view);
        }
        watcher.at = Some((member, stream));
        let next = watcher.follows[0].next;
        self.mark_watch(start, next, revision);
        self.note("is watched", member, next as u64);
        self.turn_at(member, self.now_ns + 1_000);
    }

    /// Its member is gone; it goes on at another one.
    pub(super) fn watcher_is_cut_off(&mut self, number: usize) {
        let watcher = &mut self.watchers[number];
        watcher.at = None;
        watcher.is_pulling = false;
        let after_ns = watcher.stream.with_tail(100_000_000);
        self.at(self.now_ns + after_ns, Event::WatcherConnects(number));
    }

    /// After a turn: the hub follows the store, and those that have something to hear will read it.
    pub(super) fn serve_watches(
        &mut self,
        member: MemberId,
        advanced: bool,
    ) -> Result<(), Violation> {
        let machine = self.machines.get_mut(&member).expect("a member");
        let now = machine.clock.read(self.now_ns);
        let process = machine.process.as_mut().expect("a running member");
        if advanced || process.hub.deadline() <= now {
            process.hub.advance(now, &process.node.view());
        }
        let ready: Vec<_> = process.hub.ready();
        let numbers: Vec<_> = ready
            .iter()
            .filter_map(|stream| process.streams.get(stream).copied())
            .collect();
        for number in numbers {
            self.pull_later(member, number);
        }
        Ok(())
    }

    fn pull_later(&mut self, member: MemberId, number: usize) {
        let is_safety = self.is_safety();
        let watcher = &mut self.watchers[number];
        let pause_ns = if is_safety {
            watcher.think_ns
        } else {
            1_000_000
        };
        if !std::mem::replace(&mut watcher.is_pulling, true) {
            let after_ns = watcher.stream.with_tail(pause_ns);
            self.in_process(self.now_ns + after_ns, member, Doing::Pull(number));
        }
    }

    /// The watcher reads what there is.
    pub(super) fn pull(&mut self, member: MemberId, number: usize) -> Result<(), Violation> {
        self.watchers[number].is_pulling = false;
        for _ in 0..RESPONSES_PER_PULL {
            let watcher = &mut self.watchers[number];
            let Some((_, stream)) = watcher.at.filter(|(at, _)| *at == member) else {
                return Ok(());
            };
            let machine = self.machines.get_mut(&member).expect("a member");
            let process = machine.process.as_mut().expect("a running member");
            let view = process.node.view();
            let Some(response) = process.hub.next(stream, &view) else {
                // The hub may name it again at once: reading far is done in slices.
                self.turn_at(member, self.now_ns + 1_000);
                self.has_left(member, number);
                return Ok(());
            };
            let words = [6, member.0, number as u64];
            self.trace
                .event(self.now_ns, &words, &response.encode_to_vec(), || {
                    line(
                        &name(member),
                        format_args!("tells watcher {number}"),
                        format_args!("{response:?}"),
                    )
                });
            watcher.events += response.events.len() as u64;
            if self.corruption.is_anybody() {
                continue; // What it heard may come from altered data.
            }
            match watcher.hear(&mut self.facts, &self.ledger, &response)? {
                Heard::Going => {}
                Heard::Compacted(_) => {
                    self.count("watch compacted");
                    self.reconnect(member, stream, number);
                }
                Heard::Cancelled => {
                    let detail = format!("watcher {number} is cancelled: {response:?}");
                    return Err(Violation::new("watch.delivery", detail));
                }
            }
        }
        if self.has_left(member, number) {
            return Ok(());
        }
        self.pull_later(member, number);
        Ok(())
    }

    /// Now and then a watcher asks how far it is, or goes on at another member.
    fn has_left(&mut self, member: MemberId, number: usize) -> bool {
        let (now_ns, is_safety) = (self.now_ns, self.is_safety());
        let watcher = &mut self.watchers[number];
        let Some((_, stream)) = watcher.at.filter(|(at, _)| *at == member) else {
            return true;
        };
        if !is_safety || !watcher.stream.chance(watcher.restless_ppm) {
            return false;
        }
        if watcher.stream.chance(300_000) {
            self.count("watcher left");
            self.reconnect(member, stream, number);
            return true;
        }
        let machine = self.machines.get_mut(&member).expect("a member");
        let now = machine.clock.read(now_ns);
        let process = machine.process.as_mut().expect("a running member");
        let view = process.node.view();
        let request = pb::WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
        };
        process.hub.handle(now, stream, request, &view);
        self.count("progress asked for");
        false
    }

    fn reconnect(&mut self, member: MemberId, stream: StreamId, number: usize) {
        let machine = self.machines.get_mut(&member).expect("a member");
        let process = machine.process.as_mut().expect("a running member");
        process.hub.close(stream);
        process.streams.remove(&stream);
        self.watcher_is_cut_off(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;

    #[test]
    fn a_response_for_a_watch_that_is_not_on_the_stream_is_seen() {
        let work = WatchWork {
            watches_max: 3,
            ..WatchWork::USUAL
        };
        let group = Group::of(Work::Watch(work));
        let mut watcher = (0..20)
            .map(|number| Watcher::new(1, number, &group, work))
            .find(|watcher| watcher.follows.len() == 3)
            .expect("some have three");
        let ledger = Ledger::new(Model::new(1));
        let mut hear = |watch_id| {
            let response = pb::WatchResponse {
                watch_id,
                created: true,
                ..pb::WatchResponse::default()
            };
            watcher.hear(&mut Facts::new(), &ledger, &response)
        };
        assert_eq!(hear(1), Ok(Heard::Going));
        assert_eq!(hear(3), Ok(Heard::Going));
        assert_eq!(hear(4).unwrap_err().property, "watch.delivery");
        assert_eq!(hear(0).unwrap_err().property, "watch.delivery");
    }
}
