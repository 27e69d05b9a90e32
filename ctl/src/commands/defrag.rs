//! `defrag`: each endpoint is asked by itself, one after the other.

use std::ffi::OsString;
use std::time::Instant;

use clap::Args;

use super::endpoint;
use crate::failure::{Exit, Failure, describe};
use crate::globals::{Context, Patience};
use crate::go::duration;

/// Flags of `defrag`.
#[derive(Debug, Args)]
pub(crate) struct Defrag {
    /// use all endpoints from the cluster member list
    #[arg(long)]
    cluster: bool,
    #[arg(hide = true)]
    args: Vec<OsString>,
}

impl Defrag {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let session = context.open(Patience::Short).await?;
        let mut has_failed = false;
        for client in endpoint::clients(&session, self.cluster).await? {
            let name = endpoint::name(&client);
            let start = Instant::now();
            let answer = client.defragment().await;
            let took = duration::format(start.elapsed());
            match answer {
                Ok(_) => {
                    let words =
                        format!("Finished defragmenting etcd member[{name}]. took {took}\n");
                    crate::output::write(words.as_bytes())?;
                }
                Err(error) => {
                    let error = describe(&error);
                    eprintln!("Failed to defragment etcd member[{name}]. took {took}. ({error})");
                    has_failed = true;
                }
            }
        }
        if has_failed {
            return Err(Failure::said(Exit::General, String::new()));
        }
        Ok(())
    }
}
