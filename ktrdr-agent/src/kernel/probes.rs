//! The table of probes: what each program attaches to, for which hook, and how needed it is.

use std::fmt;

use aya::{
    Btf, Ebpf,
    programs::{BtfTracePoint, Program, ProgramError, UProbe},
};

use super::{
    KernelOptions, Seconds,
    btf::KernelTypes,
    call_ends::{self, Attached},
    closing::Closing,
    python,
};

/// Which of the two ways transfers are seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// [`Hook::Socket`] where the kernel has it, else [`Hook::Syscall`].
    #[default]
    Auto,
    /// The tracepoints `sock_send_length` and `sock_recv_length` (kernel 6.3 and later).
    Socket,
    /// The raw tracepoint `sys_exit`, on any kernel.
    Syscall,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Hook::Auto => "auto",
            Hook::Socket => "socket",
            Hook::Syscall => "syscall",
        })
    }
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeStatus {
    /// Attached.
    Attached,
    /// Not wanted, or not on this kernel.
    Skipped(String),
    /// Wanted, and refused.
    Failed(String),
}

/// A probe and what became of it.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// Name of the program.
    pub name: &'static str,
    /// What it tells the agent.
    pub purpose: &'static str,
    /// What became of it.
    pub status: ProbeStatus,
}

enum Place {
    /// A BTF raw tracepoint of the program's own name.
    Raw,
    /// This one, behind the program of its name; only where the kernel may refuse that one a run.
    Second(&'static str),
    /// Attached later, per library.
    Uprobe,
}

struct Probe {
    name: &'static str,
    purpose: &'static str,
    place: Place,
    /// Only with this hook.
    hook: Option<Hook>,
    /// Without it the agent is blind.
    required: bool,
}

const PROBES: &[Probe] = &[
    Probe {
        name: "sock_send_length",
        purpose: "bytes sent",
        place: Place::Raw,
        hook: Some(Hook::Socket),
        required: true,
    },
    Probe {
        name: "sock_recv_length",
        purpose: "bytes received",
        place: Place::Raw,
        hook: Some(Hook::Socket),
        required: true,
    },
    Probe {
        name: "sock_send_length_second",
        purpose: "bytes sent while another thread's were being looked at",
        place: Place::Second("sock_send_length"),
        hook: Some(Hook::Socket),
        required: false,
    },
    Probe {
        name: "sock_recv_length_second",
        purpose: "bytes received while another thread's were being looked at",
        place: Place::Second("sock_recv_length"),
        hook: Some(Hook::Socket),
        required: false,
    },
    Probe {
        name: "sys_exit",
        purpose: "bytes sent and received, log lines, requests on standard input, failed connects",
        place: Place::Raw,
        hook: Some(Hook::Syscall),
        required: true,
    },
    Probe {
        name: "inet_sock_set_state",
        purpose: "connections and listeners",
        place: Place::Raw,
        hook: None,
        required: true,
    },
    Probe {
        name: "sched_process_exec",
        purpose: "programs started",
        place: Place::Raw,
        hook: None,
        required: false,
    },
    Probe {
        name: "sched_process_fork",
        purpose: "processes and threads created",
        place: Place::Raw,
        hook: None,
        required: false,
    },
    Probe {
        name: "sched_process_exit",
        purpose: "processes ended",
        place: Place::Raw,
        hook: None,
        required: false,
    },
    Probe {
        name: "mark_victim",
        purpose: "processes killed for want of memory",
        place: Place::Raw,
        hook: None,
        required: false,
    },
    Probe {
        name: "py_context_copy_ret",
        purpose: "Python causality",
        place: Place::Uprobe,
        hook: None,
        required: false,
    },
    Probe {
        name: "py_pool_submit",
        purpose: "Python causality: what pools of threads are given",
        place: Place::Uprobe,
        hook: None,
        required: false,
    },
    Probe {
        name: "py_pool_take",
        purpose: "Python causality: what their threads take",
        place: Place::Uprobe,
        hook: None,
        required: false,
    },
    Probe {
        name: "py_stream_write",
        purpose: "Python causality: what uvloop is given to send later",
        place: Place::Uprobe,
        hook: None,
        required: false,
    },
];

/// Loads and attaches everything the hook needs. The first required probe that fails is the error.
///
/// The ends of calls come first: a process that begins is one that may speak on standard input, which the next programs find.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    btf: &Btf,
    types: &KernelTypes,
    hook: Hook,
    options: &KernelOptions,
) -> Result<(Vec<ProbeReport>, Attached), (&'static str, String)> {
    let mut reports = Vec::with_capacity(PROBES.len());
    let ends = match hook {
        Hook::Syscall => Attached::by_another(&does_without(hook)),
        Hook::Auto | Hook::Socket => call_ends::attach(ebpf, btf, types, options),
    };
    for probe in PROBES {
        let status = attach(ebpf, btf, types, probe, hook, options);
        if probe.required
            && let ProbeStatus::Failed(why) = status
        {
            return Err((probe.name, why));
        }
        reports.push(ProbeReport { name: probe.name, purpose: probe.purpose, status });
    }
    reports.extend(ends.reports());
    Ok((reports, ends))
}

fn does_without(hook: Hook) -> String {
    format!("the {hook} hook does without")
}

fn attach(
    ebpf: &mut Ebpf,
    btf: &Btf,
    types: &KernelTypes,
    probe: &Probe,
    hook: Hook,
    options: &KernelOptions,
) -> ProbeStatus {
    if let Some(wanted) = probe.hook
        && wanted != hook
    {
        return ProbeStatus::Skipped(does_without(hook));
    }
    let Some(program) = ebpf.program_mut(probe.name) else {
        return ProbeStatus::Failed("the program is not in the object".into());
    };
    let result = match probe.place {
        Place::Uprobe => match uprobe(program) {
            Ok(()) => return ProbeStatus::Skipped("attached when a Python library is found".into()),
            Err(why) => Err(why),
        },
        Place::Raw if options.seconds == Seconds::Alone && second_of(probe.name).is_some() => {
            return ProbeStatus::Skipped("the second one is tried alone".into());
        }
        Place::Second(_) if !options.seconds.wanted() => {
            return ProbeStatus::Skipped("this kernel does not interrupt programs".into());
        }
        Place::Second(place) => raw(program, place, btf),
        Place::Raw if !types.has_tracepoint(probe.name) => Err("the kernel has no such tracepoint".into()),
        Place::Raw => raw(program, probe.name, btf),
    };
    match result {
        Ok(()) => ProbeStatus::Attached,
        Err(why) => ProbeStatus::Failed(why),
    }
}

/// The program that makes good for runs that the kernel refuses this one.
pub(super) fn second_of(name: &str) -> Option<&'static str> {
    let second = |probe: &&Probe| matches!(probe.place, Place::Second(first) if first == name);
    PROBES.iter().find(second).map(|probe| probe.name)
}

pub(super) fn raw(program: &mut Program, name: &str, btf: &Btf) -> Result<(), String> {
    let program: &mut BtfTracePoint = program.try_into().map_err(reason)?;
    program.load(name, btf).map_err(reason)?;
    program.attach().map(|_| ()).map_err(reason)
}

/// Only loads it, so that a refusal shows at the start and in `check`.
fn uprobe(program: &mut Program) -> Result<(), String> {
    let program: &mut UProbe = program.try_into().map_err(reason)?;
    program.load().map_err(reason)
}

/// Says of the probes that wait for a Python library that they will not be attached.
pub(super) fn withhold(reports: &mut [ProbeReport]) {
    for (probe, report) in PROBES.iter().zip(reports) {
        if matches!(probe.place, Place::Uprobe) {
            report.status = ProbeStatus::Skipped("return probes are not used on this kernel".into());
        }
    }
}

/// Detaches every program. One that is not loaded has nothing to detach.
///
/// Copies of Python contexts are seen to the last: a transfer under a context whose copy was not seen would be taken
/// for one under the context that had its address before.
pub(super) fn detach_all(ebpf: &mut Ebpf, ends: &mut Attached, python: &mut python::Links) -> Closing {
    let ends = ends.close();
    for (name, program) in ebpf.programs_mut() {
        let result = match program {
            Program::BtfTracePoint(p) => p.unload(),
            Program::FExit(p) => p.unload(),
            Program::TracePoint(p) => p.unload(),
            _ => continue,
        };
        match result {
            Ok(()) | Err(ProgramError::NotLoaded) => {}
            Err(error) => tracing::warn!("{name} could not be detached: {error}"),
        }
    }
    ends.and(python.close(ebpf))
}

/// An error with its causes; a verifier log is cut to its end, where the refusal is.
pub(super) fn reason(error: ProgramError) -> String {
    let text = match &error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let tail: Vec<&str> =
                log.lines().rev().take(if cfg!(debug_assertions) { 60 } else { 5 }).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            format!("{io_error}: {}", tail.join("\n"))
        }
        other => other.to_string(),
    };
    with_causes(text, &error)
}

/// What was said of an error, with its causes.
pub(super) fn with_causes(mut text: String, error: &ProgramError) -> String {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
