//! The Python probe: which of its forms the kernel has, where it is attached, and what the programs are told of threads.

use std::{collections::BTreeMap, io, os::fd::OwnedFd, path::Path};

use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeLinkId, UProbeScope},
    },
};
use ktrdr_ebpf_common::maps::{self, PyProcess, PyThread};

use super::{
    Kernel, KernelError, ProbeStatus, features, map_error,
    multi::{self, Multi},
    object, probes,
};
use crate::privileges::{self, Capability};

/// The program that sees copies of Python contexts at the function's return.
const PY_COPY: &str = "py_context_copy_ret";
/// The program that sees them at its entry, where it can.
const PY_COPY_SESSION: &str = "py_context_copy";

/// Where the Python probe is attached, by numbers that are not used again.
#[derive(Default)]
pub(super) struct Links {
    attached: BTreeMap<u64, Link>,
    next: u64,
}

enum Link {
    /// Ends when it is closed.
    Multi(#[expect(dead_code, reason = "held")] OwnedFd),
    /// Ends with its program, or when that is told.
    Event(UProbeLinkId),
}

impl Links {
    fn add(&mut self, link: Link) -> u64 {
        self.next += 1;
        self.attached.insert(self.next, link);
        self.next
    }
}

impl Kernel {
    /// Whether Python processes that start later get their probe only if this one keeps CAP_SYS_ADMIN.
    pub fn later_probes_need_admin(&self) -> bool {
        self.multi.is_none()
    }

    /// Tells where a Python thread keeps its current context.
    ///
    /// # Errors
    /// The map is full.
    pub fn set_py_thread(&mut self, tid: u32, thread: PyThread) -> Result<(), KernelError> {
        self.controls.set_py_thread(tid, thread).map_err(map_error(maps::PY_THREADS))
    }

    /// Tells where all threads of a Python process find their own current context. Ends with the process or its next
    /// exec, and forked children inherit it.
    ///
    /// # Errors
    /// The map is full.
    pub fn set_py_process(&mut self, process: PyProcess) -> Result<(), KernelError> {
        self.controls.set_py_process(process).map_err(map_error(maps::PY_PROCESSES))
    }

    /// Forgets a Python thread.
    ///
    /// # Errors
    /// The map cannot be changed.
    pub fn remove_py_thread(&mut self, tid: u32) -> Result<(), KernelError> {
        self.controls.remove_py_thread(tid).map_err(map_error(maps::PY_THREADS))
    }

    /// Attaches the Python probe, in the cheapest form that the kernel has, to `PyContext_CopyCurrent`, which is at this
    /// offset of a library or executable. All processes that map the file are observed, until [`Self::detach_py`] is given
    /// the number that this returns.
    ///
    /// # Errors
    /// The file or the offset was refused.
    pub fn attach_py_copy(&mut self, path: &Path, offset: u64) -> Result<u64, KernelError> {
        let failed = |error| KernelError::Probe { name: PY_COPY, reason: probes::reason(error) };
        let program = self.ebpf.program_mut(PY_COPY).ok_or(KernelError::MissingMap(PY_COPY))?;
        let program: &mut UProbe = program.try_into().map_err(failed)?;
        if program.fd().is_err() {
            program.load().map_err(failed)?;
        }
        // From 6.6 on the other way: it needs no root, and the kernel makes no event of perf on the way to the program.
        let link = match self.multi.as_ref().map(|multi| multi.attach(path, offset)) {
            Some(Ok(link)) => Link::Multi(link),
            multi => {
                let scope = UProbeScope::AllProcesses;
                let event = program.attach(UProbeAttachLocation::AbsoluteOffset(offset), path, scope);
                let multi = multi.and_then(Result::err);
                Link::Event(
                    event
                        .map_err(|error| KernelError::Probe { name: PY_COPY, reason: both(multi, error) })?,
                )
            }
        };
        if let Some(report) = self.probes.iter_mut().find(|report| report.name == PY_COPY) {
            report.status = ProbeStatus::Attached;
        }
        Ok(self.python.add(link))
    }

    /// Ends what was attached under this number.
    pub fn detach_py(&mut self, number: u64) {
        let Some(Link::Event(event)) = self.python.attached.remove(&number) else { return };
        let program: Option<&mut UProbe> = self.ebpf.program_mut(PY_COPY).and_then(|p| p.try_into().ok());
        if let Some(program) = program
            && let Err(error) = program.detach(event)
        {
            tracing::debug!("a Python probe was not detached: {error}");
        }
    }
}

/// The cheaper forms of the Python probe, the cheapest first.
pub(super) fn probe(ebpf: &Ebpf) -> Option<Multi> {
    let forms = [(PY_COPY_SESSION, multi::Kind::Session), (PY_COPY, multi::Kind::Return)];
    forms.into_iter().find_map(|(name, kind)| {
        Multi::load(object::OBJECT, name, kind, ebpf)
            .inspect_err(|error| tracing::debug!("no multi link ({kind:?}): {error}"))
            .ok()
    })
}

/// Why neither way worked, or the only one that was tried; and what helps, where that is known.
fn both(multi: Option<io::Error>, error: ProgramError) -> String {
    let admin = privileges::held().contains(&Capability::CAP_SYS_ADMIN);
    match multi {
        Some(first) => format!("as a multi link: {first}; and {}", probes::reason(error)),
        None if !admin => format!("{} ({})", probes::reason(error), features::PROBES_TAKE_ADMIN),
        _ => probes::reason(error),
    }
}
