//! From what the disk holds to where a node begins.

use bytes::Bytes;
use quorate_proto::raftpb;

use crate::apply::{self, State};
use crate::auth::Auth;
use crate::checkpoint::{self, MemberRecord};
use crate::lease::{self, Lessor};
use crate::member::version::major_minor;
use crate::member::{Membership, bootstrap_change};
use crate::mvcc::{Store, View};
use crate::node::ETCD_VERSION;
use crate::request_ids;
use crate::types::{Index, MemberId, Term};

/// Where a member begins: the state that its checkpoint holds, and the log after it.
#[derive(Debug)]
pub struct Recovered {
    pub(super) hard_state: raftpb::HardState,
    pub(super) snapshot_index: Index,
    pub(super) snapshot_term: Term,
    pub(super) entries: Vec<raftpb::Entry>,
    pub(super) older: Vec<(Index, Term)>,
    pub(super) state: State,
    /// Whether entries and hard state are new and must be written first.
    pub(super) is_bootstrap: bool,
}

/// What the log on disk holds, as its recovery found it.
#[derive(Clone, Debug, Default)]
pub struct LogContents {
    /// The last hard state.
    pub hard_state: raftpb::HardState,
    /// The last valid snapshot record.
    pub snapshot_index: Index,
    /// Its term.
    pub snapshot_term: Term,
    /// The entries after that snapshot, without gaps.
    pub entries: Vec<raftpb::Entry>,
    /// Entries up to the snapshot that the disk still has, as (first index, term) of each run of one term, ascending
    /// and without gaps up to the snapshot: they can be read back for followers.
    pub older: Vec<(Index, Term)>,
}

impl LogContents {
    /// Whether the log's owner lost power before the entries that found its cluster were durable: the hard state that
    /// ends them is missing. Nothing was said to anybody then, and the member is to be founded again, on this log.
    pub fn is_unfinished_founding(&self) -> bool {
        self.hard_state.is_empty() && self.snapshot_index == Index(0)
    }
}

/// Why a member cannot begin from what its disk holds.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The checkpoint is not readable.
    #[error("snap/db: {0}")]
    Image(#[from] checkpoint::ImageError),
    /// The checkpoint's rows do not make a store.
    #[error("snap/db: {0}")]
    Rows(String),
    /// Log and checkpoint do not belong together.
    #[error("the log and snap/db do not fit together: {0}")]
    Mismatch(String),
    /// A cluster is to be made of a member that belongs to none.
    #[error(
        "--force-new-cluster: {:x} is no member of its cluster any more, or not yet; take the directory of another \
         member, or restore its image with quorateutl snapshot restore --skip-hash-check", .0.0
    )]
    NotAMember(MemberId),
}

impl Recovered {
    /// A member of a new cluster. All its first members begin with the same entries.
    pub fn fresh(members: &[MemberRecord], lease: lease::Config) -> Self {
        let mut members: Vec<_> = members.to_vec();
        members.sort_unstable_by_key(|member| member.id);
        let changes: Vec<_> = members.iter().map(bootstrap_change).collect();
        let entries = apply::bootstrap_entries(&changes);
        let hard_state = raftpb::HardState {
            term: 1,
            vote: 0,
            commit: entries.len() as u64,
        };
        Self {
            hard_state,
            snapshot_index: Index(0),
            snapshot_term: Term(0),
            entries,
            older: Vec::new(),
            state: State::new(Lessor::new(lease)),
            is_bootstrap: true,
        }
    }

    /// The data that it begins with.
    pub fn view(&self) -> View {
        self.state.store.view()
    }

    /// The members that it knows of, by id.
    pub fn members(&self) -> Vec<MemberRecord> {
        self.state.membership.members().cloned().collect()
    }

    /// Where the ids of this member's requests begin if it starts at this wall clock time, for [`RequestIds::new`]: no id
    /// comes again that is in its log, or was on its way when it ended.
    ///
    /// [`RequestIds::new`]: crate::boundary::RequestIds::new
    pub fn request_ids_begin_ms(&self, member: MemberId, unix_ms: u64, entropy: u64) -> u64 {
        request_ids::begin_ms(member, unix_ms, entropy, &self.entries)
    }

    /// A member that joins a running cluster: it knows nothing, and its leader tells it everything.
    pub fn joining(lease: lease::Config) -> Self {
        Self {
            hard_state: raftpb::HardState::default(),
            snapshot_index: Index(0),
            snapshot_term: Term(0),
            entries: Vec::new(),
            older: Vec::new(),
            state: State::new(Lessor::new(lease)),
            is_bootstrap: false,
        }
    }

    /// A member that was here before. `image` is the content of `snap/db` if there is one.
    pub fn from_disk(
        image: Option<Bytes>,
        log: LogContents,
        lease: lease::Config,
    ) -> Result<Self, RecoverError> {
        let state = match image {
            Some(image) => restore(checkpoint::load(image)?, lease)?,
            None => State::new(Lessor::new(lease)),
        };
        if state.index < log.snapshot_index {
            return Err(RecoverError::Mismatch(format!(
                "the log begins after index {}, but snap/db ends at index {}; restore snap/db from a backup, or remove \
                 the data directory and add the member anew",
                log.snapshot_index.0, state.index.0
            )));
        }
        let last = log
            .entries
            .last()
            .map_or(log.snapshot_index.0, |entry| entry.index);
        let commit = log.hard_state.commit;
        if commit > last {
            return Err(RecoverError::Mismatch(format!(
                "entries up to index {commit} are committed, but the log ends at index {last}"
            )));
        }
        if commit < log.snapshot_index.0 {
            return Err(RecoverError::Mismatch(format!(
                "the log says that index {} is in a snapshot, but only {commit} is committed",
                log.snapshot_index.0
            )));
        }
        Ok(Self {
            hard_state: log.hard_state,
            snapshot_index: log.snapshot_index,
            snapshot_term: log.snapshot_term,
            entries: log.entries,
            older: log.older,
            state,
            is_bootstrap: false,
        })
    }
}

/// The state that an image holds.
pub(super) fn restore(
    loaded: checkpoint::Loaded,
    lease: lease::Config,
) -> Result<State, RecoverError> {
    let checkpoint::Loaded { contents, rows } = loaded;
    let cluster = contents.cluster_version.as_deref();
    if cluster.and_then(major_minor) > major_minor(ETCD_VERSION) {
        return Err(RecoverError::Mismatch(format!(
            "invalid downgrade; server version {ETCD_VERSION} is lower than determined cluster version {}",
            cluster.unwrap_or_default()
        )));
    }
    let (store, attachments) =
        Store::restore(rows, contents.scheduled_compact, contents.finished_compact)
            .map_err(|error| RecoverError::Rows(error.to_string()))?;
    let mut lessor = Lessor::restore(lease, contents.leases, attachments);
    lessor.demote();
    Ok(State {
        store,
        lessor,
        membership: Membership::restore(contents.members, contents.members_removed),
        alarms: contents
            .alarms
            .iter()
            .map(|alarm| (alarm.member_id, alarm.alarm))
            .collect(),
        auth: Auth::restore(contents.auth),
        cluster_version: contents.cluster_version,
        downgrade: contents.downgrade,
        index: contents.consistent_index,
        term: contents.term,
    })
}
