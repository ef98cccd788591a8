//! The maps through which the agent steers the programs and reads their counters.

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
};
use ktrdr_ebpf_common::{
    Counter,
    counters::COUNTERS,
    maps::{self, FileId, PyProcess, PyThread, Speaker, Watch, place_of, used},
};

use super::{KernelError, policies::Policies};

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

#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodWatch(Watch);
// SAFETY: plain numbers without padding (zerocopy's `IntoBytes` holds for `Watch`).
unsafe impl Pod for PodWatch {}

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
    py_processes: Array<MapData, PodPyProcess>,
    py_processes_beside: HashMap<MapData, u32, PodPyProcess>,
    py_beside: Array<MapData, u32>,
    watched: Array<MapData, PodWatch>,
    watched_beside: HashMap<MapData, u32, PodWatch>,
    beside: Array<MapData, u32>,
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
            py_processes: take(ebpf, maps::PY_PROCESSES)?,
            py_processes_beside: take(ebpf, maps::PY_PROCESSES_BESIDE)?,
            py_beside: take(ebpf, maps::PY_BESIDE)?,
            watched: take(ebpf, maps::WATCHED)?,
            watched_beside: take(ebpf, maps::WATCHED_BESIDE)?,
            beside: take(ebpf, maps::BESIDE)?,
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
        self.py_threads.insert(tid, PodPyThread(thread), 0)
    }

    pub fn set_py_process(&mut self, process: PyProcess) -> Result<(), MapError> {
        self.uses(used::PY_PROCESSES)?;
        let place = place_of(process.tgid);
        let holder = self.py_processes.get(&place, 0)?.0.tgid;
        if holder != 0 && holder != process.tgid {
            // Said before the entry is there, or the process could pass it by.
            self.py_beside.set(place, 1, 0)?;
            return self.py_processes_beside.insert(process.tgid, PodPyProcess(process), 0);
        }
        if holder == 0 {
            // The kernel copies in no order that it promises: all the rest first, then whose it is.
            self.py_processes.set(place, PodPyProcess(PyProcess { tgid: 0, ..process }), 0)?;
        }
        self.py_processes.set(place, PodPyProcess(process), 0)?;
        absent_is_fine(self.py_processes_beside.remove(&process.tgid))
    }

    pub fn watch(&mut self, watch: Watch) -> Result<(), MapError> {
        let place = place_of(watch.tgid);
        let holder = self.watched.get(&place, 0)?.0.tgid;
        if holder != 0 && holder != watch.tgid {
            // Said before the entry is there, or a write could pass it by.
            self.beside.set(place, 1, 0)?;
            return self.watched_beside.insert(watch.tgid, PodWatch(watch), 0);
        }
        if holder == 0 {
            // The kernel copies in no order that it promises: all the rest first, then whose it is.
            self.watched.set(place, PodWatch(Watch { tgid: 0, ..watch }), 0)?;
        }
        self.watched.set(place, PodWatch(watch), 0)?;
        absent_is_fine(self.watched_beside.remove(&watch.tgid))
    }

    pub fn unwatch(&mut self, tgid: u32) -> Result<(), MapError> {
        let place = place_of(tgid);
        if self.watched.get(&place, 0)?.0.tgid == tgid {
            self.watched.set(place, PodWatch(Watch::new(0, 0, 0)), 0)?;
        }
        absent_is_fine(self.watched_beside.remove(&tgid))
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

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}
