//! `compaction`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;
use quorate_proto::etcdserverpb as pb;

use crate::failure::{Exit, Failure};
use crate::globals::{Context, Patience};
use crate::go::number::parse_int;

/// Flags of `compaction`.
#[derive(Debug, Args)]
pub(crate) struct Compaction {
    /// <revision>
    args: Vec<OsString>,
    /// 'true' to wait for compaction to physically remove all old revisions
    #[arg(long)]
    physical: bool,
}

impl Compaction {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let [revision] = self.args.as_slice() else {
            return Err(Failure::arguments("compaction command needs 1 argument"));
        };
        let revision = parse_int(revision.as_bytes(), 10)
            .map_err(|error| Failure::new(Exit::General, error))?;
        let session = context.open(Patience::Short).await?;
        let request = pb::CompactionRequest {
            revision,
            physical: self.physical,
        };
        let answer = session.client.compact(request).await;
        answer.map_err(|error| Failure::call(&error))?;
        crate::output::write(format!("compacted revision {revision}\n").as_bytes())
    }
}
