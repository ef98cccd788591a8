//! `/proc/PID/maps`: which file may hold the interpreter, and where it is loaded.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Lines read of a process's map: a process with many thousands of mappings has its libraries among the first.
const MAX_LINES: usize = 20_000;
/// Longest line: a path has at most 4,096 bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The first mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Address of its first byte.
    pub start: u64,
    /// Offset of that byte in the file.
    pub offset: u64,
    /// Device as `maps` prints it, e.g. `fd:01`.
    pub dev: String,
    /// Inode. On an overlay file system neither has to be that of the file which the kernel probes.
    pub inode: u64,
    /// Path as the process sees it.
    pub path: String,
    /// The file is there no more: if there is one at the path, it is another.
    pub deleted: bool,
}

/// Behind a path in `/proc` whose file is there no more.
const DELETED: &str = " (deleted)";

/// The files of a process that may hold CPython, likeliest first: libpython, then the executable.
///
/// # Errors
/// No such process, or no permission.
pub fn candidates(tgid: u32) -> io::Result<Vec<Mapping>> {
    let file = std::fs::File::open(format!("/proc/{tgid}/maps"))?;
    let exe = std::fs::read_link(format!("/proc/{tgid}/exe"))?;
    Ok(select(file, exe.to_string_lossy().trim_end_matches(DELETED)))
}

/// Directory of the modules that belong to CPython.
pub const MODULES: &str = "lib-dynload";

/// One of CPython's own modules that a process has loaded from a file: the one whose file begins with this name, or else the
/// first.
///
/// # Errors
/// No such process, or no permission.
pub fn module(tgid: u32, name: &str) -> io::Result<Option<Mapping>> {
    Ok(select_module(std::fs::File::open(format!("/proc/{tgid}/maps"))?, name))
}

fn select_module(maps: impl Read, name: &str) -> Option<Mapping> {
    let own = |m: &Mapping| Path::new(&m.path).parent().is_some_and(|directory| directory.ends_with(MODULES));
    let mut first = None;
    for mapping in lines(maps).filter(own) {
        if mapping.path.rsplit('/').next().is_some_and(|file| file.starts_with(name)) {
            return Some(mapping);
        }
        first = first.or(Some(mapping));
    }
    first
}

/// The file of a package's C extension that a process has loaded: `package/module…so`.
///
/// # Errors
/// No such process, or no permission.
pub fn extension(tgid: u32, package: &str, module: &str) -> io::Result<Option<Mapping>> {
    Ok(select_extension(std::fs::File::open(format!("/proc/{tgid}/maps"))?, package, module))
}

fn select_extension(maps: impl Read, package: &str, module: &str) -> Option<Mapping> {
    lines(maps).find(|mapping| {
        let path = Path::new(&mapping.path);
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let there = path.parent().is_some_and(|directory| directory.ends_with(package));
        there && name.starts_with(module) && name.ends_with(".so")
    })
}

fn lines(maps: impl Read) -> impl Iterator<Item = Mapping> {
    let lines = BufReader::new(maps.take(MAX_BYTES)).split(b'\n').take(MAX_LINES);
    lines.map_while(Result::ok).filter_map(|line| parse(&String::from_utf8_lossy(&line)))
}

fn select(maps: impl Read, exe: &str) -> Vec<Mapping> {
    let (mut libs, mut exes): (Vec<Mapping>, Vec<Mapping>) = (Vec::new(), Vec::new());
    for m in lines(maps) {
        let name = m.path.rsplit('/').next().unwrap_or_default();
        let into = if name.starts_with("libpython") && name.contains(".so") {
            &mut libs
        } else if m.path == exe {
            &mut exes
        } else {
            continue;
        };
        if !into.iter().any(|known| known.inode == m.inode && known.dev == m.dev) {
            into.push(m);
        }
    }
    libs.append(&mut exes);
    libs
}

/// `start-end perms offset dev inode path`
fn parse(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, _) = words.next()?.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let _perms = words.next()?;
    let offset = u64::from_str_radix(words.next()?, 16).ok()?;
    let dev = words.next()?.to_owned();
    let inode = words.next()?.parse().ok()?;
    // The path begins at the first slash: it may hold blanks.
    let path = line.get(line.find('/')?..)?;
    let kept = path.trim_end_matches(DELETED);
    Some(Mapping { start, offset, dev, inode, path: kept.to_owned(), deleted: kept.len() < path.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_of_its_own_tells_where_the_others_are() {
        let maps = "\
55e0-55f0 r--p 00000000 fd:01 12 /usr/bin/python3.13
7f00-7f10 r--p 00000000 fd:01 77 /app/lib-dynload.d/x.so
7f10-7f20 r--p 00000000 fd:01 78 /usr/lib/python3.13/lib-dynload/_asyncio.cpython-313-x86_64-linux-gnu.so
7f20-7f30 r--p 00000000 fd:01 79 /usr/lib/python3.13/lib-dynload/_json.cpython-313-x86_64-linux-gnu.so
";
        let found = |maps: &str, name: &str| select_module(maps.as_bytes(), name).map(|m| m.inode);
        assert_eq!(found(maps, "_queue."), Some(78));
        assert_eq!(found(maps, "_json."), Some(79));
        assert_eq!(found(&maps[..100], "_json."), None);
    }

    #[test]
    fn a_packages_extension_is_known_by_both_names() {
        let maps = "\
7f00-7f10 r--p 00000000 fd:01 77 /app/uvloop/loop.pyx
7f10-7f20 r--p 00000000 fd:01 78 /app/myuvloop/loop.cpython-313-x86_64-linux-gnu.so
7f20-7f30 r--p 00000000 fd:01 79 /app/uvloop/loops.so
7f30-7f40 r--p 00000000 fd:01 80 /app/site packages/uvloop/loop.cpython-313-x86_64-linux-gnu.so (deleted)
";
        let found = select_extension(maps.as_bytes(), "uvloop", "loop.").map(|m| (m.inode, m.deleted));
        assert_eq!(found, Some((80, true)));
    }

    #[test]
    fn libpython_comes_before_the_executable_and_each_once() {
        let maps = "\
55e0-55f0 r--p 00000000 fd:01 12 /opt/my python/bin/python3.13
55f0-5600 r-xp 00001000 fd:01 12 /opt/my python/bin/python3.13
7f00-7f10 r--p 00000000 fd:01 77 /opt/lib/libpython3.13.so.1.0
7f10-7f20 r-xp 00010000 fd:01 77 /opt/lib/libpython3.13.so.1.0
7f30-7f40 r--p 00000000 fd:01 78 /lib/libc.so.6
7ffd-7ffe rw-p 00000000 00:00 0 [stack]
garbage
";
        let found = select(maps.as_bytes(), "/opt/my python/bin/python3.13");
        assert!(found.iter().all(|m| !m.deleted));
        let paths: Vec<_> = found.iter().map(|m| (m.path.as_str(), m.start)).collect();
        assert_eq!(
            paths,
            [("/opt/lib/libpython3.13.so.1.0", 0x7f00), ("/opt/my python/bin/python3.13", 0x55e0)]
        );
    }

    #[test]
    fn a_file_that_was_replaced_says_so() {
        let maps = "55e0-55f0 r-xp 00000000 fd:01 12 /usr/bin/python3.11 (deleted)\n";
        let found = select(maps.as_bytes(), "/usr/bin/python3.11");
        assert_eq!(found.len(), 1);
        assert!(found[0].deleted && found[0].path == "/usr/bin/python3.11");
    }
}
