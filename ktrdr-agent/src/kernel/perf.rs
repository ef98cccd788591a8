//! Whether tracepoints of single system calls can be had: they are events of perf, found through tracefs. Where they cannot,
//! the raw tracepoint `sys_exit` sees the same calls.

use std::{fs, io};

use ktrdr_ebpf_common::maps::calls;

use super::{
    Hook, KernelOptions,
    btf::KernelTypes,
    tracefs::{self, Tracefs},
};

/// Above this, some distributions refuse all events of perf to whoever lacks CAP_SYS_ADMIN (Debian's patch "security,perf:
/// Allow further restriction of perf_event_open"; Ubuntu's refuses above 3). The kernel's own highest value.
const PARANOID: i64 = 2;

/// Why system calls cannot have tracepoints of their own here; `None`: they can.
pub(super) fn refusal(types: &KernelTypes) -> Option<String> {
    if !types.has_function("bpf_task_pt_regs") {
        return Some("a kernel before 5.15".into());
    }
    let _tracefs = match Tracefs::ensure() {
        Ok(tracefs) => tracefs,
        Err(error) => return Some(format!("no tracefs: {error}")),
    };
    let number = tracefs::find().map(|place| place.join("events/syscalls/sys_exit_connect/id"));
    if !number.is_some_and(|file| fs::exists(file).unwrap_or_default()) {
        return Some("the kernel has no tracepoints of system calls".into());
    }
    refused().map(|error| match paranoid() {
        Some(level) => format!("perf_event_open: {error}, as kernel.perf_event_paranoid is {level}"),
        None => format!("perf_event_open: {error}"),
    })
}

/// `kernel.perf_event_paranoid`, where it is higher than the kernel's own levels.
pub(super) fn paranoid() -> Option<i64> {
    let text = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").ok()?;
    text.trim().parse().ok().filter(|level| *level > PARANOID)
}

/// The beginning of `struct perf_event_attr` that every version of it has (`PERF_ATTR_SIZE_VER0`).
#[repr(C)]
struct Event {
    kind: u32,
    size: u32,
    config: u64,
    _rest: [u64; 6],
}

/// Why the kernel refuses an event of perf that counts nothing; it asks who may before it looks at the event.
pub(super) fn refused() -> Option<io::Error> {
    /// `PERF_TYPE_SOFTWARE`, `PERF_COUNT_SW_DUMMY`.
    const SOFTWARE: (u32, u64) = (1, 9);
    /// `PERF_FLAG_FD_CLOEXEC`
    const CLOSE_ON_EXEC: libc::c_ulong = 8;
    let (kind, config) = SOFTWARE;
    let event = Event { kind, size: size_of::<Event>() as u32, config, _rest: [0; 6] };
    // For all processes, on the first processor, as a tracepoint is opened.
    let (pid, cpu, group): (libc::c_int, libc::c_int, libc::c_int) = (-1, 0, -1);
    // SAFETY: the kernel reads as many bytes of the event as it says it has.
    let fd =
        unsafe { libc::syscall(libc::SYS_perf_event_open, &raw const event, pid, cpu, group, CLOSE_ON_EXEC) };
    if fd < 0 {
        return Some(io::Error::last_os_error());
    }
    // SAFETY: it was given to us just now, and nobody else has it.
    unsafe { libc::close(fd as libc::c_int) };
    None
}

/// The calls that raw `sys_exit` has to see, as bits, where there are no tracepoints. The syscall hook sees all but reads.
pub(super) fn raw_calls(hook: Hook, options: &KernelOptions) -> u32 {
    let socket = hook == Hook::Socket;
    let wanted = [
        (socket && options.connect_errors, calls::CONNECT),
        (socket && options.logs, calls::WRITE),
        (options.stdio, calls::READ),
    ];
    wanted.into_iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, call)| all | call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_otherwise_is_seen_raw() {
        let all = KernelOptions::default();
        assert_eq!(raw_calls(Hook::Socket, &all), calls::CONNECT | calls::WRITE | calls::READ);
        assert_eq!(raw_calls(Hook::Syscall, &all), calls::READ);
        let quiet = KernelOptions { connect_errors: false, logs: false, stdio: false, ..all };
        assert_eq!(raw_calls(Hook::Socket, &quiet), 0);
    }

    #[test]
    fn root_may() {
        if rustix::process::geteuid().is_root() {
            assert!(refused().is_none());
        }
    }
}
