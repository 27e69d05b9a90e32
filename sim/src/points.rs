//! Points of interest: things that must happen sometimes, or the runs prove nothing about them.
//!
//! A point is a name for something that the world counts. A scenario names those that its seeds must reach.

use std::collections::BTreeMap;

/// Something worth reaching.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// How scenarios name it.
    pub name: &'static str,
    /// What has happened then.
    pub meaning: &'static str,
    /// What the world counts it under.
    pub count: &'static str,
}

const fn point(name: &'static str, count: &'static str, meaning: &'static str) -> Point {
    Point {
        name,
        meaning,
        count,
    }
}

/// Every point.
pub const POINTS: &[Point] = &[
    point("leader.elected", "leader elected", "a member became leader"),
    point(
        "leader.changed",
        "leader changed",
        "the leadership went from one member to another",
    ),
    point(
        "leader.two",
        "two leaders at once",
        "a deposed leader believed to lead while another one did",
    ),
    point(
        "leader.transferred",
        "leader transfer",
        "leadership was asked to be handed over",
    ),
    point(
        "vote.refused",
        "vote refused",
        "a candidate was refused a vote",
    ),
    point(
        "pre-vote.refused",
        "pre-vote refused",
        "who asked before campaigning was refused",
    ),
    point(
        "log.overwritten",
        "entries overwritten",
        "a member dropped entries of its log for those of another leader",
    ),
    point(
        "log.old-term-committed",
        "entries of an earlier term committed",
        "an entry was committed under a leader of a later term",
    ),
    point(
        "log.old-entries-read",
        "old entries read",
        "entries were read from the disk for a follower that lagged",
    ),
    point(
        "append.refused",
        "append refused",
        "a follower refused an append, since its log differed",
    ),
    point(
        "member.restarted",
        "restart",
        "a process started with what was on its disk",
    ),
    point(
        "member.refused-damage",
        "damage refused",
        "a member refused to start from a damaged disk",
    ),
    point(
        "member.stopped-by-disk",
        "stopped by its disk",
        "a failed disk operation made a member stop",
    ),
    point(
        "member.stopped-by-damage",
        "stopped by damage",
        "a running member found damage on its disk and stopped",
    ),
    point(
        "member.replaced",
        "member replaced",
        "another member was added and promoted in the place of one that was lost",
    ),
    point("power.lost", "power lost", "a machine lost its power"),
    point(
        "power.lost-within-operation",
        "fuse blown",
        "the power went in the middle of a disk operation",
    ),
    point(
        "disk.full",
        "disk refused: full",
        "a full disk refused to allocate",
    ),
    point("disk.stalled", "disk stalled", "a sync took very long"),
    point("disk.sync-failed", "sync failed", "a sync failed"),
    point(
        "disk.torn",
        "sector torn",
        "a power loss left a sector half written",
    ),
    point(
        "disk.rotted",
        "sector rotted",
        "a sector changed where it lay",
    ),
    point(
        "disk.write-lost",
        "write lost",
        "a sector that was called synced never reached the platter",
    ),
    point(
        "disk.write-misdirected",
        "write misdirected",
        "a sector reached the platter in the wrong place",
    ),
    point(
        "disk.repaired",
        "disk repaired",
        "a damaged disk was repaired",
    ),
    point(
        "wal.torn-tail",
        "torn tail cut",
        "a restart found the end of the log torn, and cut it",
    ),
    point(
        "wal.segment-prepared",
        "segment prepared",
        "a log segment was made ahead of its use",
    ),
    point(
        "checkpoint.written",
        "checkpoint written",
        "a member wrote a checkpoint",
    ),
    point(
        "snapshot.sent",
        "snapshot sent",
        "a leader sent its checkpoint to a follower that was too far behind",
    ),
    point(
        "snapshot.installed",
        "snapshot installed",
        "a follower put the leader's checkpoint in the place of its own state",
    ),
    point(
        "snapshot.twice",
        "snapshot installed again",
        "a member installed a second snapshot",
    ),
    point(
        "snapshot.refused",
        "damaged snapshot refused",
        "a damaged snapshot was refused",
    ),
    point(
        "snapshot.watched",
        "watch over a snapshot",
        "a member with watches installed a snapshot",
    ),
    point(
        "run.snapshots",
        "run with snapshots under faults",
        "of a run: a snapshot was installed while faults struck",
    ),
    point(
        "run.changes",
        "run with changes under faults",
        "of a run: the members changed while other faults struck",
    ),
    point("net.lost", "message lost", "a message was lost"),
    point(
        "net.cut",
        "message lost in a cut",
        "a message was lost in a partition",
    ),
    point(
        "net.held",
        "message held",
        "a message was held by a partition and delivered when it healed",
    ),
    point(
        "net.repeated",
        "message repeated",
        "a message arrived twice",
    ),
    point(
        "net.overtaken",
        "message overtaken",
        "a message arrived before an earlier one of its lane",
    ),
    point(
        "net.refused",
        "message refused: lane full",
        "a full lane refused a message",
    ),
    point(
        "net.reset",
        "message lost in a reset",
        "a message was lost with its connection",
    ),
    point("net.slowed", "message slowed", "a message took a slow link"),
    point(
        "net.waited",
        "message waited for bandwidth",
        "a message had to wait for bandwidth",
    ),
    point(
        "request.refused",
        "request refused",
        "a member answered a request with an error",
    ),
    point(
        "request.abandoned",
        "operation abandoned",
        "a client gave up and does not know what became of its request",
    ),
    point(
        "txn.failed",
        "txn failed",
        "a compare of a transaction did not hold",
    ),
    point(
        "txn.succeeded",
        "txn succeeded",
        "the compares of a transaction held",
    ),
    point(
        "txn.compacted",
        "txn refused: compacted",
        "a transaction was refused, since it read a compacted revision",
    ),
    point(
        "read.compacted",
        "read of a compacted revision refused",
        "a read of a past revision was refused",
    ),
    point(
        "compaction.done",
        "compaction done",
        "a compaction was applied",
    ),
    point("lease.granted", "lease granted", "a lease was granted"),
    point(
        "lease.revoked",
        "lease revoked",
        "a client gave a lease back",
    ),
    point("lease.renewed", "lease renewed", "a lease was kept alive"),
    point(
        "lease.expired",
        "lease expired",
        "a lease ended since nobody renewed it",
    ),
    point(
        "lease.not-renewed",
        "lease not renewed",
        "a renewal came too late: the lease was gone",
    ),
    point(
        "auth.changed",
        "users or roles changed",
        "users, roles or the switch were changed",
    ),
    point(
        "auth.denied",
        "user denied",
        "a user wanted what it may not",
    ),
    point(
        "auth.nobody",
        "nobody denied",
        "somebody without a user wanted something while auth was on",
    ),
    point(
        "auth.old-revision",
        "credentials of an earlier revision refused",
        "rules changed between the look at the credentials and the request",
    ),
    point("lock.taken", "lock taken", "a client entered a lock"),
    point(
        "lock.handed-over",
        "lock handed over",
        "a lock went from one client to another under a new leader",
    ),
    point("election.won", "leader chosen", "a client won an election"),
    point(
        "election.proclaimed",
        "proclaimed",
        "who held an office said something",
    ),
    point(
        "watch.compacted",
        "watch compacted",
        "a watch below the compact revision was cancelled",
    ),
    point(
        "watch.resumed",
        "watch resumed",
        "a watch went on at another member where it had been cut off",
    ),
    point(
        "watch.from-the-past",
        "watch from the past",
        "a watch began at a past revision",
    ),
    point(
        "watch.below-compaction",
        "watch from below the compact revision",
        "a watch began below the compact revision",
    ),
    point(
        "watch.future",
        "watch from the future",
        "a watch began at a revision that was still to come",
    ),
    point(
        "condition.met",
        "condition met",
        "a fault began or ended since its condition held",
    ),
    point(
        "quota.refused",
        "refused: over the quota",
        "a request that would not fit was refused",
    ),
    point(
        "quota.done",
        "done, and said to be refused",
        "a request was applied over the quota, and its client told that there is no space",
    ),
    point(
        "quota.alarm",
        "alarm: NOSPACE",
        "the alarm NOSPACE was raised",
    ),
    point(
        "quota.recovered",
        "alarm ended by the operator",
        "room was made, and the alarm ended",
    ),
    point(
        "corruption.altered",
        "altered-data",
        "the data of a member were altered where nothing shows it",
    ),
    point(
        "corruption.alarm",
        "alarm: CORRUPT",
        "members found that one of them holds other data",
    ),
    point(
        "corruption.refused",
        "corrupt cluster refused everything",
        "every member of a corrupt cluster refused to change anything",
    ),
    point(
        "corruption.start-refused",
        "start refused: other data",
        "a member did not start, since the others hold other data",
    ),
    point(
        "corruption.compared",
        "hash given",
        "a member told another one the hash of its data",
    ),
    point(
        "core.alone",
        "core worked alone",
        "a quorum worked while the rest stayed broken",
    ),
    point(
        "cluster.excused",
        "liveness excused by damage",
        "too many disks were damaged for the cluster to work",
    ),
];

/// How often each point was reached, by its name.
pub fn reached(counts: &BTreeMap<&'static str, u64>) -> impl Iterator<Item = (&'static str, u64)> {
    POINTS.iter().map(|point| {
        let count = counts.get(point.count).copied();
        (point.name, count.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_point_is_named_twice() {
        for (position, point) in POINTS.iter().enumerate() {
            assert!(
                POINTS[..position]
                    .iter()
                    .all(|other| other.name != point.name)
            );
        }
    }
}
