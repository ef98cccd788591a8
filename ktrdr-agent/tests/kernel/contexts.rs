//! Copies of Python contexts: a function of this program stands in for CPython's, and memory of its own for an interpreter.

use std::{cell::Cell, fs, path::Path};

use ktrdr_agent::kernel::Hook;
use ktrdr_ebpf_common::{
    Counter, SEND,
    maps::{PyContexts, PyForetelling, PyProcess, PyThread},
    records::THREADS_OWN_CONTEXT,
};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use crate::{
    observer::{Body, Observer, conn_of, options},
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
fn function(name: &str) -> u64 {
    let bytes = fs::read("/proc/self/exe").unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
    symbol.address() - section.address() + section.file_range().unwrap().0
}

#[test]
fn python_context_copies_name_parent_and_child() {
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    // A thread state whose context is at offset 16, and a context that says at offset 40 that it was entered, and at
    // 16 that it is the first that was.
    let entered: [u64; 6] = [0, 0, 0, 0, 0, 1];
    let context = entered.as_ptr() as u64;
    let state: [u64; 3] = [0, 0, context];
    let thread = PyThread {
        tstate: state.as_ptr() as u64,
        contexts: PyContexts { current: 16, entered: 40, first_prev: 0, reserved: 0 },
        tgid: std::process::id(),
        reserved: 0,
    };
    let in_contexts = PyThread { contexts: PyContexts { first_prev: 16, ..thread.contexts }, ..thread };
    observer.kernel.attach_py_copy(Path::new("/proc/self/exe"), function("ktrdr_test_copy_current")).unwrap();

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
    let ours = observer.records.iter().filter(|r| r.header.tid == sys::gettid());
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

/// What an interpreter's free list says and what then happens, in one process; the number of copies told beforehand.
#[cfg(target_arch = "x86_64")]
#[test]
fn a_free_list_of_contexts_is_believed_as_long_as_it_is_right() {
    /// Offset of the list's head in the interpreter's structure.
    const HEAD: u32 = 8;
    const CONFIRMED: u64 = PyForetelling::CONFIRMED as u64;
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let entered: [u64; 6] = [0, 0, 0, 0, 0, 1];
    let context = entered.as_ptr() as u64;
    let interpreter = [Cell::new(0_u64), Cell::new(0)];
    let state = [0, 0, interpreter.as_ptr() as u64, context];
    STATE.set(state.as_ptr() as u64);
    // SAFETY: asks for the thread's own number, which is its thread pointer in glibc and musl on x86_64.
    let thread_pointer = unsafe { libc::pthread_self() } as u64;
    let process = PyProcess {
        tls_offset: STATE.with(|cell| cell.as_ptr() as u64).wrapping_sub(thread_pointer) as i32,
        reserved: 0,
        contexts: PyContexts { current: 24, entered: 40, first_prev: 0, reserved: 0 },
        foretelling: PyForetelling::new(HEAD),
    };
    observer.kernel.attach_py_copy(Path::new("/proc/self/exe"), function("ktrdr_test_copy_current")).unwrap();
    observer.kernel.set_py_process(std::process::id(), process).unwrap();
    // As the interpreter does it, but that the list may say something else.
    let copy = |says: u64, makes: u64| {
        interpreter[1].set(says);
        ktrdr_test_copy_current(makes);
    };

    let many = 4 * CONFIRMED;
    (0..many).for_each(|n| copy(1000 + n, 1000 + n));
    let mut made: Vec<u64> = (1000..1000 + many).collect();
    let foretold = observer.counter(Counter::PyContextForetold);
    // Linux 6.13 and later.
    let told = many - CONFIRMED - (many - CONFIRMED) / u64::from(PyForetelling::CHECK);
    assert!(foretold == 0 || foretold == told, "{foretold} of {told}");
    // An empty list says nothing.
    copy(0, 7);
    made.push(7);
    // Nor does it to a thread without a context, which gets one from it first.
    let without = [0, 0, interpreter.as_ptr() as u64, 0];
    STATE.set(without.as_ptr() as u64);
    copy(8, 9);
    STATE.set(state.as_ptr() as u64);
    assert_eq!(observer.counter(Counter::PyContextForetold), foretold);
    // A list that is wrong is found out by one of the next few copies, and not asked again.
    let wrong = 2 * u64::from(PyForetelling::CHECK);
    (0..wrong).for_each(|n| copy(1, 5000 + n));
    let before_found_out = observer.counter(Counter::PyContextForetold) - foretold;
    assert!(before_found_out < u64::from(PyForetelling::CHECK), "{before_found_out}");
    assert_eq!(observer.counter(Counter::PyContextMistold), u64::from(foretold != 0));
    observer.settle();
    STATE.set(0);

    let seen = copies(&observer);
    let right = made.len();
    let of_context: Vec<(u64, u64)> = made.into_iter().map(|child| (context, child)).collect();
    assert!(seen[..right] == of_context, "{seen:?}");
    assert_eq!(seen[right], (0, 9));
    let found_out = right + 1 + before_found_out as usize;
    assert!(seen[found_out..].iter().all(|(_, child)| *child >= 5000), "{:?}", &seen[found_out..]);
    assert_eq!(seen.len(), right + 1 + wrong as usize, "none is told twice, and none is missed");
}
