//! The ends of single system calls, beside the socket hook: seen at the functions of those calls, which costs other calls
//! nothing, or at the end of every call of the host.

use std::{fmt, thread};

use aya::{
    Btf, Ebpf,
    programs::{FExit, ProgramError, fexit::FExitLink},
};
use ktrdr_ebpf_common::maps::calls;

use super::{
    KernelOptions, ProbeStatus,
    btf::KernelTypes,
    probes::{self, EVERY_CALL},
};

/// Where the ends of single system calls are looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallEnds {
    /// [`CallEnds::Functions`] where the kernel lets programs be put there, else [`CallEnds::Every`].
    #[default]
    Auto,
    /// At the functions of these calls (fexit).
    Functions,
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
    /// At the end of all system calls, and why.
    Every(String),
}

impl fmt::Display for CallsSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CallsSeen::Not => f.write_str("not looked at by themselves"),
            CallsSeen::Functions => f.write_str("seen at their functions, which costs other calls nothing"),
            CallsSeen::Every(why) => {
                write!(f, "seen at the end of all system calls, which costs each some 80 ns: {why}")
            }
        }
    }
}

/// A program at the function of one system call.
struct Function {
    program: &'static str,
    /// The kernel's name of the function, as the machine prefixes it.
    function: &'static str,
    /// Of [`calls`].
    asked: u32,
}

macro_rules! function {
    ($call:literal) => {
        if cfg!(target_arch = "aarch64") {
            concat!("__arm64_sys_", $call)
        } else {
            concat!("__x64_sys_", $call)
        }
    };
}

const FUNCTIONS: [Function; 4] = [
    Function { program: "exit_read", function: function!("read"), asked: calls::READ },
    Function { program: "exit_write", function: function!("write"), asked: calls::WRITE },
    Function { program: "exit_writev", function: function!("writev"), asked: calls::WRITE },
    Function { program: "exit_connect", function: function!("connect"), asked: calls::CONNECT },
];

/// Why those at functions are not there.
const EVERYWHERE: &str = "the end of all system calls is looked at instead";

/// Whether a program looks at the ends of single system calls, in either form.
pub(super) fn is_one(program: &str) -> bool {
    program == EVERY_CALL || FUNCTIONS.iter().any(|one| one.program == program)
}

/// Those that are needed for what is asked.
fn needed(asked: u32) -> impl Iterator<Item = &'static Function> {
    FUNCTIONS.iter().filter(move |one| one.asked & asked != 0)
}

/// Why programs at functions are not tried, if they are not.
fn not_tried(has_function: impl Fn(&str) -> bool, options: &KernelOptions) -> Option<String> {
    if options.call_ends == CallEnds::Every {
        return Some("so the settings want it".into());
    }
    let missing = needed(options.calls()).find(|one| !has_function(one.function))?;
    Some(format!("the kernel's types have no function {}", missing.function))
}

/// Whether programs at functions will be tried, for which they need memory of their own.
pub(super) fn tries_functions(types: &KernelTypes, options: &KernelOptions) -> bool {
    options.calls() != 0 && not_tried(|name| types.has_function(name), options).is_none()
}

/// The programs of the object.
trait Programs {
    /// Asks the verifier.
    fn load(&mut self, one: &Function) -> Result<(), String>;
    /// Puts it behind its function.
    fn attach(&mut self, one: &Function) -> Result<(), String>;
    /// Takes it away, whatever became of it.
    fn unload(&mut self, one: &Function);
    /// Puts the one at the end of all system calls there.
    fn attach_everywhere(&mut self) -> Result<(), String>;
}

/// What became of each program that [`is_one`], and where calls are seen by that.
pub(super) struct Attached {
    pub seen: CallsSeen,
    everywhere: ProbeStatus,
    functions: ProbeStatus,
    asked: u32,
    links: Vec<FExitLink>,
}

impl Attached {
    /// Begins to take programs away from functions, for each of which the kernel waits until all threads have passed the place
    /// where it was (0.1 s). On a thread of its own, as other programs take their time, too; [`Closing::wait`] waits for it.
    pub fn close(&mut self) -> Closing {
        let links = std::mem::take(&mut self.links);
        if links.is_empty() {
            return Closing(None);
        }
        // Where no thread can be had, they are closed here and now.
        Closing(thread::Builder::new().name("detach".into()).spawn(move || drop(links)).ok())
    }

    /// What became of a program.
    pub fn status(&self, program: &str) -> ProbeStatus {
        match FUNCTIONS.iter().find(|one| one.program == program) {
            None => self.everywhere.clone(),
            Some(one) if self.asked != 0 && one.asked & self.asked == 0 => {
                ProbeStatus::Skipped("nobody asks for it".into())
            }
            Some(_) => self.functions.clone(),
        }
    }

    /// With the older hook.
    pub fn by_another(why: &str) -> Self {
        let status = ProbeStatus::Skipped(why.into());
        Attached {
            seen: CallsSeen::Not,
            everywhere: status.clone(),
            functions: status,
            asked: 0,
            links: Vec::new(),
        }
    }
}

/// The end of programs at functions.
pub(super) struct Closing(Option<thread::JoinHandle<()>>);

impl Closing {
    /// They are gone.
    pub fn wait(self) {
        if self.0.is_some_and(|thread| thread.join().is_err()) {
            tracing::warn!("a program at a function was not detached");
        }
    }
}

/// Loads and attaches them in one of the two forms.
///
/// Nobody is watched yet, and nobody speaks: where programs at functions were refused, none of them has told anything.
pub(super) fn attach(ebpf: &mut Ebpf, btf: &Btf, types: &KernelTypes, options: &KernelOptions) -> Attached {
    let mut loader = Loader { ebpf, btf, links: Vec::new() };
    let attached = choose(&mut loader, |name| types.has_function(name), options);
    Attached { links: loader.links.into_iter().map(|(_, link)| link).collect(), ..attached }
}

fn choose(
    programs: &mut impl Programs,
    has_function: impl Fn(&str) -> bool,
    options: &KernelOptions,
) -> Attached {
    let asked = options.calls();
    if asked == 0 {
        return Attached::by_another("switched off");
    }
    let refused = match not_tried(has_function, options) {
        Some(why) => why,
        None => match at_functions(programs, asked) {
            Ok(()) => {
                return Attached {
                    seen: CallsSeen::Functions,
                    everywhere: ProbeStatus::Skipped("programs at single functions do the same".into()),
                    functions: ProbeStatus::Attached,
                    asked,
                    links: Vec::new(),
                };
            }
            Err((function, why)) => format!("the kernel refuses a program at {function} ({why})"),
        },
    };
    if options.call_ends == CallEnds::Functions {
        let everywhere = ProbeStatus::Skipped("so the settings want it".into());
        let functions = ProbeStatus::Failed(refused);
        return Attached { seen: CallsSeen::Not, everywhere, functions, asked, links: Vec::new() };
    }
    let (seen, everywhere) = match programs.attach_everywhere() {
        Ok(()) => (CallsSeen::Every(refused), ProbeStatus::Attached),
        Err(why) => (CallsSeen::Not, ProbeStatus::Failed(why)),
    };
    let functions = ProbeStatus::Skipped(EVERYWHERE.into());
    Attached { seen, everywhere, functions, asked, links: Vec::new() }
}

/// All that are needed, or none: first the verifier is asked about each, as there is nothing to be undone then.
fn at_functions(programs: &mut impl Programs, asked: u32) -> Result<(), (&'static str, String)> {
    let all = |step: &mut dyn FnMut(&Function) -> Result<(), String>| {
        needed(asked).try_for_each(|one| step(one).map_err(|why| (one.function, why)))
    };
    let done = all(&mut |one| programs.load(one)).and_then(|()| all(&mut |one| programs.attach(one)));
    if done.is_err() {
        needed(asked).for_each(|one| programs.unload(one));
    }
    done
}

struct Loader<'a> {
    ebpf: &'a mut Ebpf,
    btf: &'a Btf,
    /// By program.
    links: Vec<(&'static str, FExitLink)>,
}

impl Loader<'_> {
    fn program(&mut self, name: &str) -> Result<&mut FExit, String> {
        let program = self.ebpf.program_mut(name).ok_or("the program is not in the object")?;
        program.try_into().map_err(|error: ProgramError| error.to_string())
    }
}

impl Programs for Loader<'_> {
    fn load(&mut self, one: &Function) -> Result<(), String> {
        let btf = self.btf;
        self.program(one.program)?.load(one.function, btf).map_err(|error| short(one, error))
    }

    fn attach(&mut self, one: &Function) -> Result<(), String> {
        let program = self.program(one.program)?;
        let link =
            program.attach().and_then(|id| program.take_link(id)).map_err(|error| short(one, error))?;
        self.links.push((one.program, link));
        Ok(())
    }

    fn unload(&mut self, one: &Function) {
        self.links.retain(|(program, _)| *program != one.program);
        match self.program(one.program).map(FExit::unload) {
            Ok(Ok(()) | Err(ProgramError::NotLoaded)) => {}
            Ok(Err(error)) => tracing::warn!("{} could not be detached: {error}", one.program),
            Err(why) => tracing::warn!("{}: {why}", one.program),
        }
    }

    fn attach_everywhere(&mut self) -> Result<(), String> {
        let program = self.ebpf.program_mut(EVERY_CALL).ok_or("the program is not in the object")?;
        probes::raw(program, "sys_exit", self.btf)
    }
}

/// The kernel's answer alone; what the verifier said besides is for those who work on the programs.
fn short(one: &Function, error: ProgramError) -> String {
    let answer = match &error {
        ProgramError::LoadError { io_error, .. } => io_error.to_string(),
        ProgramError::SyscallError(error) => error.io_error.to_string(),
        other => other.to_string(),
    };
    tracing::debug!("{} is refused: {}", one.program, probes::reason(error));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that refuses one step.
    #[derive(Default)]
    struct Fake {
        refuses_load: Option<&'static str>,
        refuses_attach: Option<&'static str>,
        refuses_everywhere: bool,
        loaded: Vec<&'static str>,
        attached: Vec<&'static str>,
    }

    impl Programs for Fake {
        fn load(&mut self, one: &Function) -> Result<(), String> {
            assert!(self.attached.is_empty(), "the verifier is asked first");
            if self.refuses_load == Some(one.program) {
                return Err("EINVAL".into());
            }
            self.loaded.push(one.program);
            Ok(())
        }

        fn attach(&mut self, one: &Function) -> Result<(), String> {
            assert!(self.loaded.contains(&one.program));
            if self.refuses_attach == Some(one.program) {
                return Err("ENOTSUPP".into());
            }
            self.attached.push(one.program);
            Ok(())
        }

        fn unload(&mut self, one: &Function) {
            self.loaded.retain(|name| *name != one.program);
            self.attached.retain(|name| *name != one.program);
        }

        fn attach_everywhere(&mut self) -> Result<(), String> {
            assert!(self.attached.is_empty() && self.loaded.is_empty(), "nothing is told twice");
            if self.refuses_everywhere {
                return Err("EPERM".into());
            }
            self.attached.push(EVERY_CALL);
            Ok(())
        }
    }

    const ALL: [&str; 4] = ["exit_read", "exit_write", "exit_writev", "exit_connect"];

    fn of(call_ends: CallEnds) -> KernelOptions {
        KernelOptions { call_ends, ..KernelOptions::default() }
    }

    fn is_skipped(status: &ProbeStatus, why: &str) -> bool {
        matches!(status, ProbeStatus::Skipped(said) if said.contains(why))
    }

    #[test]
    fn functions_where_the_kernel_takes_all_of_them() {
        for way in [CallEnds::Auto, CallEnds::Functions] {
            let mut kernel = Fake::default();
            let attached = choose(&mut kernel, |_| true, &of(way));
            assert_eq!(attached.seen, CallsSeen::Functions);
            assert_eq!(kernel.attached, ALL);
            assert!(ALL.iter().all(|name| attached.status(name) == ProbeStatus::Attached));
            assert!(is_skipped(&attached.status(EVERY_CALL), "do the same"));
        }
    }

    #[test]
    fn only_what_is_asked_for() {
        let some = KernelOptions { connect_errors: false, stdio: false, ..of(CallEnds::Auto) };
        let mut kernel = Fake::default();
        let attached = choose(&mut kernel, |name| !name.ends_with("_read"), &some);
        assert_eq!(kernel.attached, ["exit_write", "exit_writev"]);
        assert_eq!(attached.status("exit_write"), ProbeStatus::Attached);
        assert!(is_skipped(&attached.status("exit_connect"), "nobody asks"));

        let none = KernelOptions { logs: false, ..some };
        let mut kernel = Fake::default();
        let attached = choose(&mut kernel, |_| true, &none);
        assert_eq!((attached.seen.clone(), kernel.loaded.len()), (CallsSeen::Not, 0));
        let off = |name: &str| is_skipped(&attached.status(name), "switched off");
        assert!(ALL.iter().all(|name| off(name)) && off(EVERY_CALL));
    }

    #[test]
    fn one_refusal_and_all_go_again() {
        for name in ALL {
            for load in [true, false] {
                let mut kernel = Fake::default();
                *if load { &mut kernel.refuses_load } else { &mut kernel.refuses_attach } = Some(name);
                let attached = choose(&mut kernel, |_| true, &of(CallEnds::Auto));
                assert_eq!(kernel.attached, [EVERY_CALL]);
                let CallsSeen::Every(why) = &attached.seen else { panic!("{:?}", attached.seen) };
                let call = name.trim_start_matches("exit_");
                assert!(why.contains(&format!("_sys_{call} ({}", if load { "EINVAL" } else { "ENOTSUPP" })));
                assert_eq!(attached.status(EVERY_CALL), ProbeStatus::Attached);
                assert!(ALL.iter().all(|name| is_skipped(&attached.status(name), "instead")));
            }
        }
    }

    #[test]
    fn a_function_that_is_not_there_is_not_tried() {
        let mut kernel = Fake::default();
        let attached = choose(&mut kernel, |name| !name.ends_with("writev"), &of(CallEnds::Auto));
        assert_eq!(kernel.attached, [EVERY_CALL]);
        assert!(matches!(attached.seen, CallsSeen::Every(why) if why.contains("_sys_writev")));
    }

    #[test]
    fn what_is_forced_has_no_other_way() {
        let mut kernel = Fake { refuses_attach: Some("exit_write"), ..Fake::default() };
        let attached = choose(&mut kernel, |_| true, &of(CallEnds::Functions));
        assert_eq!((attached.seen.clone(), kernel.attached.len()), (CallsSeen::Not, 0));
        assert!(
            matches!(attached.status("exit_write"), ProbeStatus::Failed(why) if why.contains("ENOTSUPP"))
        );

        let mut kernel = Fake::default();
        let attached = choose(&mut kernel, |_| true, &of(CallEnds::Every));
        assert_eq!(kernel.attached, [EVERY_CALL]);
        assert!(matches!(attached.seen, CallsSeen::Every(why) if why.contains("settings")));
    }

    #[test]
    fn neither_way() {
        let mut kernel =
            Fake { refuses_load: Some("exit_read"), refuses_everywhere: true, ..Fake::default() };
        let attached = choose(&mut kernel, |_| true, &of(CallEnds::Auto));
        assert_eq!(attached.seen, CallsSeen::Not);
        assert_eq!(attached.status(EVERY_CALL), ProbeStatus::Failed("EPERM".into()));
    }
}
