//! The interpreter's file: exported symbols, version, and where the probe goes.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::path::Path;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind};
use object::read::ReadCache;
use object::{Architecture, Object, ObjectSegment, ObjectSymbol};

use super::offsets::Version;

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

/// Where a copy of a context is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopySymbol {
    /// File offset of `PyContext_CopyCurrent`, for a return probe.
    pub entry: u64,
    /// File offsets of all its `ret` instructions, where it has been decoded completely and never leaves by a jump.
    pub returns: Vec<u64>,
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
    /// Where copies are seen.
    pub copy: CopySymbol,
    /// (virtual address, file offset, size in the file) of the loaded segments.
    segments: Vec<(u64, u64, u64)>,
}

/// Most instructions followed in the function: it has about 80.
const MAX_INSTRUCTIONS: usize = 2_000;

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
                Ok(b"PyContext_CopyCurrent") => copy = Some((symbol.address(), symbol.size())),
                Ok(b"Py_Version") => py_version = Some(symbol.address()),
                _ => {}
            }
        }
        let runtime = runtime.ok_or(ImageError::NotPython)?;
        let context_type = context_type.ok_or(ImageError::Missing("PyContext_Type"))?;
        let (copy, copy_size) = copy.ok_or(ImageError::Missing("PyContext_CopyCurrent"))?;
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
        let entry = file_offset(&segments, copy).ok_or(ImageError::Missing("PyContext_CopyCurrent"))?;
        let code = bytes(copy, copy_size).unwrap_or_default();
        let returns = match elf.architecture() {
            Architecture::X86_64 => returns_x86_64(&code, copy),
            _ => Vec::new(),
        };
        let returns = returns.into_iter().filter_map(|at| file_offset(&segments, at)).collect();
        let copy = CopySymbol { entry, returns };
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

fn file_offset(segments: &[(u64, u64, u64)], addr: u64) -> Option<u64> {
    let (start, offset, _) =
        segments.iter().find(|(start, _, size)| (*start..start + size).contains(&addr))?;
    Some(addr - start + offset)
}

/// Addresses of all `ret` instructions reachable in a function. Empty if control may leave it otherwise (a jump out of
/// it: a tail call, or a cold part elsewhere that may return from there), or if it cannot be decoded.
fn returns_x86_64(code: &[u8], start: u64) -> Vec<u64> {
    let end = start + code.len() as u64;
    let mut returns = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut todo = VecDeque::from([start]);
    let mut budget = MAX_INSTRUCTIONS;
    while let Some(at) = todo.pop_front() {
        let Some(rest) = at.checked_sub(start).and_then(|n| code.get(usize::try_from(n).ok()?..)) else {
            return Vec::new();
        };
        let mut decoder = Decoder::with_ip(64, rest, at, DecoderOptions::NONE);
        loop {
            if budget == 0 || !decoder.can_decode() {
                return Vec::new();
            }
            budget -= 1;
            let i = decoder.decode();
            if i.is_invalid() {
                return Vec::new();
            }
            if !seen.insert(i.ip()) {
                break;
            }
            let near = i.op0_kind() == OpKind::NearBranch64;
            match i.mnemonic() {
                Mnemonic::Ret => {
                    returns.insert(i.ip());
                    break;
                }
                Mnemonic::Call => {}
                // A trap after a call that never returns.
                Mnemonic::Ud2 => break,
                Mnemonic::Jmp | Mnemonic::Iretq | Mnemonic::Retf | Mnemonic::Int | Mnemonic::Xbegin
                    if !near =>
                {
                    return Vec::new();
                }
                jump if near => {
                    let target = i.near_branch_target();
                    if !(start..end).contains(&target) {
                        return Vec::new();
                    }
                    todo.push_back(target);
                    if jump == Mnemonic::Jmp {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    returns.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_returns_of_a_branch_are_found() {
        // test eax,eax; je +1; ret; xor eax,eax; ret
        let code = [0x85, 0xc0, 0x74, 0x01, 0xc3, 0x31, 0xc0, 0xc3];
        assert_eq!(returns_x86_64(&code, 0x1000), [0x1004, 0x1007]);
    }

    #[test]
    fn a_tail_jump_or_a_cold_part_elsewhere_leaves_the_return_probe() {
        // pop rcx; jmp far away
        assert!(returns_x86_64(&[0x59, 0xe9, 0x37, 0x02, 0, 0, 0xc3], 0x1000).is_empty());
        // jne out of the function; ret
        assert!(returns_x86_64(&[0x0f, 0x85, 0x37, 0x02, 0, 0, 0xc3], 0x1000).is_empty());
    }

    #[test]
    fn cut_off_code_gives_nothing() {
        assert!(returns_x86_64(&[0x85], 0x1000).is_empty());
        assert!(returns_x86_64(&[], 0x1000).is_empty());
    }
}
