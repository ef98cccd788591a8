//! The host: its resource attributes, its boot, and how its clocks relate.

use std::path::Path;

use super::procfs::{ProcFs, read_line};

/// Facts that hold as long as the host is up (apart from the clock offset, which is read on its own).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Resource attributes (`host.*`, `os.*`); what could not be read is absent.
    pub attributes: Vec<(String, String)>,
    /// Kernel release, as in `uname -r`.
    pub kernel: String,
    /// Id of this boot: a UUID.
    pub boot_id: String,
}

impl Host {
    /// Reads the host whose procfs and root directory these are.
    pub fn read(proc: &ProcFs, root: &Path) -> Self {
        let kernel = read_line(&proc.path("sys/kernel/osrelease")).unwrap_or_default();
        let boot_id = read_line(&proc.path("sys/kernel/random/boot_id")).unwrap_or_default();
        let release = ["etc/os-release", "usr/lib/os-release"]
            .iter()
            .find_map(|f| std::fs::read_to_string(root.join(f)).ok())
            .unwrap_or_default();
        let id = ["etc/machine-id", "var/lib/dbus/machine-id"].iter().find_map(|f| read_line(&root.join(f)));
        let attributes = [
            ("host.name", read_line(&proc.path("sys/kernel/hostname"))),
            ("host.id", id),
            ("host.arch", Some(arch(std::env::consts::ARCH).to_owned())),
            ("os.type", Some("linux".to_owned())),
            ("os.name", os_release(&release, "NAME")),
            ("os.version", os_release(&release, "VERSION_ID")),
            ("os.description", description(os_release(&release, "PRETTY_NAME"), &kernel)),
        ];
        let attributes = attributes.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect();
        Self { attributes, kernel, boot_id }
    }

    /// Seed for ids: the same for every agent on this boot of the host, another one after the next boot.
    pub fn id_seed(&self) -> u64 {
        let hex: String = self.boot_id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
        u64::from_str_radix(&hex, 16).unwrap_or(0)
    }
}

/// Resident memory of the agent in bytes. Its own procfs is where it runs, not where the host's is mounted.
pub fn own_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// Processor time of the agent so far, in seconds by mode.
pub fn own_cpu() -> Vec<(&'static str, f64)> {
    let ticks = rustix::param::clock_ticks_per_second();
    let Ok(text) = std::fs::read_to_string("/proc/self/stat") else { return Vec::new() };
    // Fields 14 and 15 of proc_pid_stat(5), counted behind the name, which may hold anything.
    let Some((_, rest)) = text.rsplit_once(") ") else { return Vec::new() };
    let fields = rest.split_whitespace().skip(11).map(|f| f.parse::<f64>().unwrap_or(0.0));
    #[allow(clippy::cast_precision_loss)]
    let seconds = fields.map(|n| n / ticks as f64);
    ["user", "system"].into_iter().zip(seconds).collect()
}

/// Processor time of all threads of the agent so far, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    u64::try_from(clock(libc::CLOCK_PROCESS_CPUTIME_ID)).unwrap_or(0)
}

/// Processor time of this thread so far, in nanoseconds.
pub fn own_thread_cpu_ns() -> u64 {
    u64::try_from(clock(libc::CLOCK_THREAD_CPUTIME_ID)).unwrap_or(0)
}

fn description(pretty: Option<String>, kernel: &str) -> Option<String> {
    let parts: Vec<String> =
        pretty.into_iter().chain((!kernel.is_empty()).then(|| format!("Linux {kernel}"))).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Rust's name of an architecture in semantic conventions (`host.arch`).
fn arch(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm32",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// A value of os-release(5), without its quotes.
fn os_release(text: &str, key: &str) -> Option<String> {
    let value = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix('='))?;
    let value = value.trim().trim_matches(['"', '\'']);
    (!value.is_empty()).then(|| value.to_owned())
}

/// Now, on the boot clock, in nanoseconds.
pub fn boot_now_ns() -> u64 {
    u64::try_from(clock(libc::CLOCK_BOOTTIME)).unwrap_or(0)
}

/// Wall clock minus boot clock, in nanoseconds: the tightest of a few tries, since the thread may be descheduled
/// between two readings.
pub fn wall_offset_ns() -> i64 {
    let sample = || {
        let before = clock(libc::CLOCK_BOOTTIME);
        let wall = clock(libc::CLOCK_REALTIME);
        let after = clock(libc::CLOCK_BOOTTIME);
        (after - before, wall - before.midpoint(after))
    };
    (0..5).map(|_| sample()).min_by_key(|(window, _)| *window).map_or(0, |(_, offset)| offset)
}

fn clock(id: libc::clockid_t) -> i64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec for the call to write to. Both clocks exist on every kernel that can run the
    // agent; should the call fail, `t` stays zero.
    unsafe { libc::clock_gettime(id, &raw mut t) };
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}

#[cfg(test)]
mod tests {
    use std::{fs, time::SystemTime};

    use super::*;

    #[test]
    fn facts_are_read_and_absent_ones_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for d in ["proc/sys/kernel/random", "etc"] {
            fs::create_dir_all(root.join(d)).unwrap();
        }
        let proc = ProcFs::new(root.join("proc"));
        let bare = Host::read(&proc, root);
        assert_eq!(
            bare.attributes.iter().map(|(k, _)| k.as_str()).collect::<Vec<_>>(),
            ["host.arch", "os.type"]
        );
        assert_eq!(bare.id_seed(), 0);
        for (file, text) in [
            ("proc/sys/kernel/hostname", "trader\n"),
            ("proc/sys/kernel/osrelease", "6.12.1\n"),
            ("proc/sys/kernel/random/boot_id", "0123abcd-4567-89ab-cdef-000000000000\n"),
            ("etc/machine-id", "aa55\n"),
            ("etc/os-release", "PRETTY_NAME=\"Debian 12\"\nNAME='Debian'\nVERSION_ID=\n"),
        ] {
            fs::write(root.join(file), text).unwrap();
        }
        let host = Host::read(&proc, root);
        let get = |k: &str| host.attributes.iter().find(|(key, _)| key == k).map(|(_, v)| v.as_str());
        assert_eq!((get("host.name"), get("host.id")), (Some("trader"), Some("aa55")));
        assert_eq!((get("os.name"), get("os.version")), (Some("Debian"), None));
        assert_eq!(get("os.description"), Some("Debian 12, Linux 6.12.1"));
        assert_eq!(host.id_seed(), 0x0123_abcd_4567_89ab);
    }

    #[test]
    fn the_offset_turns_boot_time_into_wall_time() {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
        let ours = i128::from(boot_now_ns()) + i128::from(wall_offset_ns());
        assert!((ours - i128::try_from(wall).unwrap()).abs() < 1_000_000_000);
    }
}
