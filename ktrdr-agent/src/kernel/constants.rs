//! The constants of the kernel programs: field offsets, and what this kernel can do.

use aya::EbpfLoader;
use ktrdr_ebpf_common::{limits, maps::constants as names};

use super::{KernelError, KernelOptions, btf::KernelTypes};

/// Values by name.
pub(super) struct Constants {
    words: Vec<(&'static str, u32)>,
    wake_bytes: u64,
}

impl Constants {
    /// Resolves everything that the kernel's types and the options say.
    pub fn resolve(types: &KernelTypes, options: &KernelOptions) -> Result<Self, KernelError> {
        let mut words = Vec::new();
        macro_rules! resolve {
            ($($name:ident = $strukt:literal, $path:literal, $need:ident;)+) => {
                $(words.push((stringify!($name), offset(types, $strukt, $path, stringify!($need))?));)+
            };
        }
        ktrdr_ebpf_common::for_each_offset!(resolve);

        let compat = if cfg!(target_arch = "aarch64") { "thread_info.flags" } else { "thread_info.status" };
        words.push((names::TASK_COMPAT, offset(types, "task_struct", compat, "required")?));
        // arm64 saves the register when it switches to another task, and sets what a new thread begins with; the C
        // library changes it once, when a program starts.
        let pointer = if cfg!(target_arch = "aarch64") { "thread.uw.tp_value" } else { "thread.fsbase" };
        words.push((names::TASK_THREAD_POINTER, offset(types, "task_struct", pointer, "optional")?));
        words.push((names::HAS_SOCKET_COOKIE, types.has_function("bpf_get_socket_ptr_cookie").into()));
        words.push((names::HAS_TASK_BTF, types.has_function("bpf_get_current_task_btf").into()));
        let tells_group =
            types.tracepoint_arguments("sched_process_exit").is_some_and(|arguments| arguments > 1);
        words.push((names::HAS_GROUP_DEAD, tells_group.into()));
        words.push((names::AGENT_TGID, options.agent_tgid));
        words.push((names::UNKNOWN_CAPTURE, options.unknown_capture.min(limits::MAX_PAYLOAD as u32)));
        words.push((names::HAS_LOGS, options.logs.into()));
        let gives_task = types.tracepoint_arguments("mark_victim").is_some_and(|arguments| arguments > 1);
        words.push((names::HAS_VICTIM_TASK, gives_task.into()));
        words.push((names::CALLS, options.calls()));
        Ok(Constants { words, wake_bytes: wake_bytes(options.ring_bytes) })
    }

    /// For a host of so many possible CPUs, with or without second programs.
    pub fn on(mut self, cpus: u32, seconds: bool) -> Self {
        self.words.extend([(names::CPUS, cpus), (names::SECONDS, seconds.into())]);
        self
    }

    /// Hands them to the loader; every one must exist in the object.
    pub fn set<'a>(&'a self, loader: &mut EbpfLoader<'a>) {
        for (name, value) in &self.words {
            loader.override_global(name, value, true);
        }
        loader.override_global(names::WAKE_BYTES, &self.wake_bytes, true);
    }
}

/// A small ring must wake its reader before it is full. A power of two, as the ring is.
fn wake_bytes(ring_bytes: u32) -> u64 {
    limits::WAKE_BYTES.min(u64::from(super::ring_size(ring_bytes)) / 4)
}

fn offset(
    types: &KernelTypes,
    strukt: &'static str,
    path: &'static str,
    need: &str,
) -> Result<u32, KernelError> {
    match types.offset(strukt, path) {
        Some(offset) => Ok(offset),
        None if need == "optional" => Ok(0),
        None => Err(KernelError::Field { strukt, path }),
    }
}
