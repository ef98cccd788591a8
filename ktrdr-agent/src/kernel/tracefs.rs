//! tracefs, which gives per-system-call tracepoints their numbers.

use std::{fs, io, path::Path};

const MOUNT_POINT: &str = "/sys/kernel/tracing";
const PLACES: [&str; 2] = [MOUNT_POINT, "/sys/kernel/debug/tracing"];

/// Where tracefs is mounted, if anywhere.
fn find() -> Option<&'static Path> {
    PLACES.iter().map(Path::new).find(|place| place.join("events").is_dir())
}

/// Whether it is mounted and this process may not look inside: it belongs to root, mode 0700.
fn hidden() -> bool {
    PLACES.iter().any(|place| {
        let opened = fs::metadata(Path::new(place).join("events"));
        opened.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    })
}

/// tracefs for as long as this lives: an existing mount, or one that ends with it.
pub(super) struct Tracefs {
    ours: bool,
}

impl Tracefs {
    /// Mounts tracefs where it is missing. Only to look numbers up: what is attached does not need it any more.
    ///
    /// # Errors
    /// Not mounted, and mounting was refused (no CAP_SYS_ADMIN, no tracefs in the kernel).
    pub fn ensure() -> io::Result<Tracefs> {
        if find().is_some() {
            return Ok(Tracefs { ours: false });
        }
        if hidden() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{MOUNT_POINT} may not be read"),
            ));
        }
        if !fs::exists(MOUNT_POINT)? {
            return Err(io::Error::other("the kernel has no /sys/kernel/tracing"));
        }
        // SAFETY: NUL-terminated strings that live through the call; no data.
        let result = unsafe {
            libc::mount(
                c"tracefs".as_ptr(),
                c"/sys/kernel/tracing".as_ptr(),
                c"tracefs".as_ptr(),
                libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
                std::ptr::null(),
            )
        };
        if result == 0 { Ok(Tracefs { ours: true }) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Tracefs {
    fn drop(&mut self) {
        if self.ours {
            // SAFETY: a NUL-terminated string. A failure leaves an empty-handed mount behind, which harms nothing.
            unsafe { libc::umount2(c"/sys/kernel/tracing".as_ptr(), libc::MNT_DETACH) };
        }
    }
}
