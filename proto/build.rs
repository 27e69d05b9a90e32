//! Compiles `proto/**/*.proto` twice over: into Rust messages for this crate, and into one descriptor set that this crate
//! embeds and that `net`'s build script reads (as `DEP_QUORATE_PROTO_DESCRIPTOR`) to generate its service stubs.

use std::env;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

const ROOT: &str = "proto";

/// Files that no other file imports; the rest follow from these.
const ROOT_FILES: [&str; 9] = [
    "etcdserverpb/cluster.proto",
    "etcdserverpb/replicated.proto",
    "etcdserverpb/watch.proto",
    "leasepb.proto",
    "raftpb/message.proto",
    "snappb.proto",
    "v3electionpb.proto",
    "v3lockpb.proto",
    "walpb.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    println!("cargo::rerun-if-changed=build.rs");

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(ROOT_FILES)?;

    let descriptor_path = PathBuf::from(env::var("OUT_DIR")?).join("descriptor.bin");
    fs::write(&descriptor_path, compiler.encode_file_descriptor_set())?;
    println!("cargo::metadata=descriptor={}", descriptor_path.display());

    let mut descriptors = compiler.file_descriptor_set();
    for file in &mut descriptors.file {
        for field in file
            .message_type
            .iter_mut()
            .flat_map(|message| &mut message.field)
        {
            if let Some(name) = field.name.as_mut() {
                // Field names are not on the wire. Left alone, `peerURLs` would become `peer_ur_ls`.
                *name = name.replace("URLs", "_urls");
            }
        }
    }
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
