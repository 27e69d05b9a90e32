//! One pass over the segments, oldest first, that rebuilds what the writer knew.
//!
//! This module owns the verdict on each frame: good, the end, a torn tail, or damage. It only reads.

use bytes::Bytes;
use quorate_proto::raftpb::HardState;
use quorate_proto::walpb;

use super::error::WalError;
use super::frame::{self, Place};
use super::log::{Log, Misplaced, Position};
use super::record::{self, Content, Fault};
use crate::types::{Index, Term};

/// The frames that a segment has, durably, before it has its name: seed and metadata. They cannot be torn.
const HEAD_FRAMES: u64 = 2;

/// What the records so far amount to.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The chain's value; unknown before the first seed.
    pub(super) checksum: Option<u32>,
    /// The first metadata record; all others must equal it.
    pub(super) metadata: Option<Bytes>,
    /// The last hard state.
    pub(super) hard_state: HardState,
    /// All snapshot records, in order.
    pub(super) snapshots: Vec<walpb::Snapshot>,
    /// Where the valid entries lie.
    pub(super) log: Log,
    /// Snapshot records that would start the log anew, as long as no hard state shows that they hold.
    pub(super) pending: Vec<Pending>,
    /// The offset of the last seed in its segment, which is the last segment, since each begins with one. What lies
    /// before it was synced, without an error, by whoever wrote the seed.
    pub(super) seed_offset: u64,
    /// The last record.
    last: Option<Position>,
}

/// A snapshot record ahead of the log. It holds once a later hard state commits it. If the log goes on as if it were
/// not there, the writer ended in between and went on without it.
#[derive(Debug)]
pub(super) struct Pending {
    index: Index,
    term: Term,
    /// The record itself.
    position: Position,
    /// The log before it, if entries have followed the snapshot already.
    before: Option<Log>,
}

/// How a segment's content ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tail {
    /// Bytes of whole, good frames.
    pub(super) length: u64,
    /// Why the frame after them is not one, when there is something.
    pub(super) torn: Option<String>,
}

/// How far a walk over a segment came.
struct Walk {
    /// Where it ended.
    offset: usize,
    /// How many good frames lie before.
    frames: u64,
    /// Why it ended.
    end: End,
}

/// What lies at the end of a walk.
enum End {
    /// A zero length word, or the end of the file.
    Clean,
    /// A frame that a power loss may have left.
    Torn(Fault),
    /// A frame that it cannot have left.
    Damaged(Fault),
}

impl Scan {
    /// Reads a segment. Only in the last one may the tail be torn.
    pub(super) fn add_segment(
        &mut self,
        path: &str,
        sequence: u64,
        bytes: &Bytes,
        is_last: bool,
    ) -> Result<Tail, WalError> {
        let Walk {
            offset,
            frames,
            end,
        } = self.walk(sequence, bytes);
        let fault = match end {
            End::Damaged(fault) => return Err(fault.at(path, offset as u64)),
            _ if frames < HEAD_FRAMES => {
                Fault::new("the head of a segment", "the end of its content")
            }
            End::Clean if frame::content_end(bytes) <= offset => {
                return Ok(Tail {
                    length: offset as u64,
                    torn: None,
                });
            }
            End::Clean => Fault::new("a frame, since others follow", "a length of zero"),
            End::Torn(fault) => fault,
        };
        if !is_last || frames < HEAD_FRAMES {
            return Err(fault.at(path, offset as u64));
        }
        if let Some(seed) = find_seed(bytes, offset) {
            let found = format!(
                "{}, though the seed at {seed} shows that it had been synced",
                fault.found
            );
            return Err(Fault { found, ..fault }.at(path, offset as u64));
        }
        let torn = Some(format!(
            "expected {}, found {}",
            fault.expected, fault.found
        ));
        Ok(Tail {
            length: offset as u64,
            torn,
        })
    }

    /// Takes in a segment's records up to the first place that is not a good frame.
    fn walk(&mut self, sequence: u64, bytes: &Bytes) -> Walk {
        let (mut offset, mut frames) = (0, 0);
        let end = loop {
            let (record, next) = match frame::read(bytes, offset) {
                Place::End => break End::Clean,
                Place::CutShort => {
                    break End::Torn(Fault::new("a whole frame", "the end of the file"));
                }
                Place::Malformed(word) => {
                    let word = format!("{:016x}", word.swap_bytes());
                    break End::Damaged(Fault::new("a length word", word));
                }
                Place::Frame { record, next } => (record, next),
            };
            let body = record.start..next;
            match record::decode(bytes.slice(record), self.checksum) {
                Ok((content, checksum)) => {
                    // The chain before the first seed is what the seed says.
                    let before = self.checksum.unwrap_or(checksum);
                    let position = Position {
                        sequence,
                        offset: offset as u64,
                        checksum: before,
                    };
                    if let Err(fault) = self.add_record(frames, content, position) {
                        break End::Damaged(fault);
                    }
                    self.checksum = Some(checksum);
                    frames += 1;
                    offset = next;
                }
                Err(fault) if frame::has_zero_sector(bytes, body) => break End::Torn(fault),
                Err(fault) => break End::Damaged(fault),
            }
        };
        Walk {
            offset,
            frames,
            end,
        }
    }

    fn add_record(
        &mut self,
        frames: u64,
        content: Content,
        position: Position,
    ) -> Result<(), Fault> {
        match (frames, &content) {
            (0, Content::Seed(_)) | (1, Content::Metadata(_)) | (HEAD_FRAMES.., _) => {}
            (0, _) => return Err(Fault::new("a checksum seed at the head", "another record")),
            _ => return Err(Fault::new("metadata at the head", "another record")),
        }
        self.last = Some(position);
        match content {
            Content::Seed(_) => self.seed_offset = position.offset,
            Content::Metadata(metadata) => match &self.metadata {
                Some(first) if *first != metadata => {
                    return Err(Fault::new(
                        "the metadata of the first segment",
                        "the log of another member",
                    ));
                }
                _ => self.metadata = Some(metadata),
            },
            Content::Entry(entry) => {
                self.add_entry(Index(entry.index), Term(entry.term), position)?
            }
            Content::State(state) => self.add_state(state)?,
            Content::Snapshot(snapshot) => self.add_snapshot(snapshot, position),
        }
        Ok(())
    }

    fn add_snapshot(&mut self, snapshot: walpb::Snapshot, position: Position) {
        let (index, term) = (Index(snapshot.index), Term(snapshot.term));
        if self.log.is_restarted_by(index, term) {
            self.pending.push(Pending {
                index,
                term,
                position,
                before: None,
            });
            self.settle_pending();
        }
        self.snapshots.push(snapshot);
    }

    fn add_state(&mut self, state: HardState) -> Result<(), Fault> {
        let before = self.hard_state;
        if state.term < before.term || state.commit < before.commit {
            return Err(Fault::new(
                format!(
                    "a hard state not behind term {} and commit index {}",
                    before.term, before.commit
                ),
                format!("term {} and commit index {}", state.term, state.commit),
            ));
        }
        self.hard_state = state;
        self.settle_pending();
        Ok(())
    }

    /// Lets the last snapshot record hold that the commit index reaches.
    fn settle_pending(&mut self) {
        let commit = self.hard_state.commit;
        let Some(at) = self
            .pending
            .iter()
            .rposition(|pending| pending.index.0 <= commit)
        else {
            return;
        };
        let pending = self
            .pending
            .drain(..=at)
            .next_back()
            .expect("the range ends with it");
        if pending.before.is_none() {
            self.log.restart(pending.index, pending.term);
        }
    }

    /// Takes back a snapshot record that the writer did not get to commit: its write was never finished. Either it is
    /// the last record, or entries that follow it reached the disk while the hard state did not. Answers where the
    /// log must be cut, since nobody could go on behind such a record.
    pub(super) fn take_back_unfinished_snapshot(&mut self) -> Option<Position> {
        let last = self.last;
        let unfinished =
            |pending: &Pending| pending.before.is_some() || Some(pending.position) == last;
        let at = self.pending.iter().position(unfinished)?;
        let pending = self.pending.drain(at..).next().expect("it is there");
        if let Some(before) = pending.before {
            self.log = before;
        }
        self.checksum = Some(pending.position.checksum);
        self.snapshots
            .retain(|snapshot| snapshot.index != pending.index.0);
        Some(pending.position)
    }

    /// An entry tells whether the writer went on from a pending snapshot or without it.
    fn follow_pending(&mut self, index: Index) {
        if self.pending.iter().any(|pending| pending.before.is_some()) {
            return;
        }
        let ahead = index > self.log.last().next();
        let followed = self
            .pending
            .drain(..)
            .rfind(|pending| ahead && pending.index.next() == index);
        if let Some(mut pending) = followed {
            pending.before = Some(self.log.clone());
            self.log.restart(pending.index, pending.term);
            self.pending.push(pending);
        }
    }

    fn add_entry(&mut self, index: Index, term: Term, position: Position) -> Result<(), Fault> {
        self.follow_pending(index);
        let replaced = self.log.term(index).filter(|&replaced| replaced != term);
        if let Some(replaced) = replaced.filter(|_| index.0 <= self.hard_state.commit) {
            return Err(Fault::new(
                format!(
                    "no entry in place of the committed entry {} of term {}",
                    index.0, replaced.0
                ),
                format!("one of term {}", term.0),
            ));
        }
        self.log
            .add_entry(index, term, position)
            .map_err(|misplaced| match misplaced {
                Misplaced::Gap(last) => Fault::new(
                    format!("entry {}", last.next().0),
                    format!("entry {}, with those between missing", index.0),
                ),
                Misplaced::TermGoesBack(before) => Fault::new(
                    format!("entry {} with a term of at least {}", index.0, before.0),
                    format!("term {}", term.0),
                ),
            })
    }
}

/// Looks behind a bad place for a seed that is followed by at least one record that continues its chain. Such a
/// seed is written only after a sync of all before it.
fn find_seed(bytes: &Bytes, bad: usize) -> Option<usize> {
    let end = frame::content_end(bytes);
    (bad + frame::LENGTH_BYTES..end).step_by(frame::LENGTH_BYTES).find(|&offset| {
        // A seed's record is 4 to 8 bytes: most places are out after one look.
        (4..=8).contains(&bytes[offset]) && {
            let Place::Frame { record, next } = frame::read(bytes, offset) else { return false };
            let Ok((Content::Seed(seed), _)) = record::decode(bytes.slice(record), None) else { return false };
            let Place::Frame { record, .. } = frame::read(bytes, next) else { return false };
            matches!(record::decode(bytes.slice(record), Some(seed)), Ok((content, _)) if !matches!(content, Content::Seed(_)))
        }
    })
}
