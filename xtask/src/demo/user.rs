//! Who the demo's agent is: root, or a user with four capabilities and nothing else.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// All that the agent needs (docs/privileges.md, and deploy/systemd).
const CAPABILITIES: [&str; 4] = ["bpf", "perfmon", "sys_ptrace", "dac_read_search"];
/// nobody, nogroup.
const NOBODY: u32 = 65534;

/// A place where the agent may write, and how it is started.
pub struct User {
    directory: PathBuf,
    unprivileged: bool,
}

impl User {
    /// Root, with its files in `directory`; or nobody, with a directory of its own below.
    pub fn new(directory: &Path, unprivileged: bool) -> Result<Self> {
        let directory = if unprivileged { directory.join("nobody") } else { directory.to_owned() };
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        let user = Self { directory, unprivileged };
        user.owns(&user.directory)?;
        Ok(user)
    }

    /// What it writes there under this name: empty, and its own. What an earlier demo saw is not this one's.
    pub fn file(&self, name: &str) -> Result<PathBuf> {
        let file = self.directory.join(name);
        File::create(&file).with_context(|| format!("cannot write {}", file.display()))?;
        self.owns(&file)?;
        Ok(file)
    }

    /// What it makes itself under this name.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The program as this user, with the documented capabilities and no way to any other.
    pub fn command(&self, program: &Path) -> Command {
        if !self.unprivileged {
            return Command::new(program);
        }
        let list: String = CAPABILITIES.iter().map(|capability| format!(",+{capability}")).collect();
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
        command.args(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}=-all{list}")));
        // The kernel forgets who is to be told of our death when a process changes its user.
        command.args(["--no-new-privs", "--pdeathsig", "TERM"]).arg(program);
        command
    }

    fn owns(&self, path: &Path) -> Result<()> {
        if !self.unprivileged {
            return Ok(());
        }
        chown(path, Some(NOBODY), Some(NOBODY))
            .with_context(|| format!("cannot give {} away", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_the_documented_one() {
        let unit =
            fs::read_to_string(crate::host::root().join("deploy/systemd/ktrdr-agent.service")).unwrap();
        let line = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
        let listed: Vec<String> =
            line.split(' ').map(|name| name.trim_start_matches("CAP_").to_lowercase()).collect();
        assert_eq!(listed, CAPABILITIES);
    }
}
