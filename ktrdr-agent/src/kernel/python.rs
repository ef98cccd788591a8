//! The Python probes: which of their forms the kernel has, where they are attached, and what the programs are told of threads.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeLinkId, UProbeScope},
    },
};
use ktrdr_ebpf_common::maps::{self, PyProcess, PyThread};

use super::{
    Kernel, KernelError, ProbeStatus, ReturnProbes,
    closing::{self, Closing},
    features, map_error,
    multi::{Kind, Multi, Relocated},
    object, probes,
};
use crate::privileges::{self, Capability};

/// The program that sees copies of Python contexts at the function's return.
const PY_COPY: &str = "py_context_copy_ret";
/// The program that sees them at its entry, where it can.
const PY_COPY_SESSION: &str = "py_context_copy";
/// The program that sees what pools of threads are given.
const PY_SUBMIT: &str = "py_pool_submit";
/// The program that sees what their threads take.
const PY_TAKE: &str = "py_pool_take";

/// The program that sees what a loop is given that it sends later.
const PY_WRITE: &str = "py_stream_write";

/// Where the Python probes are attached, by numbers that are not used again.
#[derive(Default)]
pub(super) struct Links {
    attached: BTreeMap<u64, Vec<Link>>,
    next: u64,
}

enum Link {
    /// Ends when it is closed.
    Multi(OwnedFd),
    /// Of the program of this name. Ends with it, or when that is told.
    Event(&'static str, UProbeLinkId),
}

impl Link {
    /// What ends it when it is dropped.
    fn owned(self, ebpf: &mut Ebpf) -> Option<closing::Link> {
        Some(match self {
            Link::Multi(link) => Box::new(link),
            Link::Event(name, event) => {
                let program: &mut UProbe = ebpf.program_mut(name)?.try_into().ok()?;
                let link = program.take_link(event);
                Box::new(link.inspect_err(|error| tracing::debug!("{name} is not attached: {error}")).ok()?)
            }
        })
    }
}

impl Links {
    fn add(&mut self, links: Vec<Link>) -> u64 {
        self.next += 1;
        self.attached.insert(self.next, links);
        self.next
    }

    /// Begins to end all of them.
    pub fn close(&mut self, ebpf: &mut Ebpf) -> Closing {
        let links = std::mem::take(&mut self.attached).into_values().flatten();
        Closing::begin(links.filter_map(|link| link.owned(ebpf)).collect())
    }
}

impl Kernel {
    /// Whether Python processes that start later get their probe only if this one keeps CAP_SYS_ADMIN.
    pub fn later_probes_need_admin(&self) -> bool {
        !self.multis.0.contains_key(PY_COPY)
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
        let links = self.attach(PY_COPY, path, &[offset])?;
        Ok(self.python.add(links))
    }

    /// Attaches the probes of `SimpleQueue`, whose `put`, `get` and `get_nowait` are at these offsets of a library or
    /// executable; ends in the same way.
    ///
    /// # Errors
    /// The file or an offset was refused.
    pub fn attach_py_pool(&mut self, path: &Path, put: u64, gets: [u64; 2]) -> Result<u64, KernelError> {
        // What is taken first: an item whose submission is told is told again when a thread has it.
        let mut links = self.attach(PY_TAKE, path, &gets)?;
        match self.attach(PY_SUBMIT, path, &[put]) {
            Ok(more) => links.extend(more),
            Err(error) => {
                self.end(links);
                return Err(error);
            }
        }
        Ok(self.python.add(links))
    }

    /// Attaches the probe of uvloop's streams, whose `write` and `writelines` are at these offsets of a library; ends in the
    /// same way.
    ///
    /// # Errors
    /// The file or an offset was refused.
    pub fn attach_py_stream(&mut self, path: &Path, writes: [u64; 2]) -> Result<u64, KernelError> {
        let links = self.attach(PY_WRITE, path, &writes)?;
        Ok(self.python.add(links))
    }

    /// Ends what was attached under this number.
    pub fn detach_py(&mut self, number: u64) {
        let links = self.python.attached.remove(&number);
        self.end(links.unwrap_or_default());
    }

    /// Attaches one of the Python probes to functions of a file. The only place that does, and it asks first whether that
    /// harms anybody.
    fn attach(&mut self, name: &'static str, path: &Path, offsets: &[u64]) -> Result<Vec<Link>, KernelError> {
        if let ReturnProbes::Refused(why) = &self.returns {
            return Err(KernelError::Return(why.clone()));
        }
        let failed = |error| KernelError::Probe { name, reason: probes::reason(error) };
        let program = self.ebpf.program_mut(name).ok_or(KernelError::MissingMap(name))?;
        let program: &mut UProbe = program.try_into().map_err(failed)?;
        if program.fd().is_err() {
            program.load().map_err(failed)?;
        }
        // From 6.6 on the other way: it needs no root, and the kernel makes no event of perf on the way to the program.
        let (mut links, refused) = match self.multis.0.get(name).map(|multi| multi.attach(path, offsets)) {
            Some(Ok(link)) => (vec![Link::Multi(link)], None),
            Some(Err(error)) => (Vec::new(), Some(error)),
            None => (Vec::new(), None),
        };
        if links.is_empty() {
            for offset in offsets {
                let place = UProbeAttachLocation::AbsoluteOffset(*offset);
                match program.attach(place, path, UProbeScope::AllProcesses) {
                    Ok(link) => links.push(Link::Event(name, link)),
                    Err(error) => {
                        self.end(links);
                        return Err(KernelError::Probe { name, reason: both(refused, error) });
                    }
                }
            }
        }
        if let Some(report) = self.probes.iter_mut().find(|report| report.name == name) {
            report.status = ProbeStatus::Attached;
        }
        Ok(links)
    }

    fn end(&mut self, links: Vec<Link>) {
        let links = links.into_iter().filter_map(|link| link.owned(&mut self.ebpf));
        Closing::begin(links.collect()).wait();
    }
}

/// The cheaper forms of the Python probes, by the names of those that they stand for. None before 6.6.
pub(super) struct Multis(BTreeMap<&'static str, Multi>);

impl Multis {
    /// Loads them.
    pub fn load(ebpf: &Ebpf) -> Multis {
        /// The cheapest first.
        const FORMS: [(&str, &[(&str, Kind)]); 4] = [
            (PY_COPY, &[(PY_COPY_SESSION, Kind::Session), (PY_COPY, Kind::Return)]),
            (PY_SUBMIT, &[(PY_SUBMIT, Kind::Entry)]),
            (PY_TAKE, &[(PY_TAKE, Kind::Return)]),
            (PY_WRITE, &[(PY_WRITE, Kind::Entry)]),
        ];
        let object = match Relocated::new(object::OBJECT, ebpf) {
            Ok(object) => object,
            Err(error) => {
                tracing::debug!("no multi links: {error}");
                return Multis(BTreeMap::new());
            }
        };
        let load = |&(name, kind): &(&'static str, Kind)| {
            Multi::load(&object, name, kind)
                .inspect_err(|error| tracing::debug!("no multi link ({name}, {kind:?}): {error}"))
                .ok()
        };
        let forms = FORMS.into_iter();
        Multis(forms.filter_map(|(name, forms)| Some((name, forms.iter().find_map(load)?))).collect())
    }

    /// The programs, with their names.
    pub fn programs(&self) -> impl Iterator<Item = (&'static str, BorrowedFd<'_>)> {
        self.0.values().map(Multi::program)
    }
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
