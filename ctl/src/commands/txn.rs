//! `txn`: compares, success and failure operations from stdin, each block ended by an empty line.

use std::ffi::OsString;
use std::io::BufRead;

use clap::Args;
use quorate_proto::etcdserverpb as pb;

use crate::failure::{Exit, Failure};
use crate::globals::{Context, Patience};
use crate::operation::{parse_compare, parse_operation};
use crate::output::Answer;

/// Flags of `txn`.
#[derive(Debug, Args)]
pub(crate) struct Txn {
    #[arg(hide = true)]
    args: Vec<OsString>,
    /// Input transaction in interactive mode
    #[arg(short, long)]
    interactive: bool,
}

impl Txn {
    /// Reads, asks and prints.
    pub(super) async fn run(self, context: &Context) -> Result<(), Failure> {
        if !self.args.is_empty() {
            return Err(Failure::arguments("txn command does not accept argument"));
        }
        let session = context.open(Patience::Endless).await?;
        let prompt = |text: &str| {
            if self.interactive {
                crate::output::write(text.as_bytes())?;
            }
            Ok::<(), Failure>(())
        };
        let mut input = std::io::stdin().lock();
        prompt("compares:\n")?;
        let compare = read_block(&mut input, parse_compare)?;
        prompt("success requests (get, put, del):\n")?;
        let success = read_block(&mut input, parse_operation)?;
        prompt("failure requests (get, put, del):\n")?;
        let failure = read_block(&mut input, parse_operation)?;
        let request = pb::TxnRequest {
            compare,
            success,
            failure,
        };
        let answer = session.client.txn(request).await;
        let response = answer.map_err(|error| Failure::call(&error))?;
        session.printer.print(Answer::Txn(&response))
    }
}

/// Lines up to an empty one.
fn read_block<T>(
    input: &mut impl BufRead,
    parse: impl Fn(&[u8]) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut items = Vec::new();
    loop {
        let mut line = Vec::new();
        input.read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(Failure::new(Exit::Input, "EOF"));
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(items);
        }
        items.push(parse(line)?);
    }
}
