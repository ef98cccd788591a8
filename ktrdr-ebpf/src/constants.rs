//! Read-only globals that the agent sets before loading: the verifier knows their values and prunes by them.

/// A global set at load time.
#[repr(transparent)]
pub struct Constant<T>(T);

impl<T: Copy> Constant<T> {
    /// The value the agent set.
    #[inline(always)]
    pub fn get(&self) -> T {
        // SAFETY: a valid reference; volatile because the loader changes the value behind the compiler's back.
        unsafe { core::ptr::read_volatile(&self.0) }
    }
}

macro_rules! define {
    ($($name:ident = $strukt:literal, $path:literal, $required:ident;)+) => {
        $(#[unsafe(no_mangle)]
        pub static $name: Constant<u32> = Constant(0);)+
    };
}
ktrdr_ebpf_common::for_each_offset!(define);

macro_rules! define_values {
    ($($name:ident: $type:ty;)+) => {
        $(#[unsafe(no_mangle)]
        pub static $name: Constant<$type> = Constant(0);)+
    };
}
define_values! {
    AGENT_TGID: u32;
    UNKNOWN_CAPTURE: u32;
    WAKE_BYTES: u64;
    HAS_SOCKET_COOKIE: u32;
    HAS_GROUP_DEAD: u32;
    TASK_COMPAT: u32;
    TASK_THREAD_POINTER: u32;
    HAS_TASK_BTF: u32;
    HAS_LOGS: u32;
    HAS_VICTIM_TASK: u32;
    CALLS: u32;
    NEVER: u32;
    SECONDS: u32;
    CPUS: u32;
}
