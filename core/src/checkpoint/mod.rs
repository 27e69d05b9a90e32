//! The checkpoint: etcd's `db` image (skeleton of the interface).

/// Everything that a checkpoint image needs, pinned at one applied index.
#[derive(Debug)]
pub struct Job {}
