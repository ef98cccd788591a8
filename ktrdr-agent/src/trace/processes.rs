//! What the core knows of processes: who they are, whose child, how they ended.

use std::sync::Arc;

use hashlink::LruCache;

use super::model::{Attributes, Resource};
use crate::event::shell::ProcessMeta;
use crate::event::{Exit, Ns};

/// Processes remembered, ended ones included: a host's busy day of short-lived commands, about 1 KB each.
const MAX_PROCESSES: usize = 16 * 1024;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When.
    pub ts: Ns,
    /// As `wait(2)` reports it.
    pub code: u32,
    /// The kernel chose it to be killed because memory was short.
    pub out_of_memory: bool,
}

impl End {
    /// As its exit record says.
    pub fn of(ts: Ns, exit: &Exit) -> Self {
        Self { ts, code: exit.code, out_of_memory: exit.out_of_memory }
    }

    /// The status it exited with; `None` if a signal ended it.
    pub fn exit_code(self) -> Option<u32> {
        (self.code & 0x7f == 0).then_some((self.code >> 8) & 0xff)
    }

    /// Name of the signal that ended it.
    pub fn signal(self) -> Option<String> {
        let n = self.code & 0x7f;
        (n != 0).then(|| signal_name(n).map_or_else(|| format!("signal {n}"), str::to_owned))
    }

    /// `error.type` of what ended so; `None` if all was well.
    pub fn error_type(self) -> Option<String> {
        match self.exit_code() {
            Some(0) => None,
            Some(_) => Some("exit_status".to_owned()),
            None => self.signal(),
        }
    }

    /// As attributes: `process.exit.code`, or the signal, which leaves no code.
    pub fn tell(self, a: &mut Attributes) {
        match (self.exit_code(), self.signal()) {
            (Some(code), _) => a.set("process.exit.code", code),
            (None, Some(signal)) => {
                a.set("ktrdr.process.signal", signal);
                if self.code & 0x80 != 0 {
                    a.set("ktrdr.process.core_dump", true);
                }
                if self.out_of_memory {
                    a.set("ktrdr.process.out_of_memory", true);
                }
            }
            (None, None) => {}
        }
    }
}

impl std::fmt::Display for End {
    /// "exited with status 1", "was killed by SIGKILL".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code & 0x7f {
            0 => write!(f, "exited with status {}", (self.code >> 8) & 0xff),
            signal => {
                let core = match (self.code & 0x80 != 0, self.out_of_memory) {
                    (true, _) => " (core dumped)",
                    (false, true) => " (out of memory)",
                    (false, false) => "",
                };
                match signal_name(signal) {
                    Some(name) => write!(f, "was killed by {name}{core}"),
                    None => write!(f, "was killed by signal {signal}{core}"),
                }
            }
        }
    }
}

/// Names of the signals that end processes (`signal(7)`).
pub fn signal_name(n: u32) -> Option<&'static str> {
    Some(match n {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return None,
    })
}

/// A process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Who it is.
    pub meta: ProcessMeta,
    /// The Resource of its spans.
    pub resource: Arc<Resource>,
    /// How it ended, if it did.
    pub end: Option<End>,
    /// What it logged last before that, without secrets.
    pub last_lines: Vec<String>,
}

impl Process {
    /// Its command line, shortened for a sentence. Of a helper that was spawned to do its parent's work, the parent's:
    /// its own names only Python's `multiprocessing`.
    pub fn command(&self) -> String {
        let candidates = [&self.meta.origin, &self.meta.command];
        let words = candidates.into_iter().find(|words| !words.is_empty());
        shown(words.map_or(std::slice::from_ref(&self.meta.exe), Vec::as_slice))
    }
}

/// A command line for a sentence: the program without its directory, and as many words as fit.
fn shown(words: &[String]) -> String {
    const SHOWN: usize = 60;
    let mut text = String::new();
    for (n, word) in words.iter().enumerate() {
        if n > 0 {
            text.push(' ');
        }
        // A path's last part; the whole is `process.executable.path`.
        let word = if n == 0 { word.rsplit('/').next().unwrap_or_default() } else { word };
        text.extend(word.chars().take(SHOWN + 1));
        if text.chars().count() > SHOWN {
            return text.chars().take(SHOWN).chain(['…']).collect();
        }
    }
    text
}

/// All known processes.
pub struct Processes {
    by_tgid: LruCache<u32, Process, foldhash::fast::FixedState>,
    host: Vec<(String, String)>,
    agent_version: String,
    agent: Arc<Resource>,
}

impl Processes {
    /// None known.
    pub fn new() -> Self {
        Self {
            by_tgid: LruCache::with_hasher(MAX_PROCESSES, foldhash::fast::FixedState::default()),
            host: Vec::new(),
            agent_version: String::new(),
            agent: Arc::new(agent(&[], "")),
        }
    }

    /// The host's resource attributes, for all processes told from now on.
    pub fn host(&mut self, host: Vec<(String, String)>, agent_version: String) {
        self.agent = Arc::new(agent(&host, &agent_version));
        self.host = host;
        self.agent_version = agent_version;
    }

    /// Learns who a process is. Who started its parent is told once.
    pub fn learn(&mut self, mut meta: ProcessMeta) {
        let before = self.by_tgid.peek(&meta.tgid).filter(|p| p.end.is_none());
        if let Some(before) = before.filter(|p| p.meta.start_ns == meta.start_ns && meta.starters.is_empty())
        {
            meta.starters.clone_from(&before.meta.starters);
        }
        let resource = Arc::new(self.resource(&meta));
        self.by_tgid.insert(meta.tgid, Process { meta, resource, end: None, last_lines: Vec::new() });
    }

    /// The process, if it is known.
    pub fn get(&self, tgid: u32) -> Option<&Process> {
        self.by_tgid.peek(&tgid)
    }

    /// A process ended.
    pub fn exit(&mut self, tgid: u32, ts: Ns, exit: &Exit) {
        if let Some(p) = self.by_tgid.get_mut(&tgid) {
            p.end = Some(End::of(ts, exit));
        }
    }

    /// What a process that ends logged last.
    pub fn last_lines(&mut self, tgid: u32, lines: Vec<String>) {
        if let Some(p) = self.by_tgid.get_mut(&tgid) {
            p.last_lines = lines;
        }
    }

    /// The Resource of a process, also of one nobody told about.
    pub fn resource_of(&mut self, tgid: u32) -> Arc<Resource> {
        if let Some(p) = self.by_tgid.get(&tgid) {
            return p.resource.clone();
        }
        let meta = ProcessMeta { tgid, service: "unknown_service".to_owned(), ..ProcessMeta::default() };
        self.learn(meta);
        self.by_tgid.peek(&tgid).map(|p| p.resource.clone()).unwrap_or_default()
    }

    /// `service.name` of a process.
    pub fn service(&self, tgid: u32) -> Option<&str> {
        self.get(tgid).map(|p| p.meta.service.as_str())
    }

    /// The Resource of the agent itself, the same one each time.
    pub fn agent(&self) -> Arc<Resource> {
        self.agent.clone()
    }

    fn resource(&self, meta: &ProcessMeta) -> Resource {
        let mut a = Attributes::new();
        a.set("service.name", meta.service.clone());
        for (k, v) in &meta.attributes {
            a.set(k.clone(), v.clone());
        }
        a.set("process.pid", meta.tgid);
        if meta.ppid != 0 {
            a.set("process.parent_pid", meta.ppid);
        }
        if !meta.exe.is_empty() {
            a.set("process.executable.path", meta.exe.clone());
        }
        if !meta.command.is_empty() {
            a.set("process.command_args", meta.command.clone());
        }
        if let Some(id) = &meta.container_id {
            a.set("container.id", id.clone());
        }
        for (k, v) in &self.host {
            a.set(k.clone(), v.clone());
        }
        a.set("telemetry.sdk.name", "ktrdr-agent");
        a.set("telemetry.sdk.language", "rust");
        a.set("telemetry.sdk.version", self.agent_version.clone());
        Resource { service: meta.service.clone(), attributes: a }
    }
}

fn agent(host: &[(String, String)], version: &str) -> Resource {
    let mut a = Attributes::new();
    a.set("service.name", "ktrdr-agent");
    a.set("service.version", version.to_owned());
    for (k, v) in host {
        a.set(k.clone(), v.clone());
    }
    Resource { service: "ktrdr-agent".to_owned(), attributes: a }
}

impl Default for Processes {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_as_a_person_would_type_it() {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let process =
            |tgid, command: &[&str]| ProcessMeta { tgid, command: words(command), ..ProcessMeta::default() };
        let mut all = Processes::new();
        all.learn(process(1, &["/usr/local/bin/uvicorn", "main:app", "--reload"]));
        let spawned = ["/opt/venv/bin/python", "-c", "from multiprocessing.spawn import spawn_main"];
        let origin = words(&["/usr/local/bin/uvicorn", "main:app", "--reload"]);
        all.learn(ProcessMeta { origin, ..process(2, &spawned) });
        all.learn(process(3, &spawned));
        all.learn(ProcessMeta { tgid: 4, exe: "/usr/sbin/nginx".into(), ..ProcessMeta::default() });
        all.learn(process(5, &["sh", "-c", &"ü".repeat(5000)]));
        let shown = |tgid| all.get(tgid).unwrap().command();
        assert_eq!(shown(1), "uvicorn main:app --reload");
        assert_eq!(shown(2), "uvicorn main:app --reload", "the helper's own line says nothing");
        assert_eq!(
            shown(3),
            "python -c from multiprocessing.spawn import spawn_main",
            "its parent is unknown"
        );
        assert_eq!(shown(4), "nginx");
        assert_eq!(shown(5), format!("sh -c {}…", "ü".repeat(54)));
    }
}
