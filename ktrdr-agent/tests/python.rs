//! The offset table and the thread look-up, checked against whatever interpreters this machine has.

#![allow(clippy::expect_used, clippy::panic)] // a test fails by panicking

mod pythons;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ktrdr_agent::event::shell::PythonStatus;
use ktrdr_agent::python::image::Image;
use ktrdr_agent::python::methods::MethodsError;
use ktrdr_agent::python::process::PythonError;
use ktrdr_agent::python::queue::Queue;
use ktrdr_agent::python::stream::Stream;
use ktrdr_agent::python::{ProbeId, Probes, PythonProcess, Watcher};
use ktrdr_ebpf_common::maps::{PyContexts, PyProcess, PyThread};
use ktrdr_ebpf_common::{EventHeader, kind};
use object::{Object as _, ObjectSymbol as _};
use pythons::{Python, followed, interpreters, minor};

/// Four threads, each inside a context whose address it prints with its native thread id, and one in its own.
const THREADS: &str = r#"
import contextvars, sys, threading
go = threading.Event()
lock = threading.Lock()
def inside(ctx):
    with lock:
        print(threading.get_native_id(), id(ctx), flush=True)
    go.wait()
def work():
    ctx = contextvars.copy_context()
    ctx.run(inside, ctx)
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
def own():
    var = contextvars.ContextVar("v")
    var.set(1)
    with lock:
        print(threading.get_native_id(), 0, flush=True)
    go.wait()
threading.Thread(target=own, daemon=True).start()
ctx = contextvars.copy_context()
def main(ctx):
    with lock:
        print(threading.get_native_id(), id(ctx), flush=True)
    sys.stdin.readline()
ctx.run(main, ctx)
"#;

fn threads(python: &mut Python, n: usize) -> BTreeMap<u32, u64> {
    let pair = |line: String| {
        let (tid, ctx) = line.trim().split_once(' ').expect("two words");
        (tid.parse().expect("tid"), ctx.parse().expect("address"))
    };
    (0..n).map(|_| pair(python.line())).collect()
}

fn open(tgid: u32) -> Result<PythonProcess, PythonError> {
    PythonProcess::open(tgid, |_, path, name| Image::open(path, name).map(Arc::new))
}

#[test]
fn every_interpreter_here_is_followed_thread_by_thread() {
    let mut checked = 0;
    for exe in interpreters() {
        let minor = minor(&exe);
        if minor < 8 {
            continue;
        }
        let mut python = Python::start(&exe, THREADS);
        let truth = threads(&mut python, 5);
        let process = open(python.child.id()).unwrap_or_else(|e| panic!("{}: {e}", exe.display()));
        assert_eq!(process.version.minor, minor, "{}", exe.display());
        let threads = process.threads().unwrap_or_else(|e| panic!("{}: {e}", exe.display()));
        let found: BTreeMap<u32, u64> = threads
            .iter()
            .map(|(tid, s)| {
                let tasks = process.of_a_task(*tid, s.context).expect("a context");
                (*tid, if tasks { s.context } else { 0 })
            })
            .collect();
        assert_eq!(found, truth, "{}", exe.display());
        let tls = process.tls(&threads);
        // Its threads are blocked, or about to be: one that still runs leaves two places possible. Under musl the first
        // thread's place is another than that of all others, and each thread is resolved for itself.
        let musl = std::fs::read_to_string(format!("/proc/{}/maps", python.child.id()))
            .expect("maps")
            .contains("musl");
        assert!(tls.is_some() != musl, "{}: {tls:?} common to all threads", exe.display());
        println!(
            "{} {} copies seen at {:#x}, state at thread pointer + {:?}",
            exe.display(),
            process.version,
            process.image.copy,
            tls.map(|t| t.offset)
        );
        checked += 1;
    }
    assert!(checked > 0, "no interpreter of 3.8 or later on this machine");
}

/// Frees some contexts, then prints the address that the next copy will have.
const FREED: &str = r#"
import contextvars, sys
def copies():
    kept = [contextvars.copy_context() for _ in range(5)]
    del kept
copies()
print(id(contextvars.copy_context()), flush=True)
sys.stdin.readline()
"#;

#[test]
fn the_free_list_of_every_interpreter_here_names_its_next_copy() {
    let mut checked = 0;
    for exe in interpreters() {
        if minor(&exe) < 8 {
            continue;
        }
        let mut python = Python::start(&exe, FREED);
        let next: u64 = python.line().trim().parse().expect("an address");
        let process = open(python.child.id()).unwrap_or_else(|e| panic!("{}: {e}", exe.display()));
        if !process.has_free_contexts() {
            continue;
        }
        let head = process.free_contexts().unwrap_or_else(|| panic!("{}: no list", exe.display()));
        let named = process.free_context(head).expect("readable");
        assert_eq!(named, next, "{}: at {head} of the interpreter's structure", exe.display());
        println!("{} {}: at {head}", exe.display(), process.version);
        checked += 1;
    }
    assert!(checked > 0, "no interpreter of 3.10 or later on this machine");
}

/// A kernel side that refuses what it is told to refuse.
#[derive(Default)]
struct Fake {
    no_probe: bool,
    no_pool: bool,
    no_stream: bool,
    no_room: bool,
    pools: Vec<PathBuf>,
    streams: Vec<(PathBuf, Stream)>,
    /// What was told of how the loop of each is given what it sends.
    writes: Vec<u16>,
    attached: usize,
    detached: usize,
    detached_pools: usize,
    detached_streams: usize,
    told: Vec<u32>,
}

impl Fake {
    fn answer(&self, tgid: u32) -> Result<u32, String> {
        if self.no_room { Err("the table is full".into()) } else { Ok(tgid) }
    }
}

impl Probes for Fake {
    fn attach(&mut self, _: &Path, _: u64) -> Result<ProbeId, String> {
        if self.no_probe {
            return Err("uprobes are forbidden here".into());
        }
        self.attached += 1;
        Ok(ProbeId(self.attached as u64))
    }
    fn detach(&mut self, probe: ProbeId) {
        let of = match probe.0 {
            0..1_000 => &mut self.detached,
            1_000..2_000 => &mut self.detached_pools,
            _ => &mut self.detached_streams,
        };
        *of += 1;
    }
    fn attach_pool(&mut self, path: &Path, _: &Queue) -> Result<ProbeId, String> {
        if self.no_pool {
            return Err("not at this file".into());
        }
        self.pools.push(path.to_owned());
        Ok(ProbeId(1_000 + self.pools.len() as u64))
    }
    fn attach_stream(&mut self, path: &Path, stream: &Stream) -> Result<ProbeId, String> {
        if self.no_stream {
            return Err("not that one".into());
        }
        self.streams.push((path.to_owned(), *stream));
        Ok(ProbeId(2_000 + self.streams.len() as u64))
    }
    fn process(&mut self, process: PyProcess) -> Result<(), String> {
        self.writes.push(process.contexts.writes);
        self.told.push(self.answer(process.tgid)?);
        Ok(())
    }
    fn thread(&mut self, _: u32, thread: PyThread) -> Result<(), String> {
        self.writes.push(thread.contexts.writes);
        self.told.push(self.answer(thread.tgid)?);
        Ok(())
    }
}

/// Prints where the interpreter itself finds the module.
const MODULE: &str = "import _queue; print(getattr(_queue, '__file__', ''))";

/// Compared with the table of symbols, where the file has one.
#[test]
fn the_queue_of_every_interpreter_here_is_found_without_symbols() {
    let mut compared = 0;
    for (exe, _) in followed() {
        let path = PathBuf::from(Python::start(&exe, MODULE).line().trim());
        // Built into the interpreter, or its library.
        if path.as_os_str().is_empty() {
            continue;
        }
        let queue = Queue::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        println!("{}: {queue:x?}", path.display());
        let bytes = std::fs::read(&path).expect("readable");
        let file = object::File::parse(&*bytes).expect("an ELF file");
        let symbol = |name: &str| file.symbols().find(|s| s.name() == Ok(name)).map(|s| s.address());
        let Some(put) = symbol("_queue_SimpleQueue_put") else { continue };
        // Where code is, these builds have addresses and offsets alike.
        let gets = ["_queue_SimpleQueue_get", "_queue_SimpleQueue_get_nowait"].map(symbol);
        let [Some(get), Some(get_nowait)] = gets else { panic!("{}: {gets:?}", path.display()) };
        for (found, begin) in [(queue.put, put), (queue.gets[0], get), (queue.gets[1], get_nowait)] {
            // Behind what need not be run below a probe, at most.
            assert!((begin..begin + 8).contains(&found), "{}: {found:#x}, {begin:#x}", path.display());
        }
        compared += 1;
    }
    println!("{compared} compared with their symbols");
    assert!(matches!(Queue::open(Path::new("/bin/sh")), Err(MethodsError::NotFound(_))));
}

/// The virtual environment of the end-to-end tests: it has a uvloop that sends later.
fn with_uvloop() -> Option<PathBuf> {
    let python = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/.venv/bin/python");
    let found = python.exists();
    if !found {
        println!("skipped: there is no {} (cargo xtask setup)", python.display());
    }
    found.then_some(python)
}

/// A loop, first without uvloop, and with it when it is told to go on.
const LOADED_LATER: &str = r#"
import asyncio, contextvars, sys
print("started", flush=True)
sys.stdin.readline()
import uvloop, uvloop.loop
print(uvloop.loop.__file__, flush=True)
sys.stdin.readline()
"#;

#[test]
fn uvloop_is_found_where_it_is_loaded_from_also_when_that_is_later() {
    let Some(exe) = with_uvloop() else { return };
    let mut python = Python::start(&exe, LOADED_LATER);
    assert_eq!(python.line(), "started\n");
    let tgid = python.child.id();
    let (mut kernel, mut watcher) = (Fake::default(), Watcher::new());
    watcher.seen(tgid, 0);
    let news = watcher.poll(1, &mut kernel);
    assert!(news.len() == 1 && news[0].exact && news[0].why.is_empty(), "{news:?}");
    assert!(kernel.streams.is_empty() && kernel.writes.iter().all(|writes| *writes == PyContexts::AT_ONCE));
    python.go_on();
    let path = PathBuf::from(python.line().trim());
    // Each copy of a context is a reason to look again, for a while.
    const SECOND: u64 = 1_000_000_000;
    watcher.observe(&record(kind::PY_COPY, tgid, SECOND));
    watcher.poll(SECOND, &mut kernel);
    let [(found, stream)] = kernel.streams.as_slice() else { panic!("{:?}", kernel.streams) };
    let same = [found.as_path(), &path].map(|path| path.metadata().expect("there").ino());
    assert_eq!(same[0], same[1], "{found:?}");
    assert_eq!(kernel.writes.last(), Some(&stream.passed));
    assert_ne!(stream.passed, PyContexts::AT_ONCE);

    let bytes = std::fs::read(&path).expect("readable");
    let file = object::File::parse(&*bytes).expect("an ELF file");
    let symbol = |name: &str| {
        let found = file.symbols().find(|s| {
            s.name().is_ok_and(|n| n.starts_with("__pyx_pw_6uvloop_4loop_8UVStream_") && n.ends_with(name))
        });
        found.map(|s| s.address())
    };
    match ["_1write", "_5write", "_7writelines"].map(symbol) {
        [None, None, None] => println!("no symbols to compare with"),
        [first, other, Some(writelines)] => {
            let write = first.or(other).expect("write has a symbol, too");
            for (found, begin) in stream.writes.into_iter().zip([write, writelines]) {
                assert!((begin..begin + 8).contains(&found), "{stream:x?}: {begin:#x}");
            }
        }
        other => panic!("{other:x?}"),
    }
    watcher.observe(&record(kind::EXIT, tgid, 2 * SECOND));
    watcher.poll(100 * SECOND, &mut kernel);
    assert_eq!(kernel.detached_streams, 1);
}

#[test]
fn a_loop_that_cannot_be_seen_leaves_the_rest_exact_and_says_so() {
    let Some(exe) = with_uvloop() else { return };
    let mut python =
        Python::start(&exe, "import sys, uvloop\nprint('ready', flush=True)\nsys.stdin.readline()");
    assert_eq!(python.line(), "ready\n");
    let mut kernel = Fake { no_stream: true, ..Fake::default() };
    let mut watcher = Watcher::new();
    watcher.seen(python.child.id(), 0);
    let news = watcher.poll(1, &mut kernel);
    assert!(news.len() == 1 && news[0].exact && news[0].why.contains("uvloop: not that one"), "{news:?}");
    assert!(kernel.writes.iter().all(|writes| *writes == PyContexts::AT_ONCE));
}

fn watched(kernel: &mut Fake) -> PythonStatus {
    let exe = interpreters().into_iter().find(|exe| minor(exe) >= 8).expect("an interpreter of 3.8 or later");
    let mut python = Python::start(&exe, THREADS);
    threads(&mut python, 5);
    let tgid = python.child.id();
    let mut watcher = Watcher::new();
    watcher.seen(tgid, 0);
    let news = watcher.poll(1, kernel);
    assert_eq!(news.len(), 1, "{news:?}");
    assert_eq!(watcher.statuses().collect::<Vec<_>>(), news.iter().collect::<Vec<_>>());
    assert_eq!(news[0].tgid, tgid);
    news[0].clone()
}

#[test]
fn a_process_is_exact_once_the_kernel_side_knows_all_of_it() {
    let mut kernel = Fake::default();
    let status = watched(&mut kernel);
    assert!(status.exact && status.why.is_empty(), "{status:?}");
    assert_eq!(kernel.attached, 1);
    // The script has not loaded the module; but it will be loaded from there.
    assert_eq!(kernel.pools.len(), 1, "{:?}", kernel.pools);
    assert!(!kernel.told.is_empty() && kernel.told.iter().all(|tgid| *tgid == status.tgid));
}

#[test]
fn a_probe_that_cannot_be_attached_degrades_and_nothing_else_is_told() {
    let mut kernel = Fake { no_probe: true, ..Fake::default() };
    let status = watched(&mut kernel);
    assert!(!status.exact && status.why.contains("uprobes are forbidden here"), "{status:?}");
    assert!(kernel.told.is_empty(), "contexts without their copies would be worse than none");
}

#[test]
fn a_process_whose_pools_are_not_seen_is_exact_otherwise_and_says_so() {
    let mut kernel = Fake { no_pool: true, ..Fake::default() };
    let status = watched(&mut kernel);
    assert!(status.exact && status.why.contains("not at this file"), "{status:?}");
    assert!(!kernel.told.is_empty());
}

#[test]
fn a_full_table_degrades() {
    let status = watched(&mut Fake { no_room: true, ..Fake::default() });
    assert!(!status.exact && status.why.contains("the table is full"), "{status:?}");
}

/// As in a container: below an overlay of its own, whose lower layer is this machine's root.
fn contained(exe: &Path, script: &str, dir: &Path) -> Python {
    const MOUNT: &str = r#"mount -t tmpfs tmpfs "$1" && mkdir "$1/u" "$1/w" "$1/m" &&
        mount -t overlay overlay -o "lowerdir=/,upperdir=$1/u,workdir=$1/w" "$1/m" &&
        cd "$1/m" && mkdir -p .old && pivot_root . .old && exec "$2" -c "$3""#;
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", MOUNT, "sh"]).arg(dir).arg(exe).arg(script);
    Python::run(command)
}

fn record(kind: u16, tgid: u32, ts: u64) -> EventHeader {
    EventHeader { ts, tgid, tid: tgid, len: 0, kind, flags: 0 }
}

#[test]
fn containers_of_one_image_share_a_probe_for_as_long_as_one_is_there() {
    if !rustix::process::geteuid().is_root() {
        println!("only root can mount");
        return;
    }
    const MINUTE: u64 = 60_000_000_000;
    let exe = interpreters().into_iter().find(|exe| minor(exe) >= 8).expect("an interpreter of 3.8 or later");
    let exe = exe.canonicalize().expect("it is there");
    let mut pythons = Vec::new();
    let mut kernel = Fake::default();
    let mut watcher = Watcher::new();
    let mut devices = BTreeSet::new();
    for _ in 0..2 {
        let dir = tempfile::tempdir().expect("a directory");
        let mut python = contained(&exe, THREADS, dir.path());
        threads(&mut python, 5);
        let tgid = python.child.id();
        let root = std::fs::metadata(format!("/proc/{tgid}/root")).expect("a root");
        devices.insert(root.dev());
        watcher.seen(tgid, 0);
        let news = watcher.poll(1, &mut kernel);
        assert!(news.len() == 1 && news[0].exact, "{news:?}");
        pythons.push((python, dir));
    }
    assert_eq!(devices.len(), 2, "mounts of their own");
    assert_eq!((kernel.attached, kernel.pools.len()), (1, 1));
    let tgids: Vec<u32> = pythons.iter().map(|(python, _)| python.child.id()).collect();
    watcher.observe(&record(kind::EXIT, tgids[0], MINUTE));
    watcher.poll(10 * MINUTE, &mut kernel);
    assert_eq!((kernel.detached, kernel.detached_pools), (0, 0), "one is there");
    watcher.observe(&record(kind::EXIT, tgids[1], 10 * MINUTE));
    watcher.poll(12 * MINUTE, &mut kernel);
    assert_eq!((kernel.detached, kernel.detached_pools), (1, 1));
}

#[test]
fn an_interpreter_that_was_replaced_on_disk_is_not_taken_for_its_successor() {
    let exe = interpreters().into_iter().find(|exe| minor(exe) >= 8).expect("an interpreter of 3.8 or later");
    // Its own file, or what that loads: a copy is all of the interpreter, or a stub that does not start here.
    let dir = tempfile::tempdir().expect("a directory");
    let copy = dir.path().join("python3");
    std::fs::copy(&exe, &copy).expect("copied");
    let mut python = Python::start(&copy, THREADS);
    threads(&mut python, 5);
    std::fs::remove_file(&copy).expect("removed");
    std::fs::copy(&exe, &copy).expect("copied again");
    let tgid = python.child.id();
    match open(tgid) {
        Err(PythonError::Replaced(path)) => assert_eq!(Path::new(&path), copy),
        // With a library of its own, which is where it was.
        Ok(process) => assert!(process.path.to_string_lossy().contains("libpython"), "{:?}", process.path),
        Err(e) => panic!("{e}"),
    }
}
