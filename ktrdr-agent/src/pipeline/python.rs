//! Does what the Python watcher asks for.

use crate::event::shell::{PythonStatus, ShellEvent};
use crate::kernel::Kernel;
use crate::python::Action;

/// Carries out one action; the fact it makes known, if any.
pub(super) fn act(kernel: &mut Kernel, action: Action) -> Option<ShellEvent> {
    match action {
        Action::Attach { path, copy } => {
            // A probe at `ret` itself needs no second trap, but its instruction has to be single-stepped: 20 µs and
            // more in a virtual machine against 2 µs of the return probe (build host, 6.18). So it comes second.
            let at_return = kernel.attach_py_copy(&path, copy.entry, true);
            let attached = match at_return {
                Err(_) if !copy.returns.is_empty() => {
                    copy.returns.iter().try_for_each(|at| kernel.attach_py_copy(&path, *at, false))
                }
                done => done,
            };
            match attached {
                Ok(()) => tracing::debug!("context copies are seen in {}", path.display()),
                Err(e) => tracing::warn!("context copies are not seen in {}: {e}", path.display()),
            }
        }
        Action::Process(tgid, process) => warn(tgid, kernel.set_py_process(tgid, process)),
        Action::Thread(tid, thread) => warn(thread.tgid, kernel.set_py_thread(tid, thread)),
        Action::Status(status) => {
            report(&status);
            return Some(ShellEvent::Python(status));
        }
    }
    None
}

fn warn(tgid: u32, result: Result<(), crate::kernel::KernelError>) {
    if let Err(e) = result {
        tracing::warn!("python causality of process {tgid} is incomplete: {e}");
    }
}

fn report(status: &PythonStatus) {
    let PythonStatus { tgid, version, exact, why } = status;
    match exact {
        true => tracing::info!("python causality: exact (pid {tgid}, CPython {version})"),
        false => tracing::warn!("python causality: degraded (pid {tgid}): {why}"),
    }
}
