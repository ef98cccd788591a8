//! What pools of Python threads are given and take, with every interpreter of this machine.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use ktrdr_agent::{kernel::Hook, python::Watcher};

use crate::{
    observer::{Body, Observer, options},
    pythons::{Python, followed},
};

/// Two threads under a context each submit 100 calls to a pool of four; then others are put through a queue of that kind,
/// and what is left in a pool's queue is given up. Prints what the records must say.
const POOL: &str = r#"
import concurrent.futures.thread as pools, contextvars, queue, sys, threading
lock, runs, submitters = threading.Lock(), [], []
run = pools._WorkItem.run
def noted(item):
    with lock:
        runs.append((threading.get_native_id(), id(item)))
    run(item)
pools._WorkItem.run = noted
pool = pools.ThreadPoolExecutor(4)
def submit(context):
    with lock:
        submitters.append((threading.get_native_id(), id(context)))
    for _ in range(100):
        pool.submit(int)
contexts = [contextvars.copy_context() for _ in range(2)]
print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=c.run, args=(submit, c)) for c in contexts]
[t.start() for t in threads]
[t.join() for t in threads]
pool.shutdown()
class Other:
    pass
class _WorkItems:
    pass
plain = queue.SimpleQueue()
for item in ["text", 7, None, Other(), _WorkItems()] * 20:
    plain.put(item)
while not plain.empty():
    plain.get()
for _ in range(20):
    try:
        plain.get_nowait()
    except queue.Empty:
        pass
print(*[word for pair in submitters for word in pair], flush=True)
print(*[word for pair in runs for word in pair], flush=True)

if sys.version_info >= (3, 9):
    held, go = threading.Semaphore(0), threading.Event()
    def hold():
        held.release()
        go.wait()
    pool = pools.ThreadPoolExecutor(2)
    [pool.submit(hold) for _ in range(2)]
    held.acquire(); held.acquire()
    [pool.submit(int) for _ in range(3)]
    pool.shutdown(wait=False, cancel_futures=True)
    go.set()
print(threading.get_native_id(), flush=True)
sys.stdin.readline()
"#;

/// Follows the process as the agent does.
fn follow(observer: &mut Observer, python: &Python) {
    let mut watcher = Watcher::new();
    watcher.seen(python.child.id(), 0);
    let news = watcher.poll(1, &mut observer.kernel);
    assert!(news.len() == 1 && news[0].exact && news[0].why.is_empty(), "{news:?}");
}

/// Pairs of numbers in a line.
fn pairs(line: &str) -> Vec<(u32, u64)> {
    let words: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    words.chunks_exact(2).map(|pair| (pair[0] as u32, pair[1])).collect()
}

/// A submission or a take: thread, context, item.
#[derive(Clone, Copy, Debug)]
enum Told {
    Submit(u32, u64, u64),
    Take(u32, u64),
}

fn told(observer: &Observer, tgid: u32) -> Vec<Told> {
    let ours = observer.records.iter().filter(|record| record.header.tgid == tgid);
    let told = ours.filter_map(|record| match record.body {
        Body::PySubmit(work) => Some(Told::Submit(record.header.tid, work.py_context, work.item)),
        Body::PyTake(work) => Some(Told::Take(record.header.tid, work.item)),
        _ => None,
    });
    told.collect()
}

/// Items by the thread that took them, in order.
fn by_thread(runs: impl IntoIterator<Item = (u32, u64)>) -> BTreeMap<u32, Vec<u64>> {
    let mut threads = BTreeMap::<u32, Vec<u64>>::new();
    runs.into_iter().for_each(|(tid, item)| threads.entry(tid).or_default().push(item));
    threads
}

#[test]
fn what_a_pool_is_given_is_told_once_and_once_more_when_a_thread_takes_it() {
    for (exe, minor) in followed() {
        let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
        let mut python = Python::start(&exe, POOL);
        assert_eq!(python.line(), "ready\n");
        let tgid = python.child.id();
        follow(&mut observer, &python);
        python.go_on();
        let (submitters, runs) = (pairs(&python.line()), pairs(&python.line()));
        let main: u32 = python.line().trim().parse().unwrap();
        observer.settle();
        let mut all = told(&observer, tgid);
        let last = all.iter().position(|told| matches!(told, Told::Submit(tid, ..) if *tid == main));
        let given_up = all.split_off(last.unwrap_or(all.len()));
        println!("{}: {} records", exe.display(), all.len());

        let submitted: Vec<(u32, u64)> = all
            .iter()
            .filter_map(|told| match told {
                Told::Submit(tid, context, _) => Some((*tid, *context)),
                Told::Take(..) => None,
            })
            .collect();
        assert_eq!((submitters.len(), submitted.len(), runs.len()), (2, 200, 200), "{}", exe.display());
        for submitter in &submitters {
            let theirs = submitted.iter().filter(|by| *by == submitter).count();
            assert_eq!(theirs, 100, "{}: {submitters:x?}", exe.display());
        }
        let taken = all.iter().filter_map(|told| match told {
            Told::Take(tid, item) if *item != 0 => Some((*tid, *item)),
            _ => None,
        });
        assert_eq!(by_thread(taken), by_thread(runs), "{}", exe.display());
        in_order(&all, minor);

        let by_main = by_thread(given_up.iter().filter_map(|told| match told {
            Told::Take(tid, item) => Some((*tid, *item)),
            Told::Submit(..) => None,
        }))
        .remove(&main);
        match by_main.as_deref() {
            Some([a, b, c, 0]) if ![a, b, c].contains(&&0) => {}
            None if minor < 9 => {}
            other => panic!("{}: who gives up a pool's calls has none in the end: {other:?}", exe.display()),
        }
    }
}

/// The probes are at a file, which other processes map that nobody follows.
#[test]
fn nothing_is_told_of_a_process_that_is_not_followed() {
    let Some((exe, _)) = followed().into_iter().next() else { return };
    let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
    let start = || {
        let mut python = Python::start(&exe, POOL);
        assert_eq!(python.line(), "ready\n");
        python
    };
    let (mut one, mut other) = (start(), start());
    follow(&mut observer, &one);
    for python in [&mut other, &mut one] {
        python.go_on();
        (0..3).for_each(|_| drop(python.line()));
    }
    observer.settle();
    assert!(!told(&observer, one.child.id()).is_empty());
    assert!(told(&observer, other.child.id()).is_empty());
}

/// Nothing is taken before it was submitted, or left. Up to 3.12 the order is the queue's; later a thread that waits is handed
/// its item, and another may come away with the next one first.
fn in_order(all: &[Told], minor: u8) {
    let mut queue = VecDeque::new();
    for told in all {
        match told {
            Told::Submit(_, _, item) => {
                assert!(!queue.contains(item), "{item:#x} was submitted and not taken");
                queue.push_back(*item);
            }
            Told::Take(_, 0) => {}
            Told::Take(_, item) => {
                let place = queue.iter().position(|other| other == item);
                assert!(place == Some(0) || place.is_some() && minor >= 13, "{item:#x} is at {place:?}");
                queue.retain(|other| other != item);
            }
        }
    }
    assert!(queue.is_empty(), "not taken: {queue:x?}");
}

/// A pool whose threads wait for work when the probes come and when they end, and forked children at either time.
const WAITING: &str = r#"
import concurrent.futures, os, sys, threading
pool = concurrent.futures.ThreadPoolExecutor(4)
meeting = threading.Barrier(5)
def all_work():
    calls = [pool.submit(meeting.wait) for _ in range(4)]
    meeting.wait()
    return [call.result() for call in calls]
def child():
    """Ends as it says, after its own pool and its parent's queue were of use."""
    pid = os.fork()
    if pid == 0:
        with concurrent.futures.ThreadPoolExecutor(2) as own:
            done = sum(own.map(int, range(5)))
        os._exit(done)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if sys.version_info >= (3, 9) else os.waitpid(pid, 0)[1] >> 8
all_work()
print("ready", flush=True)
sys.stdin.readline()
all_work()
print(child(), pool.submit(child).result(), flush=True)
sys.stdin.readline()
all_work()
print(child(), pool.submit(child).result(), flush=True)
sys.stdin.readline()
"#;

/// Waits until no thread of the process runs, nor is about to.
fn all_wait(tgid: u32) {
    let runs = |stat: String| stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with('S'));
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let tasks = std::fs::read_dir(format!("/proc/{tgid}/task")).unwrap();
        let stats = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")));
        if !stats.filter_map(Result::ok).any(runs) {
            return;
        }
        assert!(Instant::now() < deadline, "it does not come to rest");
        std::thread::yield_now();
    }
}

/// The end of `get` is awaited for as long as a pool has nothing to do; the agent need not be there any more when it comes.
#[test]
fn threads_that_wait_for_work_outlive_the_probes() {
    for (exe, _) in followed() {
        let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
        let mut python = Python::start(&exe, WAITING);
        assert_eq!(python.line(), "ready\n");
        let tgid = python.child.id();
        follow(&mut observer, &python);
        python.go_on();
        assert_eq!(python.line(), "10 10\n", "{}", exe.display());
        all_wait(tgid);
        observer.settle();
        let takers: BTreeMap<u32, Vec<u64>> =
            by_thread(told(&observer, tgid).iter().filter_map(|told| match told {
                Told::Take(tid, item) => Some((*tid, *item)),
                Told::Submit(..) => None,
            }));
        assert!(!takers.is_empty(), "{}: the probes were there", exe.display());
        drop(observer);
        python.go_on();
        assert_eq!(python.line(), "10 10\n", "{}", exe.display());
        python.go_on();
        let ended = python.child.wait().unwrap();
        assert!(ended.success(), "{}: {ended}", exe.display());
    }
}

/// Threads that are in `get` when the interpreter ends, which ends them there (up to 3.13).
const ENDING: &str = r#"
import queue, sys, threading, time
unused = queue.SimpleQueue()
started = threading.Barrier(5)
def forever():
    started.wait()
    while True:
        try:
            unused.get(timeout=0.0001)
        except queue.Empty:
            pass
class Last:
    def __del__(self, sleep=time.sleep):
        for _ in range(100):
            sleep(0.001)
for _ in range(4):
    threading.Thread(target=forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
started.wait()
sys.last = Last()
"#;

#[test]
fn an_interpreter_ends_threads_whose_way_back_is_probed() {
    for (exe, _) in followed() {
        let Some(mut observer) = Observer::start(&options(Hook::Auto)) else { return };
        let mut python = Python::start(&exe, ENDING);
        assert_eq!(python.line(), "ready\n");
        follow(&mut observer, &python);
        python.go_on();
        let ended = python.child.wait().unwrap();
        assert!(ended.success(), "{}: {ended}", exe.display());
    }
}
