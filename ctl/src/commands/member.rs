//! `member add|remove|update|promote|list`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::{Args, Subcommand};
use quorate_proto::etcdserverpb as pb;

use super::is_serializable;
use crate::failure::{Exit, Failure};
use crate::globals::{Context, Patience, Session};
use crate::go::number::parse_uint;
use crate::output::{Answer, MemberChange};

/// `member`.
#[derive(Debug, Args)]
pub(crate) struct Member {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    /// Adds a member into the cluster
    Add {
        /// <memberName>
        args: Vec<OsString>,
        /// comma separated peer URLs for the new member.
        #[arg(long, default_value = "")]
        peer_urls: String,
        /// indicates if the new member is raft learner
        #[arg(long)]
        learner: bool,
    },
    /// Removes a member from the cluster
    Remove {
        /// <memberID>
        args: Vec<OsString>,
    },
    /// Updates a member in the cluster
    Update {
        /// <memberID>
        args: Vec<OsString>,
        /// comma separated peer URLs for the updated member.
        #[arg(long, default_value = "")]
        peer_urls: String,
    },
    /// Promotes a non-voting member in the cluster
    Promote {
        /// <memberID>
        args: Vec<OsString>,
    },
    /// Lists all members in the cluster
    List {
        #[arg(hide = true)]
        args: Vec<OsString>,
        /// Linearizable(l) or Serializable(s)
        #[arg(long, default_value = "l")]
        consistency: String,
    },
}

impl Member {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            MemberCommand::Add {
                args,
                peer_urls,
                learner,
            } => add(context, &args, &peer_urls, learner).await,
            MemberCommand::Remove { args } => remove(context, &args).await,
            MemberCommand::Update { args, peer_urls } => update(context, &args, &peer_urls).await,
            MemberCommand::Promote { args } => promote(context, &args).await,
            // Further arguments are no mistake to etcdctl.
            MemberCommand::List { consistency, .. } => list(context, &consistency).await,
        }
    }
}

async fn add(
    context: &Context,
    args: &[OsString],
    peer_urls: &str,
    learner: bool,
) -> Result<(), Failure> {
    let name = match args {
        [] => return Err(Failure::arguments("member name not provided")),
        [name] => name.to_string_lossy(),
        _ => return Err(Failure::arguments("too many arguments")),
    };
    let urls = peer_urls_of(peer_urls)?;
    check_urls(&urls)?;
    let session = context.open(Patience::Short).await?;
    let answer = session.client.member_add(urls, learner).await;
    let response = answer.map_err(|error| Failure::call(&error))?;
    let change = MemberChange::Added {
        name: &name,
        response: &response,
    };
    session.printer.print(Answer::MemberChange(change))
}

async fn remove(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    let (id, session) = open_for(context, args).await?;
    let answer = session.client.member_remove(id).await;
    let response = &answer.map_err(|error| Failure::call(&error))?;
    let change = MemberChange::Removed { id, response };
    session.printer.print(Answer::MemberChange(change))
}

async fn update(context: &Context, args: &[OsString], peer_urls: &str) -> Result<(), Failure> {
    let id = id_of(args)?;
    let urls = peer_urls_of(peer_urls)?;
    let session = context.open(Patience::Short).await?;
    let answer = session.client.member_update(id, urls).await;
    let response = &answer.map_err(|error| Failure::call(&error))?;
    let change = MemberChange::Updated { id, response };
    session.printer.print(Answer::MemberChange(change))
}

async fn promote(context: &Context, args: &[OsString]) -> Result<(), Failure> {
    let (id, session) = open_for(context, args).await?;
    let answer = session.client.member_promote(id).await;
    let response = &answer.map_err(|error| Failure::call(&error))?;
    let change = MemberChange::Promoted { id, response };
    session.printer.print(Answer::MemberChange(change))
}

async fn list(context: &Context, consistency: &str) -> Result<(), Failure> {
    let linearizable = !is_serializable(consistency)?;
    let session = context.open(Patience::Short).await?;
    let answer = session.client.member_list(linearizable).await;
    let response: pb::MemberListResponse = answer.map_err(|error| Failure::call(&error))?;
    session.printer.print(Answer::Members(&response))
}

async fn open_for(context: &Context, args: &[OsString]) -> Result<(u64, Session), Failure> {
    let id = id_of(args)?;
    Ok((id, context.open(Patience::Short).await?))
}

fn id_of(args: &[OsString]) -> Result<u64, Failure> {
    let [id] = args else {
        return Err(Failure::arguments("member ID is not provided"));
    };
    parse_uint(id.as_bytes(), 16).map_err(|error| {
        let words = format!("bad member ID arg ({error}), expecting ID in Hex");
        Failure::arguments(words)
    })
}

fn peer_urls_of(text: &str) -> Result<Vec<String>, Failure> {
    if text.is_empty() {
        return Err(Failure::arguments("member peer urls not provided"));
    }
    Ok(text.split(',').map(str::to_owned).collect())
}

/// etcdctl's library looks at each URL before it asks.
fn check_urls(urls: &[String]) -> Result<(), Failure> {
    let refused = urls.iter().find_map(|url| check_url(url).err());
    refused.map_or(Ok(()), |words| Err(Failure::new(Exit::General, words)))
}

fn check_url(url: &str) -> Result<(), String> {
    let schemes = ["http://", "https://", "unix://", "unixs://"];
    let scheme = schemes.iter().find(|scheme| url.starts_with(**scheme));
    let Some(scheme) = scheme else {
        return Err(format!(
            "URL scheme must be http, https, unix, or unixs: {url}"
        ));
    };
    if scheme.starts_with("unix") {
        return Ok(());
    }
    let (place, path) = url[scheme.len()..]
        .split_once('/')
        .map_or((&url[scheme.len()..], None), |(place, path)| {
            (place, Some(path))
        });
    if place
        .rsplit_once(':')
        .is_none_or(|(host, _)| host.ends_with(':'))
    {
        return Err(format!(
            "URL address does not have the form \"host:port\": {url}"
        ));
    }
    if path.is_some() {
        return Err(format!("URL must not contain a path: {url}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_url;

    #[test]
    fn urls_are_refused_in_etcds_words() {
        for (url, words) in [
            ("foo", "URL scheme must be http, https, unix, or unixs: foo"),
            (
                "http://127.0.0.1",
                "URL address does not have the form \"host:port\": http://127.0.0.1",
            ),
            ("http://a:1/x", "URL must not contain a path: http://a:1/x"),
        ] {
            assert_eq!(check_url(url).unwrap_err(), words);
        }
        for url in ["http://a:1", "https://[::1]:2380", "unix://socket"] {
            assert_eq!(check_url(url), Ok(()));
        }
    }
}
