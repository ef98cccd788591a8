//! Kernels from Debian's archive: fetched by apt with lists of its own, so that the host's stay as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cmd;

/// A kernel series, by the Debian release that has it.
pub struct Kernel {
    /// What it is called here.
    pub name: &'static str,
    pub machine: Machine,
    /// Debian's name of the release, and of its security updates.
    suites: &'static [(&'static str, &'static str)],
}

/// A kind of machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    X86_64,
    /// Always with a userland of its own, as this host's programs do not run there.
    Aarch64,
}

impl Machine {
    /// Debian's name of it.
    fn debian(self) -> &'static str {
        match self {
            Machine::X86_64 => "amd64",
            Machine::Aarch64 => "arm64",
        }
    }
}

const DEBIAN: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// The newest kernel of a release for virtual machines: small, and needs no modules to boot.
const NEWEST: &str = "linux-image-cloud-";
/// What tests/causality/app.py imports, and the rest of a userland; `setpriv` is of util-linux.
const USERLAND: [&str; 9] = [
    "busybox-static",
    "ca-certificates",
    "libc6",
    "util-linux",
    "python3-fastapi",
    "python3-uvicorn",
    "python3-httpx",
    "python3-aiohttp",
    "python3-requests",
];

/// From the oldest to the newest that can be had.
#[rustfmt::skip]
pub const ALL: [Kernel; 5] = [
    Kernel { name: "5.10",    machine: Machine::X86_64,  suites: &[(DEBIAN, "bullseye"), (SECURITY, "bullseye-security")] },
    Kernel { name: "6.1",     machine: Machine::X86_64,  suites: &[(DEBIAN, "bookworm"), (SECURITY, "bookworm-security")] },
    Kernel { name: "6.12",    machine: Machine::X86_64,  suites: &[(DEBIAN, "trixie"), (SECURITY, "trixie-security")] },
    Kernel { name: "newest",  machine: Machine::X86_64,  suites: &[(DEBIAN, "sid")] },
    Kernel { name: "aarch64", machine: Machine::Aarch64, suites: &[(DEBIAN, "trixie"), (SECURITY, "trixie-security")] },
];

/// What of a kernel is needed.
pub struct Files {
    /// As `uname -r` gives it.
    pub release: String,
    pub image: PathBuf,
    /// `inet_diag`, then `tcp_diag`, with which open sockets are listed; a full system loads them by itself.
    pub modules: Vec<PathBuf>,
}

impl Kernel {
    /// Downloads and unpacks it, unless that was done before.
    pub fn fetch(&self, directory: &Path) -> Result<Files> {
        let directory = directory.join(self.name);
        if let Ok(files) = files(&directory) {
            return Ok(files);
        }
        eprintln!("vm: fetching kernel {} from Debian's archive", self.name);
        let apt = Apt::new(&directory, self.suites, self.machine)?;
        let newest = format!("{NEWEST}{}", self.machine.debian());
        let image = apt.depends(&newest, &["linux-image-"])?;
        let [image] = image.as_slice() else { bail!("{newest} names no kernel") };
        // Newer ones come in parts.
        let parts = apt.depends(image, &["linux-binary-", "linux-modules-"])?;
        for package in [vec![image.clone()], parts].concat() {
            apt.unpack(&package)?;
        }
        files(&directory)
    }
}

/// Downloads and unpacks all that a guest with Python needs besides its kernel, unless that was done before: Debian
/// 13's, whichever kernel runs it.
pub fn userland(machine: Machine, directory: &Path) -> Result<PathBuf> {
    let directory = directory.join(format!("userland-{}", machine.debian()));
    let root = directory.join("files");
    // The last thing that is made.
    if !root.join("etc/ssl/certs/ca-certificates.crt").exists() {
        eprintln!("vm: fetching a userland for {} from Debian's archive", machine.debian());
        let suites = [(DEBIAN, "trixie"), (SECURITY, "trixie-security")];
        Apt::new(&directory, &suites, machine)?.unpack_all(&USERLAND)?;
    }
    Ok(root)
}

/// Finds them below `directory`.
fn files(directory: &Path) -> Result<Files> {
    let mut find = Command::new("find");
    find.arg(directory.join("files")).args(["-name", "vmlinuz*", "-o", "-name", "*_diag.ko*"]);
    let found = cmd::output(&mut find)?;
    let file = |what: &str| found.lines().map(PathBuf::from).find(|path| named(path, what));
    let diag = |name: &str| file(&format!("{name}.ko")).with_context(|| format!("no module {name}"));
    let module = diag("inet_diag")?;
    let mut above = module.iter().skip_while(|part| *part != "modules");
    let release = above.nth(1).context("the modules lie elsewhere than expected")?;
    Ok(Files {
        release: release.to_string_lossy().into_owned(),
        image: file("vmlinuz").context("no kernel image")?,
        modules: vec![module.clone(), diag("tcp_diag")?],
    })
}

fn named(path: &Path, what: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(what))
}

/// apt with directories of its own.
struct Apt {
    directory: PathBuf,
    machine: Machine,
}

impl Apt {
    fn new(directory: &Path, suites: &[(&str, &str)], machine: Machine) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "files"] {
            std::fs::create_dir_all(directory.join(part))
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let lines =
            suites.iter().map(|(site, suite)| format!("deb [signed-by={KEYRING}] {site} {suite} main\n"));
        std::fs::write(directory.join("sources.list"), lines.collect::<String>())?;
        std::fs::write(directory.join("status"), "")?;
        let apt = Self { directory: directory.to_path_buf(), machine };
        cmd::run_quietly(apt.command("apt-get").args(["-qq", "update"]))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| self.directory.join(name).display().to_string();
        command.current_dir(&self.directory);
        for (key, value) in [
            ("Dir::Etc::SourceList", path("sources.list")),
            ("Dir::Etc::SourceParts", "/dev/null".into()),
            ("Dir::State", path("")),
            ("Dir::State::Lists", path("lists")),
            ("Dir::State::Status", path("status")),
            ("Dir::Cache", path("cache")),
            ("APT::Architecture", self.machine.debian().into()),
            ("APT::Architectures", self.machine.debian().into()),
            ("APT::Sandbox::User", "root".into()),
        ] {
            command.args(["-o", &format!("{key}={value}")]);
        }
        command
    }

    /// Packages that `package` depends on and whose names begin so.
    fn depends(&self, package: &str, prefixes: &[&str]) -> Result<Vec<String>> {
        let said = cmd::output(self.command("apt-cache").args(["depends", package]))?;
        let names = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names
            .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
            .map(str::to_owned)
            .collect())
    }

    /// Takes the kernel and the two modules out of a package.
    fn unpack(&self, package: &str) -> Result<()> {
        cmd::run_quietly(self.command("apt-get").args(["-qq", "download", package]))?;
        let script = r#"dpkg-deb --fsys-tarfile "$1"_*.deb |
            tar --extract --directory files --wildcards --exclude '*/mptcp/*' '*vmlinuz*' '*_diag.ko*' 2>/dev/null
            rm "$1"_*.deb"#;
        // A package without one of the two is fine: `files` looks whether all are there in the end.
        let mut shell = Command::new("sh");
        shell.current_dir(&self.directory).args(["-c", script, "sh", package]);
        cmd::run_quietly(&mut shell)
    }

    /// Takes all files out of packages and of what they depend on, except what is only read by people. No script of a
    /// package is run.
    fn unpack_all(&self, packages: &[&str]) -> Result<()> {
        let mut fetch = self.command("apt-get");
        fetch.args(["-qq", "--yes", "--no-install-recommends", "--download-only", "install"]);
        cmd::run_quietly(fetch.args(packages))?;
        let script = r#"for package in cache/archives/*.deb; do
                dpkg-deb --fsys-tarfile "$package" | tar --extract --directory files --exclude './usr/share/doc' \
                    --exclude './usr/share/man' --exclude './usr/share/locale' --keep-directory-symlink || exit 1
            done
            rm cache/archives/*.deb
            cd files && ln -sfn usr/bin bin && ln -sfn usr/lib lib && ln -sfn usr/lib64 lib64 && mkdir -p etc/ssl/certs &&
            cat usr/share/ca-certificates/mozilla/*.crt >etc/ssl/certs/ca-certificates.crt"#;
        let mut shell = Command::new("sh");
        cmd::run_quietly(shell.current_dir(&self.directory).args(["-c", script]))
    }
}
