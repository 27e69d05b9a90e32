//! `move-leader`: looks for the leader among the endpoints, and asks it to hand over.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;

use crate::failure::Failure;
use crate::globals::{Context, Patience};
use crate::go::number::parse_uint;
use crate::output::Answer;

/// Flags of `move-leader`.
#[derive(Debug, Args)]
pub(crate) struct MoveLeader {
    /// <transferee-member-id>
    args: Vec<OsString>,
}

impl MoveLeader {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let [target] = self.args.as_slice() else {
            return Err(Failure::arguments("move-leader command needs 1 argument"));
        };
        let to = parse_uint(target.as_bytes(), 16).map_err(Failure::arguments)?;
        let session = context.open(Patience::Short).await?;
        for endpoint in session.client.endpoints() {
            let call = |error| Failure::call(&error);
            let client = session
                .client
                .with_endpoint(endpoint.clone())
                .map_err(call)?;
            let status = client.status().await.map_err(call)?;
            let from = status.leader;
            if status.header.is_some_and(|header| header.member_id == from) {
                let response = client.move_leader(to).await.map_err(call)?;
                let response = &response;
                return session
                    .printer
                    .print(Answer::MoveLeader { from, to, response });
            }
        }
        let endpoints = session.client.endpoints().iter().map(ToString::to_string);
        let endpoints: Vec<String> = endpoints.collect();
        let words = format!("no leader endpoint given at [{}]", endpoints.join(" "));
        Err(Failure::arguments(words))
    }
}
