//! The Python environment of the demo stack and the test receivers: pinned packages in `tests/.venv`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{apt, say};
use crate::{cmd, host};

/// Names to try, the host's own choice first. The pinned packages have wheels for all of these.
const CANDIDATES: [&str; 5] = ["python3", "python3.13", "python3.12", "python3.11", "python3.14"];
/// The pinned packages, by who needs them.
const PINNED: [&str; 5] = [
    "tests/stack/requirements.txt",
    "tests/receivers/requirements.txt",
    "tests/gateway/requirements.txt",
    "tests/deploy/requirements.txt",
    "tests/mcp/requirements.txt",
];
const OLDEST: (u32, u32) = (3, 11);
const NEWEST: (u32, u32) = (3, 14);

/// The interpreter of the environment.
pub fn interpreter() -> PathBuf {
    directory().join("bin/python")
}

fn directory() -> PathBuf {
    host::root().join("tests/.venv")
}

/// Makes the environment, or makes it anew when the pinned packages changed.
pub fn environment() -> Result<()> {
    let files = PINNED.map(|file| host::root().join(file));
    let mut pinned = String::new();
    for file in &files {
        pinned +=
            &std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    // Written last, so an interrupted set-up is begun again.
    let mark = directory().join("installed-requirements.txt");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == pinned) && interpreter().exists() {
        return Ok(());
    }
    let python = usable_python()?;
    say(&format!(
        "making tests/.venv with {} and the pinned packages of the demo stack and the tests",
        python.display()
    ));
    cmd::run_quietly(Command::new(&python).args(["-m", "venv", "--clear"]).arg(directory()))?;
    cmd::run_quietly(
        Command::new(interpreter())
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(files.iter().flat_map(|file| [OsStr::new("--requirement"), file.as_os_str()])),
    )?;
    std::fs::write(&mark, pinned).with_context(|| format!("cannot write {}", mark.display()))
}

/// Makes the directory with the second generation of MCP's library, or makes it anew when its pins changed.
pub fn second_mcp() -> Result<()> {
    let file = host::root().join("tests/mcp/requirements-2.txt");
    let to = host::root().join("tests/.mcp2");
    let pinned = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mark = to.join("installed-requirements.txt");
    if std::fs::read_to_string(&mark).is_ok_and(|installed| installed == pinned) {
        return Ok(());
    }
    say("fetching the second generation of MCP's library into tests/.mcp2, for the tests of tool calls");
    if to.exists() {
        std::fs::remove_dir_all(&to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    // All that it needs is pinned; what is installed elsewhere is no concern of it.
    cmd::run_quietly(
        Command::new(interpreter())
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target"])
            .args([to.as_os_str(), OsStr::new("--requirement"), file.as_os_str()]),
    )?;
    std::fs::write(&mark, pinned).with_context(|| format!("cannot write {}", mark.display()))
}

/// A Python of a usable version that can make environments; asks apt for one as the last resort.
fn usable_python() -> Result<PathBuf> {
    if let Some(python) = find(can_make_environments) {
        return Ok(python);
    }
    apt::install(&["python3", "python3-venv"])?;
    match find(can_make_environments) {
        Some(python) => Ok(python),
        None => bail!(
            "the demo stack needs Python {}.{} to {}.{} with its venv module, and none was found",
            OLDEST.0,
            OLDEST.1,
            NEWEST.0,
            NEWEST.1
        ),
    }
}

fn find(fits: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    CANDIDATES.iter().filter_map(|name| host::which(name)).find(|python| fits(python))
}

fn can_make_environments(python: &Path) -> bool {
    let program = "import ensurepip, venv, sys; print(*sys.version_info[:2])";
    let said = cmd::output(Command::new(python).args(["-c", program])).unwrap_or_default();
    version(&said).is_some_and(|version| (OLDEST..=NEWEST).contains(&version))
}

fn version(said: &str) -> Option<(u32, u32)> {
    let (major, minor) = said.trim().split_once(' ')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_outside_the_range_are_refused() {
        assert_eq!(version("3 11\n"), Some((3, 11)));
        assert!(!(OLDEST..=NEWEST).contains(&(3, 9)));
        assert!((OLDEST..=NEWEST).contains(&(3, 13)));
        assert_eq!(version("Traceback"), None);
    }
}
