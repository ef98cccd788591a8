//! What `/proc/PID` says about a process.

use super::{
    container::{self, Container},
    procfs::{ProcFs, ReadError},
};

/// Bytes of a command line that are read. Java class paths run to hundreds of KiB; the program, its module and
/// their options stand in the first few.
const MAX_COMMAND: u64 = 8 * 1024;
/// Arguments kept, for the same reason.
const MAX_ARGS: usize = 64;
/// Bytes of an environment that are searched for OpenTelemetry's variables: the kernel's limit for one string
/// (`MAX_ARG_STRLEN`), more than the whole environment of ordinary services.
const MAX_ENVIRON: u64 = 128 * 1024;
/// cgroup files have a line per hierarchy, at most 13 with version 1.
const MAX_CGROUP: u64 = 16 * 1024;

/// A process as read at one moment. What could not be read (other user, kernel thread) is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: u32,
    /// Parent process.
    pub ppid: u32,
    /// Start, boot clock in ns, in steps of a clock tick (10 ms); 0 = unknown.
    pub start_ns: u64,
    /// Executable path in the process's own root, without ` (deleted)`.
    pub exe: String,
    /// Arguments, bounded.
    pub args: Vec<String>,
    /// Working directory in the process's own root.
    pub cwd: String,
    /// Name of the main thread.
    pub comm: String,
    /// Threads it had; 0 = unknown.
    pub threads: u32,
    /// Effective user.
    pub uid: Option<u32>,
    /// Inode number of the network namespace, 0 = unknown.
    pub netns: u32,
    /// Container, if it runs in one.
    pub container: Option<Container>,
    /// What its environment tells OpenTelemetry.
    pub otel: OtelEnvironment,
}

/// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` of a process. Nothing else of an environment is kept: it
/// holds secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtelEnvironment {
    /// `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
    /// `OTEL_RESOURCE_ATTRIBUTES`, decoded, in their order.
    pub attributes: Vec<(String, String)>,
}

impl Process {
    /// Reads a process. One that ends meanwhile gives what was read until then, unless nothing was.
    pub fn read(proc: &ProcFs, pid: u32) -> Result<Self, ReadError> {
        let stat = proc.read(pid, "stat", 4096)?;
        let stat = Stat::parse(&stat).ok_or(ReadError::Malformed(pid))?;
        if stat.dead {
            return Err(ReadError::Gone(pid));
        }
        let bytes = |name, limit| proc.read(pid, name, limit).unwrap_or_default();
        let exe = proc.link(pid, "exe").unwrap_or_default();
        let process = Self {
            pid,
            ppid: stat.ppid,
            start_ns: stat.start_ns(),
            exe: exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned(),
            args: split_args(&bytes("cmdline", MAX_COMMAND)),
            cwd: proc.link(pid, "cwd").unwrap_or_default(),
            comm: stat.comm,
            threads: stat.threads,
            uid: effective_uid(&bytes("status", 4096)),
            netns: proc.link(pid, "ns/net").and_then(|l| namespace_inode(&l)).unwrap_or(0),
            container: container::from_cgroup(&String::from_utf8_lossy(&bytes("cgroup", MAX_CGROUP))),
            otel: OtelEnvironment::parse(&bytes("environ", MAX_ENVIRON)),
        };
        // Its number may have gone to another process half-way: then this is a mixture of two.
        match proc.read(pid, "stat", 4096).ok().as_deref().and_then(Stat::parse) {
            Some(now) if now.start_ticks != stat.start_ticks => Err(ReadError::Gone(pid)),
            // It ended before its command line was read.
            None | Some(Stat { dead: true, .. }) if process.args.is_empty() => Err(ReadError::Gone(pid)),
            _ => Ok(process),
        }
    }

    /// A process that is ending has lost its memory, and with it its program, arguments and environment, before it
    /// counts as ended: those are taken from what was known earlier.
    pub fn completed_by(self, earlier: &Self) -> Self {
        if !self.exe.is_empty() || !self.args.is_empty() {
            return self;
        }
        Self { exe: earlier.exe.clone(), args: earlier.args.clone(), otel: earlier.otel.clone(), ..self }
    }

    /// A process that is gone, as its exec record described it: arguments separated by NUL.
    pub fn from_exec(pid: u32, ppid: u32, comm: &[u8], args: &[u8], ts: u64) -> Self {
        let end = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
        Self {
            pid,
            ppid,
            start_ns: ts,
            args: split_args(args),
            comm: String::from_utf8_lossy(&comm[..end]).into_owned(),
            ..Self::default()
        }
    }
}

/// The fields of `/proc/PID/stat` that matter (proc_pid_stat(5)).
struct Stat {
    comm: String,
    /// A zombie: all that describes it is gone with its memory.
    dead: bool,
    ppid: u32,
    threads: u32,
    start_ticks: u64,
}

impl Stat {
    fn start_ns(&self) -> u64 {
        self.start_ticks.saturating_mul(1_000_000_000 / ticks_per_second())
    }

    fn parse(stat: &[u8]) -> Option<Self> {
        // The name stands in parentheses and may hold spaces and parentheses itself: the last one ends it.
        let open = stat.iter().position(|b| *b == b'(')?;
        let close = stat.iter().rposition(|b| *b == b')')?;
        let comm = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        // The state is field 3, the parent 4, the number of threads 20, the start 22.
        let dead = matches!(fields.next()?, "Z" | "X");
        let ppid = fields.next()?.parse().ok()?;
        let threads = fields.nth(15)?.parse().ok()?;
        let start_ticks = fields.nth(1)?.parse().ok()?;
        Some(Self { comm, dead, ppid, threads, start_ticks })
    }
}

impl ProcFs {
    /// Who started the process; `None` if it is gone.
    pub fn parent(&self, pid: u32) -> Option<u32> {
        Some(Stat::parse(&self.read(pid, "stat", 4096).ok()?)?.ppid)
    }

    /// When the process started, boot clock in ns; `None` if it is gone.
    pub fn start_ns(&self, pid: u32) -> Option<u64> {
        Some(Stat::parse(&self.read(pid, "stat", 4096).ok()?)?.start_ns())
    }
}

fn ticks_per_second() -> u64 {
    rustix::param::clock_ticks_per_second().clamp(1, 1_000_000_000)
}

fn split_args(bytes: &[u8]) -> Vec<String> {
    let limit = bytes.len().min(usize::try_from(MAX_COMMAND).unwrap_or(usize::MAX));
    let mut args: Vec<String> = bytes[..limit]
        .split(|b| *b == 0)
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .take(MAX_ARGS)
        .collect();
    // The final NUL, and the room that programs which rename themselves leave behind.
    while args.last().is_some_and(String::is_empty) {
        args.pop();
    }
    args
}

fn effective_uid(status: &[u8]) -> Option<u32> {
    let text = String::from_utf8_lossy(status);
    text.lines().find_map(|l| l.strip_prefix("Uid:"))?.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// `net:[4026531840]` → 4026531840.
pub(super) fn namespace_inode(link: &str) -> Option<u32> {
    link.strip_suffix(']')?.rsplit_once('[')?.1.parse().ok()
}

impl OtelEnvironment {
    /// Finds the two variables in a NUL-separated environment.
    pub fn parse(environ: &[u8]) -> Self {
        let mut found = Self::default();
        for entry in environ.split(|b| *b == 0) {
            if let Some(name) = entry.strip_prefix(b"OTEL_SERVICE_NAME=") {
                let name = String::from_utf8_lossy(name).trim().to_owned();
                found.service_name = (!name.is_empty()).then_some(name);
            } else if let Some(list) = entry.strip_prefix(b"OTEL_RESOURCE_ATTRIBUTES=") {
                found.attributes = attributes(&String::from_utf8_lossy(list));
            }
        }
        found
    }

    /// Value of a resource attribute.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// `key=value,key=value`, values percent-encoded (OpenTelemetry specification, resource SDK). A malformed pair is
/// left out alone: this is another program's environment.
fn attributes(list: &str) -> Vec<(String, String)> {
    let pairs = list.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(k, v)| (k.trim(), percent_encoding::percent_decode_str(v.trim()).decode_utf8_lossy()))
        .filter(|(k, _)| !k.is_empty())
        .map(|(k, v)| (k.to_owned(), v.into_owned()))
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::fake::FakeProc, *};

    #[test]
    fn a_process_is_read_whole() {
        let fake = FakeProc::new();
        let id = "0123456789abcdef".repeat(4);
        fake.process(4711, 1, &["python", "main.py"])
            .link("exe", "/usr/bin/python3.13 (deleted)")
            .link("cwd", "/srv/ib-host-service")
            .link("ns/net", "net:[4026532008]")
            .file("cgroup", format!("0::/system.slice/docker-{id}.scope\n"))
            .file("status", "Name:\tpython\nUid:\t1000\t1001\t1000\t1000\n")
            .file(
                "environ",
                "PASSWORD=secret\0OTEL_SERVICE_NAME= shop \0OTEL_RESOURCE_ATTRIBUTES=a=1%202,b,c=d\0",
            );
        let p = Process::read(&fake.proc(), 4711).unwrap();
        assert_eq!((p.pid, p.ppid, p.start_ns), (4711, 1, 4711 * 10_000_000));
        assert_eq!((p.exe.as_str(), p.cwd.as_str()), ("/usr/bin/python3.13", "/srv/ib-host-service"));
        assert_eq!(p.args, ["python", "main.py"]);
        assert_eq!((p.uid, p.netns, p.comm.as_str()), (Some(1001), 4_026_532_008, "python"));
        assert_eq!(p.container.unwrap().id, id);
        assert_eq!(p.otel.service_name.as_deref(), Some("shop"));
        assert_eq!(p.otel.attributes, [("a".into(), "1 2".into()), ("c".into(), "d".into())]);
    }

    #[test]
    fn what_is_missing_is_empty_and_a_gone_process_says_so() {
        let fake = FakeProc::new();
        fake.process(2, 0, &[]);
        let p = Process::read(&fake.proc(), 2).unwrap();
        assert_eq!((p.exe.as_str(), p.args.len(), p.netns, p.container), ("", 0, 0, None));
        assert!(matches!(Process::read(&fake.proc(), 3), Err(ReadError::Gone(3))));
        fake.process(5, 1, &[]).file("stat", "5 (x");
        assert!(matches!(Process::read(&fake.proc(), 5), Err(ReadError::Malformed(5))));
    }

    #[test]
    fn names_with_parentheses_and_spaces_do_not_shift_the_fields() {
        let stat = b"7 (a) S (b c) S 42 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 9000 0 0";
        let s = Stat::parse(stat).unwrap();
        assert_eq!((s.comm.as_str(), s.ppid, s.start_ticks), ("a) S (b c", 42, 9000));
        assert!(!s.dead && Stat::parse(b"7 (a) Z 42 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 9 0").unwrap().dead);
        for bad in [&b""[..], b"7 )(", b"7 (a) S", b"7 (a) S x 1", b"7 (a) S \xff"] {
            assert!(Stat::parse(bad).is_none());
        }
    }

    #[test]
    fn command_lines_are_bounded_and_need_not_be_utf8() {
        assert_eq!(split_args(b"a\0\0b\xff\0\0\0"), ["a", "", "b\u{fffd}"]);
        assert_eq!(split_args(&b"x\0".repeat(10_000)).len(), MAX_ARGS);
        let huge = split_args(&vec![b'y'; 1 << 20]);
        assert_eq!((huge.len(), huge[0].len() as u64), (1, MAX_COMMAND));
        assert!(split_args(b"").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_parsers(bytes: Vec<u8>, text: String) {
            let _ = Stat::parse(&bytes);
            let _ = Stat::parse(&[b"1 (", &bytes[..], b") S 1 "].concat());
            let _ = (OtelEnvironment::parse(&bytes), effective_uid(&bytes), namespace_inode(&text));
            let args = split_args(&bytes);
            proptest::prop_assert!(args.len() <= MAX_ARGS);
            let _ = container::from_cgroup(&text);
        }
    }

    #[test]
    fn this_process_can_be_read() {
        let me = std::process::id();
        let p = Process::read(&ProcFs::new("/proc"), me).unwrap();
        assert_eq!(p.pid, me);
        assert_eq!(p.args, std::env::args().collect::<Vec<_>>());
        assert_eq!(p.exe, std::env::current_exe().unwrap().to_string_lossy());
        assert!(p.start_ns > 0 && p.netns > 0);
    }
}
