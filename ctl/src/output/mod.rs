//! What answers look like: one renderer for each of etcdctl's formats.
//!
//! A renderer makes bytes from an answer, or refuses a kind of answer that its format does not have. Nothing here asks a
//! server.

mod fields;
pub(crate) mod json;
mod protobuf;
mod simple;
mod table;

pub(crate) use table::size;

use std::io::Write;

use quorate_proto::etcdserverpb as pb;

use crate::failure::{Exit, Failure};

/// etcdctl's formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// For people; the default.
    Simple,
    /// `"Name" : value` lines.
    Fields,
    /// One line of JSON.
    Json,
    /// For people, in columns.
    Table,
    /// The response message's bytes.
    Protobuf,
}

/// Anything that a command prints in the chosen format.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer<'a> {
    /// put
    Put(&'a pb::PutResponse),
    /// get
    Range(&'a pb::RangeResponse),
    /// del
    Delete(&'a pb::DeleteRangeResponse),
    /// txn
    Txn(&'a pb::TxnResponse),
    /// watch
    Watch(&'a pb::WatchResponse),
    /// lease grant
    Grant(&'a pb::LeaseGrantResponse),
    /// lease revoke, with the lease
    Revoke(i64, &'a pb::LeaseRevokeResponse),
    /// lease keep-alive
    KeepAlive(&'a pb::LeaseKeepAliveResponse),
    /// lease timetolive, and whether keys were asked for
    TimeToLive(&'a pb::LeaseTimeToLiveResponse, bool),
    /// lease list
    Leases(&'a pb::LeaseLeasesResponse),
    /// member list
    Members(&'a pb::MemberListResponse),
    /// member add, remove, update, promote
    MemberChange(MemberChange<'a>),
    /// endpoint health
    Health(&'a [Health]),
    /// endpoint status
    Status(&'a [Status]),
    /// endpoint hashkv
    HashKv(&'a [HashKv]),
    /// alarm list and disarm
    Alarms(&'a pb::AlarmResponse),
    /// auth status
    AuthStatus(&'a pb::AuthStatusResponse),
    /// user get, with the user
    User(&'a str, &'a pb::AuthUserGetResponse),
    /// user list
    Users(&'a pb::AuthUserListResponse),
    /// role get, with the role
    Role(&'a str, &'a pb::AuthRoleGetResponse),
    /// role list
    Roles(&'a pb::AuthRoleListResponse),
    /// An answer that says no more than that it is done.
    Done {
        /// The same for people.
        words: &'a str,
        /// All that it holds.
        header: &'a Option<pb::ResponseHeader>,
    },
    /// downgrade validate, enable, cancel
    Downgrade {
        /// Which of them.
        verb: &'a str,
        /// The server's answer.
        response: &'a pb::DowngradeResponse,
    },
    /// move-leader
    MoveLeader {
        /// Who led.
        from: u64,
        /// Who leads now.
        to: u64,
        /// The server's answer.
        response: &'a pb::MoveLeaderResponse,
    },
}

/// What was changed of the members.
#[derive(Clone, Copy, Debug)]
pub(crate) enum MemberChange<'a> {
    /// One was added, which is to have this name.
    Added {
        /// The name.
        name: &'a str,
        /// The server's answer.
        response: &'a pb::MemberAddResponse,
    },
    /// One was removed.
    Removed {
        /// Which.
        id: u64,
        /// The server's answer.
        response: &'a pb::MemberRemoveResponse,
    },
    /// One has other peer URLs.
    Updated {
        /// Which.
        id: u64,
        /// The server's answer.
        response: &'a pb::MemberUpdateResponse,
    },
    /// A learner votes.
    Promoted {
        /// Which.
        id: u64,
        /// The server's answer.
        response: &'a pb::MemberPromoteResponse,
    },
}

/// Whether an endpoint serves.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    /// As given.
    pub(crate) endpoint: String,
    /// How long the answer took; empty if it was not asked.
    pub(crate) took: String,
    /// Empty when all is well.
    pub(crate) error: String,
}

/// What an endpoint says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// As given.
    pub(crate) endpoint: String,
    /// Its answer.
    pub(crate) response: pb::StatusResponse,
}

/// An endpoint's hash.
#[derive(Clone, Debug)]
pub(crate) struct HashKv {
    /// As given.
    pub(crate) endpoint: String,
    /// Its answer.
    pub(crate) response: pb::HashKvResponse,
}

/// Prints answers in one format.
#[derive(Clone, Debug)]
pub(crate) struct Printer {
    /// The format.
    pub(crate) format: Format,
    /// `--hex`.
    pub(crate) is_hex: bool,
    /// `--print-value-only`.
    pub(crate) values_only: bool,
}

impl Format {
    /// The format of that name.
    pub(crate) fn named(name: &str) -> Result<Self, Failure> {
        match name {
            "simple" => Ok(Self::Simple),
            "fields" => Ok(Self::Fields),
            "json" => Ok(Self::Json),
            "table" => Ok(Self::Table),
            "protobuf" => Ok(Self::Protobuf),
            _ => Err(Failure::new(Exit::Feature, "unsupported output format")),
        }
    }
}

impl Printer {
    /// Writes an answer to stdout.
    pub(crate) fn print(&self, answer: Answer<'_>) -> Result<(), Failure> {
        let bytes = match self.format {
            Format::Simple => simple::render(self, &answer),
            Format::Fields => fields::render(self, &answer)?,
            Format::Json => json::render(self, &answer)?,
            Format::Table => table::render(&answer)?,
            Format::Protobuf => protobuf::render(&answer)?,
        };
        write(&bytes)
    }
}

/// Writes to stdout at once: whoever reads a watch must not wait for a buffer to fill.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

fn unsupported(format: &str) -> Failure {
    Failure::new(
        Exit::Feature,
        format!("{format} not supported as output format"),
    )
}
