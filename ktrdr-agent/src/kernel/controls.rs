//! The maps through which the agent steers the programs and reads their counters.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
};
use ktrdr_ebpf_common::{
    Counter,
    counters::COUNTERS,
    maps::{self, FileId, OfProcess, PyContexts, PyProcess, PyThread, Speaker, Watch, used},
};

use super::{KernelError, by_process::ByProcess, policies::Policies};

/// Values of all counters, indexed by [`ktrdr_ebpf_common::Counter`], summed over the CPUs.
pub type CounterValues = [u64; COUNTERS as usize];

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodPyThread(PyThread);
// SAFETY: plain numbers without padding (zerocopy's `IntoBytes` holds for `PyThread`).
unsafe impl Pod for PodPyThread {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodPyProcess(PyProcess);
// SAFETY: plain numbers without padding (zerocopy's `IntoBytes` holds for `PyProcess`).
unsafe impl Pod for PodPyProcess {}

impl OfProcess for PodPyProcess {
    fn tgid(&self) -> u32 {
        self.0.tgid()
    }

    fn nobodys(self) -> Self {
        Self(self.0.nobodys())
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodWatch(Watch);
// SAFETY: plain numbers without padding (zerocopy's `IntoBytes` holds for `Watch`).
unsafe impl Pod for PodWatch {}

impl OfProcess for PodWatch {
    fn tgid(&self) -> u32 {
        self.0.tgid()
    }

    fn nobodys(self) -> Self {
        Self(self.0.nobodys())
    }
}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodFileId(FileId);
// SAFETY: plain numbers without padding (zerocopy's `IntoBytes` holds for `FileId`).
unsafe impl Pod for PodFileId {}

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodSpeaker(Speaker);
// SAFETY: plain numbers without padding (zerocopy's `IntoBytes` holds for `Speaker`).
unsafe impl Pod for PodSpeaker {}

/// The control maps.
pub(super) struct Controls {
    counters: PerCpuArray<MapData, CounterValues>,
    policies: Policies,
    used: Array<MapData, u32>,
    /// What was said in `used`.
    said: [bool; used::PLACES as usize],
    excluded: HashMap<MapData, u32, u32>,
    left_out: Array<MapData, u32>,
    py_threads: HashMap<MapData, u32, PodPyThread>,
    py_processes: ByProcess<PodPyProcess>,
    watched: ByProcess<PodWatch>,
    files: HashMap<MapData, PodFileId, u32>,
    speakers: HashMap<MapData, u32, PodSpeaker>,
}

impl Controls {
    pub fn take(ebpf: &mut Ebpf) -> Result<Controls, KernelError> {
        Ok(Controls {
            counters: take(ebpf, maps::COUNTERS)?,
            policies: Policies::take(ebpf)?,
            used: take(ebpf, maps::USED)?,
            said: Default::default(),
            excluded: take(ebpf, maps::EXCLUDED)?,
            left_out: take(ebpf, maps::LEFT_OUT)?,
            py_threads: take(ebpf, maps::PY_THREADS)?,
            py_processes: ByProcess::take(
                ebpf,
                maps::PY_PROCESSES,
                maps::PY_PROCESSES_BESIDE,
                maps::PY_BESIDE,
            )?,
            watched: ByProcess::take(ebpf, maps::WATCHED, maps::WATCHED_BESIDE, maps::BESIDE)?,
            files: take(ebpf, maps::FILES)?,
            speakers: take(ebpf, maps::SPEAKERS)?,
        })
    }

    pub fn counters(&self) -> Result<CounterValues, MapError> {
        let mut sum = [0; COUNTERS as usize];
        for cpu in self.counters.get(&0, 0)?.iter() {
            for (total, value) in sum.iter_mut().zip(cpu) {
                *total += value;
            }
        }
        Counter::complete(&mut sum);
        Ok(sum)
    }

    pub fn policies(&mut self) -> &mut Policies {
        &mut self.policies
    }

    /// The programs are to look into a map from now on. Before its first entry: that one must not be passed over.
    fn uses(&mut self, place: u32) -> Result<(), MapError> {
        match self.said.get_mut(place as usize) {
            Some(said) if !*said => {
                self.used.set(place, 1, 0)?;
                *said = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn uses_writes(&mut self, contexts: PyContexts) -> Result<(), MapError> {
        if contexts.writes != PyContexts::AT_ONCE {
            self.uses(used::PY_WRITES)?;
        }
        Ok(())
    }

    pub fn exclude(&mut self, tgid: u32) -> Result<(), MapError> {
        self.uses(used::EXCLUDED)?;
        self.excluded.insert(tgid, 1, 0)
    }

    pub fn include(&mut self, tgid: u32) -> Result<(), MapError> {
        absent_is_fine(self.excluded.remove(&tgid))
    }

    pub fn leave_out(&mut self, port: u16, share: u32) -> Result<(), MapError> {
        if share != 0 {
            self.uses(used::LEFT_OUT)?;
        }
        self.left_out.set(port.into(), share, 0)
    }

    pub fn set_py_thread(&mut self, tid: u32, thread: PyThread) -> Result<(), MapError> {
        self.uses(used::PY_THREADS)?;
        self.uses_writes(thread.contexts)?;
        self.py_threads.insert(tid, PodPyThread(thread), 0)
    }

    pub fn set_py_process(&mut self, process: PyProcess) -> Result<(), MapError> {
        self.uses(used::PY_PROCESSES)?;
        self.uses_writes(process.contexts)?;
        self.py_processes.set(PodPyProcess(process))
    }

    pub fn watch(&mut self, watch: Watch) -> Result<(), MapError> {
        self.watched.set(PodWatch(watch))
    }

    pub fn unwatch(&mut self, tgid: u32) -> Result<(), MapError> {
        self.watched.remove(tgid, PodWatch(Watch::new(0, 0, 0)))
    }

    pub fn speaks_not(&mut self, tgid: u32) -> Result<(), MapError> {
        absent_is_fine(self.speakers.remove(&tgid))
    }

    pub fn set_file(&mut self, file: FileId, log: bool) -> Result<(), MapError> {
        self.files.insert(PodFileId(file), u32::from(log), 0)
    }

    pub fn remove_py_thread(&mut self, tid: u32) -> Result<(), MapError> {
        absent_is_fine(self.py_threads.remove(&tid))
    }
}

/// Takes a map out of the loaded object.
pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, KernelError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(KernelError::MissingMap(name))?;
    M::try_from(map).map_err(|source| KernelError::Map { name, source: Box::new(source) })
}

/// To remove what is not there is no error.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
