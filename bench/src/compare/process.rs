//! What a server's process costs, read from `/proc`.

use std::fs;

/// Clock ticks per second in `/proc/PID/stat`; 100 on every Linux that runs etcd.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of CPU that a process has used, in user and system mode.
pub(super) fn cpu_seconds(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; the numbers come after it.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / TICKS_PER_SECOND
}

/// From now on only memory counts that is held from now on.
pub(super) fn forget_peak(process: u32) {
    // Where the kernel has no such switch, the peak is that of the process's whole life.
    let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
}

/// The most resident memory that a process has held, in bytes; 0 if it is gone.
pub(super) fn peak_bytes(process: u32) -> u64 {
    status_bytes(process, "VmHWM:")
}

/// Resident memory in bytes without mapped files: what the process itself holds.
pub(crate) fn resident_bytes(process: u32) -> (u64, u64) {
    let field = |name| status_bytes(process, name);
    (field("VmRSS:"), field("RssAnon:"))
}

fn status_bytes(process: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let number = line
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|number| number.parse::<u64>().ok());
    number.unwrap_or(0) * 1024
}
