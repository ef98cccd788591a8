//! Processes of a test: they end with it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use crate::wait;

/// Root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A program of the tests, in `tests/programs`.
pub fn program(name: &str) -> PathBuf {
    root().join("tests/programs").join(name)
}

/// The interpreter with the pinned packages.
pub fn python() -> PathBuf {
    let path =
        std::env::var_os("KTRDR_PYTHON").map_or_else(|| root().join("tests/.venv/bin/python"), PathBuf::from);
    assert!(path.exists(), "{} is missing: `cargo xtask setup` makes it", path.display());
    path
}

/// A command that runs Python on a program of the tests.
pub fn python_program(name: &str) -> Command {
    let mut command = Command::new(python());
    command.arg("-u").arg(program(name));
    command
}

/// A running process; dropping it ends it.
pub struct Process {
    child: Child,
    name: String,
    log: Option<PathBuf>,
    has_children: bool,
}

impl Process {
    /// Starts `command`. What it writes goes to a file in `dir`, which is shown if it ends before its time.
    pub fn start(mut command: Command, dir: &Path) -> Self {
        let name = Path::new(command.get_program()).file_name().unwrap_or_else(|| OsStr::new("?"));
        let name = name.to_string_lossy().into_owned();
        let log = (0..).map(|n| dir.join(format!("{name}-{n}.log"))).find(|p| !p.exists()).unwrap();
        let file = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: spawn(command), name, log: Some(log), has_children: false }
    }

    /// Starts `command` with the streams it says.
    pub fn start_as_is(command: Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        Self { child: spawn(command), name, log: None, has_children: false }
    }

    /// It has processes of its own, which only it can end: dropping it asks before it kills.
    pub fn with_children(mut self) -> Self {
        self.has_children = true;
        self
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The process behind it.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it wrote.
    pub fn log(&self) -> String {
        self.log.as_ref().and_then(|p| std::fs::read_to_string(p).ok()).unwrap_or_default()
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits until `ready` holds; fails at once if the process ends.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        wait::until(what, || {
            if let Some(status) = self.ended() {
                panic!("{} ended ({status}) before {what}:\n{}", self.name, self.log());
            }
            ready().then_some(())
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: plain system call; the child has not been waited for, so the id is its own.
        unsafe { libc::kill(self.child.id().cast_signed(), signal) };
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait::within(limit, || self.ended())
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self) {
        self.signal(libc::SIGTERM);
        if self.wait(Duration::from_secs(10)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.has_children && self.ended().is_none() {
            self.terminate();
        }
        if self.ended().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A child that dies with the thread that started it.
fn spawn(mut command: Command) -> Child {
    // SAFETY: prctl is async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().unwrap_or_else(|e| panic!("cannot start {:?}: {e}", command.get_program()))
}

/// Runs a command to its end; it must succeed.
pub fn run(command: &mut Command) -> String {
    let output = output(command);
    assert!(
        output.status.success(),
        "{command:?} failed ({}): {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command to its end.
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"))
}
