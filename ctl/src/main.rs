//! quoratectl: the command line client, equal to etcdctl 3.7.1 in arguments, output and exit codes.
//!
//! ```text
//!   arguments ─► cli ─► commands/* ─► Session (globals) ─► net::client ─► a server
//!                          │
//!                          └─► output: simple, fields, json, table, protobuf
//! ```
//!
//! What to ask and what to print is decided here; how to reach a server is the client library's business. What etcdctl
//! can do and this version cannot is refused with words, never accepted and ignored.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod failure;
mod globals;
mod go;
mod operation;
mod output;
mod password;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(std::env::args_os().collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
