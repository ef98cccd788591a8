//! Python causality in the live agent: the watcher, its probes, and what becomes of both.

mod news;

use std::path::Path;

use ktrdr_ebpf_common::EventHeader;
use ktrdr_ebpf_common::maps::{PyProcess, PyThread};

use crate::event::Ns;
use crate::event::shell::{PythonStatus, ShellEvent};
use crate::kernel::Kernel;
use crate::python::queue::Queue;
use crate::python::stream::Stream;
use crate::python::{ProbeId, Probes, Watcher};
use news::News;

/// Follows the Python processes, unless that is switched off.
pub(super) struct Python(Option<(Watcher, News)>);

impl Python {
    pub(super) fn new(enabled: bool) -> Self {
        Self(enabled.then(|| (Watcher::new(), News::default())))
    }

    /// A record of the kernel programs.
    pub(super) fn observe(&mut self, header: &EventHeader) {
        if let Some((w, _)) = &mut self.0 {
            w.observe(header);
        }
    }

    /// A process that has sockets.
    pub(super) fn seen(&mut self, tgid: u32, now: Ns) {
        if let Some((w, _)) = &mut self.0 {
            w.seen(tgid, now);
        }
    }

    /// Looks at what is due; what became known, said aloud.
    pub(super) fn poll(&mut self, now: Ns, kernel: &mut Kernel) -> Vec<ShellEvent> {
        let Some((w, news)) = &mut self.0 else { return Vec::new() };
        let statuses = w.poll(now, kernel);
        news.pass(now).into_iter().for_each(News::say);
        statuses
            .into_iter()
            .inspect(|status| news.of(status).into_iter().for_each(News::say))
            .map(ShellEvent::Python)
            .collect()
    }

    /// The start-up report's line; each process has had its own.
    pub(super) fn announce(&self) {
        if self.0.is_none() {
            tracing::info!("python causality: off (python.causality)");
            return;
        }
        let (exact, degraded): (Vec<_>, Vec<_>) = self.statuses().partition(|s| s.exact);
        // With one, its own line has said it.
        match (exact.len(), degraded.len()) {
            (0, 0) => tracing::info!("python causality: no Python process with sockets yet"),
            (1, 0) | (0, 1) => {}
            (n, 0) => tracing::info!("python causality: exact in {n} processes"),
            (n, m) => tracing::warn!("python causality: exact in {n} processes, degraded in {m}"),
        }
    }

    /// How it stands, by process: for the start-up report and the self-metrics.
    pub(super) fn statuses(&self) -> impl Iterator<Item = &PythonStatus> {
        self.0.iter().flat_map(|(w, _)| w.statuses())
    }
}

impl Probes for Kernel {
    fn attach(&mut self, path: &Path, copy: u64) -> Result<ProbeId, String> {
        self.attach_py_copy(path, copy)
            .map(ProbeId)
            .map_err(|e| format!("context copies cannot be seen in {}: {e}", path.display()))
    }

    fn attach_pool(&mut self, path: &Path, queue: &Queue) -> Result<ProbeId, String> {
        self.attach_py_pool(path, queue.put, queue.gets)
            .map(ProbeId)
            .map_err(|e| format!("{} cannot be probed: {e}", path.display()))
    }

    fn attach_stream(&mut self, path: &Path, stream: &Stream) -> Result<ProbeId, String> {
        self.attach_py_stream(path, stream.writes)
            .map(ProbeId)
            .map_err(|e| format!("{} cannot be probed: {e}", path.display()))
    }

    fn detach(&mut self, ProbeId(link): ProbeId) {
        self.detach_py(link);
    }

    fn process(&mut self, process: PyProcess) -> Result<(), String> {
        self.set_py_process(process).map_err(|e| e.to_string())
    }

    fn thread(&mut self, tid: u32, thread: PyThread) -> Result<(), String> {
        self.set_py_thread(tid, thread).map_err(|e| e.to_string())
    }
}
