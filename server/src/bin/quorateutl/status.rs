//! `snapshot status`: what is in an image, after all of it was found good.

use quorate_core::offline;

use crate::command_line::Arguments;
use crate::output::{Cell, Format, size};
use crate::{Failure, files, log};

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let [file] = arguments.positional.as_slice() else {
        return Err(Failure::arguments(
            "snapshot status requires exactly one argument",
        ));
    };
    files::stat(file)?;
    let format = Format::named(arguments.text("write-out"))?;
    let image = files::read_image(file, arguments.timeout())?;
    let status = offline::status(image).map_err(|error| damaged(&error))?;
    format.print(&[
        Cell {
            column: "HASH",
            field: "Hash",
            json: "hash",
            shown: format!("{:x}", status.hash),
            value: status.hash.to_string(),
        },
        Cell {
            column: "REVISION",
            field: "Revision",
            json: "revision",
            shown: status.revision.to_string(),
            value: status.revision.to_string(),
        },
        Cell {
            column: "TOTAL KEYS",
            field: "Keys",
            json: "totalKey",
            shown: status.keys.to_string(),
            value: status.keys.to_string(),
        },
        Cell {
            column: "TOTAL SIZE",
            field: "Size",
            json: "totalSize",
            shown: size(status.bytes),
            value: status.bytes.to_string(),
        },
        Cell {
            column: "VERSION",
            field: "Version",
            json: "version",
            shown: status.version.clone(),
            value: log::text(&status.version),
        },
    ]);
    Ok(())
}

/// Damage in the words of etcdutl, which counts; the first one is enough to refuse a backup.
pub(crate) fn damaged(error: &impl std::fmt::Display) -> Failure {
    Failure::general(format!(
        "snapshot file integrity check failed. 1 errors found.\n{error}"
    ))
}
