//! Whether the returns of functions may be observed: tried on this kernel, and what follows where it ended badly.

use std::path::Path;

use ktrdr_agent::{
    kernel::{
        Hook, KernelOptions, ProbeStatus, ReturnProbes, Trial,
        features::{self, Status},
    },
    python::Watcher,
};

use crate::{
    observer::{Body, Observer, options},
    pythons::{Python, followed},
    sys,
};

/// The names of the programs that wait for Python.
const PYTHON: [&str; 3] = ["py_context_copy_ret", "py_pool_submit", "py_pool_take"];

fn with(return_trial: Trial) -> KernelOptions {
    KernelOptions { return_trial, ..options(Hook::Auto) }
}

#[test]
fn the_trial_says_that_this_kernel_harms_nobody_and_leaves_nothing() {
    let Some(mut observer) = Observer::start(&with(Trial::Always)) else { return };
    let ReturnProbes::Harmless(how) = observer.kernel.return_probes() else {
        panic!("{:?}", observer.kernel.return_probes());
    };
    assert!(how.contains("tried"), "{how}");
    for probe in observer.kernel.probes().iter().filter(|probe| PYTHON.contains(&probe.name)) {
        assert!(matches!(probe.status, ProbeStatus::Skipped(_)), "{probe:?}");
    }
    observer.settle();
    let ours = observer.records.iter().filter(|record| record.header.tid == sys::gettid());
    // Not threads: links are closed on some of their own.
    let forks = ours.filter_map(|record| match record.body {
        Body::Fork(fork) if fork.child_tgid != record.header.tgid => Some(fork.child_tgid),
        _ => None,
    });
    let [child] = forks.collect::<Vec<_>>()[..] else { panic!("not one child: {:?}", observer.records) };
    let of_child: Vec<&Body> = observer
        .records
        .iter()
        .filter(|record| record.header.tgid == child)
        .map(|record| &record.body)
        .collect();
    assert!(matches!(of_child[..], [Body::Exit(_)]), "no copy of a context is told of it: {of_child:?}");
    assert!(!Path::new(&format!("/proc/{child}")).exists(), "it was waited for");
}

#[test]
fn where_returns_would_end_programs_no_python_is_probed_and_each_process_says_why() {
    const WHY: &str = "ends programs confined by seccomp";
    let Some(mut observer) = Observer::start(&with(Trial::Failed)) else { return };
    let itself = Path::new("/proc/self/exe");
    for refused in [
        observer.kernel.attach_py_copy(itself, 0x1000),
        observer.kernel.attach_py_pool(itself, 0x1000, [0x1000; 2]),
    ] {
        assert!(refused.unwrap_err().to_string().contains(WHY));
    }
    for probe in observer.kernel.probes().iter().filter(|probe| PYTHON.contains(&probe.name)) {
        assert!(matches!(&probe.status, ProbeStatus::Skipped(why) if why.contains("not used")), "{probe:?}");
    }
    let (exe, _) = followed().remove(0);
    let mut python = Python::start(&exe, "import sys; print('ready', flush=True); sys.stdin.readline()");
    assert_eq!(python.line(), "ready\n");
    let mut watcher = Watcher::new();
    watcher.seen(python.child.id(), 0);
    let news = watcher.poll(1, &mut observer.kernel);
    let [status] = &news[..] else { panic!("{news:?}") };
    assert!(!status.exact && status.why.contains(WHY), "{status:?}");
    drop(observer);

    let rows = features::check(&with(Trial::Failed));
    let row = rows.iter().find(|row| row.name == "return probes").unwrap();
    assert_eq!(row.status, Status::Warning);
    assert!(
        row.detail.contains(WHY) && row.remedy.as_ref().is_some_and(|what| what.contains("6.14")),
        "{row:?}"
    );
}

#[test]
fn a_kernel_with_the_correction_is_not_tried() {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let numbers: Vec<u32> = release.split('.').map_while(|number| number.parse().ok()).collect();
    if numbers < vec![6, 14] {
        println!("skipped: {release} may be without it");
        return;
    }
    let Some(observer) = Observer::start(&with(Trial::WhereNeeded)) else { return };
    let found = observer.kernel.return_probes();
    assert!(matches!(found, ReturnProbes::Harmless(how) if !how.contains("tried")), "{found:?}");
}
