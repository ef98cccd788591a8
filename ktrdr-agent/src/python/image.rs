//! The interpreter's file: exported symbols, version, and where the probe goes.

use std::fs::File;
use std::path::Path;

use object::read::ReadCache;
use object::{Object, ObjectSegment, ObjectSymbol};

use super::offsets::Version;

/// `endbr64` of x86-64 (Intel's Software Developer's Manual, volume 2).
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// Why a file is no usable interpreter.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It is none.
    #[error("not a CPython interpreter")]
    NotPython,
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It is no ELF file that can be followed.
    #[error("{0}")]
    Elf(#[from] object::read::Error),
    /// It does not export what the method needs.
    #[error("the interpreter does not export {0}")]
    Missing(&'static str),
}

/// What is known of an interpreter's file.
#[derive(Clone, Debug)]
pub struct Image {
    /// Virtual address of `_PyRuntime` in the file.
    pub runtime: u64,
    /// Virtual address of `PyContext_Type`.
    pub context_type: u64,
    /// The version, if a symbol or the name tells; 3.13 and later also publish it in memory.
    pub version: Option<Version>,
    /// File offset of `PyContext_CopyCurrent`, where it is probed: mostly its first instruction.
    pub copy: u64,
    /// (virtual address, file offset, size in the file) of the loaded segments.
    segments: Vec<(u64, u64, u64)>,
}

impl Image {
    /// Reads a file; `name` is the path as the process sees it.
    ///
    /// # Errors
    /// The file cannot be read, or is no interpreter.
    pub fn open(path: &Path, name: &str) -> Result<Self, ImageError> {
        let cache = ReadCache::new(File::open(path)?);
        let elf = object::File::parse(&cache)?;
        let (mut runtime, mut context_type, mut copy, mut py_version) = (None, None, None, None);
        for symbol in elf.dynamic_symbols().filter(|s| s.is_definition()) {
            match symbol.name_bytes() {
                Ok(b"_PyRuntime") => runtime = Some(symbol.address()),
                Ok(b"PyContext_Type") => context_type = Some(symbol.address()),
                Ok(b"PyContext_CopyCurrent") => copy = Some(symbol.address()),
                Ok(b"Py_Version") => py_version = Some(symbol.address()),
                _ => {}
            }
        }
        let runtime = runtime.ok_or(ImageError::NotPython)?;
        let context_type = context_type.ok_or(ImageError::Missing("PyContext_Type"))?;
        let copy = copy.ok_or(ImageError::Missing("PyContext_CopyCurrent"))?;
        let segments: Vec<_> = elf
            .segments()
            .map(|s| {
                let (offset, size) = s.file_range();
                (s.address(), offset, size)
            })
            .collect();
        let bytes = |addr: u64, len: u64| {
            elf.segments().find_map(|s| s.data_range(addr, len).ok().flatten().map(<[u8]>::to_vec))
        };
        let version = py_version
            .and_then(|at| bytes(at, 8))
            .and_then(|b| b.first_chunk::<8>().map(|b| u64::from_ne_bytes(*b)))
            .and_then(Version::from_hex)
            .or_else(|| Version::from_name(name.rsplit('/').next().unwrap_or_default()))
            .or_else(|| Version::from_name(name));
        let copy = probed(copy, bytes(copy, BEGINNING as u64).as_deref());
        let copy = file_offset(&segments, copy).ok_or(ImageError::Missing("PyContext_CopyCurrent"))?;
        Ok(Self { runtime, context_type, version, copy, segments })
    }

    /// Load address minus virtual address, given where the file's byte at `offset` is mapped.
    pub fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        // `maps` begins at a page, a segment need not: compare where the page's bytes belong.
        let (addr, file, _) =
            self.segments.iter().find(|(_, file, size)| offset < file + size && offset + 0x10000 > *file)?;
        Some(start.wrapping_sub(addr.wrapping_sub(file.wrapping_sub(offset))))
    }
}

/// Bytes of a function that [`probed`] looks at.
pub(super) const BEGINNING: usize = 12;

/// Where a function is probed that begins at this address, with these bytes.
///
/// The kernel does not run each instruction below a probe itself, but some in a step of their own: 11.7 µs instead of 1.0 in a
/// virtual machine (Linux 6.18). Two with which functions begin are passed over. `endbr64` does nothing; it stands first in
/// interpreters built for indirect branch tracking (Ubuntu, Fedora). A test of a register before a jump (`get_nowait`
/// of 3.10 to 3.12) changes flags only. Both leave the stack as it is, and behind them it is, as at every place of a
/// function, always as high, so that a return can be awaited from there, too. Most others that come first the kernel
/// runs itself.
pub(super) fn probed(function: u64, first: Option<&[u8]>) -> u64 {
    if cfg!(not(target_arch = "x86_64")) {
        return function;
    }
    let first = first.unwrap_or_default();
    let marked = first.strip_prefix(&ENDBR64);
    let tested = match marked.unwrap_or(first) {
        // `test` of two 64-bit registers, and `jcc`.
        [0x48..=0x4f, 0x85, 0xc0..=0xff, 0x70..=0x7f, ..]
        | [0x48..=0x4f, 0x85, 0xc0..=0xff, 0x0f, 0x80..=0x8f, ..] => 3,
        _ => 0,
    };
    function + marked.map_or(0, |_| ENDBR64.len() as u64) + tested
}

fn file_offset(segments: &[(u64, u64, u64)], addr: u64) -> Option<u64> {
    let (start, offset, _) =
        segments.iter().find(|(start, _, size)| (*start..start + size).contains(&addr))?;
    Some(addr - start + offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_the_kernel_would_step_over_by_itself_is_not_probed() {
        let at = |first: &[u8]| probed(0x1000, Some(first));
        assert_eq!(at(&[0xf3, 0x0f, 0x1e, 0xfa]), 0x1004);
        // `push %r12; push %rbp`, as interpreters begin that were built without.
        assert_eq!(at(&[0x41, 0x54, 0x55, 0x53]), 0x1000);
        // `test %rcx,%rcx; jne`, and the same with a mark and a longer jump.
        assert_eq!(at(&[0x48, 0x85, 0xc9, 0x75, 0x13]), 0x1003);
        assert_eq!(at(&[0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x85, 0xc9, 0x0f, 0x85, 0, 1, 0]), 0x1007);
        // Of memory, and without a jump behind it.
        assert_eq!(at(&[0x48, 0x85, 0x09, 0x75, 0x13]), 0x1000);
        assert_eq!(at(&[0x48, 0x85, 0xc9, 0x53]), 0x1000);
        assert_eq!(probed(0x1000, None), 0x1000);
    }
}
