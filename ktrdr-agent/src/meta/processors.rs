//! How much of the host's processors there is for the agent: those that are online, and what its own control group may take
//! of them. Its own procfs is where it runs, not where the host's is mounted.

use std::path::{Path, PathBuf};

/// Processors of the host that are online.
pub fn online() -> f64 {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let counted = text.and_then(|text| count(&text));
    // An agent that may not look there counts those that it may run on.
    counted.unwrap_or_else(|| std::thread::available_parallelism().map_or(1.0, |n| float(n.get())))
}

/// Processors that the agent's control group may take at most, those around it included; `None` = all.
pub fn quota() -> Option<f64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    quota_below(Path::new("/sys/fs/cgroup"), &own)
}

/// How many a list like `0-3,8` names.
fn count(list: &str) -> Option<f64> {
    let mut n = 0;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        n += (last + 1).checked_sub(first)?;
    }
    (n > 0).then(|| float(n))
}

/// The least quota of the groups that `own` (the text of proc_pid_cgroup(5)) names, and of those above them.
fn quota_below(root: &Path, own: &str) -> Option<f64> {
    let mut least: Option<f64> = None;
    for line in own.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        // Version 2 names no controllers; of version 1, one directory has that of processors.
        let base = match controllers {
            "" => root.to_owned(),
            c if c.split(',').any(|c| c == "cpu") => root.join("cpu"),
            _ => continue,
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let quota = quota_of(base.join(group));
            least = [least, quota].into_iter().flatten().reduce(f64::min);
        }
    }
    least
}

/// The quota of one group, by either version of control groups.
fn quota_of(group: PathBuf) -> Option<f64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let mut fields = text.split_whitespace().map(str::to_owned);
            (fields.next()?, fields.next()?)
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // "max", or -1 in version 1, is no quota.
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

fn float(n: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "a number of processors")]
    let f = n as f64;
    f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn online_processors_are_counted() {
        for (list, n) in [("0", 1.0), ("0-1\n", 2.0), ("0-3,8,10-11", 7.0)] {
            assert_eq!(count(list), Some(n), "{list}");
        }
        for odd in ["", "a", "3-1", "0-", "-1"] {
            assert_eq!(count(odd), None, "{odd}");
        }
        assert!(online() >= 1.0);
    }

    #[test]
    fn the_least_quota_counts() {
        let dir = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let quota = |own: &str| quota_below(dir.path(), own);
        assert_eq!(quota("0::/pod/box\n"), None);
        put("pod/box/cpu.max", "max 100000\n");
        assert_eq!(quota("0::/pod/box\n"), None);
        put("pod/cpu.max", "150000 100000\n");
        assert_eq!(quota("0::/pod/box\n"), Some(1.5));
        put("pod/box/cpu.max", "50000 100000\n");
        assert_eq!(quota("0::/pod/box\n"), Some(0.5));
        // In a namespace of its own it is the root.
        put("cpu.max", "20000 100000\n");
        assert_eq!(quota("0::/\n"), Some(0.2));
        // Version 1.
        put("cpu/a/cpu.cfs_period_us", "100000\n");
        put("cpu/a/cpu.cfs_quota_us", "-1\n");
        assert_eq!(quota("3:cpuset:/a\n2:cpu,cpuacct:/a\n"), None);
        put("cpu/a/cpu.cfs_quota_us", "10000\n");
        assert_eq!(quota("3:cpuset:/a\n2:cpu,cpuacct:/a\n"), Some(0.1));
        for odd in ["", "x", "0::", "::"] {
            let _ = quota(odd);
        }
    }
}
