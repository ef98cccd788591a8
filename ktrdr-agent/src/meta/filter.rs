//! Include and exclude rules, as far as they are about processes. Ports are about connections: the engine's part.

use super::{pattern, process::Process, service::executable};
use crate::settings::{Exclude, Include};

/// Which processes are observed.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    include: Entries,
    exclude: Entries,
}

#[derive(Clone, Debug, Default)]
struct Entries {
    pids: Vec<u32>,
    executables: Vec<String>,
    commands: Vec<String>,
}

impl Entries {
    fn is_empty(&self) -> bool {
        self.pids.is_empty() && self.executables.is_empty() && self.commands.is_empty()
    }

    fn matches(&self, p: &Process, ancestors: &[u32]) -> bool {
        let line = || p.args.join(" ");
        self.pids.iter().any(|pid| *pid == p.pid || ancestors.contains(pid))
            || self.executables.iter().any(|e| executable(e, p))
            || self.commands.iter().any(|c| pattern::command(c, &line()))
    }
}

impl Filter {
    /// As configured.
    pub fn new(include: &Include, exclude: &Exclude) -> Self {
        let Include { ports: _, pids, executables, commands } = include.clone();
        let include = Entries { pids, executables, commands };
        let Exclude { ports: _, pids, executables, commands } = exclude.clone();
        Self { include, exclude: Entries { pids, executables, commands } }
    }

    /// Whether any rule names processes by id: only then ancestors matter.
    pub fn by_pid(&self) -> bool {
        !self.include.pids.is_empty() || !self.exclude.pids.is_empty()
    }

    /// Whether the process is left out. A rule by process id holds for the process's descendants, too.
    pub fn excludes(&self, p: &Process, ancestors: &[u32]) -> bool {
        let included = self.include.is_empty() || self.include.matches(p, ancestors);
        !included || self.exclude.matches(p, ancestors)
    }
}
