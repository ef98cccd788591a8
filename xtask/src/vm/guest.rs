//! One guest: an image with the agent and busybox in memory, no disk, a serial console.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::console;
use super::kernels::{Files, Machine};
use crate::{cmd, host, wait};

/// What the guest runs first and last.
const INIT: &str = include_str!("init.sh");
/// A guest takes half a minute; a busy machine three times that.
const DEADLINE: Duration = Duration::from_secs(240);
/// One that starts Python and compiles what it imports, on a machine that is translated: five minutes, twice that if busy.
const DEADLINE_PYTHON: Duration = Duration::from_secs(1200);
/// The observed server, what it calls, and who calls it.
const PYTHON: [&str; 3] = ["app.py", "backend.py", "load.py"];

/// A guest's kernel, programs and machine.
pub struct Guest<'a> {
    pub kernel: &'a Files,
    pub machine: Machine,
    pub agent: &'a Path,
    /// All of its programs; without it, this host's are taken.
    pub userland: Option<&'a Path>,
}

/// Boots, waits for the end, and gives what came over the console.
pub fn boot(guest: &Guest, directory: &Path) -> Result<String> {
    let image = image(guest, directory)?;
    let kernel = guest.kernel;
    let log = directory.join(format!("{}.log", kernel.release));
    // No hardware help: nested, it often is broken (as on the build host), and half a minute is short enough.
    let (mut qemu, console) = match guest.machine {
        Machine::X86_64 => {
            let mut qemu = Command::new("qemu-system-x86_64");
            qemu.args(["-cpu", "max"]);
            (qemu, "ttyS0")
        }
        Machine::Aarch64 => {
            let mut qemu = Command::new("qemu-system-aarch64");
            // Later ones sign pointers, which takes most of the time when it is translated.
            qemu.args(["-M", "virt", "-cpu", "neoverse-n1"]);
            (qemu, "ttyAMA0")
        }
    };
    let memory = if guest.userland.is_some() { "2048" } else { "1024" };
    qemu.args(["-accel", "tcg", "-smp", "2", "-m", memory]);
    qemu.args(["-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(&image);
    qemu.args(["-append", &format!("console={console} quiet panic=-1 rdinit=/init")]);
    let deadline = if guest.userland.is_some() { DEADLINE_PYTHON } else { DEADLINE };
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    qemu.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
    let mut child = qemu.spawn().with_context(|| format!("cannot run `{}`", cmd::shown(&qemu)))?;
    let ended = wait::until(deadline, || child.try_wait().transpose());
    if ended.is_none() {
        child.kill()?;
        child.wait()?;
        bail!("the guest did not end within {} s", deadline.as_secs());
    }
    Ok(console::plain(&fs::read(&log)?))
}

/// The guest's file system, as the archive that the kernel unpacks into memory.
fn image(guest: &Guest, directory: &Path) -> Result<PathBuf> {
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fs::create_dir_all(&root)?;
    if let Some(userland) = guest.userland {
        cmd::run_quietly(Command::new("cp").arg("-a").arg(userland.join(".")).arg(&root))?;
    }
    for part in ["bin", "dev", "lib/modules", "proc", "sys", "run", "tmp"] {
        fs::create_dir_all(root.join(part))?;
    }
    let agent = root.join("bin/ktrdr-agent");
    match guest.machine {
        // Without what only a debugger reads, which is nine tenths of it.
        Machine::X86_64 => cmd::run_quietly(Command::new("strip").arg("-o").arg(agent).arg(guest.agent))?,
        // This host's strip knows this host's machine only.
        Machine::Aarch64 => fs::copy(guest.agent, agent).map(drop)?,
    }
    if guest.userland.is_some() {
        fs::create_dir_all(root.join("app"))?;
        for file in PYTHON {
            fs::copy(host::root().join("tests/causality").join(file), root.join("app").join(file))?;
        }
    } else {
        for name in ["busybox", "setpriv"] {
            let program = host::which(name).with_context(|| format!("{name} is not on the path"))?;
            fs::copy(program, root.join("bin").join(name))?;
        }
        let setpriv = host::which("setpriv").context("setpriv is not on the path")?;
        for library in [libraries(guest.agent)?, libraries(&setpriv)?].concat() {
            let place = root.join(library.strip_prefix("/").unwrap_or(&library));
            fs::create_dir_all(place.parent().unwrap_or(&root))?;
            fs::copy(&library, place)?;
        }
    }
    for (number, module) in guest.kernel.modules.iter().enumerate() {
        let name = module.file_name().context("a module without a name")?.to_string_lossy();
        fs::copy(module, root.join(format!("lib/modules/{number}-{name}")))?;
    }
    fs::write(root.join("init"), INIT)?;
    cmd::run_quietly(Command::new("chmod").arg("+x").arg(root.join("init")))?;
    let image = directory.join("image");
    let mut pack = Command::new("sh");
    pack.current_dir(&root).args(["-c", r#"find . | cpio --quiet -o -H newc > "$1""#, "sh"]).arg(&image);
    cmd::run_quietly(&mut pack)?;
    Ok(image)
}

/// The shared libraries of a program and its loader, where the program looks for them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let said = cmd::output(Command::new("ldd").arg(program))?;
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(said.lines().filter_map(path).collect())
}
