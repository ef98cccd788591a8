//! Set-up: installs what is missing, says what it does in one line each, and is quick when nothing is.

use anyhow::Result;

mod apt;
mod clients;
mod linker;
pub mod npm;
pub mod packaging;
pub mod python;
mod rust;

/// What the machine is set up for. Each level includes the one before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum For {
    Build,
    Demo,
    Test,
}

/// A program and the Debian package that brings it.
struct Tool {
    program: &'static str,
    package: &'static str,
    since: For,
}

#[rustfmt::skip]
const TOOLS: &[Tool] = &[
    // The linker of every Rust program, and the compiler of the TLS library's C parts.
    Tool { program: "cc",      package: "build-essential", since: For::Build },
    // Clients and servers of the end-to-end tests, and of the benchmark.
    Tool { program: "curl",    package: "curl",            since: For::Test },
    Tool { program: "nginx",   package: "nginx",           since: For::Test },
    Tool { program: "haproxy", package: "haproxy",         since: For::Test },
    Tool { program: "socat",   package: "socat",           since: For::Test },
    Tool { program: "ip",      package: "iproute2",        since: For::Test },
    Tool { program: "nft",     package: "nftables",        since: For::Test },
    Tool { program: "node",    package: "nodejs",          since: For::Test },
    Tool { program: "npm",     package: "npm",             since: For::Test },
    Tool { program: "wrk",     package: "wrk",             since: For::Test },
    // Judges of the Debian package and its unit.
    Tool { program: "lintian", package: "lintian",         since: For::Test },
    Tool { program: "systemd-analyze", package: "systemd", since: For::Test },
    // Scrapes the agent in tests; its promtool checks what the agent says, and the rules under deploy/.
    Tool { program: "promtool", package: "prometheus",     since: For::Test },
];

/// Makes this machine ready for `purpose`.
pub fn run(purpose: For) -> Result<()> {
    let wanted = TOOLS.iter().filter(|tool| tool.since <= purpose);
    let missing: Vec<&str> =
        wanted.filter(|tool| !apt::has_program(tool.program)).map(|tool| tool.package).collect();
    apt::install(&missing)?;
    rust::sources()?;
    linker::bpf_linker()?;
    if purpose >= For::Demo {
        python::environment()?;
    }
    if purpose >= For::Test {
        python::second_mcp()?;
        npm::install()?;
        clients::install()?;
        packaging::deb()?;
    }
    Ok(())
}

/// Makes it ready to package; a package of the development build takes no other linker.
pub fn package(development: bool) -> Result<()> {
    run(For::Build)?;
    packaging::deb()?;
    if development { Ok(()) } else { packaging::zig_linker() }
}

/// Makes it ready to boot other kernels (`cargo xtask vm`), also those of another machine.
pub fn vm(aarch64: bool) -> Result<()> {
    run(For::Build)?;
    let mut tools =
        vec![("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("cpio", "cpio")];
    if aarch64 {
        tools.push(("qemu-system-aarch64", "qemu-system-arm"));
        rust::target("aarch64-unknown-linux-gnu")?;
        packaging::zig_linker()?;
    }
    let missing = tools.into_iter().filter(|(program, _)| !apt::has_program(program));
    apt::install(&missing.map(|(_, package)| package).collect::<Vec<_>>())
}

/// Tells what is being installed, and why it takes a while.
fn say(what: &str) {
    eprintln!("setup: {what}");
}
