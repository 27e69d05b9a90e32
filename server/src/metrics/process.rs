//! What the kernel says about this process, read at a scrape; what it does not say is left out.

use std::fs;

/// One look at the process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) virtual_bytes: Option<f64>,
    pub(super) virtual_bytes_max: Option<f64>,
    pub(super) start_unix_seconds: Option<f64>,
    pub(super) open_fds: Option<f64>,
    pub(super) fds_max: Option<f64>,
    pub(super) network_received_bytes: Option<f64>,
    pub(super) network_sent_bytes: Option<f64>,
}

/// The kernel's clock ticks a second as it shows them to processes: fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

impl Process {
    pub(super) fn read() -> Self {
        let mut process = Self::default();
        process.read_stat();
        process.read_limits();
        process.read_network();
        process.open_fds = fs::read_dir("/proc/self/fd")
            .ok()
            .map(|fds| fds.count() as f64);
        process
    }

    fn read_stat(&mut self) {
        let Ok(stat) = fs::read_to_string("/proc/self/stat") else {
            return;
        };
        // The second field is a name in parentheses and may hold anything; the third is the first behind it.
        let Some((_, rest)) = stat.rsplit_once(')') else {
            return;
        };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| {
            fields
                .get(number - 3)
                .and_then(|field| field.parse::<f64>().ok())
        };
        self.cpu_seconds = field(14)
            .zip(field(15))
            .map(|(user, system)| (user + system) / TICKS_PER_SECOND);
        self.virtual_bytes = field(23);
        self.start_unix_seconds = field(22)
            .zip(boot_unix_seconds())
            .map(|(ticks, boot)| boot + ticks / TICKS_PER_SECOND);
        self.resident_bytes = resident_bytes();
    }

    fn read_limits(&mut self) {
        let Ok(limits) = fs::read_to_string("/proc/self/limits") else {
            return;
        };
        let soft = |name: &str| {
            let value = limits
                .lines()
                .find_map(|line| line.strip_prefix(name))?
                .split_whitespace()
                .next()?;
            if value == "unlimited" {
                Some(u64::MAX as f64)
            } else {
                value.parse().ok()
            }
        };
        self.fds_max = soft("Max open files");
        self.virtual_bytes_max = soft("Max address space");
    }

    fn read_network(&mut self) {
        let Ok(netstat) = fs::read_to_string("/proc/self/net/netstat") else {
            return;
        };
        let mut lines = netstat
            .lines()
            .filter_map(|line| line.strip_prefix("IpExt: "));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            return;
        };
        let value = |wanted: &str| {
            let mut pairs = names.split_whitespace().zip(values.split_whitespace());
            pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
        };
        self.network_received_bytes = value("InOctets");
        self.network_sent_bytes = value("OutOctets");
    }
}

/// From the status file, since the stat file counts pages of a size that only a system call tells.
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?
        .split_whitespace()
        .next()?;
    Some(kibibytes.parse::<f64>().ok()? * 1024.0)
}

fn boot_unix_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_about_this_process() {
        let process = Process::read();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = now - process.start_unix_seconds.unwrap();
        assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
        assert!(
            process.resident_bytes.unwrap() > 1e5 && process.virtual_bytes > process.resident_bytes
        );
        assert!(process.open_fds.unwrap() >= 3.0 && process.fds_max >= process.open_fds);
        assert!(process.cpu_seconds.is_some() && process.virtual_bytes_max.is_some());
        assert!(process.network_received_bytes.is_some() && process.network_sent_bytes.is_some());
    }
}
