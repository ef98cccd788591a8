//! Names a process and makes the record about it.

use std::sync::Arc;

use super::{
    MAX_GENERATIONS, Metadata, Ports,
    container::{self, ContainerNames, Pod},
    guess, pattern,
    process::Process,
    service::{Service, Subject},
};
use crate::event::shell::{ProcessMeta, ShellEvent};
use crate::trace::commands::name::Program;

impl Metadata {
    /// The process's own description or, if it is not known, one read now. Does not make it known.
    fn look(&self, pid: u32) -> Option<(Arc<Process>, Ports)> {
        let entry = self.known.peek(&pid).or_else(|| self.prospects.peek(&pid));
        entry.map(|e| (e.process.clone(), e.ports.clone())).or_else(|| {
            let process = self.read(pid, u64::MAX)?;
            Some((Arc::new(process), Ports::new()))
        })
    }

    /// Names the process; `None` if that was reported already.
    pub(super) fn report(&mut self, pid: u32) -> Option<ShellEvent> {
        let entry = self.known.peek(&pid)?;
        let (process, mut ports) = (entry.process.clone(), entry.ports.clone());
        let mut origin = process.clone();
        for _ in 0..MAX_GENERATIONS {
            let Some((parent, parent_ports)) = self.look(origin.ppid).filter(|_| origin.ppid > 1) else {
                break;
            };
            let copy = parent.args == origin.args && !origin.args.is_empty();
            if !guess::is_spawned(&origin) && !copy {
                break;
            }
            if ports.is_empty() {
                ports = parent_ports;
            }
            origin = parent;
        }
        let names = self.container_names(&process);
        let subject = Subject { process: &process, origin: &origin, ports: &ports, container: &names };
        let service = self.namer.name(&subject);
        let excluded = self.filter.excludes(&process, &self.ancestors(&process));
        let entry = self.known.peek_mut(&pid)?;
        if entry.service.as_ref() == Some(&service) {
            return None;
        }
        entry.service = Some(service.clone());
        let mut meta = describe(&process, service, &names, excluded);
        if guess::is_spawned(&process) && !guess::is_spawned(&origin) {
            meta.origin.clone_from(&origin.args);
        }
        meta.command_line = self.is_command(&process);
        for (key, value) in &self.attributes {
            if !meta.attributes.iter().any(|(k, _)| k == key) {
                meta.attributes.push((key.clone(), value.clone()));
            }
        }
        self.mask.process(&mut meta);
        Some(ShellEvent::Process(meta))
    }

    /// Whether the settings name what the process runs as a command.
    pub(super) fn is_command(&self, process: &Process) -> bool {
        let program = Program::of(&process.args);
        program.is_some_and(|p| self.commands.iter().any(|pattern| pattern::glob(pattern, p.name)))
    }

    fn ancestors(&self, process: &Process) -> Vec<u32> {
        let mut found = Vec::new();
        let mut pid = process.ppid;
        while self.filter.by_pid() && pid > 1 && found.len() < MAX_GENERATIONS {
            found.push(pid);
            pid = self.look(pid).map_or(0, |(p, _)| p.ppid);
        }
        found
    }

    fn container_names(&mut self, process: &Process) -> ContainerNames {
        let Some(container) = &process.container else { return ContainerNames::default() };
        if let Some(names) = self.containers.get(&container.id) {
            return names.clone();
        }
        #[cfg_attr(not(feature = "kubernetes"), expect(unused_mut, reason = "only Kubernetes adds to them"))]
        let mut names = container::names(&self.root, container);
        #[cfg(feature = "kubernetes")]
        if let Some(kubernetes) = &self.kubernetes {
            names.known = kubernetes.pod(&container.id);
        }
        self.containers.insert(container.id.clone(), names.clone());
        names
    }
}

/// The record about a process.
fn describe(p: &Process, service: Service, names: &ContainerNames, excluded: bool) -> ProcessMeta {
    let container = p.container.as_ref();
    let runtime = container.map(|c| c.runtime.to_owned()).unwrap_or_default();
    let pod_uid = container.and_then(|c| c.pod_uid.clone()).unwrap_or_default();
    // The API's word goes before that of files and cgroups: a static pod's uid is another there.
    let Pod { name: pod, namespace, uid, container: in_pod, node, workload } =
        names.known.as_deref().cloned().unwrap_or_else(|| Pod {
            name: names.pod.clone(),
            namespace: names.namespace.clone(),
            uid: pod_uid,
            ..Pod::default()
        });
    let own = [
        ("service.namespace", service.namespace),
        ("service.version", service.version),
        ("container.name", names.name.clone()),
        ("container.runtime", runtime),
        ("k8s.namespace.name", namespace),
        ("k8s.pod.name", pod),
        ("k8s.pod.uid", uid),
        ("k8s.container.name", in_pod),
        ("k8s.node.name", node),
    ];
    let mut attributes: Vec<(String, String)> = own
        .into_iter()
        .chain(workload)
        .filter(|(_, v)| !v.is_empty())
        .map(|(k, v)| (k.to_owned(), v))
        .collect();
    for (key, value) in &p.otel.attributes {
        let known = key == "service.name" || attributes.iter().any(|(k, _)| k == key);
        if !known {
            attributes.push((key.clone(), value.clone()));
        }
    }
    ProcessMeta {
        tgid: p.pid,
        ppid: p.ppid,
        starters: Vec::new(),
        threads: p.threads,
        start_ns: p.start_ns,
        service: service.name,
        source: service.source,
        exe: p.exe.clone(),
        command: p.args.clone(),
        origin: Vec::new(),
        cwd: p.cwd.clone(),
        netns: p.netns,
        container_id: container.map(|c| c.id.clone()),
        attributes,
        excluded,
        command_line: false,
    }
}
