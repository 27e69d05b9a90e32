//! `hashkv`: the hash that members compare, from a file. The file stays as it is.

use quorate_core::checkpoint;
use quorate_core::mvcc::Store;
use quorate_core::types::Revision;

use crate::command_line::{Arguments, Flag, Kind};
use crate::output::{Cell, Format};
use crate::status::damaged;
use crate::{Failure, files};

pub(crate) const FLAGS: &[Flag] = &[Flag {
    name: "rev",
    short: None,
    kind: Kind::Int,
    default: "0",
    usage: "maximum revision to hash (default: latest revision)",
    required: false,
}];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let file = &arguments.positional[0];
    let format = Format::named(arguments.text("write-out"));
    files::stat(file)?;
    let format = format?;
    let image = files::read_image(file, arguments.timeout())?;
    let loaded = checkpoint::load(image).map_err(|error| damaged(&error))?;
    let (scheduled, finished) = (
        loaded.contents.scheduled_compact,
        loaded.contents.finished_compact,
    );
    let (mut store, _) =
        Store::restore(loaded.rows, scheduled, finished).map_err(|error| damaged(&error))?;
    while store.is_compacting() {
        store.compact_step(usize::MAX);
    }
    let view = store.view();
    let answer = view.hash_kv(Revision(arguments.int("rev")));
    let hash = answer.map_err(|error| {
        let text = error.to_string();
        let reason = text.strip_prefix("etcdserver: ").unwrap_or(&text);
        Failure::general(reason)
    })?;
    let cell = |column, field, json, value: i64| Cell {
        column,
        field,
        json,
        shown: value.to_string(),
        value: value.to_string(),
    };
    format.print(&[
        cell("HASH", "Hash", "hash", i64::from(hash.hash)),
        cell(
            "HASH REVISION",
            "Hash revision",
            "hashRevision",
            hash.hash_revision.0,
        ),
        cell(
            "COMPACT REVISION",
            "Compact revision",
            "compactRevision",
            hash.compact_revision.0,
        ),
    ]);
    Ok(())
}
