//! seccomp: system calls that an observer never makes are refused with EPERM.
//!
//! A list of what is refused, not of what is allowed: libraries that are loaded at run time (the GPU driver's, the
//! resolver's) and later C libraries make calls nobody here can list, and a call refused to them is function lost.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

#[rustfmt::skip]
const REFUSED: &[c_long] = &[
    // Starting programs.
    libc::SYS_execve, libc::SYS_execveat,
    // Touching other processes: the agent reads them, and that is all.
    libc::SYS_process_vm_writev, libc::SYS_ptrace, libc::SYS_pidfd_getfd, libc::SYS_process_madvise,
    libc::SYS_kill, libc::SYS_tkill, libc::SYS_pidfd_send_signal, libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    // Other namespaces, roots and mounts.
    libc::SYS_setns, libc::SYS_unshare, libc::SYS_chroot, libc::SYS_pivot_root, libc::SYS_mount,
    libc::SYS_umount2, libc::SYS_open_tree, libc::SYS_move_mount, libc::SYS_mount_setattr, libc::SYS_fsopen,
    libc::SYS_fsconfig, libc::SYS_fsmount, libc::SYS_fspick,
    // With CAP_DAC_READ_SEARCH this reads any file of the host from inside a container.
    libc::SYS_open_by_handle_at,
    // Becoming somebody else.
    libc::SYS_setuid, libc::SYS_setgid, libc::SYS_setreuid, libc::SYS_setregid, libc::SYS_setresuid,
    libc::SYS_setresgid, libc::SYS_setgroups, libc::SYS_setfsuid, libc::SYS_setfsgid,
    // The kernel itself.
    libc::SYS_init_module, libc::SYS_finit_module, libc::SYS_delete_module, libc::SYS_kexec_load,
    libc::SYS_reboot, libc::SYS_swapon, libc::SYS_swapoff, libc::SYS_acct, libc::SYS_syslog,
    libc::SYS_sethostname, libc::SYS_setdomainname, libc::SYS_settimeofday, libc::SYS_clock_settime,
    libc::SYS_clock_adjtime, libc::SYS_adjtimex, libc::SYS_quotactl, libc::SYS_personality,
    // Large and rarely needed parts of it.
    libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl, libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register, libc::SYS_fanotify_init,
    libc::SYS_mknodat, libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")] libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")] libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")] libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")] libc::SYS_kexec_file_load,
];

/// x32, the other ABI of x86_64 kernels: the same numbers with this bit, and some of its own
/// (`arch/x86/entry/syscalls/syscall_64.tbl`): execve, ptrace, rt_sigqueueinfo, kexec_load, rt_tgsigqueueinfo,
/// process_vm_writev, execveat.
#[cfg(target_arch = "x86_64")]
const X32: (c_long, [c_long; 7]) = (0x4000_0000, [520, 521, 524, 528, 536, 540, 545]);

/// For every thread of the process, and those to come. Includes "no new privileges".
pub(super) fn restrict_all_threads() -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter_all_threads(&program()?)
}

/// For this thread and those it will start.
#[cfg(test)]
pub(super) fn restrict_this_thread() -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter(&program()?)
}

fn program() -> Result<BpfProgram, seccompiler::Error> {
    let calls = REFUSED.iter().copied();
    #[cfg(target_arch = "x86_64")]
    let calls = {
        let (bit, own) = X32;
        calls.chain(REFUSED.iter().copied().chain(own).map(move |call| call | bit))
    };
    refusing(calls)
}

/// A filter that refuses these calls with EPERM and lets all others pass.
pub(crate) fn refusing(calls: impl Iterator<Item = c_long>) -> Result<BpfProgram, seccompiler::Error> {
    let rules: BTreeMap<c_long, Vec<_>> = calls.map(|call| (call, Vec::new())).collect();
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture)?.try_into()?)
}

/// Whether the kernel has it.
pub(super) fn available() -> bool {
    // SAFETY: asks, changes nothing. EINVAL without CONFIG_SECCOMP.
    unsafe { libc::prctl(libc::PR_GET_SECCOMP) >= 0 }
}
