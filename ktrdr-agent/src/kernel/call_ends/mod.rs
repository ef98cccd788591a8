//! The ends of single system calls, beside the socket hook: seen at the functions of those calls, which costs other calls
//! nothing, at their tracepoints, which costs others a little, or at the end of every call of the host.

mod loader;
#[cfg(test)]
mod tests;

use std::fmt;

use aya::{Btf, Ebpf};
use ktrdr_ebpf_common::maps::calls;

use super::{
    KernelOptions, ProbeReport, ProbeStatus,
    btf::KernelTypes,
    closing::{Closing, Link},
};
use loader::Loader;

/// The program at the end of all system calls.
const EVERY_CALL: &str = "sys_exit_calls";

/// Where the ends of single system calls are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallEnds {
    /// The first of the following that the kernel allows.
    #[default]
    Auto,
    /// At the functions of these calls (fexit).
    Functions,
    /// At the tracepoints of these calls, which are events of perf.
    Tracepoints,
    /// At the end of all system calls, with the raw tracepoint `sys_exit`.
    Every,
}

/// Where they are looked at on this kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallsSeen {
    /// Nowhere by themselves: nobody asked, it was refused, or the older hook's program sees them.
    Not,
    /// At the functions of these calls.
    Functions,
    /// At their tracepoints, and why.
    Tracepoints(String),
    /// At the end of all system calls, and why.
    Every(String),
}

impl fmt::Display for CallsSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallsSeen::Not => f.write_str("not looked at by themselves"),
            CallsSeen::Functions => f.write_str("seen at their functions, which costs other calls nothing"),
            CallsSeen::Tracepoints(why) => {
                write!(
                    f,
                    "seen at their tracepoints; nothing is lost by that, it costs each other call some 60 ns ({why})"
                )
            }
            CallsSeen::Every(why) => {
                write!(
                    f,
                    "seen at the end of all system calls; nothing is lost by that, it costs each some 150 ns ({why})"
                )
            }
        }
    }
}

/// A way to look at a single call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Single {
    Function,
    Tracepoint,
}

impl Single {
    /// The cheaper one first.
    const ALL: [Single; 2] = [Single::Function, Single::Tracepoint];

    /// What the settings call it.
    fn ends(self) -> CallEnds {
        match self {
            Single::Function => CallEnds::Functions,
            Single::Tracepoint => CallEnds::Tracepoints,
        }
    }
}

/// A system call, and a program for each [`Single`].
struct Call {
    /// The kernel's name of its function, as the machine prefixes it.
    function: &'static str,
    /// Of the category `syscalls`.
    tracepoint: &'static str,
    programs: [&'static str; 2],
    /// What they tell the agent.
    purpose: &'static str,
    /// Of [`calls`].
    asked: u32,
}

macro_rules! call {
    ($call:literal, $asked:expr, $purpose:literal) => {
        Call {
            function: if cfg!(target_arch = "aarch64") {
                concat!("__arm64_sys_", $call)
            } else {
                concat!("__x64_sys_", $call)
            },
            tracepoint: concat!("sys_exit_", $call),
            programs: [concat!("exit_", $call), concat!("point_", $call)],
            purpose: $purpose,
            asked: $asked,
        }
    };
}

const CALLS: [Call; 4] = [
    call!("read", calls::READ, "requests on standard input"),
    call!("write", calls::WRITE, "log lines"),
    call!("writev", calls::WRITE, "log lines written in parts"),
    call!("connect", calls::CONNECT, "connects that failed before a packet left"),
];

impl Call {
    fn program(&self, way: Single) -> &'static str {
        let [function, tracepoint] = self.programs;
        match way {
            Single::Function => function,
            Single::Tracepoint => tracepoint,
        }
    }

    fn place(&self, way: Single) -> &'static str {
        match way {
            Single::Function => self.function,
            Single::Tracepoint => self.tracepoint,
        }
    }

    fn is_asked(&self, asked: u32) -> bool {
        self.asked & asked != 0
    }
}

/// Whether a program looks at the ends of single system calls, in any form.
pub(super) fn is_one(program: &str) -> bool {
    program == EVERY_CALL || CALLS.iter().any(|call| call.programs.contains(&program))
}

/// Those that are needed for what is asked.
fn needed(asked: u32) -> impl Iterator<Item = &'static Call> {
    CALLS.iter().filter(move |call| call.is_asked(asked))
}

/// Whether programs at functions may be tried, for which they need memory of their own.
pub(super) fn tries_functions(types: &KernelTypes, options: &KernelOptions) -> bool {
    let wanted = matches!(options.call_ends, CallEnds::Auto | CallEnds::Functions);
    wanted && options.calls() != 0 && needed(options.calls()).all(|call| types.has_function(call.function))
}

/// The programs of the object.
trait Programs {
    /// Why this is not worth a trial.
    fn lacks(&self, way: Single, call: &Call) -> Option<String>;
    /// Asks the verifier.
    fn load(&mut self, way: Single, call: &Call) -> Result<(), String>;
    /// Puts it where the call ends.
    fn attach(&mut self, way: Single, call: &Call) -> Result<(), String>;
    /// Takes it away, whatever became of it.
    fn unload(&mut self, way: Single, call: &Call);
    /// Puts the one at the end of all system calls there.
    fn attach_everywhere(&mut self) -> Result<(), String>;
}

/// What became of each program that [`is_one`], and where calls are seen by that.
pub(super) struct Attached {
    pub seen: CallsSeen,
    everywhere: ProbeStatus,
    /// In the order of [`Single::ALL`].
    single: [ProbeStatus; 2],
    asked: u32,
    links: Vec<Link>,
}

impl Attached {
    /// Begins to take programs away from single calls.
    pub fn close(&mut self) -> Closing {
        Closing::begin(std::mem::take(&mut self.links))
    }

    /// What became of each of them.
    pub fn reports(&self) -> impl Iterator<Item = ProbeReport> {
        let report = |name, purpose| ProbeReport { name, purpose, status: self.status(name) };
        let single = Single::ALL
            .into_iter()
            .flat_map(move |way| CALLS.iter().map(move |call| report(call.program(way), call.purpose)));
        single.chain([report(EVERY_CALL, "the same of all of these calls")])
    }

    /// What became of a program.
    fn status(&self, program: &str) -> ProbeStatus {
        for call in &CALLS {
            for (name, status) in call.programs.iter().zip(&self.single) {
                if *name == program {
                    return match self.asked != 0 && !call.is_asked(self.asked) {
                        true => ProbeStatus::Skipped("nobody asks for it".into()),
                        false => status.clone(),
                    };
                }
            }
        }
        self.everywhere.clone()
    }

    /// With the older hook.
    pub fn by_another(why: &str) -> Self {
        let status = ProbeStatus::Skipped(why.into());
        let single = [status.clone(), status.clone()];
        Attached { seen: CallsSeen::Not, everywhere: status, single, asked: 0, links: Vec::new() }
    }
}

/// Loads and attaches them in one of the forms.
///
/// Nobody is watched yet, and nobody speaks: where programs at single calls were refused, none of them has told anything.
pub(super) fn attach(ebpf: &mut Ebpf, btf: &Btf, types: &KernelTypes, options: &KernelOptions) -> Attached {
    let mut loader = Loader::new(ebpf, btf, types);
    let attached = choose(&mut loader, options);
    Attached { links: loader.links(), ..attached }
}

/// Why it is another form that is there.
const BY_ANOTHER: &str = "programs elsewhere do the same";

fn choose(programs: &mut impl Programs, options: &KernelOptions) -> Attached {
    let asked = options.calls();
    if asked == 0 {
        return Attached::by_another("switched off");
    }
    let mut attached = Attached { asked, ..Attached::by_another(BY_ANOTHER) };
    let mut refusals: Vec<String> = Vec::new();
    for (way, status) in Single::ALL.into_iter().zip(&mut attached.single) {
        match at_calls(programs, way, asked, options.call_ends) {
            Ok(()) => {
                *status = ProbeStatus::Attached;
                attached.seen = match way {
                    Single::Function => CallsSeen::Functions,
                    Single::Tracepoint => CallsSeen::Tracepoints(refusals.join("; ")),
                };
                return attached;
            }
            Err(why) if options.call_ends == way.ends() => {
                *status = ProbeStatus::Failed(why);
                return attached;
            }
            Err(why) if refusals.contains(&why) => {}
            Err(why) => refusals.push(why),
        }
    }
    match programs.attach_everywhere() {
        Ok(()) => {
            attached.seen = CallsSeen::Every(refusals.join("; "));
            attached.everywhere = ProbeStatus::Attached;
        }
        Err(why) => attached.everywhere = ProbeStatus::Failed(why),
    }
    attached
}

/// All that are needed, or none: first the verifier is asked about each, as there is nothing to be undone then.
fn at_calls(programs: &mut impl Programs, way: Single, asked: u32, wanted: CallEnds) -> Result<(), String> {
    if wanted != CallEnds::Auto && wanted != way.ends() {
        return Err("so the settings want it".into());
    }
    if let Some(why) = needed(asked).find_map(|call| programs.lacks(way, call)) {
        return Err(why);
    }
    let all = |step: &mut dyn FnMut(&Call) -> Result<(), String>| {
        let refused =
            |call: &Call, why| format!("the kernel refuses a program at {} ({why})", call.place(way));
        needed(asked).try_for_each(|call| step(call).map_err(|why| refused(call, why)))
    };
    let done =
        all(&mut |call| programs.load(way, call)).and_then(|()| all(&mut |call| programs.attach(way, call)));
    if done.is_err() {
        needed(asked).for_each(|call| programs.unload(way, call));
    }
    done
}
