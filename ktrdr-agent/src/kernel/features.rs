//! What this host offers, found out without changing it: the rows of `ktrdr-agent check`.

use std::{fs, path::Path, time::Instant};

use super::{
    CallsSeen, Hook, Kernel, KernelOptions, ProbeStatus, ReturnProbes, btf, btf::KernelTypes,
    constants::Constants, return_probe,
};
use crate::privileges::{self, Capability};

/// How a row came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Ok,
    /// The agent works, with less.
    Warning,
    /// The agent cannot work.
    Failed,
}

/// One finding.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was looked at.
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do about it, where it is not as it should be.
    pub remedy: Option<String>,
}

impl Row {
    fn ok(name: impl Into<String>, detail: impl Into<String>) -> Row {
        Row { name: name.into(), status: Status::Ok, detail: detail.into(), remedy: None }
    }

    fn bad(
        status: Status,
        name: impl Into<String>,
        detail: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Row {
        Row { name: name.into(), status, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks at everything, then loads and attaches the programs for a moment.
pub fn check(options: &KernelOptions) -> Vec<Row> {
    let mut rows = vec![kernel_version(), lockdown()];
    rows.extend(capabilities());
    rows.extend([confinement(), jit(), uprobes()]);
    match KernelTypes::load() {
        Ok(types) => {
            rows.push(fields(&types, options));
            rows.push(hook(&types));
        }
        Err(error) => rows.push(Row::bad(
            Status::Failed,
            "BTF",
            error.to_string(),
            format!("use a kernel that has {} (CONFIG_DEBUG_INFO_BTF=y)", btf::VMLINUX),
        )),
    }
    rows.extend(programs(options));
    rows
}

/// The oldest kernel with all that is needed: ring buffer, boot clock in programs (5.8).
const FLOOR: (u32, u32) = (5, 8);

fn kernel_version() -> Row {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version < FLOOR => Row::bad(
            Status::Failed,
            "kernel",
            format!("{release}, older than 5.8"),
            "boot a kernel of at least 5.8; from 6.3 on transfers are seen at the least cost",
        ),
        Some(_) => Row::ok("kernel", release),
        None => Row::bad(
            Status::Warning,
            "kernel",
            format!("{release}, which is no version number"),
            "see the next rows",
        ),
    }
}

/// The running kernel's version, if its release begins with one.
pub(super) fn running_version() -> Option<(u32, u32)> {
    parse_release(&rustix::system::uname().release().to_string_lossy())
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn lockdown() -> Row {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    match lockdown_mode(&text) {
        Some("confidentiality") => Row::bad(
            Status::Failed,
            "lockdown",
            "confidentiality: programs may not read kernel memory",
            "boot with lockdown=integrity or without lockdown",
        ),
        mode => Row::ok("lockdown", mode.unwrap_or("none")),
    }
}

/// The mode in brackets: `none [integrity] confidentiality`.
fn lockdown_mode(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(mode, _)| mode)
}

/// A row per capability: there, or what is lost without it.
fn capabilities() -> Vec<Row> {
    let held = privileges::held();
    let row = |need: &privileges::Need| {
        let name = need.capability.to_string();
        if privileges::has(&held, need.capability) {
            return Row::ok(name, need.use_);
        }
        let status = if need.required { Status::Failed } else { Status::Warning };
        let remedy = "run as root, or give it to the agent's user: docs/privileges.md";
        Row::bad(status, name, format!("missing: {}", need.lost), remedy)
    };
    privileges::NEEDS.iter().map(row).collect()
}

/// What the agent will take away from itself, and whether the kernel lets it.
fn confinement() -> Row {
    match privileges::offered() {
        (Some(version), true) => Row::ok("confinement", format!("Landlock {version}, seccomp")),
        (landlock, seccomp) => {
            let missing = match (landlock, seccomp) {
                (None, true) => "Landlock",
                (Some(_), _) => "seccomp",
                (None, false) => "Landlock and seccomp",
            };
            Row::bad(
                Status::Warning,
                "confinement",
                format!(
                    "this kernel has no {missing}: the agent gives up capabilities only as far as it can"
                ),
                "nothing is lost; Landlock needs a kernel of at least 5.13 with `landlock` among lsm=",
            )
        }
    }
}

fn jit() -> Row {
    match fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default().trim() {
        "0" => Row::bad(
            Status::Warning,
            "BPF compiler",
            "off: programs are interpreted and cost several times as much",
            "sysctl net.core.bpf_jit_enable=1",
        ),
        _ => Row::ok("BPF compiler", "on"),
    }
}

fn uprobes() -> Row {
    if Path::new("/sys/bus/event_source/devices/uprobe/type").exists() {
        Row::ok("uprobes", "available")
    } else {
        Row::bad(
            Status::Warning,
            "uprobes",
            "not available: calls inside Python processes are linked by thread only",
            "use a kernel with CONFIG_UPROBE_EVENTS=y",
        )
    }
}

fn fields(types: &KernelTypes, options: &KernelOptions) -> Row {
    match Constants::resolve(types, options) {
        Ok(_) => Row::ok("BTF", format!("{}, with every field that is read", btf::VMLINUX)),
        Err(error) => {
            Row::bad(Status::Failed, "BTF", error.to_string(), "report the kernel's version to the project")
        }
    }
}

fn hook(types: &KernelTypes) -> Row {
    if types.has_tracepoint("sock_send_length") {
        Row::ok("socket hook", "sock_send_length and sock_recv_length")
    } else {
        Row::bad(
            Status::Warning,
            "socket hook",
            "not in this kernel; the syscall hook does the same at a higher cost",
            "a kernel of at least 6.3",
        )
    }
}

/// What to do about Python's probes before Linux 6.6: perf's rules, those of distributions and the fix of mid-2025 all let
/// this pass.
pub(super) const PROBES_TAKE_ADMIN: &str =
    "before Linux 6.6 give the agent CAP_SYS_ADMIN, too: docs/privileges.md";

/// A row per probe, from attaching them all.
fn programs(options: &KernelOptions) -> Vec<Row> {
    let begin = Instant::now();
    let kernel = match Kernel::load(options) {
        Ok(kernel) => kernel,
        Err(error) => {
            let remedy = "see the rows above";
            return vec![Row::bad(Status::Failed, "programs", error.to_string(), remedy)];
        }
    };
    let attached = begin.elapsed();
    let name = match kernel.hook() {
        Hook::Syscall => "syscall",
        Hook::Auto | Hook::Socket => "socket",
    };
    let mut rows =
        vec![Row::ok("programs", format!("attached in {} ms with the {name} hook", attached.as_millis()))];
    if kernel.later_probes_need_admin() && !privileges::held().contains(&Capability::CAP_SYS_ADMIN) {
        rows.push(Row::bad(
            Status::Warning,
            "Python probes",
            "before Linux 6.6 they mostly take CAP_SYS_ADMIN; without, calls inside Python are linked by thread only",
            PROBES_TAKE_ADMIN,
        ));
    }
    rows.push(returns(kernel.return_probes()));
    if *kernel.calls_seen() != CallsSeen::Not {
        rows.push(Row::ok("ends of calls", kernel.calls_seen().to_string()));
    }
    for warning in kernel.warnings() {
        rows.push(Row::bad(
            Status::Warning,
            "memory limit",
            warning.clone(),
            "only kernels before 5.11 need it",
        ));
    }
    rows.extend(kernel.probes().iter().map(|probe| {
        let name = format!("probe {}", probe.name);
        match &probe.status {
            ProbeStatus::Attached => Row::ok(name, format!("attached: {}", probe.purpose)),
            ProbeStatus::Skipped(why) => Row::ok(name, format!("skipped: {why}")),
            ProbeStatus::Failed(why) => {
                let lost = format!("the agent runs without: {}", probe.purpose);
                Row::bad(Status::Warning, name, format!("failed: {why}"), lost)
            }
        }
    }));
    rows
}

fn returns(found: &ReturnProbes) -> Row {
    match found {
        ReturnProbes::Harmless(how) => Row::ok("return probes", *how),
        ReturnProbes::Refused(why) => {
            Row::bad(Status::Warning, "return probes", why.as_str(), return_probe::REMEDY)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(parse_release("6.18.44-fc-v470"), Some((6, 18)));
        assert_eq!(parse_release("5.8.0"), Some((5, 8)));
        assert_eq!(parse_release("5.15-rc1"), Some((5, 15)));
        assert_eq!(parse_release("linux"), None);
        assert!(parse_release("5.4.0") < Some(FLOOR));
    }

    #[test]
    fn lockdown_modes() {
        assert_eq!(lockdown_mode("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(lockdown_mode("none integrity [confidentiality]\n"), Some("confidentiality"));
        assert_eq!(lockdown_mode(""), None);
    }

    #[test]
    fn every_bad_row_has_a_remedy() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: attaching needs root");
            return;
        }
        let rows = check(&KernelOptions::default());
        for row in &rows {
            assert_eq!(row.status != Status::Ok, row.remedy.is_some(), "{row:?}");
            assert_ne!(row.status, Status::Failed, "{row:?}");
        }
        assert!(rows.iter().any(|row| row.name == "probe inet_sock_set_state"));
    }
}
