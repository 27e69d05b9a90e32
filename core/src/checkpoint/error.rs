//! Why an image is refused.

/// What is wrong with an image; a member that meets one does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// The bytes are not what any writer of such images writes.
    #[error(
        "database image is damaged: page {page}, offset {offset}{}: {problem}",
        in_bucket(bucket)
    )]
    Damaged {
        /// The page that was being read.
        page: u64,
        /// The byte of the image where the trouble was found.
        offset: u64,
        /// The bucket that was being read; empty for the image as a whole.
        bucket: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// The structure is whole, but a record in it does not mean anything.
    #[error("database image: bucket {bucket:?}, key {key:?}: {problem}")]
    Record {
        /// The bucket.
        bucket: &'static str,
        /// The key, in the way that Go's `%q` would show it.
        key: String,
        /// What was expected and what was found.
        problem: String,
    },
    /// A version of etcd's storage that this program does not know; the words are etcd's.
    #[error("{0}")]
    Version(String),
}

impl ImageError {
    /// A record of `bucket` that cannot be understood.
    pub(super) fn record(bucket: &'static str, key: &[u8], problem: impl Into<String>) -> Self {
        Self::Record {
            bucket,
            key: key.escape_ascii().to_string(),
            problem: problem.into(),
        }
    }
}

fn in_bucket(bucket: &str) -> String {
    if bucket.is_empty() {
        String::new()
    } else {
        format!(", bucket {bucket:?}")
    }
}
