//! `put`.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::Args;
use quorate_proto::etcdserverpb as pb;

use crate::failure::Failure;
use crate::globals::{Context, Patience};
use crate::go::number::parse_int;
use crate::output::Answer;

/// Flags of `put`, here and in transactions.
#[derive(Debug, Args)]
pub(crate) struct Put {
    /// <key> [value]; a value that is not given is read from stdin, one that begins with - needs a -- before it
    args: Vec<OsString>,
    /// lease ID (in hexadecimal) to attach to the key
    #[arg(long, default_value = "0")]
    lease: OsString,
    /// return the previous key-value pair before modification
    #[arg(long)]
    prev_kv: bool,
    /// updates the key using its current value
    #[arg(long)]
    ignore_value: bool,
    /// updates the key using its current lease
    #[arg(long)]
    ignore_lease: bool,
}

/// Where a value may come from when it is not an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stdin {
    /// From stdin.
    Value,
    /// Nowhere: stdin holds the transaction.
    Taken,
}

impl Put {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let request = self.request(Stdin::Value)?;
        let session = context.open(Patience::Short).await?;
        let answer = session.client.put(request).await;
        let response = answer.map_err(|error| Failure::call(&error))?;
        session.printer.print(Answer::Put(&response))
    }

    /// The request that the arguments mean.
    pub(crate) fn request(self, stdin: Stdin) -> Result<pb::PutRequest, Failure> {
        const NEEDS: &str = "put command needs 1 argument and input from stdin or 2 arguments";
        let mut args = self.args.into_iter().map(OsStringExt::into_vec);
        let key = args.next().ok_or_else(|| Failure::arguments(NEEDS))?;
        let value = match (self.ignore_value, args.next()) {
            (true, None) => Vec::new(),
            (true, Some(_)) => {
                return Err(Failure::arguments(
                    "put command needs only 1 argument when 'ignore-value' is set",
                ));
            }
            (false, Some(value)) => value,
            (false, None) => {
                let mut value = Vec::new();
                if stdin == Stdin::Value {
                    std::io::stdin().read_to_end(&mut value)?;
                }
                if value.is_empty() {
                    return Err(Failure::arguments(NEEDS));
                }
                value
            }
        };
        let lease = parse_int(self.lease.as_bytes(), 16).map_err(|error| {
            Failure::arguments(format!("bad lease ID ({error}), expecting ID in Hex"))
        })?;
        Ok(pb::PutRequest {
            key: key.into(),
            value: value.into(),
            lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        })
    }
}
