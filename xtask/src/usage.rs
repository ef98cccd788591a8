//! What a process has used, from /proc.

use anyhow::{Context, Result};

/// USER_HZ: the unit of times in /proc, the same on every Linux architecture we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time so far, in user and kernel mode, of all its threads (s).
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/stat")).context("cannot read the agent's CPU time")?;
    parse_cpu(&text).with_context(|| format!("/proc/{pid}/stat is not understood: {text}"))
}

/// Resident memory now (bytes).
pub fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// Most resident memory it ever had (bytes).
pub fn peak_resident(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

/// One of the amounts in proc_pid_status(5).
fn memory(pid: u32, name: &str) -> Result<u64> {
    let text =
        std::fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read the agent's memory")?;
    parse_memory(&text, name).with_context(|| format!("/proc/{pid}/status names no {name}"))
}

/// Processes that wanted to run, on average over the last minute.
pub fn load_average() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15 of proc_pid_stat(5), counted after the name, which may hold anything.
fn parse_cpu(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn parse_memory(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 5 0 100 1000 10";
        assert_eq!(parse_cpu(stat), Some(2.0));
        assert_eq!(parse_memory("Name:\tx\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2 * 1024 * 1024));
        assert!(resident(std::process::id()).unwrap() > 0);
        assert!(cpu_seconds(std::process::id()).unwrap() >= 0.0);
    }
}
