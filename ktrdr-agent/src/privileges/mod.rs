//! What the agent may do: the capabilities it needs, and giving up what it does not need any more.
//!
//! Two kinds of threads. The one that reads the kernel and `/proc` keeps the four capabilities of [`NEEDS`]: a
//! Python process that starts later gets its probe then. Every other thread talks to the outside (a receiver, a
//! client of the socket, a terminal) and keeps none, and Landlock refuses it every write to the file system.
//! Landlock cannot confine the first kind, because it also hides all other processes. For all of them together,
//! seccomp refuses system calls that an observer never makes. docs/privileges.md is the user's view of this.

mod landlock;
mod needs;
mod seccomp;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use caps::CapSet;

pub use caps::Capability;

pub use self::landlock::Reach;
pub use self::needs::{NEEDS, Need, has, require};
pub(crate) use self::seccomp::refusing;

/// Whether this process confines itself. Credentials belong to the process, and so does this.
static CONFINE: AtomicBool = AtomicBool::new(false);

/// Says whether [`worker`] and [`settle`] do anything. Before any thread starts.
pub fn confine(on: bool) {
    CONFINE.store(on, Ordering::Relaxed);
}

/// The first thing a thread does that needs nothing of the host: gives up all capabilities and, through Landlock,
/// writing to files that are not open yet, and the network as far as `reach` says. Threads it starts inherit that.
pub fn worker(reach: Reach) {
    if !CONFINE.load(Ordering::Relaxed) {
        return;
    }
    if let Err(error) = keep(&[]) {
        tracing::warn!("a thread keeps capabilities it does not need: {error}");
    }
    if let Err(error) = landlock::restrict(reach) {
        tracing::warn!("a thread is not confined by Landlock: {error}");
    }
}

/// As [`worker`], for a thread that opens devices: it gives up its capabilities and keeps the file system.
pub fn driver() {
    if CONFINE.load(Ordering::Relaxed)
        && let Err(error) = keep(&[])
    {
        tracing::warn!("a thread keeps capabilities it does not need: {error}");
    }
}

/// What holds once everything is attached.
#[derive(Debug)]
pub struct Settled {
    /// Capabilities of this thread.
    pub kept: Vec<Capability>,
    /// Confined at all, or as it was started.
    pub confined: bool,
    /// What could not be given up, and why.
    pub failures: Vec<String>,
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.confined, self.kept.is_empty()) {
            (false, _) => f.write_str("not confined (security.confine = false)"),
            (true, true) => f.write_str("confined: no capabilities"),
            (true, false) => {
                let names: Vec<String> = self.kept.iter().map(ToString::to_string).collect();
                write!(f, "confined: keeps {}, and only in the thread that observes", names.join(", "))
            }
        }
    }
}

/// Everything is loaded and attached, every file of the run is open, every thread runs: this thread keeps what
/// [`NEEDS`] lists and `more`, no thread can gain anything by starting a program, and seccomp holds for all of them.
pub fn settle(more: &[Capability]) -> Settled {
    if !CONFINE.load(Ordering::Relaxed) {
        return Settled { kept: held(), confined: false, failures: Vec::new() };
    }
    let needed: Vec<Capability> =
        NEEDS.iter().map(|need| need.capability).chain(more.iter().copied()).collect();
    let mut failures = Vec::new();
    if let Err(error) = keep(&needed) {
        failures.push(format!("capabilities: {error}"));
    }
    if let Err(error) = seccomp::restrict_all_threads() {
        failures.push(format!("seccomp: {error}"));
    }
    Settled { kept: held(), confined: true, failures }
}

/// Capabilities in force for this thread.
pub fn held() -> Vec<Capability> {
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    NEEDS
        .iter()
        .map(|need| need.capability)
        .chain([Capability::CAP_SYS_ADMIN])
        .filter(|capability| effective.contains(capability))
        .collect()
}

/// Leaves this thread at most these capabilities, in every set.
fn keep(wanted: &[Capability]) -> Result<(), caps::errors::CapsError> {
    // The bounding set takes CAP_SETPCAP to shrink. Without it, no-new-privileges does the same work.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        let bounding = caps::read(None, CapSet::Bounding)?;
        bounding
            .iter()
            .filter(|capability| !wanted.contains(capability))
            .try_for_each(|capability| caps::drop(None, CapSet::Bounding, *capability))?;
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::clear(None, CapSet::Inheritable)?;
    // A capability can be permitted without being in force; giving up does not bring it into force.
    for set in [CapSet::Effective, CapSet::Permitted] {
        let mut left = caps::read(None, set)?;
        left.retain(|capability| wanted.contains(capability));
        caps::set(None, set, &left)?;
    }
    Ok(())
}

/// What of this the kernel offers, for `check`: Landlock's version, and whether seccomp is there.
pub fn offered() -> (Option<u32>, bool) {
    (landlock::version(), seccomp::available())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(work).join().unwrap()
    }

    #[test]
    fn a_thread_gives_up_its_own_capabilities_and_nobody_elses() {
        let before = held();
        let after = in_a_thread(|| {
            keep(&[Capability::CAP_SYS_PTRACE]).unwrap();
            caps::read(None, CapSet::Permitted).unwrap()
        });
        assert!(after.iter().all(|capability| *capability == Capability::CAP_SYS_PTRACE), "{after:?}");
        assert_eq!(held(), before);
    }

    #[test]
    fn a_confined_thread_reads_but_cannot_write() {
        if offered().0.is_none() {
            println!("skipped: this kernel has no Landlock");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        std::fs::write(&old, "kept").unwrap();
        let path = old.clone();
        in_a_thread(move || {
            landlock::restrict(Reach::Nothing).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
            for refused in
                [std::fs::write(&path, "x"), std::fs::write(&new, "x"), std::fs::remove_file(&path)]
            {
                assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
            }
        });
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "kept");
    }

    #[test]
    fn who_talks_to_a_receiver_may_connect_and_who_does_not_may_not() {
        // TCP came with version 4 (Linux 6.7).
        if offered().0.is_none_or(|version| version < 4) {
            println!("skipped: this kernel's Landlock knows no network");
            return;
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let connects = |reach| {
            in_a_thread(move || {
                landlock::restrict(reach).unwrap();
                (std::net::TcpStream::connect(at).is_ok(), std::net::TcpListener::bind("127.0.0.1:0").is_ok())
            })
        };
        assert_eq!(connects(Reach::Receiver), (true, false));
        assert_eq!(connects(Reach::Nothing), (false, false));
    }

    #[test]
    fn what_an_observer_never_does_is_refused() {
        in_a_thread(|| {
            seccomp::restrict_this_thread().unwrap();
            // SAFETY: no pointers are passed that are read: the filter answers first.
            let refused = unsafe {
                [
                    libc::syscall(libc::SYS_process_vm_writev, 0, 0, 0, 0, 0, 0),
                    libc::syscall(libc::SYS_unshare, 0),
                    libc::syscall(libc::SYS_execve, 0, 0, 0),
                ]
            };
            assert_eq!(refused, [-1; 3]);
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EPERM));
            // And everyday calls are not.
            assert!(std::fs::read_to_string("/proc/self/status").is_ok());
            assert!(std::thread::spawn(|| 1).join().is_ok());
        });
    }
}
