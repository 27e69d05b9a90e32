//! Replays the saved inputs of the fuzz target (`fuzz/seeds`), without a fuzzer.

#[path = "../fuzz/targets.rs"]
mod targets;

#[test]
fn peer_frames_survive_their_seeds() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/peer_frames");
    let mut replayed = 0;
    for file in std::fs::read_dir(&directory).expect("the target has seeds") {
        let path = file.expect("the seeds can be listed").path();
        println!("{}", path.display()); // The last line of a failure says which input it was.
        targets::peer_frames(&std::fs::read(path).expect("the input can be read"));
        replayed += 1;
    }
    assert!(replayed > 3, "{replayed} inputs in {}", directory.display());
}
