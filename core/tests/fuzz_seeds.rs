//! Replays the saved inputs of every fuzz target (`fuzz/seeds`), without a fuzzer.

#[path = "../fuzz/targets.rs"]
mod targets;

#[expect(clippy::disallowed_methods, reason = "a test reads its saved inputs")]
fn replay(name: &str, target: fn(&[u8])) {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(name);
    let mut replayed = 0;
    for file in std::fs::read_dir(&directory).expect("the target has seeds") {
        let path = file.expect("the seeds can be listed").path();
        println!("{}", path.display()); // The last line of a failure says which input it was.
        target(&std::fs::read(path).expect("the input can be read"));
        replayed += 1;
    }
    assert!(replayed > 3, "{replayed} inputs in {}", directory.display());
}

#[test]
fn wal_recover_survives_its_seeds() {
    replay("wal_recover", targets::wal_recover);
}

#[test]
fn raft_entry_survives_its_seeds() {
    replay("raft_entry", targets::raft_entry);
}

#[test]
fn image_survives_its_seeds() {
    replay("image", targets::image);
}
