//! `get`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use clap::Args;
use quorate_proto::etcdserverpb as pb;
use quorate_proto::etcdserverpb::range_request::{SortOrder, SortTarget};

use super::{is_serializable, key_range};
use crate::failure::{Exit, Failure};
use crate::globals::{Context, Patience, go_int};
use crate::output::{Answer, Format};

/// Flags of `get`, here and in transactions.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// <key> [range_end]
    args: Vec<OsString>,
    /// Linearizable(l) or Serializable(s)
    #[arg(long, default_value = "l")]
    consistency: String,
    /// Order of results; ASCEND or DESCEND (ASCEND by default)
    #[arg(long, default_value = "")]
    order: String,
    /// Sort target; CREATE, KEY, MODIFY, VALUE, or VERSION
    #[arg(long, default_value = "")]
    sort_by: String,
    /// Maximum number of results
    #[arg(long, default_value = "0", value_parser = go_int)]
    limit: i64,
    /// Get keys with matching prefix
    #[arg(long)]
    prefix: bool,
    /// Get keys that are greater than or equal to the given key using byte compare
    #[arg(long)]
    from_key: bool,
    /// Specify the kv revision
    #[arg(long, default_value = "0", value_parser = go_int)]
    rev: i64,
    /// Get only the keys
    #[arg(long)]
    keys_only: bool,
    /// Get only the count
    #[arg(long)]
    count_only: bool,
    /// Only write values when using the "simple" output format
    #[arg(long)]
    print_value_only: bool,
    /// Minimum create revision
    #[arg(long, default_value = "0", value_parser = go_int)]
    min_create_rev: i64,
    /// Maximum create revision
    #[arg(long, default_value = "0", value_parser = go_int)]
    max_create_rev: i64,
    /// Minimum modification revision
    #[arg(long, default_value = "0", value_parser = go_int)]
    min_mod_rev: i64,
    /// Maximum modification revision
    #[arg(long, default_value = "0", value_parser = go_int)]
    max_mod_rev: i64,
    /// Use the RangeStream RPC
    #[arg(long)]
    stream: bool,
}

impl Get {
    /// Asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        let (count_only, values_only) = (self.count_only, self.print_value_only);
        let stream = self.stream;
        let request = self.request()?;
        let mut session = context.open(Patience::Short).await?;
        let answer = if stream {
            session.client.range_stream(request).await
        } else {
            session.client.range(request).await
        };
        let response = answer.map_err(|error| Failure::call(&error))?;

        // Only now: etcdctl, too, asks first.
        if count_only && session.printer.format != Format::Fields {
            let words = "--count-only is only for `--write-out=fields`";
            return Err(Failure::arguments(words));
        }
        if values_only && session.printer.format != Format::Simple {
            let words = "print-value-only is only for `--write-out=simple`";
            return Err(Failure::arguments(words));
        }
        session.printer.values_only = values_only;
        session.printer.print(Answer::Range(&response))
    }

    /// The request that the arguments mean.
    pub(crate) fn request(self) -> Result<pb::RangeRequest, Failure> {
        let mut args = self.args.into_iter().map(OsStringExt::into_vec);
        let Some(key) = args.next() else {
            return Err(Failure::arguments(
                "get command needs one argument as key and an optional argument as range_end",
            ));
        };
        if self.prefix && self.from_key {
            return Err(Failure::arguments(
                "`--prefix` and `--from-key` cannot be set at the same time, choose one",
            ));
        }
        if self.keys_only && self.count_only {
            return Err(Failure::arguments(
                "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
            ));
        }
        let serializable = is_serializable(&self.consistency)?;
        let range_end = args.next();
        if range_end.is_some() && (self.prefix || self.from_key) {
            return Err(Failure::arguments(
                "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
            ));
        }
        let (sort_order, sort_target) = sort(&self.order, &self.sort_by)?;
        check_bounds("Create", self.min_create_rev, self.max_create_rev)?;
        check_bounds("Mod", self.min_mod_rev, self.max_mod_rev)?;
        let (key, range_end) = key_range(key, range_end, self.prefix, self.from_key);
        Ok(pb::RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            limit: self.limit,
            revision: self.rev.max(0),
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable,
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: self.min_mod_rev.max(0),
            max_mod_revision: self.max_mod_rev.max(0),
            min_create_revision: self.min_create_rev.max(0),
            max_create_revision: self.max_create_rev.max(0),
        })
    }
}

fn sort(order: &str, target: &str) -> Result<(SortOrder, SortTarget), Failure> {
    let sort_order = match order.to_uppercase().as_str() {
        "ASCEND" => SortOrder::Ascend,
        "DESCEND" => SortOrder::Descend,
        "" => SortOrder::None,
        _ => {
            return Err(Failure::new(
                Exit::Feature,
                format!("bad sort order {order}"),
            ));
        }
    };
    let sort_target = match target.to_uppercase().as_str() {
        "CREATE" => SortTarget::Create,
        "KEY" | "" => SortTarget::Key,
        "MODIFY" => SortTarget::Mod,
        "VALUE" => SortTarget::Value,
        "VERSION" => SortTarget::Version,
        _ => {
            return Err(Failure::new(
                Exit::Feature,
                format!("bad sort target {target}"),
            ));
        }
    };
    if (sort_order, sort_target) == (SortOrder::Ascend, SortTarget::Key) {
        // The order that answers have anyway; asked for, it would cost the server a sort of all keys.
        return Ok((SortOrder::None, SortTarget::Key));
    }
    Ok((sort_order, sort_target))
}

fn check_bounds(kind: &str, min: i64, max: i64) -> Result<(), Failure> {
    if max > 0 && min > max {
        let words = format!("getMin{kind}Rev(={min}) > getMax{kind}Rev(={max})");
        return Err(Failure::new(Exit::Feature, words));
    }
    Ok(())
}
