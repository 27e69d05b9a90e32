//! `defrag`: the image of a data directory, written anew without holes.

use quorate_core::offline;

use crate::command_line::{Arguments, Flag, Kind};
use crate::output::size;
use crate::{Failure, files, log};

pub(crate) const FLAGS: &[Flag] = &[Flag {
    name: "data-dir",
    short: None,
    kind: Kind::Text,
    default: "",
    usage: "Required. Defragments a data directory not in use by etcd.",
    required: true,
}];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let directory = arguments.text("data-dir");
    defragment(directory, arguments).map_err(|failure| Failure {
        message: format!(
            "Failed to defragment etcd data[{directory}] ({})",
            failure.message
        ),
        ..failure
    })
}

fn defragment(directory: &str, arguments: &Arguments) -> Result<(), Failure> {
    let mut disk = files::take_directory(directory, arguments.timeout())?;
    let path = log::text(files::database(directory));
    log::line("info", "defragmenting", &[("path", path.clone())]);
    let done = offline::defragment(&mut disk).map_err(Failure::general)?;
    log::line(
        "info",
        "finished defragmenting directory",
        &[
            ("path", path),
            (
                "current-db-size-bytes-diff",
                (i128::from(done.after) - i128::from(done.before)).to_string(),
            ),
            ("current-db-size-bytes", done.after.to_string()),
            ("current-db-size", log::text(size(done.after))),
        ],
    );
    Ok(())
}
