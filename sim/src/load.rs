//! The load of a run: groups of clients, each of which does one kind of work on some keys, at some pace, at some members.
//!
//! A load is data and nothing more: it is drawn from a seed or written down in a scenario, and `world` carries it out.
//! Groups share their keys (`key-a`, `key-b`, ...), so that a scenario composes what it wants to meet: puts against
//! watches, deletes against transactions. Locks, elections and registers have keys of their own.

use crate::random::{Purpose, Stream};

const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLISECOND;

/// What all clients of a run do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The groups, in the order in which their clients are numbered.
    pub groups: Vec<Group>,
    /// A watch response of this size is split for those who asked for fragments (`--max-request-bytes` and 512 KiB).
    pub watch_response_bytes_max: usize,
}

/// Some clients that do the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What they do.
    pub work: Work,
    /// How many they are.
    pub clients: u64,
    /// How many keys they use, at most [`KEYS_MAX`].
    pub keys: u64,
    /// The longest value that they write.
    pub value_bytes_max: u64,
    /// The mean pause of a client between two operations; of a watcher, the longest time that it does not read.
    pub think_ns: u64,
    /// Which members they ask.
    pub target: Target,
}

/// Keys that a group can use.
pub const KEYS_MAX: u64 = 20;

/// Which member a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any, another one each time.
    Any,
    /// Always the same one; the clients of a group are spread over all members.
    Each,
    /// The one that leads, as long as one does.
    Leader,
    /// Any that does not lead.
    Follower,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Work {
    /// Some of everything that reads and writes.
    Mixed {
        /// Compactions, in a million operations.
        compaction_ppm: u32,
        /// Operations that concern leases, in a million.
        lease_ppm: u32,
        /// The longest TTL, in seconds.
        lease_ttl_max: u64,
    },
    /// Puts.
    Put,
    /// Reads of one key: linearizable, or of what the member has.
    Get {
        /// Whether the member answers from what it has.
        is_local: bool,
    },
    /// Reads of several keys, at present and past revisions.
    Range {
        /// Whether the member answers from what it has.
        is_local: bool,
    },
    /// Deletions, of one key or of several.
    Delete,
    /// Transactions of anything.
    Txn,
    /// Compare-and-swap chains: reads a key, then swaps it for what it read.
    Swap,
    /// Puts, gets, swaps and deletions of keys that nobody else touches; the history is judged from outside as well.
    Register,
    /// Leases that are kept alive, with keys on them, until the client leaves or falls silent.
    Lease(SessionWork),
    /// A lock as etcd's clients build it.
    Lock(SessionWork),
    /// An election as etcd's clients build it.
    Election(SessionWork),
    /// Watches.
    Watch(WatchWork),
    /// Compactions.
    Compaction {
        /// They leave this many revisions at most.
        behind_max: u64,
    },
    /// Checkpoints at once.
    Checkpoint,
    /// Users, roles and the switch, and reads and writes of users who may or may not; everybody else acts as root then.
    Auth,
}

/// How clients with a lease behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionWork {
    /// The longest TTL that they ask for, in seconds.
    pub ttl_max: u64,
    /// How long a lock is held or an office kept, about.
    pub hold_ns: u64,
    /// How often a client falls silent instead of leaving in order, in a million; its lease must end by itself.
    pub silent_ppm: u32,
}

/// How watchers behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchWork {
    /// Where a watch begins; `None` draws for each watcher.
    pub start: Option<WatchStart>,
    /// Watches on one stream, at most.
    pub watches_max: u64,
    /// How often a watcher asks for progress or leaves its member, in a million times that it has read.
    pub restless_ppm: u32,
}

/// Where a watch begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchStart {
    /// With what comes.
    Now,
    /// At the first revision.
    Beginning,
    /// This many revisions ago, at most.
    Past {
        /// At most so many.
        behind_max: u64,
    },
    /// At a revision that is still to come.
    Future {
        /// At least so many revisions ahead.
        ahead_min: u64,
        /// At most so many.
        ahead_max: u64,
    },
    /// Below the compact revision, if there is one.
    Compacted,
}

impl Load {
    /// The load of a seed.
    pub fn draw(seed: u64) -> Self {
        let stream = &mut Stream::new(seed, Purpose::Load, 0);
        let mut groups = vec![Group::draw_mixed(stream)];
        let keys = groups[0].keys;
        if stream.chance(800_000) {
            groups.push(Group::draw_watch(stream, keys));
        }
        if stream.chance(400_000) {
            groups.push(Group::draw(stream, Work::Register, 3));
        }
        for work in [Work::Lease, Work::Lock, Work::Election] {
            if stream.chance(150_000) {
                let work = work(SessionWork::draw(stream));
                groups.push(Group::draw(stream, work, 3));
            }
        }
        // Now and then much of one thing.
        let plain = [
            Work::Put,
            Work::Get { is_local: false },
            Work::Get { is_local: true },
            Work::Range { is_local: false },
            Work::Range { is_local: true },
            Work::Delete,
            Work::Txn,
            Work::Swap,
            Work::Compaction { behind_max: 10 },
            Work::Checkpoint,
        ];
        if stream.chance(400_000) {
            let work = stream.pick(&plain).clone();
            let group = Group::draw(stream, work, 3);
            groups.push(Group { keys, ..group });
        }
        if Stream::new(seed, Purpose::Load, 1).chance(120_000) {
            let clients = 2 + seed % 3;
            groups.push(Group {
                clients,
                keys: keys.max(3),
                ..Group::of(Work::Auth)
            });
        }
        Self {
            groups,
            watch_response_bytes_max: *stream.pick(&[300, 2_000, 2 << 20]),
        }
    }

    /// Whether clients have users.
    pub fn has_auth(&self) -> bool {
        self.groups.iter().any(|group| group.work == Work::Auth)
    }

    /// Sets the pace so that all clients together do about this many operations a second.
    pub fn set_rate(&mut self, per_second: u64) {
        let acting = |group: &&mut Group| !matches!(group.work, Work::Watch(_));
        // Operations in a thousand seconds.
        let now = self.groups.iter_mut().filter(acting).map(|group| {
            let think_ns = group.think_ns.max(1);
            1000 * SECOND * group.clients / think_ns
        });
        let now = now.sum::<u64>();
        for group in self.groups.iter_mut().filter(acting) {
            group.think_ns = group.think_ns * now / (1000 * per_second.max(1));
        }
    }

    /// A load of these groups.
    pub fn of(groups: Vec<Group>) -> Self {
        Self {
            groups,
            watch_response_bytes_max: 2 << 20,
        }
    }
}

impl Group {
    /// One client with usual keys, values and pace.
    pub fn of(work: Work) -> Self {
        Self {
            work,
            clients: 1,
            keys: 6,
            value_bytes_max: 64,
            think_ns: 100 * MILLISECOND,
            target: Target::Any,
        }
    }

    /// Sets the pace so that the whole group does about this many operations a second.
    pub fn with_rate(mut self, per_second: u64) -> Self {
        self.think_ns = SECOND * self.clients.max(1) / per_second.max(1);
        self
    }

    fn draw(stream: &mut Stream, work: Work, clients_max: u64) -> Self {
        Self {
            work,
            clients: stream.between(1, clients_max),
            keys: stream.between(1, 4),
            value_bytes_max: *stream.pick(&[8, 64, 700, 4000]),
            think_ns: *stream.pick(&[20, 100, 300]) * MILLISECOND,
            target: *stream.pick(&[
                Target::Any,
                Target::Any,
                Target::Each,
                Target::Leader,
                Target::Follower,
            ]),
        }
    }

    fn draw_mixed(stream: &mut Stream) -> Self {
        let work = Work::Mixed {
            compaction_ppm: *stream.pick(&[0, 5_000, 50_000]),
            lease_ppm: *stream.pick(&[0, 50_000, 300_000]),
            lease_ttl_max: stream.between(1, 3),
        };
        let group = Self::draw(stream, work, 6);
        Self {
            keys: stream.between(1, 12),
            target: Target::Any,
            ..group
        }
    }

    fn draw_watch(stream: &mut Stream, keys: u64) -> Self {
        let work = Work::Watch(WatchWork {
            start: None,
            watches_max: stream.between(1, 3),
            restless_ppm: *stream.pick(&[0, 20_000, 100_000]),
        });
        let group = Self::draw(stream, work, 4);
        Self {
            keys,
            think_ns: *stream.pick(&[1, 100, 2000]) * MILLISECOND,
            ..group
        }
    }
}

impl SessionWork {
    /// Short leases that are held for a while and mostly given back.
    pub const USUAL: Self = Self {
        ttl_max: 4,
        hold_ns: 500 * MILLISECOND,
        silent_ppm: 200_000,
    };

    fn draw(stream: &mut Stream) -> Self {
        Self {
            ttl_max: stream.between(1, 3),
            hold_ns: *stream.pick(&[1, 300, 2000]) * MILLISECOND,
            silent_ppm: *stream.pick(&[0, 200_000, 600_000]),
        }
    }
}

impl WatchWork {
    /// One watch from anywhere on each stream.
    pub const USUAL: Self = Self {
        start: None,
        watches_max: 1,
        restless_ppm: 0,
    };
}

impl WatchStart {
    /// One of them.
    pub fn draw(stream: &mut Stream) -> Self {
        let future = Self::Future {
            ahead_min: 1,
            ahead_max: 60,
        };
        let past = Self::Past { behind_max: 30 };
        *stream.pick(&[
            Self::Now,
            Self::Now,
            Self::Beginning,
            past,
            future,
            Self::Compacted,
        ])
    }
}

impl Work {
    /// Every kind by its name in scenarios, with its usual settings.
    pub fn all() -> [(&'static str, Self); 17] {
        let session = SessionWork::USUAL;
        let mixed = Self::Mixed {
            compaction_ppm: 5_000,
            lease_ppm: 50_000,
            lease_ttl_max: 4,
        };
        [
            ("mixed", mixed),
            ("put", Self::Put),
            ("get", Self::Get { is_local: false }),
            ("get-serializable", Self::Get { is_local: true }),
            ("range", Self::Range { is_local: false }),
            ("range-serializable", Self::Range { is_local: true }),
            ("delete", Self::Delete),
            ("txn", Self::Txn),
            ("cas-chain", Self::Swap),
            ("register", Self::Register),
            ("lease", Self::Lease(session)),
            ("lock", Self::Lock(session)),
            ("election", Self::Election(session)),
            ("watch", Self::Watch(WatchWork::USUAL)),
            ("compaction", Self::Compaction { behind_max: 10 }),
            ("checkpoint", Self::Checkpoint),
            ("auth", Self::Auth),
        ]
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::all().into_iter();
        all.find(|(known, _)| *known == name).map(|(_, work)| work)
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        let is_same = |other: &Self| match (self, other) {
            (Self::Get { is_local: one }, Self::Get { is_local: two })
            | (Self::Range { is_local: one }, Self::Range { is_local: two }) => one == two,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        };
        let known = Self::all().into_iter().find(|(_, work)| is_same(work));
        known.map_or("", |(name, _)| name)
    }
}

impl Target {
    /// The target of this name in scenarios.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "any" => Self::Any,
            "each-member" => Self::Each,
            "leader" => Self::Leader,
            "follower" => Self::Follower,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_work_has_a_name_that_finds_it() {
        for (name, work) in Work::all() {
            assert_eq!(Work::named(name), Some(work.clone()));
            assert_eq!(Work::named(work.name()), Some(work));
        }
        assert_eq!(Work::named("nothing"), None);
        assert_eq!(Target::named("each-member"), Some(Target::Each));
    }

    #[test]
    fn every_kind_of_work_is_drawn() {
        let mut names: Vec<_> = (0..2000)
            .flat_map(|seed| Load::draw(seed).groups)
            .map(|group| {
                assert!(group.clients > 0 && group.keys > 0 && group.keys <= KEYS_MAX);
                group.work.name()
            })
            .collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Work::all().len(), "{names:?}");
    }

    #[test]
    fn a_rate_is_that_of_the_whole_group() {
        let group = Group {
            clients: 4,
            ..Group::of(Work::Put)
        };
        assert_eq!(group.clone().with_rate(20).think_ns, 200 * MILLISECOND);
        let mut load = Load::of(vec![group.clone().with_rate(7), group.with_rate(3)]);
        load.set_rate(20);
        let rates = load.groups.iter().map(|it| 4 * SECOND / it.think_ns);
        assert_eq!(rates.collect::<Vec<_>>(), [14, 6]);
    }
}
