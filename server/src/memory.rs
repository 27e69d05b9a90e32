//! Keeps the member's memory from being swapped out, for `--memory-mlock`.
//!
//! Pages are kept once they were touched: what is only reserved (stacks, heaps that may grow) costs nothing. The data
//! grow, and an allocation beyond a limit of locked memory ends the process, so that a limit is refused at the start.

use std::fs;

/// What `/proc/self/limits` calls the limit.
const LIMIT: &str = "Max locked memory";
/// The capability that lifts it, by its number: `CAP_IPC_LOCK`.
const CAPABILITY: u32 = 14;

/// Locks all memory, that of now and that to come.
///
/// # Errors
/// In words for the operator.
#[cfg(target_os = "linux")]
pub(crate) fn lock() -> Result<(), String> {
    use rustix::mm::{MlockAllFlags, mlockall};

    check()?;
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
        .map_err(|error| format!("mlock error: {error}"))
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn lock() -> Result<(), String> {
    Err("mlock error: memory can be locked on Linux only".to_owned())
}

/// Whether this process may lock as much memory as it likes.
///
/// # Errors
/// With what forbids it, and what to do.
pub fn check() -> Result<(), String> {
    let read = |path| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
    let (limits, status) = (read("/proc/self/limits")?, read("/proc/self/status")?);
    permitted(&limits, &status)
}

fn permitted(limits: &str, status: &str) -> Result<(), String> {
    let limit = limits
        .lines()
        .find_map(|line| line.strip_prefix(LIMIT))
        .and_then(|values| values.split_whitespace().next())
        .unwrap_or("unknown");
    let capabilities = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    if limit == "unlimited" || capabilities >> CAPABILITY & 1 == 1 {
        return Ok(());
    }
    Err(format!(
        "mlock error: the limit of locked memory is {limit} bytes, and the data may grow beyond any limit; lift it \
         (ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit of systemd), or give the capability CAP_IPC_LOCK"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_locked_memory_is_refused_unless_a_capability_lifts_it() {
        let limits = |limit: &str| {
            format!(
                "Max processes  7 7 processes\nMax locked memory         {limit}  unlimited  bytes\n"
            )
        };
        let status = |mask: &str| format!("Name:\tquorate\nCapEff:\t{mask}\n");
        let (none, some) = (status("0000000000000000"), status("0000000000004000"));
        assert_eq!(permitted(&limits("unlimited"), &none), Ok(()));
        assert_eq!(permitted(&limits("8388608"), &some), Ok(()));
        let refused = permitted(&limits("8388608"), &none).unwrap_err();
        assert!(refused.contains("is 8388608 bytes"), "{refused}");
        assert!(
            permitted("", "").is_err(),
            "what is not known is no permission"
        );
    }
}
