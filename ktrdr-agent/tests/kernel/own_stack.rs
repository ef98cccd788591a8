//! Programs at functions of user code have no stack of the processor's (`ktrdr-ebpf/src/own_stack.rs`): looked up in the
//! machine code that the kernel made of them.

use std::{fs, os::fd::RawFd};

use ktrdr_agent::kernel::Hook;

use crate::observer::{Observer, options};

/// `BPF_OBJ_GET_INFO_BY_FD`.
const GET_INFO: libc::c_long = 15;
/// `add r9, gs:[offset]`: how such a stack is found on x86_64 (`emit_priv_frame_ptr` of the kernel's compiler).
const OF_THE_PROCESSOR: [u8; 5] = [0x65, 0x4c, 0x03, 0x0c, 0x25];
/// Longer than any of them.
const MAX_CODE: usize = 256 * 1024;

/// The beginning of `struct bpf_prog_info`.
#[derive(Default)]
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    translated_len: u32,
    jited: u64,
    translated: u64,
}

/// Programs of this process: their kind and machine code; none where the kernel does not tell.
fn programs() -> Vec<(u32, Vec<u8>)> {
    let open =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let program = |fd: &RawFd| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}"));
        info.is_ok_and(|info| info.contains("prog_jited:"))
    };
    let open: Vec<RawFd> = open.filter_map(|fd| fd.parse().ok()).filter(program).collect();
    open.into_iter().filter_map(code).collect()
}

fn code(fd: RawFd) -> Option<(u32, Vec<u8>)> {
    let mut code = vec![0; MAX_CODE];
    let mut info = Info { jited_len: MAX_CODE as u32, jited: code.as_mut_ptr() as u64, ..Info::default() };
    let attr: [u64; 2] =
        [u64::from(fd.cast_unsigned()) | (size_of::<Info>() as u64) << 32, &raw mut info as u64];
    // SAFETY: the attribute names a live structure of the size that it says, which names a live buffer.
    let done = unsafe { libc::syscall(libc::SYS_bpf, GET_INFO, attr.as_ptr(), size_of_val(&attr)) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    code.truncate(info.jited_len as usize);
    (info.jited != 0 && !code.is_empty()).then_some((info.kind, code))
}

#[test]
fn programs_at_user_functions_use_their_threads_stack() {
    /// `BPF_PROG_TYPE_KPROBE`, of which programs at user functions are; all others here are `BPF_PROG_TYPE_TRACING`.
    const AT_FUNCTIONS: u32 = 2;
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the instruction is known for x86_64 only");
        return;
    }
    let Some(_observer) = Observer::start(&options(Hook::Auto)) else { return };
    let programs = programs();
    if programs.is_empty() {
        println!("skipped: the kernel does not tell programs' machine code");
        return;
    }
    let theirs = |code: &[u8]| code.windows(OF_THE_PROCESSOR.len()).any(|window| window == OF_THE_PROCESSOR);
    let (at_functions, others): (Vec<_>, Vec<_>) =
        programs.into_iter().partition(|(kind, _)| *kind == AT_FUNCTIONS);
    let (at_functions, others) = (
        at_functions.iter().map(|(_, code)| theirs(code)).collect::<Vec<_>>(),
        others.iter().map(|(_, code)| theirs(code)).collect::<Vec<_>>(),
    );
    println!("at functions: {at_functions:?}, others: {others:?}");
    assert!(at_functions.len() >= 3, "all of them are loaded");
    assert!(!at_functions.contains(&true));
    // So that the search finds something where there is something to be found.
    let has_them = kernel_has_such_stacks();
    assert!(!has_them || others.contains(&true), "the instruction was not recognised");
}

/// From 6.13 on, whoever builds it.
fn kernel_has_such_stacks() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(13))
}
