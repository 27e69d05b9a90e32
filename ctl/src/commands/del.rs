//! `del`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use clap::Args;
use quorate_proto::etcdserverpb as pb;

use super::key_range;
use crate::failure::Failure;
use crate::globals::{Context, Patience};
use crate::go::quote::quote;
use crate::output::Answer;

/// The time to think again about a range.
const SECOND_THOUGHTS: Duration = Duration::from_secs(2);

/// Flags of `del`, here and in transactions.
#[derive(Debug, Args)]
pub(crate) struct Del {
    /// <key> [range_end]
    args: Vec<OsString>,
    /// delete keys with matching prefix
    #[arg(long)]
    prefix: bool,
    /// return deleted key-value pairs
    #[arg(long)]
    prev_kv: bool,
    /// delete keys that are greater than or equal to the given key using byte compare
    #[arg(long)]
    from_key: bool,
    /// delete range of keys
    #[arg(long)]
    range: bool,
}

impl Del {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = self.request()?;
        let session = context.open(Patience::Short).await?;
        let answer = session.client.delete_range(request).await;
        let response = answer.map_err(|error| Failure::call(&error))?;
        session.printer.print(Answer::Delete(&response))
    }

    /// The request that the arguments mean; a range without `--range` is warned about, and waits.
    pub(crate) fn request(self) -> Result<pb::DeleteRangeRequest, Failure> {
        let args: Vec<Vec<u8>> = self.args.into_iter().map(OsStringExt::into_vec).collect();
        let (key, range_end) = match args.as_slice() {
            [key] => (key.clone(), None),
            [key, range_end] => (key.clone(), Some(range_end.clone())),
            _ => {
                return Err(Failure::arguments(
                    "del command needs one argument as key and an optional argument as range_end",
                ));
            }
        };
        if self.prefix && self.from_key {
            return Err(Failure::arguments(
                "`--prefix` and `--from-key` cannot be set at the same time, choose one",
            ));
        }
        if let Some(range_end) = &range_end {
            if self.prefix || self.from_key {
                return Err(Failure::arguments(
                    "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
                ));
            }
            if !self.range {
                eprintln!(
                    "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next 2 \
                     seconds to cancel. You can provide `--range` flag to avoid the delay.",
                    quote(&key),
                    quote(range_end)
                );
                std::thread::sleep(SECOND_THOUGHTS);
            }
        }
        let (key, range_end) = key_range(key, range_end, self.prefix, self.from_key);
        Ok(pb::DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            prev_kv: self.prev_kv,
        })
    }
}
