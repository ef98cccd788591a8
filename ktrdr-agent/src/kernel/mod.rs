//! The kernel-facing module, the only one that knows aya: loads the programs, attaches them, reads their records and
//! steers them.

mod btf;
mod by_process;
mod call_ends;
mod closing;
mod constants;
mod controls;
pub mod features;
mod mapped;
mod misses;
mod multi;
mod object;
mod policies;
mod positions;
mod probes;
mod python;
mod return_probe;
mod ring;
mod seconds;
#[cfg(test)]
mod stack_tests;
mod stats;
mod tracefs;

use std::{io, time::Duration};

use aya::{Btf, Ebpf, EbpfError, EbpfLoader, maps::MapError};
use ktrdr_ebpf_common::{
    limits,
    maps::{self, FileId, Watch},
    policies::Policy,
};

pub use call_ends::{CallEnds, CallsSeen};
pub use closing::Closing;
pub use controls::CounterValues;
pub use misses::Misses;
pub use probes::{Hook, ProbeReport, ProbeStatus};
pub use return_probe::{ReturnProbes, Trial};
pub use seconds::Seconds;
pub use stats::{ProgramStats, StatsEnabled, enable as enable_stats};

use crate::telemetry::step;
use btf::KernelTypes;
use controls::Controls;
use python::Multis;
use ring::Ring;

/// How to load the programs.
#[derive(Clone, Debug)]
pub struct KernelOptions {
    /// How transfers are seen.
    pub hook: Hook,
    /// Size of the ring in bytes; rounded up to a power of two of at least a page.
    pub ring_bytes: u32,
    /// Payload bytes copied per transfer on a connection without a policy; 0 sends no payload (but records).
    pub unknown_capture: u32,
    /// Processes whose transfers are left alone.
    pub exclude: Vec<u32>,
    /// The agent's own process.
    pub agent_tgid: u32,
    /// Report connects that failed before a packet left. With the socket hook any of this and the next two takes programs at the
    /// end of system calls ([`CallEnds`]); with the syscall hook there is one.
    pub connect_errors: bool,
    /// Capture what watched processes write ([`Kernel::watch`]).
    pub logs: bool,
    /// Capture what processes read that speak JSON on standard input.
    pub stdio: bool,
    /// Where the ends of those calls are looked at, beside the socket hook.
    pub call_ends: CallEnds,
    /// How it is found out whether functions' returns may be observed.
    pub return_trial: Trial,
    /// What makes good for runs that the kernel refuses.
    pub seconds: Seconds,
}

impl Default for KernelOptions {
    fn default() -> Self {
        KernelOptions {
            hook: Hook::Auto,
            ring_bytes: limits::RING_BYTES,
            unknown_capture: limits::DEFAULT_CAPTURE,
            exclude: Vec::new(),
            agent_tgid: std::process::id(),
            connect_errors: true,
            logs: true,
            stdio: true,
            call_ends: CallEnds::default(),
            return_trial: Trial::default(),
            seconds: Seconds::default(),
        }
    }
}

impl KernelOptions {
    /// The system calls whose end is of interest, as bits of [`maps::calls`].
    fn calls(&self) -> u32 {
        let wanted = [
            (self.connect_errors, maps::calls::CONNECT),
            (self.logs, maps::calls::WRITE),
            (self.stdio, maps::calls::READ),
        ];
        wanted.into_iter().filter(|(wanted, _)| *wanted).fold(0, |all, (_, call)| all | call)
    }
}

/// Why the kernel side cannot work.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No BTF.
    #[error(
        "the kernel's type information (/sys/kernel/btf/vmlinux) cannot be used: {0}; a kernel built with CONFIG_DEBUG_INFO_BTF is needed"
    )]
    Btf(String),
    /// A field is not there.
    #[error("this kernel's BTF has no {strukt}.{path}; it is older or newer than the agent knows")]
    Field {
        /// Struct.
        strukt: &'static str,
        /// Field.
        path: &'static str,
    },
    /// The object was refused.
    #[error("the kernel refused the agent's maps or programs: {0}")]
    Load(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A program without which nothing is seen was refused.
    #[error("the kernel refused the program {name}: {reason}")]
    Probe {
        /// Name of the program.
        name: &'static str,
        /// In the kernel's words.
        reason: String,
    },
    /// A function's return would have to be observed, and on this kernel that may end programs.
    #[error("{0}")]
    Return(String),
    /// The object and the agent do not fit together.
    #[error("the embedded object has no map {0}")]
    MissingMap(&'static str),
    /// A map of the wrong kind or one that cannot be mapped.
    #[error("map {name}: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What was wrong.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The ring cannot be waited for.
    #[error("the ring cannot be polled: {0}")]
    Poll(#[from] io::Error),
}

/// The loaded and attached kernel side. Dropping it detaches everything; nothing stays in the kernel.
pub struct Kernel {
    ebpf: Ebpf,
    ring: Ring,
    controls: Controls,
    hook: Hook,
    probes: Vec<ProbeReport>,
    call_ends: call_ends::Attached,
    /// The Python probes for an agent without CAP_SYS_ADMIN.
    multis: Multis,
    python: python::Links,
    /// Whether any of the Python probes may be attached: all that they tell needs the returns of functions.
    returns: ReturnProbes,
    warnings: Vec<String>,
    #[cfg(feature = "kernel-log")]
    log: aya_log::EbpfLogger<&'static dyn log::Log>,
}

impl Kernel {
    /// Loads and attaches the programs.
    ///
    /// # Errors
    /// No BTF, no permission, or a program that everything depends on was refused. Lesser probes that fail are in
    /// [`Kernel::probes`].
    pub fn load(options: &KernelOptions) -> Result<Kernel, KernelError> {
        let mut warnings = Vec::new();
        // Maps count against the limit before 5.11 only.
        if let Err(error) = raise_memlock()
            && features::running_version().is_none_or(|version| version < (5, 11))
        {
            warnings.push(format!("RLIMIT_MEMLOCK could not be raised: {error}"));
        }
        let types = step!("start.kernel_types").in_scope(KernelTypes::load)?;
        let hook = match options.hook {
            Hook::Auto if types.has_tracepoint("sock_send_length") => Hook::Socket,
            Hook::Auto => Hook::Syscall,
            chosen => chosen,
        };
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| KernelError::Poll(error))? as u32;
        let seconds = hook == Hook::Socket && options.seconds.wanted();
        let constants = constants::Constants::resolve(&types, options)?.on(cpus, seconds);
        let kernel_btf = Btf::from_sys_fs().map_err(|error| KernelError::Btf(error.to_string()))?;

        let mut loader = EbpfLoader::new();
        loader.btf(Some(&kernel_btf)).map_max_entries(maps::EVENTS, ring_size(options.ring_bytes));
        let places = match hook {
            _ if seconds => limits::SCRATCH_PLACES_WITH_SECONDS,
            Hook::Socket if call_ends::tries_functions(&types, options) => {
                limits::SCRATCH_PLACES_WITH_FUNCTIONS
            }
            _ => limits::SCRATCH_PLACES,
        };
        loader.map_max_entries(maps::SCRATCH, cpus.saturating_mul(places));
        constants.set(&mut loader);
        let mut ebpf = step!("start.load")
            .in_scope(|| loader.load(object::OBJECT))
            .map_err(|error: EbpfError| KernelError::Load(Box::new(error)))?;

        let multis = Multis::load(&ebpf);
        #[cfg(feature = "kernel-log")]
        let log = aya_log::EbpfLogger::init(&mut ebpf).map_err(|error| KernelError::Load(Box::new(error)))?;
        let ring = Ring::new(controls::take(&mut ebpf, maps::EVENTS)?, ring_size(options.ring_bytes))?;
        let mut controls = Controls::take(&mut ebpf)?;
        for &tgid in &options.exclude {
            controls.exclude(tgid).map_err(map_error(maps::EXCLUDED))?;
        }
        let (probes, call_ends) = step!("start.attach")
            .in_scope(|| probes::attach_all(&mut ebpf, &kernel_btf, &types, hook, options))
            .map_err(|(name, reason)| KernelError::Probe { name, reason })?;
        let trial_needed = return_probe::needed(&types);
        drop((types, kernel_btf));
        release_memory();
        let mut kernel = Kernel {
            ebpf,
            ring,
            controls,
            hook,
            probes,
            call_ends,
            multis,
            python: python::Links::default(),
            returns: ReturnProbes::Harmless("to be tried"),
            warnings,
            #[cfg(feature = "kernel-log")]
            log,
        };
        step!("start.return_probes").in_scope(|| kernel.find_out_returns(options.return_trial, trial_needed));
        Ok(kernel)
    }

    /// Detaches all programs: no transfer is told any more, and nothing is produced once the [`Closing`] is done. What is in the
    /// ring and the counters can still be read. No Python probe is to be attached from here on.
    pub fn detach(&mut self) -> Closing {
        probes::detach_all(&mut self.ebpf, &mut self.call_ends, &mut self.python)
    }

    /// The hook in use; never [`Hook::Auto`].
    pub fn hook(&self) -> Hook {
        self.hook
    }

    /// Every probe and what became of it.
    pub fn probes(&self) -> &[ProbeReport] {
        &self.probes
    }

    /// Where the ends of single system calls are looked at.
    pub fn calls_seen(&self) -> &CallsSeen {
        &self.call_ends.seen
    }

    /// Whether the returns of functions may be observed on this kernel, as all Python probes do.
    pub fn return_probes(&self) -> &ReturnProbes {
        &self.returns
    }

    /// What went wrong without stopping anything.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Waits until much is unread, something urgent happened or `timeout` passed, then hands over what is there, one
    /// record at a time, up to a budget. Returns the number of records. `timeout` is the flush interval: records of
    /// everyday traffic end no wait.
    ///
    /// # Errors
    /// The ring cannot be waited for (never seen; the descriptor is valid as long as `self`).
    pub fn poll(&mut self, timeout: Duration, each: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        #[cfg(feature = "kernel-log")]
        self.log.flush();
        self.ring.poll(timeout, each)
    }

    /// Whether the last [`poll`](Self::poll) found the ring empty in the end.
    pub fn is_drained(&self) -> bool {
        self.ring.is_drained()
    }

    /// Bytes in the ring that were not read yet.
    pub fn unread(&self) -> u64 {
        self.ring.unread()
    }

    /// Records read so far; equals the counter `Submitted` once the ring is drained.
    pub fn records_read(&self) -> u64 {
        self.ring.read()
    }

    /// Counters of the programs, summed over the CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<CounterValues, KernelError> {
        self.controls.counters().map_err(map_error(maps::COUNTERS))
    }

    /// Program runs that the kernel refused: losses no program could count.
    pub fn misses(&self) -> Misses {
        Misses::of(&self.program_stats())
    }

    /// What the kernel counts per program; times only while [`enable_stats`] holds.
    pub fn program_stats(&self) -> Vec<ProgramStats> {
        stats::of(&self.ebpf, self.multis.programs())
    }

    /// Says how much of a connection's transfers to send. Where two others have its place, the older one is unknown again.
    pub fn set_policy(&mut self, conn: u64, policy: Policy) {
        self.controls.policies().set(conn, policy);
    }

    /// Makes a connection unknown again: its next record carries the addresses.
    pub fn forget_policy(&mut self, conn: u64) {
        self.controls.policies().forget(conn);
    }

    /// Leaves the transfers of a process alone.
    ///
    /// # Errors
    /// The map is full.
    pub fn exclude(&mut self, tgid: u32) -> Result<(), KernelError> {
        self.controls.exclude(tgid).map_err(map_error(maps::EXCLUDED))
    }

    /// Ends [`Kernel::exclude`], for a process that ended: its number will be another's.
    ///
    /// # Errors
    /// The map cannot be changed.
    pub fn include(&mut self, tgid: u32) -> Result<(), KernelError> {
        self.controls.include(tgid).map_err(map_error(maps::EXCLUDED))
    }

    /// Leaves out `share` of a port's connections, in 65,536ths; 0 = observes all of them again, those that are open too.
    /// Which ones: [`ktrdr_ebpf_common::thinning::left_out`].
    ///
    /// # Errors
    /// The map cannot be changed; what was said before holds.
    pub fn leave_out(&mut self, port: u16, share: u32) -> Result<(), KernelError> {
        self.controls.leave_out(port, share).map_err(map_error(maps::LEFT_OUT))
    }

    /// Captures what a process writes, up to `rate` bytes a second; ends with the process. `flags`: of [`Watch`].
    ///
    /// # Errors
    /// The map is full.
    pub fn watch(&mut self, tgid: u32, rate: u32, flags: u32) -> Result<(), KernelError> {
        self.controls.watch(Watch::new(tgid, rate, flags)).map_err(map_error(maps::WATCHED))
    }

    /// Ends [`Kernel::watch`].
    ///
    /// # Errors
    /// The map cannot be changed.
    pub fn unwatch(&mut self, tgid: u32) -> Result<(), KernelError> {
        self.controls.unwatch(tgid).map_err(map_error(maps::WATCHED))
    }

    /// Captures nothing more of what a process reads from standard input.
    ///
    /// # Errors
    /// The map cannot be changed.
    pub fn speaks_not(&mut self, tgid: u32) -> Result<(), KernelError> {
        self.controls.speaks_not(tgid).map_err(map_error(maps::SPEAKERS))
    }

    /// Says whether a regular file is a log.
    ///
    /// # Errors
    /// The map cannot be changed.
    pub fn set_file(&mut self, file: FileId, log: bool) -> Result<(), KernelError> {
        self.controls.set_file(file, log).map_err(map_error(maps::FILES))
    }
}

fn map_error(name: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { name, source: Box::new(source) }
}

/// A power of two and at least a page, as the kernel demands; at most 1 GiB.
fn ring_size(bytes: u32) -> u32 {
    bytes.clamp(page_size(), 1 << 30).next_power_of_two()
}

fn page_size() -> u32 {
    rustix::param::page_size() as u32
}

/// Gives back what reading the kernel's types took for a moment: some 80 MB in small pieces, which allocators keep: the
/// binary's own, and in tests glibc's.
fn release_memory() {
    crate::allocator::release();
    // SAFETY: always allowed; concerns memory that nobody holds.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

fn raise_memlock() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    Ok(setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })?)
}
