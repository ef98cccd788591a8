//! Guesses a service's name from what a process was started with.

mod other;
mod python;

use super::{
    pattern::last,
    process::Process,
    service::{Subject, executable},
};

pub use python::is_spawned;

/// A guessed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guess {
    /// Not empty.
    pub name: String,
    /// The command line itself says nothing (`python main.py`): the name is its directory's or container's.
    pub vague: bool,
}

/// Words that name no service: every other project has a `main.py`.
const VAGUE: [&str; 15] = [
    "main",
    "__main__",
    "app",
    "application",
    "server",
    "run",
    "start",
    "index",
    "wsgi",
    "asgi",
    "manage",
    "src",
    "backend",
    "service",
    "cli",
];

/// Directories that name no service either.
const VAGUE_DIRS: [&str; 18] = [
    "app",
    "src",
    "code",
    "srv",
    "bin",
    "sbin",
    "lib",
    "dist",
    "build",
    "opt",
    "home",
    "root",
    "tmp",
    "usr",
    "var",
    "workspace",
    "local",
    "site-packages",
];

/// Whether the process runs a Python interpreter.
pub fn is_python(p: &Process) -> bool {
    executable("python*", p) || executable("pypy*", p)
}

/// Guesses. The name is never empty.
pub fn guess(subject: &Subject<'_>) -> Guess {
    let p = subject.origin;
    let found = if is_python(p) { python::name(p) } else { other::name(p) };
    match found {
        Found::Name(name) if !name.is_empty() => Guess { name, vague: false },
        Found::Name(_) => Guess { name: fallback(subject, ""), vague: true },
        Found::In(dir) => Guess { name: fallback(subject, &dir), vague: true },
    }
}

/// What a command line says.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// A name.
    Name(String),
    /// Nothing but the directory of the program (relative to the working directory, or absolute).
    In(String),
}

/// The innermost directory that says something, the container, or at last the program's own name.
fn fallback(subject: &Subject<'_>, dir: &str) -> String {
    let whole = if dir.starts_with('/') { dir.to_owned() } else { format!("{}/{dir}", subject.cwd()) };
    let parts = whole.split('/').filter(|p| !p.is_empty() && *p != "." && *p != "..");
    // `/home/<user>` is about the user.
    let in_home = whole.starts_with("/home/");
    let parts: Vec<&str> = parts.skip(if in_home { 2 } else { 0 }).collect();
    if let Some(dir) = parts.iter().rev().find(|p| !VAGUE_DIRS.contains(p)) {
        return (*dir).to_owned();
    }
    let p = subject.origin;
    let script = p.args.iter().skip(1).find(|a| !a.starts_with('-')).map(|a| stem(last(a)).to_owned());
    let candidates = [
        subject.container.name.clone(),
        script.filter(|s| s.len() > 1 && s.bytes().all(|b| b.is_ascii_graphic())).unwrap_or_default(),
        last(&p.exe).to_owned(),
        p.comm.clone(),
        p.args.first().map(|a| last(a).to_owned()).unwrap_or_default(),
    ];
    candidates.into_iter().find(|c| !c.is_empty()).unwrap_or_else(|| format!("pid-{}", p.pid))
}

/// A file's name without its ending.
fn stem(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| if stem.is_empty() { file } else { stem })
}

/// A script: by its name, or if that says nothing by its directory.
fn script(path: &str) -> Found {
    let name = stem(last(path));
    if VAGUE.contains(&name) {
        return Found::In(path.rsplit_once('/').map_or(String::new(), |(dir, _)| dir.to_owned()));
    }
    Found::Name(name.to_owned())
}

/// The port that a command line asks for: `--port 8000`, `--port=8000`, `-p 8000`, `--bind 0.0.0.0:8000`, `-b …`.
pub fn port_argument(args: &[String]) -> Option<u16> {
    let mut args = args.iter().map(String::as_str).skip(1).peekable();
    while let Some(arg) = args.next() {
        let (option, inline) = arg.split_once('=').map_or((arg, None), |(o, v)| (o, Some(v)));
        if !matches!(option, "--port" | "-p" | "--bind" | "-b" | "--listen" | "--http") {
            continue;
        }
        let Some(value) = inline.or_else(|| args.peek().copied()) else { continue };
        if let Some(port) = value.rsplit(':').next().and_then(|p| p.parse().ok()).filter(|p| *p != 0) {
            return Some(port);
        }
    }
    None
}
