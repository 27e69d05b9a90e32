//! Whether members hold the same: what a comparison of their hashes says, in etcd's way.
//!
//! Owns the comparisons and nothing else: who asks whom, and when, is the node's (`node/corruption.rs`) or, before a
//! member has started, its shell's. Never raises an alarm; it names the members that deserve one.
//!
//! Only hashes over the same rows can be compared: those at one revision, from members whose compact revisions are equal.

use std::collections::BTreeMap;
use std::fmt;

use crate::mvcc::HashKv;
use crate::types::{MemberId, Revision};

/// A hash, and how far its member was when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hashed {
    /// The hash.
    pub hash: HashKv,
    /// The newest revision of the member.
    pub newest: Revision,
}

/// Why another member gives no hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashRefusal {
    /// It has compacted the revision away.
    Compacted,
    /// It has not come to the revision yet.
    FutureRevision,
    /// It belongs to another cluster.
    OtherCluster,
    /// It cannot be reached, or its answer means nothing.
    NoAnswer(String),
}

impl fmt::Display for HashRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Compacted => "etcdserver: mvcc: required revision has been compacted",
            Self::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
            Self::OtherCluster => "etcdserver: cluster ID mismatch",
            Self::NoAnswer(reason) => reason,
        })
    }
}

/// What another member said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHash {
    /// Who.
    pub member: MemberId,
    /// Its hash, or why there is none.
    pub answer: Result<Hashed, HashRefusal>,
}

/// Something that a comparison has seen and an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whom it is about; zero is nobody in particular.
    pub member: MemberId,
    /// What it is.
    pub kind: FindingKind,
}

/// Which comparison it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Before the member started.
    Start,
    /// The leader's regular one, of everything.
    Everything,
    /// The leader's regular one, of a compaction.
    Compaction,
}

/// What a comparison can see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// The member holds other data than this one.
    OtherHash {
        /// What was compared.
        look: Look,
        /// This member's.
        own: HashKv,
        /// That member's.
        other: HashKv,
    },
    /// The hashes cannot be compared, since the members have compacted to different revisions.
    OtherCompaction {
        /// This member's hash.
        own: HashKv,
        /// That member's.
        other: HashKv,
    },
    /// The member gives no hash.
    Refused(HashRefusal),
    /// This member has hashed the same rows twice, with two results.
    OwnHashChanged {
        /// The earlier hash.
        first: HashKv,
        /// The later one.
        second: HashKv,
    },
    /// The member is at a revision that the leader has not reached.
    AheadOfLeader {
        /// The member's revision.
        newest: Revision,
        /// The leader's.
        leader: Revision,
    },
    /// The member has compacted further than the leader.
    CompactedBeyondLeader {
        /// The member's compact revision.
        compacted: Revision,
        /// The leader's.
        leader: Revision,
    },
    /// There is no majority of equal hashes, so that nobody knows who is wrong.
    NoMajority,
}

impl FindingKind {
    /// Whether it says that data are damaged.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::OtherCompaction { .. } | Self::Refused(_))
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherHash { look, .. } => f.write_str(match look {
                Look::Start => "found different hash values from remote peer",
                Look::Everything => "same compact revision then hashes must match",
                Look::Compaction => "Detected compaction hash mismatch",
            }),
            Self::OtherCompaction { .. } => {
                f.write_str("found different compact revision values from remote peer")
            }
            Self::Refused(HashRefusal::FutureRevision) => {
                f.write_str("cannot fetch hash from slow remote peer")
            }
            Self::Refused(HashRefusal::Compacted) => {
                f.write_str("cannot fetch hash from remote peer; local member is behind")
            }
            Self::Refused(HashRefusal::OtherCluster) => f.write_str("cluster ID mismatch"),
            Self::Refused(HashRefusal::NoAnswer(_)) => f.write_str("failed hash kv request"),
            Self::OwnHashChanged { .. } => f.write_str("found hash mismatch"),
            Self::AheadOfLeader { .. } => {
                f.write_str("revision from follower must be less than or equal to leader's")
            }
            Self::CompactedBeyondLeader { .. } => {
                f.write_str("compact revision from follower must be less than or equal to leader's")
            }
            Self::NoMajority => f.write_str(
                "Detected compaction hash mismatch but cannot identify the corrupted members, so intentionally set \
                 the memberID as 0",
            ),
        }
    }
}

/// Before a member serves anybody: what its own data look like beside those of the others. It must not start if any
/// finding [is damage](FindingKind::is_damage).
pub fn compare_at_start(own: HashKv, peers: &[PeerHash]) -> Vec<Finding> {
    let judged = peers.iter().filter_map(|peer| {
        let kind = match &peer.answer {
            Ok(other) if other.hash.hash == own.hash => return None,
            Ok(other) if other.hash.compact_revision == own.compact_revision => {
                FindingKind::OtherHash {
                    look: Look::Start,
                    own,
                    other: other.hash,
                }
            }
            Ok(other) => FindingKind::OtherCompaction {
                own,
                other: other.hash,
            },
            Err(refusal) => FindingKind::Refused(refusal.clone()),
        };
        let member = peer.member;
        Some(Finding { member, kind })
    });
    judged.collect()
}

/// What the leader had before it asked the others at the same revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstLook {
    /// Its hash.
    pub hash: HashKv,
    /// Whether a hash at that revision can be compared, see [`crate::mvcc::View::is_telling_at`]. Revisions always can.
    pub is_telling: bool,
}

/// The leader's regular look: `first` was made before the others were asked at its revision, `second` after that and
/// after a linearizable read, so that no follower can be ahead of it. The first damage in the list deserves the alarm.
pub fn compare_with_leader(
    leader: MemberId,
    first: FirstLook,
    second: Hashed,
    peers: &[PeerHash],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |member, kind| findings.push(Finding { member, kind });
    let FirstLook {
        hash: first,
        is_telling,
    } = first;
    let same_rows = second.hash.hash_revision == first.hash_revision
        && second.hash.compact_revision == first.compact_revision;
    if is_telling && same_rows && second.hash.hash != first.hash {
        let second = second.hash;
        find(leader, FindingKind::OwnHashChanged { first, second });
    }
    for peer in peers {
        let other = match &peer.answer {
            Ok(other) => other,
            Err(refusal) => {
                find(peer.member, FindingKind::Refused(refusal.clone()));
                continue;
            }
        };
        let compacted = other.hash.compact_revision;
        if other.newest > second.newest {
            let (newest, leader) = (other.newest, second.newest);
            find(peer.member, FindingKind::AheadOfLeader { newest, leader });
        }
        if compacted > second.hash.compact_revision {
            let leader = second.hash.compact_revision;
            find(
                peer.member,
                FindingKind::CompactedBeyondLeader { compacted, leader },
            );
        }
        let same_rows = compacted == first.compact_revision;
        if is_telling && same_rows && other.hash.hash != first.hash {
            let (look, own, other) = (Look::Everything, first, other.hash);
            find(peer.member, FindingKind::OtherHash { look, own, other });
        }
    }
    findings
}

/// What the hashes of one compaction say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// All members have it, and it is the same.
    All,
    /// Those that have it agree; the others must be asked about an earlier one.
    Incomplete,
    /// They differ. Each finding's member deserves the alarm.
    Broken(Vec<Finding>),
}

/// The leader's look at a compaction: all members have removed the same rows and hashed them while they did.
pub fn compare_compaction(leader: MemberId, own: HashKv, peers: &[PeerHash]) -> Agreement {
    let mut holders: BTreeMap<u32, Vec<(MemberId, HashKv)>> = BTreeMap::new();
    holders.insert(own.hash, vec![(leader, own)]);
    let mut asked = 0;
    for peer in peers {
        if let Ok(Hashed { hash, .. }) = &peer.answer
            && hash.compact_revision == own.compact_revision
        {
            asked += 1;
            let equal = holders.entry(hash.hash).or_default();
            equal.push((peer.member, *hash));
        }
    }
    if holders.len() == 1 {
        return if asked == peers.len() {
            Agreement::All
        } else {
            Agreement::Incomplete
        };
    }
    let members = peers.len() + 1;
    let quorum = members / 2 + 1;
    let right = holders
        .iter()
        .find(|(_, members)| members.len() >= quorum)
        .map(|(hash, _)| *hash);
    let Some(right) = right else {
        let (member, kind) = (MemberId(0), FindingKind::NoMajority);
        return Agreement::Broken(vec![Finding { member, kind }]);
    };
    let own = holders.remove(&right).expect("it was found there")[0].1;
    let wrong = holders.into_values().flatten();
    let findings = wrong.map(|(member, other)| Finding {
        member,
        kind: FindingKind::OtherHash {
            look: Look::Compaction,
            own,
            other,
        },
    });
    Agreement::Broken(findings.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(hash: u32, revision: i64, compacted: i64) -> HashKv {
        HashKv {
            hash,
            compact_revision: Revision(compacted),
            hash_revision: Revision(revision),
        }
    }

    fn peer(member: u64, newest: i64, hash: HashKv) -> PeerHash {
        let newest = Revision(newest);
        PeerHash {
            member: MemberId(member),
            answer: Ok(Hashed { hash, newest }),
        }
    }

    fn silent(member: u64, refusal: HashRefusal) -> PeerHash {
        PeerHash {
            member: MemberId(member),
            answer: Err(refusal),
        }
    }

    fn damaged(findings: &[Finding]) -> Vec<u64> {
        let damage = findings.iter().filter(|finding| finding.kind.is_damage());
        damage.map(|finding| finding.member.0).collect()
    }

    #[test]
    fn a_member_may_start_beside_equals_strangers_and_the_unreachable() {
        let own = hash(1, 10, -1);
        let peers = [
            peer(2, 12, hash(1, 10, -1)),
            peer(3, 12, hash(9, 10, 5)),
            silent(4, HashRefusal::FutureRevision),
            silent(5, HashRefusal::Compacted),
            silent(6, HashRefusal::OtherCluster),
            silent(7, HashRefusal::NoAnswer("refused".into())),
        ];
        let findings = compare_at_start(own, &peers);
        assert!(damaged(&findings).is_empty());
        assert_eq!(findings.len(), 5, "all but the equal one are worth a line");
        assert_eq!(
            damaged(&compare_at_start(own, &[peer(2, 12, hash(2, 10, -1))])),
            [2]
        );
    }

    #[test]
    fn the_leader_suspects_who_differs_and_itself_if_its_own_data_change() {
        let leader = MemberId(1);
        let first = FirstLook {
            hash: hash(1, 10, 4),
            is_telling: true,
        };
        let later = Hashed {
            hash: hash(3, 12, 4),
            newest: Revision(12),
        };
        let check = |second, peers: &[PeerHash]| {
            damaged(&compare_with_leader(leader, first, second, peers))
        };
        let equal = peer(2, 12, hash(1, 10, 4));
        assert!(check(later, std::slice::from_ref(&equal)).is_empty());
        assert_eq!(check(later, &[equal, peer(3, 10, hash(2, 10, 4))]), [3]);
        let elsewhere = peer(3, 10, hash(2, 10, 3));
        assert!(
            check(later, &[elsewhere]).is_empty(),
            "other rows were hashed"
        );
        assert_eq!(check(later, &[peer(3, 13, hash(1, 10, 4))]), [3], "ahead");
        assert_eq!(check(later, &[peer(3, 12, hash(5, 10, 6))]), [3], "ahead");
        let again = Hashed {
            hash: hash(2, 10, 4),
            newest: Revision(10),
        };
        assert_eq!(check(again, &[]), [1]);
        assert!(check(later, &[silent(2, HashRefusal::Compacted)]).is_empty());
    }

    #[test]
    fn where_no_key_is_left_revisions_are_still_compared() {
        let first = FirstLook {
            hash: hash(1, 10, 4),
            is_telling: false,
        };
        let second = Hashed {
            hash: hash(2, 10, 4),
            newest: Revision(10),
        };
        let check = |peer| damaged(&compare_with_leader(MemberId(1), first, second, &[peer]));
        assert!(check(peer(2, 10, hash(3, 10, 4))).is_empty(), "no hash");
        assert_eq!(check(peer(3, 11, hash(1, 10, 4))), [3], "ahead");
        assert_eq!(check(peer(3, 10, hash(1, 10, 5))), [3], "compacted further");
    }

    #[test]
    fn a_compaction_is_settled_only_when_all_have_it() {
        let (own, leader) = (hash(1, 10, 4), MemberId(1));
        let check = |peers: &[PeerHash]| compare_compaction(leader, own, peers);
        let equal = peer(2, 12, own);
        assert_eq!(check(&[equal.clone(), peer(3, 12, own)]), Agreement::All);
        assert_eq!(
            check(&[equal.clone(), silent(3, HashRefusal::FutureRevision)]),
            Agreement::Incomplete
        );
        assert_eq!(
            check(&[equal, peer(3, 12, hash(7, 10, 5))]),
            Agreement::Incomplete,
            "a hash over other rows is none"
        );
    }

    #[test]
    fn the_minority_of_a_compaction_is_wrong_even_if_it_leads() {
        let own = hash(1, 10, 4);
        let wrong = |peers: &[PeerHash]| match compare_compaction(MemberId(1), own, peers) {
            Agreement::Broken(findings) => damaged(&findings),
            other => panic!("{other:?}"),
        };
        let other = hash(2, 10, 4);
        assert_eq!(wrong(&[peer(2, 12, own), peer(3, 12, other)]), [3]);
        assert_eq!(wrong(&[peer(2, 12, other), peer(3, 12, other)]), [1]);
        assert_eq!(wrong(&[peer(2, 12, other)]), [0], "one against one");
        let unheard = silent(3, HashRefusal::NoAnswer("down".into()));
        assert_eq!(
            wrong(&[peer(2, 12, other), unheard]),
            [0],
            "two of three are not two equal"
        );
    }
}
