//! The interpreters of this machine, and processes of theirs that are told what to do line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A script that runs.
pub struct Python {
    pub child: Child,
    out: BufReader<ChildStdout>,
}

impl Python {
    pub fn start(exe: &Path, script: &str) -> Self {
        let mut command = Command::new(exe);
        command.args(["-c", script]);
        Self::run(command)
    }

    /// By whatever way it is started.
    pub fn run(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("interpreter starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, out }
    }

    /// What it prints next.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("readable");
        line
    }

    /// Lets it go on, where it waits for a line.
    pub fn go_on(&mut self) {
        // One that is over says so by what it does not print.
        let _ = self.child.stdin.as_mut().map(|stdin| stdin.write_all(b"\n"));
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.go_on();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Those where one looks for them, and those that `KTRDR_TEST_PYTHONS` names (separated by `:`).
pub fn interpreters() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["/usr/bin/python3", "/usr/local/bin/python3"].iter().map(PathBuf::from).collect();
    let pyenv = std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".pyenv/versions"));
    for dir in pyenv.iter().filter_map(|p| p.read_dir().ok()).flatten().flatten() {
        found.push(dir.path().join("bin/python3"));
    }
    found.extend(std::env::var_os("KTRDR_TEST_PYTHONS").iter().flat_map(std::env::split_paths));
    found.retain(|p| p.exists());
    found
}

/// Those of 3.8 and later, with their minor versions.
pub fn followed() -> Vec<(PathBuf, u8)> {
    let all = interpreters().into_iter().map(|exe| (minor(&exe), exe));
    all.filter(|(minor, _)| *minor >= 8).map(|(minor, exe)| (exe, minor)).collect()
}

pub fn minor(exe: &Path) -> u8 {
    let out =
        Command::new(exe).args(["-c", "import sys; print(sys.version_info[1])"]).output().expect("runs");
    String::from_utf8_lossy(&out.stdout).trim().parse().expect("a number")
}
