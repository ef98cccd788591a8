//! System packages by apt. Elsewhere the set-up says what is missing and stops.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use super::say;
use crate::{cmd, host};

/// Servers such as nginx live in sbin, which is not on every user's path.
const SBIN: [&str; 2] = ["/usr/sbin", "/sbin"];

pub fn has_program(program: &str) -> bool {
    host::which(program).is_some() || SBIN.iter().any(|directory| Path::new(directory).join(program).exists())
}

/// Installs `packages`; nothing happens if there are none.
pub fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if host::which("apt-get").is_none() {
        bail!(
            "this machine lacks {list} (Debian's names) and has no apt-get: install them with its own package manager"
        );
    }
    say(&format!("installing {list} with apt-get"));
    let quiet_services = NoServiceStart::begin();
    cmd::run_quietly(apt_get(&["update", "-qq"])?.env("DEBIAN_FRONTEND", "noninteractive"))?;
    let installed =
        cmd::run_quietly(apt_get(&["install", "-y", "-qq", "--no-install-recommends"])?.args(packages));
    drop(quiet_services);
    installed
}

fn apt_get(arguments: &[&str]) -> Result<Command> {
    let mut command = if host::is_root() {
        Command::new("env")
    } else if host::which("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    } else {
        bail!("installing packages needs root, and there is no sudo here: run `cargo xtask setup` as root");
    };
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(arguments);
    Ok(command)
}

/// While it lives, installing a server does not start it: a test tool has no business on port 80.
/// Debian's maintainer scripts ask `policy-rc.d`, and 101 means no.
struct NoServiceStart {
    written: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServiceStart {
    /// Leaves a policy that is already there alone. Without root there is no writing one; then the
    /// package decides.
    fn begin() -> Self {
        use std::os::unix::fs::PermissionsExt;
        if Path::new(POLICY).exists() || std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").is_err() {
            return Self { written: false };
        }
        let executable = std::fs::Permissions::from_mode(0o755);
        let _ignored_by_dpkg_then = std::fs::set_permissions(POLICY, executable);
        Self { written: true }
    }
}

impl Drop for NoServiceStart {
    fn drop(&mut self) {
        if self.written
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            say(&format!("cannot remove {POLICY}, which keeps services from starting: {error}"));
        }
    }
}
