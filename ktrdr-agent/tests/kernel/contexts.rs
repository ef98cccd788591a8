//! Copies of Python contexts: a function of this program stands in for CPython's, and memory of its own for an interpreter.

use std::{cell::Cell, fs, path::Path};

use ktrdr_agent::kernel::Hook;
use ktrdr_ebpf_common::{
    Counter, SEND,
    limits::MAX_PY_PROCESSES,
    maps::{PyContexts, PyForetelling, PyProcess, PyThread, place_of},
    records::THREADS_OWN_CONTEXT,
};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::{
    observer::{Body, Observer, Pretended, conn_of, options},
    steering::Pair,
    sys,
};

/// Stands in for CPython's function: exported, never inlined, returns an address.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ktrdr_test_copy_current(child: u64) -> u64 {
    std::hint::black_box(child)
}

/// File offset of a function of this executable.
pub fn function(name: &str) -> u64 {
    let bytes = fs::read("/proc/self/exe").unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
    symbol.address() - section.address() + section.file_range().unwrap().0
}

#[test]
fn python_context_copies_name_parent_and_child() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let python = Pretended::new();
    let (context, thread) = (python.context(), python.thread());
    let in_contexts = PyThread { contexts: PyContexts { threads_enter: 1, ..thread.contexts }, ..thread };
    let at = function("ktrdr_test_copy_current");
    let probe = observer.kernel.attach_py_copy(Path::new("/proc/self/exe"), at).unwrap();

    ktrdr_test_copy_current(1);
    observer.kernel.set_py_thread(sys::gettid(), thread).unwrap();
    ktrdr_test_copy_current(2);
    ktrdr_test_copy_current(0);
    // Another process's thread of the same number must not be believed.
    observer.kernel.set_py_thread(sys::gettid(), PyThread { tgid: 1, ..thread }).unwrap();
    ktrdr_test_copy_current(3);
    // The thread's own context, where threads run inside one; the test's thread is not its process's first.
    observer.kernel.set_py_thread(sys::gettid(), in_contexts).unwrap();
    ktrdr_test_copy_current(4);
    observer.kernel.set_py_thread(sys::gettid(), thread).unwrap();
    let mut pair = Pair::new();
    pair.send(b"under a context");
    observer.kernel.remove_py_thread(sys::gettid()).unwrap();
    observer.kernel.detach_py(probe);
    ktrdr_test_copy_current(5);
    observer.settle();

    assert_eq!(copies(&observer), [(0, 1), (context, 2), (0, 3), (context | THREADS_OWN_CONTEXT, 4)]);
    assert_eq!(observer.counter(Counter::PyContextCopies), 4);
    let (client_port, server_port) = pair.ports();
    let conn = conn_of(&observer.records, client_port, server_port).unwrap();
    assert_eq!(observer.stream(conn, SEND)[0].body.py_context, context);
    assert_eq!(observer.states(conn)[0].1.py_context, context);
}

/// (parent, child) of the copies that this thread made.
fn copies(observer: &Observer) -> Vec<(u64, u64)> {
    copies_of(observer, sys::gettid())
}

/// Those of any thread.
fn copies_of(observer: &Observer, tid: u32) -> Vec<(u64, u64)> {
    let ours = observer.records.iter().filter(|r| r.header.tid == tid);
    let pair = |body: &Body| match body {
        Body::PyCopy(copy) => Some((copy.parent, copy.child)),
        _ => None,
    };
    ours.filter_map(|r| pair(&r.body)).collect()
}

thread_local! {
    /// Where this thread finds its own thread state.
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Memory that the programs take for an interpreter's: of this thread alone, laid out like 3.12's.
#[cfg(target_arch = "x86_64")]
pub struct Interpreter {
    /// What the free list says.
    head: Box<[Cell<u64>; 2]>,
    /// Thread states with a context that was entered, and without one.
    states: [Box<[u64; 32]>; 2],
    context: Box<[u64; 6]>,
}

#[cfg(target_arch = "x86_64")]
impl Interpreter {
    /// Offset of the list's head in the interpreter's structure.
    const HEAD: u32 = 8;

    /// Attaches the probe, and tells the programs of this process.
    pub fn start(observer: &mut Observer) -> Interpreter {
        let (head, context) = (Box::new([Cell::new(0), Cell::new(0)]), Box::new([0, 0, 0, 0, 0, 1]));
        let state = |context: u64| {
            let mut state = Box::new([0; 32]);
            state[usize::from(PyForetelling::TSTATE_INTERP) / 8] = head.as_ptr() as u64;
            state[208 / 8] = context;
            state
        };
        let states = [state(context.as_ptr() as u64), state(0)];
        let interpreter = Interpreter { head, states, context };
        interpreter.with_context(true);
        let at = function("ktrdr_test_copy_current");
        observer.kernel.attach_py_copy(Path::new("/proc/self/exe"), at).unwrap();
        observer.kernel.set_py_process(interpreter.process()).unwrap();
        interpreter
    }

    /// What the programs are told.
    fn process(&self) -> PyProcess {
        // SAFETY: asks for the thread's own number, which is its thread pointer in glibc and musl on x86_64.
        let thread_pointer = unsafe { libc::pthread_self() } as u64;
        PyProcess {
            tls_offset: STATE.with(|cell| cell.as_ptr() as u64).wrapping_sub(thread_pointer) as i32,
            tgid: std::process::id(),
            contexts: PyContexts { current: 208, entered: 40, threads_enter: 0, writes: 0 },
            foretelling: PyForetelling::new(Self::HEAD),
        }
    }

    /// Whether a context is current from now on.
    fn with_context(&self, current: bool) {
        STATE.set(self.states[usize::from(!current)].as_ptr() as u64);
    }

    /// A copy, as the interpreter makes it, but that the list may say something else.
    pub fn copy(&self, says: u64, makes: u64) {
        self.head[1].set(says);
        ktrdr_test_copy_current(makes);
    }

    /// Address of the context that is current.
    fn context(&self) -> u64 {
        self.context.as_ptr() as u64
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for Interpreter {
    fn drop(&mut self) {
        STATE.set(0);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn a_free_list_of_contexts_is_believed_as_long_as_it_is_right() {
    const CONFIRMED: u64 = PyForetelling::CONFIRMED as u64;
    const CHECK: u64 = PyForetelling::CHECK as u64;
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let interpreter = Interpreter::start(&mut observer);
    // Linux 6.13 and later.
    let foretells = observer.kernel.program_stats().iter().any(|program| program.name == "py_context_copy");

    let many = 4 * CONFIRMED;
    (0..many).for_each(|n| interpreter.copy(1000 + n, 1000 + n));
    let mut made: Vec<u64> = (1000..1000 + many).collect();
    let foretold = observer.counter(Counter::PyContextForetold);
    let told = many - CONFIRMED - (many - CONFIRMED).div_ceil(CHECK);
    assert_eq!(foretold, if foretells { told } else { 0 });
    // An empty list says nothing.
    interpreter.copy(0, 7);
    made.push(7);
    // Nor does it to a thread without a context, which gets one from it first.
    interpreter.with_context(false);
    interpreter.copy(8, 9);
    interpreter.with_context(true);
    assert_eq!(observer.counter(Counter::PyContextForetold), foretold);
    // A list that is wrong is found out by one of the next few copies, and not asked again.
    let wrong = 2 * CHECK;
    (0..wrong).for_each(|n| interpreter.copy(1, 5000 + n));
    let before_found_out = observer.counter(Counter::PyContextForetold) - foretold;
    assert!(before_found_out < CHECK, "{before_found_out}");
    assert_eq!(observer.counter(Counter::PyContextMistold), u64::from(foretells));
    observer.settle();

    let seen = copies(&observer);
    assert_eq!(observer.counter(Counter::PyContextCopies), seen.len() as u64);
    let right = made.len();
    let of_context: Vec<(u64, u64)> = made.into_iter().map(|child| (interpreter.context(), child)).collect();
    assert!(seen[..right] == of_context, "{seen:?}");
    assert_eq!(seen[right], (0, 9));
    let found_out = right + 1 + before_found_out as usize;
    assert!(seen[found_out..].iter().all(|(_, child)| *child >= 5000), "{:?}", &seen[found_out..]);
    assert_eq!(seen.len(), right + 1 + wrong as usize, "none is told twice, and none is missed");
}

/// Processes have places in an array by their ids, and what has no place there is followed all the same.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_process_whose_place_another_has_is_followed() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let holder = std::process::id() + MAX_PY_PROCESSES;
    assert_eq!(place_of(holder), place_of(std::process::id()));
    let other = |tgid| PyProcess {
        tls_offset: 0,
        tgid,
        contexts: PyContexts { current: 0, entered: 40, threads_enter: 0, writes: 0 },
        foretelling: PyForetelling::new(0),
    };
    observer.kernel.set_py_process(other(holder)).unwrap();
    let interpreter = Interpreter::start(&mut observer);
    let context = interpreter.context();
    interpreter.copy(0, 1);
    // A forked process has everything where its parent has it, until it runs another program.
    // SAFETY: the child only calls this function and `_exit`.
    let child = unsafe {
        match libc::fork() {
            0 => {
                ktrdr_test_copy_current(2);
                libc::_exit(0);
            }
            child => child,
        }
    };
    assert!(child > 0);
    // SAFETY: the child is ours, and no status is asked for.
    assert_eq!(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, child);
    observer.settle();
    assert_eq!(copies(&observer), [(context, 1)]);
    assert_eq!(copies_of(&observer, child.cast_unsigned()), [(context, 2)]);
}
