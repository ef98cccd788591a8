//! The programs at the ends of calls, loaded and attached on this kernel.

use aya::{
    Btf, Ebpf,
    programs::{FExit, Program, ProgramError, TracePoint},
};

use super::{Call, EVERY_CALL, Link, Programs, Single};
use crate::kernel::{btf::KernelTypes, features, probes, tracefs::Tracefs};

/// Before, the kernel does not count the runs that it refuses a program at a tracepoint of perf ("bpf: Count missed stats in
/// trace_call_bpf"), and what is missing would not be told.
const COUNTS_MISSES: (u32, u32) = (6, 7);

pub(super) struct Loader<'a> {
    ebpf: &'a mut Ebpf,
    btf: &'a Btf,
    types: &'a KernelTypes,
    /// Names tracepoints' numbers as long as they are attached, not afterwards.
    tracefs: Option<Tracefs>,
    /// By program.
    links: Vec<(&'static str, Link)>,
}

impl<'a> Loader<'a> {
    pub fn new(ebpf: &'a mut Ebpf, btf: &'a Btf, types: &'a KernelTypes) -> Self {
        Self { ebpf, btf, types, tracefs: None, links: Vec::new() }
    }

    /// What keeps the attached ones at their places.
    pub fn links(self) -> Vec<Link> {
        self.links.into_iter().map(|(_, link)| link).collect()
    }

    fn program<'p, P>(&'p mut self, name: &str) -> Result<&'p mut P, String>
    where
        &'p mut P: TryFrom<&'p mut Program, Error = ProgramError>,
    {
        let program = self.ebpf.program_mut(name).ok_or("the program is not in the object")?;
        program.try_into().map_err(|error: ProgramError| error.to_string())
    }

    fn attached(&mut self, way: Single, call: &Call) -> Result<Link, String> {
        let name = call.program(way);
        Ok(match way {
            Single::Function => {
                let program: &mut FExit = self.program(name)?;
                let link = program.attach().and_then(|id| program.take_link(id));
                Box::new(link.map_err(|error| short(name, error))?)
            }
            Single::Tracepoint => {
                if self.tracefs.is_none() {
                    self.tracefs = Some(Tracefs::ensure().map_err(|error| format!("no tracefs: {error}"))?);
                }
                let program: &mut TracePoint = self.program(name)?;
                let link = program.attach("syscalls", call.tracepoint).and_then(|id| program.take_link(id));
                Box::new(link.map_err(|error| short(name, error))?)
            }
        })
    }
}

impl Programs for Loader<'_> {
    fn lacks(&self, way: Single, call: &Call) -> Option<String> {
        match way {
            Single::Function if self.types.has_function(call.function) => None,
            Single::Function => Some(format!("the kernel's types have no function {}", call.function)),
            Single::Tracepoint if features::running_version().is_some_and(|v| v >= COUNTS_MISSES) => None,
            Single::Tracepoint => Some(
                "kernels before 6.7 do not count what they refuse programs at tracepoints of calls".into(),
            ),
        }
    }

    fn load(&mut self, way: Single, call: &Call) -> Result<(), String> {
        let (name, btf) = (call.program(way), self.btf);
        match way {
            Single::Function => self.program::<FExit>(name)?.load(call.function, btf),
            Single::Tracepoint => self.program::<TracePoint>(name)?.load(),
        }
        .map_err(|error| short(name, error))
    }

    fn attach(&mut self, way: Single, call: &Call) -> Result<(), String> {
        let link = self.attached(way, call)?;
        self.links.push((call.program(way), link));
        Ok(())
    }

    fn unload(&mut self, way: Single, call: &Call) {
        let name = call.program(way);
        self.links.retain(|(program, _)| *program != name);
        let unloaded = match way {
            Single::Function => self.program(name).map(FExit::unload),
            Single::Tracepoint => self.program(name).map(TracePoint::unload),
        };
        match unloaded {
            Ok(Ok(()) | Err(ProgramError::NotLoaded)) => {}
            Ok(Err(error)) => tracing::warn!("{name} could not be detached: {error}"),
            Err(why) => tracing::warn!("{name}: {why}"),
        }
    }

    fn attach_everywhere(&mut self) -> Result<(), String> {
        let program = self.ebpf.program_mut(EVERY_CALL).ok_or("the program is not in the object")?;
        probes::raw(program, "sys_exit", self.btf)
    }
}

/// The kernel's answer alone; what the verifier said besides is for those who work on the programs.
fn short(program: &str, error: ProgramError) -> String {
    let answer = match &error {
        ProgramError::LoadError { io_error, .. } => io_error.to_string(),
        ProgramError::SyscallError(error) => error.io_error.to_string(),
        other => probes::with_causes(other.to_string(), other),
    };
    tracing::debug!("{program} is refused: {}", probes::reason(error));
    answer
}
