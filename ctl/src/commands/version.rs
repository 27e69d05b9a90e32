//! `version`: the etcdctl that this one equals, in the lines that tools read.

use crate::failure::Failure;

pub(super) fn run() -> Result<(), Failure> {
    crate::output::write(b"etcdctl version: 3.7.1\nAPI version: 3.7\n")
}
