//! Where we are: the checkout, the user, the programs on the path; and becoming root.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// What a build needs of the calling user's environment; sudo would drop all of it.
const KEPT: [&str; 9] = [
    "PATH",
    "HOME",
    "CARGO_HOME",
    "CARGO_TARGET_DIR",
    "RUSTUP_HOME",
    "RUSTUP_TOOLCHAIN",
    "CARGO_NET_GIT_FETCH_WITH_CLI",
    "TERM",
    "NO_COLOR",
];

/// The top of the checkout.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// `cargo`, at the top of the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

pub fn is_root() -> bool {
    // The owner of our own /proc entry is our effective user.
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}

/// The first executable of this name on the path.
pub fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Runs `task` if we are root, else runs this whole command again through sudo, for the same user's
/// toolchain. What root built is given back to that user afterwards.
pub fn as_root(task: impl FnOnce() -> Result<()>) -> Result<()> {
    if is_root() {
        let done = task();
        give_back();
        return done;
    }
    if which("sudo").is_none() {
        bail!("this needs root, and there is no sudo here: run it as root");
    }
    eprintln!("xtask: this needs root; continuing through sudo");
    let mut again = Command::new("sudo");
    again.arg("env");
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            let mut pair = std::ffi::OsString::from(format!("{name}="));
            pair.push(value);
            again.arg(pair);
        }
    }
    again.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
    // Only returns if sudo could not be started.
    bail!("cannot run sudo: {}", again.exec())
}

/// Under sudo, files that root made in the checkout would lock the user out of their own builds.
fn give_back() {
    let (Ok(user), Ok(group)) = (std::env::var("SUDO_UID"), std::env::var("SUDO_GID")) else { return };
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let places = [Some(target()), Some(root().join("tests/.venv")), cargo_home.or(home)];
    for place in places.into_iter().flatten().filter(|place| place.exists()) {
        let mut chown = Command::new("find");
        chown.arg(&place).args(["-user", "0", "-exec", "chown", "-h", &format!("{user}:{group}"), "{}", "+"]);
        if let Err(error) = crate::cmd::run_quietly(&mut chown) {
            eprintln!("xtask: files under {} stay root's: {error:#}", place.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkout_and_programs_are_found() {
        assert!(root().join("rust-toolchain.toml").is_file());
        assert!(which("sh").is_some());
        assert_eq!(which("ktrdr-no-such-program"), None);
    }
}
