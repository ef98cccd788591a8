//! What the terminal and the host say about how to write.

use std::io::IsTerminal;

/// Whether standard output is a terminal.
pub fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// `NO_COLOR` (no-color.org: set and not empty) and terminals that say they know nothing.
pub fn wants_color() -> bool {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty());
    set("NO_COLOR").is_none() && set("TERM").is_none_or(|t| t != "dumb")
}

/// Columns of the terminal behind standard output.
pub fn width() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `winsize` through the pointer, which is valid for the call.
    let result = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) };
    (result == 0 && size.ws_col > 0).then_some(size.ws_col as usize)
}

/// Seconds that the host's local time is ahead of UTC at that second since the Unix epoch.
pub fn utc_offset(unix_seconds: u64) -> i64 {
    let Ok(time) = libc::time_t::try_from(unix_seconds) else { return 0 };
    let mut tm = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; `localtime_r` writes a whole `tm` or returns null. All-zero is
    // a valid `tm` (its pointer field may be null).
    unsafe {
        if libc::localtime_r(&time, tm.as_mut_ptr()).is_null() {
            return 0;
        }
        tm.assume_init().tm_gmtoff
    }
}
