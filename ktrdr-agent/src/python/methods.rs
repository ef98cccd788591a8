//! Tables of methods: where the functions of a C extension's type are in its file.
//!
//! They have no symbols. But a module describes them to the interpreter in a table of `PyMethodDef` ({name, function,
//! flags, text}, each of 8 bytes). The addresses in it are there already, or the file says by relocations what the loader
//! is to put there: by one with an entry of its own (RELA), or by one that adds to what is there (RELR).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use memchr::memmem;
use object::LittleEndian as LE;
use object::elf::{self, FileHeader64};
use object::read::ReadCache;
use object::read::elf::{FileHeader as _, ProgramHeader as _};

use super::image;

/// Why it is not known where the functions are.
#[derive(Debug, thiserror::Error)]
pub enum MethodsError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no ELF file that can be followed.
    #[error("{0}")]
    Elf(#[from] object::read::Error),
    /// Of another machine.
    #[error("not a file of this machine")]
    Machine,
    /// No such table of this type, or more than one.
    #[error("no {0} is found in it")]
    NotFound(&'static str),
}

/// `METH_O`: one argument.
pub(super) const ONE: u32 = 8;
/// `METH_FASTCALL`: the arguments lie in memory, their number beside (3.7 to 3.15).
pub(super) const FAST: u32 = 0x80;
/// `METH_KEYWORDS`.
pub(super) const KEYWORDS: u32 = 2;
/// Bytes of an entry of the table.
pub(super) const ENTRY: u64 = 32;
/// Entries before and behind the one that is sought: tables of interest have 7 to 23.
const AROUND: u64 = 32;
/// Bytes read of a name: more than any has that is asked for.
const NAME: usize = 16;
/// Places where the text stands, and places that lead there: more than one was never seen.
const MAX_PLACES: usize = 64;
/// Parts of a file; interpreters have a dozen.
const MAX_PARTS: usize = 64;
/// Bytes of the dynamic section: interpreters have 30 entries of 16.
const MAX_DYNAMIC: u64 = 1 << 16;
/// Bytes read of one file in all: interpreters with all modules built in have 30 MB that are loaded.
const MAX_BYTES: u64 = 256 << 20;
/// Bytes read at once.
const CHUNK: usize = 1 << 16;

/// The only table in the file with a method of this name in which `pick` finds what it wants. `what` is the type's name. A
/// rare name, and a long one: others are the ends of many words, and a linker keeps one text for all of them.
///
/// # Errors
/// The file cannot be read, or has no such table.
pub(super) fn find<T: PartialEq>(
    path: &Path,
    what: &'static str,
    name: &str,
    pick: impl Fn(&Table<'_>) -> Option<T>,
) -> Result<T, MethodsError> {
    let sought = [name.as_bytes(), b"\0"].concat();
    let mut file = Parts::open(path)?;
    let texts = file.texts(&sought)?;
    let places = file.places(&texts)?;
    let words = file.words(&places)?;
    let tables = places.iter().filter_map(|place| file.table(&words, *place));
    let mut found: Vec<T> = tables.filter_map(|table| pick(&table)).collect();
    found.dedup();
    match (found.pop(), found.is_empty()) {
        (Some(found), true) => Ok(found),
        _ => Err(MethodsError::NotFound(what)),
    }
}

/// What an entry says of its method.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    name: [u8; NAME],
    function: u64,
    /// `METH_*`.
    pub flags: u32,
}

/// One table.
pub(super) struct Table<'f> {
    file: &'f Parts,
    methods: Vec<Method>,
}

impl Table<'_> {
    /// The method of this name.
    pub fn method(&self, name: &str) -> Option<Method> {
        let name = name.as_bytes();
        let is = |method: &&Method| {
            method.name.get(..name.len()) == Some(name) && method.name.get(name.len()) == Some(&0)
        };
        self.methods.iter().find(is).copied()
    }

    /// Whether it has all of these.
    pub fn has(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.method(name).is_some())
    }

    /// Where the method is probed in the file: mostly at the offset of its first instruction.
    pub fn probed(&self, name: &str) -> Option<u64> {
        self.file.probed(self.method(name)?.function)
    }
}

/// A part of the file that is loaded.
#[derive(Clone, Copy, Debug)]
struct Part {
    address: u64,
    offset: u64,
    size: u64,
    flags: u32,
}

impl Part {
    fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// Where a byte of it is in the file.
    fn offset_of(&self, address: u64) -> Option<u64> {
        let at = address.checked_sub(self.address).filter(|at| *at < self.size)?;
        self.offset.checked_add(at)
    }
}

/// What is at some addresses once the file is loaded, as far as addresses in the file tell.
type Words = BTreeMap<u64, u64>;

/// The file, and what of it is loaded.
struct Parts {
    file: File,
    parts: Vec<Part>,
    /// Address and size of the relocations with entries of their own.
    relocations: (u64, u64),
    /// Bytes that may still be read.
    left: u64,
}

impl Parts {
    fn open(path: &Path) -> Result<Parts, MethodsError> {
        const MACHINE: u16 = if cfg!(target_arch = "aarch64") { elf::EM_AARCH64 } else { elf::EM_X86_64 };
        let file = File::open(path)?;
        let cache = ReadCache::new(&file);
        let header = FileHeader64::<LE>::parse(&cache)?;
        if !header.is_supported() || !header.is_little_endian() || header.e_machine(LE) != MACHINE {
            return Err(MethodsError::Machine);
        }
        let (mut parts, mut dynamic) = (Vec::new(), (0, 0));
        for segment in header.program_headers(LE, &cache)? {
            let (offset, size) = segment.file_range(LE);
            match segment.p_type(LE) {
                elf::PT_LOAD if parts.len() < MAX_PARTS => parts.push(Part {
                    address: segment.p_vaddr(LE),
                    offset,
                    size,
                    flags: segment.p_flags(LE),
                }),
                elf::PT_DYNAMIC => dynamic = (offset, size.min(MAX_DYNAMIC)),
                _ => {}
            }
        }
        drop(cache);
        let mut parts = Parts { file, parts, relocations: (0, 0), left: MAX_BYTES };
        let mut relocations = (0, 0);
        parts.scan(dynamic, (16, 0), |_, bytes| {
            for entry in bytes.chunks_exact(16) {
                match (word(entry, 0).cast_signed(), word(entry, 8)) {
                    (elf::DT_RELA, address) => relocations.0 = address,
                    (elf::DT_RELASZ, size) => relocations.1 = size,
                    _ => {}
                }
            }
        })?;
        parts.relocations = relocations;
        Ok(parts)
    }

    /// Reads a range of the file piece by piece, in whole steps, each piece with the last `kept` bytes of the one before it.
    /// Ends where the file or the budget does.
    fn scan(
        &mut self,
        (mut offset, size): (u64, u64),
        (step, kept): (usize, usize),
        mut each: impl FnMut(u64, &[u8]),
    ) -> io::Result<()> {
        let end = offset.saturating_add(size);
        let mut buffer = vec![0; CHUNK.next_multiple_of(step)];
        while offset < end {
            let wanted = buffer.len().min(usize::try_from(end - offset).unwrap_or(usize::MAX));
            let read = read_at(&self.file, &mut buffer[..wanted], offset)?;
            if read <= kept || self.left < read as u64 {
                break;
            }
            self.left -= read as u64;
            each(offset, &buffer[..read]);
            offset += (read - kept) as u64;
        }
        Ok(())
    }

    /// Addresses of the text that is sought.
    fn texts(&mut self, sought: &[u8]) -> io::Result<Vec<u64>> {
        let mut texts = Vec::new();
        for part in self.parts.clone().into_iter().filter(|part| !part.is(elf::PF_W)) {
            let finder = memmem::Finder::new(sought);
            self.scan((part.offset, part.size), (1, sought.len() - 1), |offset, bytes| {
                for at in finder.find_iter(bytes).take(MAX_PLACES - texts.len()) {
                    texts.push(part.address.wrapping_add(offset - part.offset).wrapping_add(at as u64));
                }
            })?;
        }
        Ok(texts)
    }

    /// Places that lead to one of these addresses.
    fn places(&mut self, texts: &[u64]) -> io::Result<Vec<u64>> {
        let mut places = Vec::new();
        if texts.is_empty() {
            return Ok(places);
        }
        let mut found = |place: u64, target: u64| {
            if texts.contains(&target) && places.len() < MAX_PLACES && !places.contains(&place) {
                places.push(place);
            }
        };
        for part in self.parts.clone().into_iter().filter(|part| part.is(elf::PF_W)) {
            // From the first multiple of 8 of the addresses on.
            let skipped = part.address.wrapping_neg() % 8;
            let range = (part.offset.saturating_add(skipped), part.size.saturating_sub(skipped));
            self.scan(range, (8, 0), |offset, bytes| {
                let base = part.address.wrapping_add(offset - part.offset);
                for at in (0..bytes.len() / 8 * 8).step_by(8) {
                    found(base.wrapping_add(at as u64), word(bytes, at));
                }
            })?;
        }
        self.relocated(&mut found)?;
        Ok(places)
    }

    /// What is around these places.
    fn words(&mut self, places: &[u64]) -> io::Result<Words> {
        let mut words = Words::new();
        for place in places {
            let begin = place.saturating_sub(AROUND * ENTRY);
            for part in self.parts.iter().filter(|part| part.is(elf::PF_W)) {
                // The table may be nearer than that to an end of its part.
                let from = begin.max(part.address.saturating_add(place.wrapping_sub(part.address) % 8));
                let end = part.address.saturating_add(part.size);
                let until = place.saturating_add((AROUND + 1) * ENTRY).min(end);
                let (Some(offset), Some(size)) = (part.offset_of(from), until.checked_sub(from)) else {
                    continue;
                };
                let mut bytes = vec![0; size as usize];
                let read = read_at(&self.file, &mut bytes, offset)?;
                let in_place = (0..read / 8 * 8).step_by(8);
                words.extend(in_place.map(|at| (from + at as u64, word(&bytes, at))));
            }
        }
        self.relocated(&mut |place, target| {
            if let Some(word) = words.get_mut(&place) {
                *word = target;
            }
        })?;
        Ok(words)
    }

    /// What the loader puts where, by the relocations that have entries of their own and know no symbol.
    fn relocated(&mut self, each: &mut impl FnMut(u64, u64)) -> io::Result<()> {
        const RELATIVE: u32 =
            if cfg!(target_arch = "aarch64") { elf::R_AARCH64_RELATIVE } else { elf::R_X86_64_RELATIVE };
        let (address, size) = self.relocations;
        let Some(offset) = self.parts.iter().find_map(|part| part.offset_of(address)) else { return Ok(()) };
        self.scan((offset, size), (24, 0), |_, bytes| {
            for entry in bytes.chunks_exact(24) {
                // {place, kind and symbol, addend}
                if word(entry, 8) == u64::from(RELATIVE) {
                    each(word(entry, 0), word(entry, 16));
                }
            }
        })
    }

    /// The table that has an entry at this address.
    fn table(&self, words: &Words, place: u64) -> Option<Table<'_>> {
        let step = |at: u64, n: u64| at.checked_sub(ENTRY * n);
        let before =
            (1..=AROUND).take_while(|n| step(place, *n).is_some_and(|at| self.entry(words, at).is_some()));
        let first = step(place, before.count() as u64)?;
        let all = (0..=2 * AROUND).map_while(|n| self.entry(words, first.checked_add(n * ENTRY)?));
        Some(Table { file: self, methods: all.collect() })
    }

    fn entry(&self, words: &Words, at: u64) -> Option<Method> {
        let field = |n: u64| words.get(&at.checked_add(n * 8)?).copied();
        let mut name = [0; NAME];
        let offset = self.parts.iter().find_map(|part| part.offset_of(field(0)?))?;
        let read = read_at(&self.file, &mut name, offset).ok()?;
        let function = field(1)?;
        self.code(function)?;
        let flags = field(2)? as u32;
        (read > 0).then_some(Method { name, function, flags })
    }

    /// Where a function is in the file.
    fn code(&self, function: u64) -> Option<u64> {
        self.parts.iter().filter(|part| part.is(elf::PF_X)).find_map(|part| part.offset_of(function))
    }

    /// Where it is probed.
    fn probed(&self, function: u64) -> Option<u64> {
        let mut first = [0; image::BEGINNING];
        let read = read_at(&self.file, &mut first, self.code(function)?).ok()?;
        self.code(image::probed(function, first.get(..read)))
    }
}

/// As much as there is.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], offset.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(read)
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()).map_or(0, |b| u64::from_le_bytes(*b))
}
