//! Generates the gRPC stubs from the descriptor set that `quorate-proto` embeds. No message is generated here: every
//! type is `quorate-proto`'s, by path.

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::fs;

use prost::Message;
use tonic_prost_build::FileDescriptorSet;

/// Where `quorate-proto` wrote its descriptors; cargo passes it on since that crate sets `links`.
const DESCRIPTOR: &str = "DEP_QUORATE_PROTO_DESCRIPTOR";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let path = env::var(DESCRIPTOR)?;
    println!("cargo::rerun-if-changed={path}");
    let descriptors = FileDescriptorSet::decode(fs::read(path)?.as_slice())?;

    let packages: BTreeSet<&str> = descriptors.file.iter().map(|file| file.package()).collect();
    let mut stubs = tonic_prost_build::configure();
    for package in packages {
        stubs = stubs.extern_path(format!(".{package}"), format!("::quorate_proto::{package}"));
    }
    stubs.compile_fds(descriptors)?;
    Ok(())
}
