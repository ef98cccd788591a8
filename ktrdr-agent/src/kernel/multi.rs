//! The Python probes as "multi" links of BPF (Linux 6.6 and later), for an agent that is not root.
//!
//! The older way, a probe event of perf, takes CAP_SYS_ADMIN again since mid-2025, also on stable kernels ("perf/core:
//! Revert to requiring CAP_SYS_ADMIN for uprobes"). This one takes CAP_BPF and CAP_PERFMON. aya 0.14 cannot load a
//! program for it, so its object is relocated once more here, against the maps that are loaded.

use std::{
    collections::HashSet,
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::{Ebpf, maps::Map};
use aya_obj::{
    Object,
    generated::{
        BPF_F_UPROBE_MULTI_RETURN, bpf_attach_type::BPF_TRACE_UPROBE_MULTI, bpf_attr, bpf_cmd,
        bpf_prog_type::BPF_PROG_TYPE_KPROBE,
    },
};

/// When a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// At the function's entry, and at its return if it asks for that (Linux 6.13 and later).
    Session,
    /// At the function's entry.
    Entry,
    /// At the function's return.
    Return,
}

impl Kind {
    fn attach_type(self) -> u32 {
        /// `BPF_TRACE_UPROBE_SESSION` of `enum bpf_attach_type`, which aya's bindings do not have yet.
        const BPF_TRACE_UPROBE_SESSION: u32 = 57;
        match self {
            Kind::Session => BPF_TRACE_UPROBE_SESSION,
            Kind::Entry | Kind::Return => BPF_TRACE_UPROBE_MULTI as u32,
        }
    }

    fn flags(self) -> u32 {
        match self {
            Kind::Session | Kind::Entry => 0,
            Kind::Return => BPF_F_UPROBE_MULTI_RETURN,
        }
    }
}

/// The agent's object, made ready for the maps that are loaded.
pub(super) struct Relocated(Object);

impl Relocated {
    /// `ebpf` still holds the maps.
    ///
    /// # Errors
    /// The object is not as expected.
    pub fn new(object: &[u8], ebpf: &Ebpf) -> io::Result<Relocated> {
        let mut object = Object::parse(object).map_err(io::Error::other)?;
        let maps = std::mem::take(&mut object.maps);
        let loaded = ebpf.maps().filter_map(|(name, map)| Some((name, descriptor(map)?.as_raw_fd())));
        let loaded: Vec<_> =
            loaded.filter_map(|(name, fd)| maps.get(name).map(|map| (name, fd, map))).collect();
        let sections: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
        object.relocate_maps(loaded.into_iter(), &sections).map_err(io::Error::other)?;
        object.relocate_calls(&sections).map_err(io::Error::other)?;
        Ok(Relocated(object))
    }
}

/// A loaded program.
pub(super) struct Multi {
    kind: Kind,
    name: &'static str,
    program: OwnedFd,
}

impl Multi {
    /// Loads the probe `name` of the object.
    ///
    /// # Errors
    /// The kernel knows no such links, or the object is not as expected.
    pub fn load(Relocated(object): &Relocated, name: &'static str, kind: Kind) -> io::Result<Multi> {
        let missing = || io::Error::other("the program is not in the object");
        let program = object.programs.get(name).ok_or_else(missing)?;
        let function = object.functions.get(&program.function_key()).ok_or_else(missing)?;

        // SAFETY: plain numbers and pointers, for all of which zero is a value.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the part of the union that this command reads.
        let load = unsafe { &mut attr.__bindgen_anon_3 };
        load.prog_type = BPF_PROG_TYPE_KPROBE as u32;
        load.expected_attach_type = kind.attach_type();
        load.insns = function.instructions.as_ptr() as u64;
        load.insn_cnt = u32::try_from(function.instructions.len()).map_err(io::Error::other)?;
        load.license = program.license.as_ptr() as u64;
        // The name's last byte stays zero, which ends it.
        for (to, from) in load.prog_name.iter_mut().take(15).zip(name.bytes()) {
            *to = from as _;
        }
        // SAFETY: instructions and license outlive the call.
        let program = match unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) } {
            Ok(program) => program,
            // SAFETY: as above.
            Err(error) => return Err(unsafe { explained(error, attr) }),
        };
        let multi = Multi { kind, name, program };
        // Older kernels load it all the same. Those that know such links have looked at the file when they say that a
        // directory is none to attach to; the others refuse before (EINVAL).
        match multi.attach(Path::new("/"), &[0]) {
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(multi),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::other("the kernel attaches to a directory")),
        }
    }

    /// Attaches to the functions at these offsets in the file, in all processes that map it, until what it returns is dropped.
    ///
    /// # Errors
    /// The file or an offset was refused, or the kernel is older than these links.
    pub fn attach(&self, path: &Path, offsets: &[u64]) -> io::Result<OwnedFd> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let count = u32::try_from(offsets.len()).map_err(io::Error::other)?;
        // SAFETY: as above.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        // SAFETY: the parts of the unions that this command reads with this attach type.
        unsafe {
            let create = &mut attr.link_create;
            create.__bindgen_anon_1.prog_fd = self.program.as_raw_fd().cast_unsigned();
            create.attach_type = self.kind.attach_type();
            let multi = &mut create.__bindgen_anon_3.uprobe_multi;
            multi.path = path.as_ptr() as u64;
            multi.offsets = offsets.as_ptr() as u64;
            multi.cnt = count;
            multi.flags = self.kind.flags();
        }
        // SAFETY: path and offsets outlive the call.
        unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr) }
    }

    /// The program's name, and the program.
    pub fn program(&self) -> (&'static str, BorrowedFd<'_>) {
        (self.name, self.program.as_fd())
    }
}

/// An error of loading a program, with the end of what the verifier has to say about it.
///
/// # Safety
/// What the attributes point to must live through the call.
unsafe fn explained(error: io::Error, mut attr: bpf_attr) -> io::Error {
    const LINES: usize = 5;
    let mut log = vec![0_u8; 1 << 20];
    // SAFETY: the part of the union that this command reads.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = log.len() as u32;
    load.log_level = 1;
    // SAFETY: the log outlives the call, and the caller's promise.
    if unsafe { bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr) }.is_ok() {
        return error;
    }
    let end = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..end]);
    let mut last: Vec<&str> = text.lines().rev().take(LINES).collect();
    last.reverse();
    io::Error::new(error.kind(), format!("{error}: {}", last.join("; ")))
}

/// Descriptor of a map of one of the kinds the programs use.
fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    match map {
        Map::Array(data)
        | Map::PerCpuArray(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuHashMap(data)
        | Map::PerCpuLruHashMap(data)
        | Map::RingBuf(data) => Some(data.fd().as_fd()),
        _ => None,
    }
}

/// A command of bpf(2) that gives a descriptor.
///
/// # Safety
/// What the attributes point to must live through the call.
unsafe fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: the attributes are of the size given; the rest is the caller's promise.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_int, &raw mut *attr, size_of::<bpf_attr>())
    };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel gave it to us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
