//! Whether programs live on when the return of one of their functions is observed: tried with a program of our own.
//!
//! On x86_64, from Linux 6.11 on, a function under a return probe returns to a few instructions of the kernel's, which make a
//! system call of their own, `uretprobe` (335; ff474a78cef5, "uprobe: Add uretprobe syscall to speed up return probe"). No
//! seccomp filter knew of it. One that lists what it allows, as Docker's default profile and systemd's `SystemCallFilter=`
//! do, refused it, and what comes behind it in those instructions then jumps to the function's result as if it were an
//! address: the observed service ends with SIGSEGV (systemd issue 34615, opensnitch issue 1205). Since cf6cb56ef244
//! ("seccomp: passthrough uretprobe systemcall without filtering", Linux 6.14, 6.13.3 and 6.12.14) filters are not asked.
//!
//! Distributions take up both the call and its correction without saying so in a version, so none is trusted where the
//! fault may be. The probes of entries are no such danger: until 6.18 they are breakpoints, and the system call that
//! they may be since then (`uprobe`, 336) was left out of filters by the same series that brought it (89d1d8434d24,
//! "seccomp: passthrough uprobe systemcall without filtering").
//!
//! The trial is a forked child, and not another program: it has the function in it under the probe, and needs no file that
//! could have been replaced. The agent confines itself later, and what came out is kept.

use std::{
    fmt, fs,
    hint::black_box,
    io,
    path::Path,
    time::{Duration, Instant},
};

use libc::{c_int, c_long, pid_t};
use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process, pidfd_open, waitpid},
};

use super::{Kernel, btf::KernelTypes, features, probes};
use crate::privileges;

/// What is known of return probes on the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnProbes {
    /// They harm nobody, and how that is known.
    Harmless(&'static str),
    /// They are not used, and why.
    Refused(String),
}

/// When to find that out by a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trial {
    /// On kernels that may have the fault: elsewhere it would be a tenth of a second for nothing.
    #[default]
    WhereNeeded,
    /// On all.
    Always,
    /// As if it had ended badly. No kernel with the fault is at hand, and what follows from it can be tried nevertheless.
    Failed,
}

/// A kernel with the fault.
const FAULT: &str = "this kernel ends programs confined by seccomp when a function's return is observed; fixed in Linux 6.14, \
                     and in 6.12.14 and 6.13.3";
/// What to do about it.
pub(super) const REMEDY: &str = "boot a kernel of at least 6.14, or the distribution's latest of its own; until then calls inside \
                                 Python are linked by thread only";

/// `uretprobe` of `arch/x86/entry/syscalls/syscall_64.tbl`.
const URETPROBE: c_long = 335;
/// The child takes microseconds. A machine that is emulated or overloaded may be a thousand times as slow.
const LIMIT: Duration = Duration::from_secs(5);

/// What the child says by its exit status.
mod status {
    use super::c_int;

    pub const LIVED: c_int = 0;
    pub const CRASHED: c_int = 1;
    pub const NOT_CONFINED: c_int = 2;
    pub const NOT_PROBED: c_int = 3;
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Status(c_int),
    Signal(c_int),
    /// Not by itself, within the time that it had.
    Hung,
}

impl Kernel {
    /// Finds out whether return probes harm programs, and keeps it. Nothing else of the trial stays.
    pub(super) fn find_out_returns(&mut self, trial: Trial, needed: bool) {
        let found = match trial {
            Trial::WhereNeeded if !needed => Ok("no seccomp filter is asked about them on this kernel"),
            Trial::WhereNeeded | Trial::Always => {
                let before = self.probes.clone();
                let end = self.try_return();
                // It was attached for the trial only.
                self.probes = before;
                end.and_then(judge).map(|()| "tried: a program confined by seccomp lives on")
            }
            Trial::Failed => Err(FAULT.to_owned()),
        };
        self.returns = match found {
            Ok(how) => ReturnProbes::Harmless(how),
            Err(why) => {
                probes::withhold(&mut self.probes);
                ReturnProbes::Refused(why)
            }
        };
    }

    /// Lets a child that is confined return from a function under the probe.
    fn try_return(&mut self) -> Result<End, String> {
        let filter = privileges::refusing([URETPROBE].into_iter()).map_err(untried)?;
        let offset = file_offset(observed as *const () as u64).map_err(untried)?;
        let probe = self.attach_py_copy(Path::new("/proc/self/exe"), offset).map_err(untried)?;
        // SAFETY: the child allocates nothing, takes no lock and unwinds nowhere.
        let end = unsafe { forked(LIMIT, || confined_return(&filter)) };
        self.detach_py(probe);
        end.map_err(untried)
    }
}

/// Whether this kernel may have the fault. The call shows in its types, whatever its version.
pub(super) fn needed(types: &KernelTypes) -> bool {
    cfg!(target_arch = "x86_64")
        && may_have_fault(features::running_version(), types.has_function("__x64_sys_uretprobe"))
}

fn may_have_fault(version: Option<(u32, u32)>, has_call: bool) -> bool {
    /// The first with the call.
    const BROUGHT: (u32, u32) = (6, 11);
    /// The first without the fault; of its release candidates the first two have it, which nobody should run any more.
    const FIXED: (u32, u32) = (6, 14);
    version.is_none_or(|version| version < FIXED && (has_call || version >= BROUGHT))
}

fn untried(why: impl fmt::Display) -> String {
    format!("whether this kernel's return probes are harmless could not be tried: {why}")
}

/// What the end of the child says of the kernel.
fn judge(end: End) -> Result<(), String> {
    match end {
        End::Status(status::LIVED) => Ok(()),
        End::Status(status::NOT_CONFINED) => Err(untried("the kernel takes no seccomp filter")),
        End::Status(status::NOT_PROBED) => Err(untried("the probe was not where it was attached")),
        End::Hung => Err(untried("the program it was tried with did not end")),
        End::Status(_) | End::Signal(_) => Err(FAULT.to_owned()),
    }
}

/// The function whose return is observed. It gives 0, of which the programs tell nothing. Its number is there so that it
/// is no other function's like: two that are alike may become one, and the agent itself would call that.
#[inline(never)]
extern "C" fn observed() -> u64 {
    const OWN: u64 = 0x7472_6961_6c5f_3335;
    black_box(OWN) ^ black_box(OWN)
}

/// What the child does: confines itself, checks that the probe is there, and returns from the function.
fn confined_return(filter: &[seccompiler::sock_filter]) -> c_int {
    extern "C" fn crashed(_: c_int) {
        // SAFETY: always allowed.
        unsafe { libc::_exit(status::CRASHED) }
    }
    // No line in the kernel's log and no dump for what is expected: a signal that is handled leaves neither.
    // SAFETY: the handler only ends the process; no pointers otherwise.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        for signal in [libc::SIGSEGV, libc::SIGILL, libc::SIGBUS, libc::SIGSYS] {
            libc::signal(signal, crashed as *const () as libc::sighandler_t);
        }
    }
    if seccompiler::apply_filter(filter).is_err() {
        return status::NOT_CONFINED;
    }
    let function: extern "C" fn() -> u64 = black_box(observed);
    // SAFETY: code that is about to be run, which a program may read.
    let first = unsafe { (function as *const u8).read_volatile() };
    if !is_probed(first) {
        return status::NOT_PROBED;
    }
    black_box(function());
    status::LIVED
}

/// Whether a function that begins with this byte has a probe at its entry: without one nothing was tried.
fn is_probed(first: u8) -> bool {
    /// The breakpoint.
    const INT3: u8 = 0xcc;
    // Elsewhere there is no fault, and a trial only where a test wants one.
    !cfg!(target_arch = "x86_64") || first == INT3
}

/// Where what is at this address of ours lies in its file.
fn file_offset(address: u64) -> io::Result<u64> {
    let missing = || io::Error::other("the agent does not find itself in /proc/self/maps");
    fs::read_to_string("/proc/self/maps")?.lines().find_map(|line| place(line, address)).ok_or_else(missing)
}

/// `start-end perms offset …`
fn place(line: &str, address: u64) -> Option<u64> {
    let number = |text| u64::from_str_radix(text, 16).ok();
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let (start, end) = (number(start)?, number(end)?);
    let offset = number(words.nth(1)?)?;
    (start..end).contains(&address).then(|| address - start + offset)
}

/// Does `work` in a forked child, whose exit status is what it gives; one that takes longer is ended.
///
/// # Errors
/// There is no child, or it cannot be waited for.
///
/// # Safety
/// Other threads are not in the child, nor will be what they hold: `work` must not allocate or lock.
unsafe fn forked(limit: Duration, work: impl FnOnce() -> c_int) -> io::Result<End> {
    // SAFETY: the caller's promise.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // SAFETY: no pointers; it ends with the thread that waits for it.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) };
            let status = work();
            // SAFETY: ends the child without what the parent has to do at its own end.
            unsafe { libc::_exit(status) }
        }
        child => ended(child, limit),
    }
}

/// Waits for a child of ours; none is left afterwards.
fn ended(child: pid_t, limit: Duration) -> io::Result<End> {
    let child = Pid::from_raw(child).ok_or_else(|| io::Error::other("a child without a number"))?;
    let in_time = ends_within(child, limit);
    if !matches!(in_time, Ok(true)) {
        kill_process(child, Signal::KILL)?;
    }
    let status = loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let (_, status) = status.ok_or_else(|| io::Error::other("a child without a status"))?;
    Ok(if in_time? { end(status) } else { End::Hung })
}

fn end(status: WaitStatus) -> End {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(status), _) => End::Status(status),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

fn ends_within(child: Pid, limit: Duration) -> io::Result<bool> {
    let handle = pidfd_open(child, PidfdFlags::empty())?;
    let until = Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = rustix::event::Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(ended) => return Ok(ended > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn child(limit: Duration, work: impl FnOnce() -> c_int) -> Result<(), String> {
        // SAFETY: what the tests give makes at most a system call.
        judge(unsafe { forked(limit, work) }.unwrap())
    }

    #[test]
    fn a_child_that_ends_well_is_the_only_proof() {
        assert_eq!(child(LONG, || status::LIVED), Ok(()));
        let raised = |signal| {
            child(LONG, move || {
                // SAFETY: no pointers.
                unsafe {
                    libc::signal(signal, libc::SIG_DFL);
                    libc::raise(signal);
                }
                status::LIVED
            })
        };
        for signal in [libc::SIGSEGV, libc::SIGILL, libc::SIGSYS, libc::SIGKILL] {
            assert_eq!(raised(signal), Err(FAULT.to_owned()), "signal {signal}");
        }
        assert_eq!(child(LONG, || status::CRASHED), Err(FAULT.to_owned()));
        assert_eq!(child(LONG, || 77), Err(FAULT.to_owned()));
        for (status, why) in [(status::NOT_CONFINED, "no seccomp filter"), (status::NOT_PROBED, "not where")]
        {
            let said = child(LONG, || status).unwrap_err();
            assert!(said.contains("could not be tried") && said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_child_that_hangs_is_ended_and_no_proof() {
        let said = child(Duration::from_millis(1), || {
            loop {
                // SAFETY: no pointers.
                unsafe { libc::pause() };
            }
        });
        assert!(said.unwrap_err().contains("did not end"));
    }

    /// As in the kernel's instructions after a refused call: a return to the function's result.
    #[test]
    fn a_jump_to_nowhere_is_noticed() {
        let filter = privileges::refusing([URETPROBE].into_iter()).unwrap();
        let end = child(LONG, || {
            confined_return(&filter);
            // SAFETY: there is no code, and the handlers that the child has set by now end it.
            let nowhere: extern "C" fn() = unsafe { std::mem::transmute(black_box(8_usize)) };
            nowhere();
            status::LIVED
        });
        assert_eq!(end, Err(FAULT.to_owned()));
    }

    #[test]
    fn without_a_probe_nothing_is_proved() {
        let filter = privileges::refusing([URETPROBE].into_iter()).unwrap();
        let said = child(LONG, || confined_return(&filter));
        if cfg!(target_arch = "x86_64") {
            assert!(said.unwrap_err().contains("not where"));
        }
    }

    #[test]
    fn the_probe_of_the_trial_does_not_stay() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: attaching needs root");
            return;
        }
        let mut kernel = Kernel::load(&super::super::KernelOptions::default()).unwrap();
        let first = || {
            // SAFETY: code of this program.
            unsafe { (observed as *const u8).read_volatile() }
        };
        let before = first();
        kernel.find_out_returns(Trial::Always, false);
        assert!(matches!(kernel.returns, ReturnProbes::Harmless(how) if how.contains("tried")));
        assert_eq!(first(), before);
        let offset = file_offset(observed as *const () as u64).unwrap();
        let probe = kernel.attach_py_copy(Path::new("/proc/self/exe"), offset).unwrap();
        assert!(is_probed(first()), "so the comparison is worth something");
        kernel.detach_py(probe);
    }

    #[test]
    fn kernels_without_the_call_and_with_the_correction_need_no_trial() {
        for (version, has_call, wanted) in [
            (Some((5, 8)), false, false),
            (Some((6, 10)), false, false),
            // Taken into an older kernel.
            (Some((5, 14)), true, true),
            (Some((6, 11)), false, true),
            (Some((6, 12)), true, true),
            (Some((6, 13)), true, true),
            (Some((6, 14)), true, false),
            (Some((7, 2)), true, false),
            (None, true, true),
        ] {
            assert_eq!(may_have_fault(version, has_call), wanted, "{version:?}");
        }
    }

    #[test]
    fn addresses_lie_in_files() {
        let line = "55d0c0a00000-55d0c0b00000 r-xp 00021000 fd:01 77 /opt/a b";
        assert_eq!(place(line, 0x55d0_c0a0_0010), Some(0x21010));
        assert_eq!(place(line, 0x55d0_c0b0_0000), None);
        assert_eq!(place("", 0), None);
        assert!(file_offset(observed as *const () as u64).is_ok());
    }
}
