//! What the kernel itself counts per program: runs, their time, and runs it refused.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use aya::{Ebpf, programs::ProgramError};

/// A program's own cost, as the kernel measured it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramStats {
    /// Name of the program.
    pub name: String,
    /// Runs while statistics were on.
    pub runs: u64,
    /// Their time in nanoseconds.
    pub run_ns: u64,
    /// Runs the kernel refused because the program was already running on that CPU: events lost before any counter
    /// of the programs could see them. Counted always.
    pub recursion_misses: u64,
    /// Instructions that the verifier walked before it believed the program (kernel 5.16 and later). It gives up at a
    /// million.
    pub verified: Option<u32>,
}

/// Keeps the kernel's program statistics switched on (a few ns per run of every program on the host).
pub struct StatsEnabled(#[expect(dead_code, reason = "closing it ends the statistics")] OwnedFd);

/// Switches program statistics on.
///
/// # Errors
/// The kernel refused (needs CAP_SYS_ADMIN).
pub fn enable() -> Result<StatsEnabled, std::io::Error> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime).map(StatsEnabled).map_err(|error| error.io_error)
}

/// Statistics of all loaded programs, by name.
pub(super) fn of<'a>(
    ebpf: &'a Ebpf,
    more: impl Iterator<Item = (&'static str, BorrowedFd<'a>)>,
) -> Vec<ProgramStats> {
    // A program that was not needed is not loaded and has no descriptor.
    let loaded = ebpf.programs().filter_map(|(name, program)| {
        let fd = program.fd().map_err(|_: ProgramError| ()).ok()?;
        let verified = program.info().ok().and_then(|info| info.verified_instruction_count());
        Some((name, fd.as_fd(), verified))
    });
    let more = more.map(|(name, fd)| (name, fd, None));
    let mut stats: Vec<ProgramStats> = loaded
        .chain(more)
        .filter_map(|(name, fd, verified)| {
            // `bpf_prog_info` has the same numbers; fdinfo has them on every kernel with the same spelling.
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
            Some(ProgramStats {
                name: name.to_owned(),
                runs: field(&info, "run_cnt:"),
                run_ns: field(&info, "run_time_ns:"),
                recursion_misses: field(&info, "recursion_misses:"),
                verified,
            })
        })
        .collect();
    stats.sort_by(|a, b| a.name.cmp(&b.name));
    stats
}

/// 0 where the kernel does not tell (`recursion_misses` came with 5.12).
fn field(info: &str, name: &str) -> u64 {
    info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn fields_of_fdinfo() {
        let info = "pos:\t0\nrun_time_ns:\t1234\nrun_cnt:\t5\nrecursion_misses:\t7\n";
        assert_eq!(field(info, "run_time_ns:"), 1234);
        assert_eq!(field(info, "run_cnt:"), 5);
        assert_eq!(field(info, "recursion_misses:"), 7);
        assert_eq!(field(info, "memlock:"), 0);
    }
}
