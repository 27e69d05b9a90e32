//! Large values under a key that nobody judges: what makes logs long and quotas full.

use super::Fleet;
use super::api;
use crate::patience::until;
use crate::recorded::Tail;

/// Bytes of one value; etcd takes a little more at most.
const VALUE_BYTES: usize = 1 << 20;
/// So many values are written between two compactions: what a store holds stays far below its quota.
const VALUES_PER_COMPACTION: usize = 24;
/// The key.
const KEY: &str = "filler";

/// Writes large values until a condition holds, and compacts what they leave behind.
pub(crate) async fn fill_until(
    fleet: &Fleet,
    tail: &mut Tail,
    what: &str,
    is_enough: impl AsyncFn(&Fleet) -> Result<bool, String>,
) -> Result<(), String> {
    let value = vec![b'f'; VALUE_BYTES];
    let mut written = 0;
    until_enough(what, async || {
        if is_enough(fleet).await? {
            return Ok(true);
        }
        let urls = fleet.urls();
        let revision = until("a large value is written", async || {
            // Any member may do it; the first is not busier than the others.
            api::put(&urls[written % urls.len()], KEY, &value).await
        })
        .await?;
        written += 1;
        if written % VALUES_PER_COMPACTION == 0 {
            tail.reach(revision).await?;
            api::compact(&urls, revision).await?;
        }
        Ok(false)
    })
    .await
}

/// Writes large values and compacts nothing until the quota refuses one.
pub(crate) async fn fill_quota(fleet: &Fleet) -> Result<(), String> {
    let value = vec![b'f'; VALUE_BYTES];
    let urls = fleet.urls();
    until_enough("the quota is reached", async || {
        match api::put(&urls[0], KEY, &value).await {
            Err(error) if error.ends_with("database space exceeded") => Ok(true),
            // Whatever else goes wrong: the next one is tried.
            _ => Ok(false),
        }
    })
    .await
}

/// Repeats something for a limited number of times.
async fn until_enough(
    what: &str,
    mut attempt: impl AsyncFnMut() -> Result<bool, String>,
) -> Result<(), String> {
    /// Values of one mebibyte.
    const VALUES_MAX: usize = 2000;
    for _ in 0..VALUES_MAX {
        if attempt().await? {
            return Ok(());
        }
    }
    Err(format!("{what}: not after {VALUES_MAX} large values"))
}
