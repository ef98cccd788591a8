//! Whose writes are captured: those of every observed process, except who only passes on what others wrote.

use std::collections::{BTreeMap, BTreeSet};

use ktrdr_ebpf_common::limits;

use super::{Core, Output};
use crate::event::shell::ProcessMeta;

/// How much of what a process writes is captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watched {
    /// Standard output and error, and log files.
    Logs,
    /// Also JSON that it writes to any pipe or Unix socket.
    Json,
    /// Also whatever it writes there.
    Pipes,
}

/// Programs that carry other programs' output: their own writes are copies, among them of this agent's.
const CARRIERS: &[&str] = &[
    "dockerd",
    "containerd",
    "containerd-shim",
    "containerd-shim-runc-v2",
    "conmon",
    "podman",
    "systemd-journald",
    "rsyslogd",
    "syslog-ng",
    "kubelet",
    "fluent-bit",
    "fluentd",
    "vector",
    "promtail",
    "filebeat",
    "otelcol",
    "otelcol-contrib",
    "rotel",
    "sshd",
    "tmux",
    "screen",
];

/// Processes watched, and those that use a port which is looked at, where only some are: themselves, or by a program that they
/// started.
#[derive(Debug, Default)]
pub(super) struct Watching {
    watched: BTreeMap<u32, Watched>,
    users: BTreeSet<u32>,
}

impl Watching {
    /// Whether this is more than was asked for so far, and there is room.
    fn want(&mut self, tgid: u32, much: Watched) -> bool {
        let room = self.watched.len() < limits::MAX_WATCHED as usize;
        match self.watched.get_mut(&tgid) {
            Some(before) if *before >= much => false,
            Some(before) => {
                *before = much;
                true
            }
            None if room => self.watched.insert(tgid, much).is_none(),
            None => false,
        }
    }

    /// Other pipes than standard output and error are watched.
    pub fn pipes(&self, tgid: u32) -> bool {
        self.watched.get(&tgid).is_some_and(|much| *much >= Watched::Json)
    }

    /// Whether it uses a port that is looked at.
    pub fn uses_ports(&self, tgid: u32) -> bool {
        self.users.contains(&tgid)
    }

    /// The process ended; the kernel side forgets it by itself.
    pub fn ended(&mut self, tgid: u32) {
        self.watched.remove(&tgid);
        self.users.remove(&tgid);
    }
}

impl Core {
    /// A process became known.
    pub(super) fn watch_service(&mut self, p: &ProcessMeta) {
        if self.config.ports.is_empty() && watchable(p) {
            self.watch(p.tgid, Watched::Logs);
        }
    }

    /// A process was seen to use a port that is looked at. Where only some are, nobody else's output concerns us.
    pub(super) fn watch_user(&mut self, tgid: u32) {
        let room = self.watching.users.len() < limits::MAX_WATCHED as usize;
        if self.config.ports.is_empty() || !room || !self.watching.users.insert(tgid) {
            return;
        }
        if self.processes.get(tgid).is_some_and(|p| watchable(&p.meta)) {
            self.watch(tgid, Watched::Logs);
        }
        for starter in self.ancestors(tgid) {
            self.watching.users.insert(starter);
        }
        self.show_conversations();
    }

    /// Has what a process writes captured.
    pub(super) fn watch(&mut self, tgid: u32, much: Watched) {
        if self.config.watch && tgid != 0 && tgid != self.agent_tgid && self.watching.want(tgid, much) {
            self.out.push_back(Output::Watch(tgid, much));
        }
    }
}

fn watchable(p: &ProcessMeta) -> bool {
    let program = p.exe.rsplit('/').next().unwrap_or_default();
    !p.excluded && !CARRIERS.contains(&program)
}

#[cfg(test)]
mod tests {
    use ktrdr_ebpf_common::{DataBody, RECV, SEND, kind};
    use zerocopy::IntoBytes;

    use super::*;
    use crate::core::CoreConfig;
    use crate::event::shell::{ShellEvent, Start};

    fn watched(core: &mut Core) -> Vec<(u32, Watched)> {
        let mut out = Vec::new();
        while let Some(o) = core.next_output() {
            if let Output::Watch(tgid, much) = o {
                out.push((tgid, much));
            }
        }
        out
    }

    fn process(tgid: u32, exe: &str, excluded: bool) -> Vec<u8> {
        let meta = ProcessMeta { tgid, exe: exe.into(), excluded, ..ProcessMeta::default() };
        ShellEvent::Process(meta).to_record(1)
    }

    #[test]
    fn services_are_watched_once_and_carriers_and_the_agent_never() {
        let mut core = Core::new(CoreConfig::default());
        core.feed(&ShellEvent::Start(Start { agent_tgid: 9, ..Start::default() }).to_record(1));
        core.feed(&process(5, "/usr/bin/python3.13", false));
        core.feed(&process(5, "/usr/bin/python3.13", false));
        core.feed(&process(6, "/usr/bin/dockerd", false));
        core.feed(&process(7, "/usr/bin/python3.13", true));
        core.feed(&process(9, "/usr/bin/ktrdr-agent", false));
        assert_eq!(watched(&mut core), [(5, Watched::Logs)]);
        core.watch(5, Watched::Pipes);
        core.watch(5, Watched::Logs);
        assert_eq!(watched(&mut core), [(5, Watched::Pipes)]);
        core.watching.ended(5);
        core.feed(&process(5, "/usr/bin/node", false));
        assert_eq!(watched(&mut core), [(5, Watched::Logs)]);
        let mut off = Core::new(CoreConfig { watch: false, ..CoreConfig::default() });
        off.feed(&process(5, "/usr/bin/python3.13", false));
        assert_eq!(watched(&mut off), []);
    }
    #[test]
    fn with_ports_to_look_at_only_their_users_are_watched() {
        let config = CoreConfig { ports: vec![8000], ..CoreConfig::default() };
        let mut h = crate::core::scenario::Host::with(config);
        for pid in [5, 6, 7] {
            h.process(pid, "x");
        }
        h.listen(5, "127.0.0.1:8000");
        h.listen(6, "127.0.0.1:9000");
        let mut p = h.connect(7, 6, "127.0.0.1:9000");
        h.request(&mut p, b"GET / HTTP/1.1\r\n\r\n");
        let known =
            |h: &crate::core::scenario::Host| h.core.watching.watched.keys().copied().collect::<Vec<_>>();
        assert_eq!(known(&h), [5]);
        let mut p = h.connect(7, 5, "127.0.0.1:8000");
        h.request(&mut p, b"GET / HTTP/1.1\r\n\r\n");
        assert_eq!(known(&h), [5, 7]);
        // A receive on a connection that was left alone, as the kernel side tells of it on a Python thread.
        let body = DataBody {
            conn: 999,
            py_context: 0x10,
            seq_end: 1,
            len: 1,
            captured: 0,
            direction: RECV,
            reserved: [0; 3],
        };
        h.record(kind::DATA, 0, (6, 6), body.as_bytes());
        assert_eq!(known(&h), [5, 7]);
        assert_eq!(h.core.counts().unknown_conn, 0, "it is no loss");
        let sent = DataBody { direction: SEND, ..body };
        h.record(kind::DATA, 0, (6, 6), sent.as_bytes());
        assert_eq!(h.core.counts().unknown_conn, 1);
    }
}
