//! System calls in the forms that the standard library does not offer.

use std::os::fd::{AsRawFd, RawFd};

fn iovecs(parts: &[&[u8]]) -> Vec<libc::iovec> {
    parts.iter().map(|part| libc::iovec { iov_base: part.as_ptr() as *mut _, iov_len: part.len() }).collect()
}

fn done(result: isize) -> std::io::Result<usize> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result as usize) }
}

pub fn writev(fd: &impl AsRawFd, parts: &[&[u8]]) -> std::io::Result<usize> {
    let list = iovecs(parts);
    // SAFETY: valid iovecs of live slices.
    done(unsafe { libc::writev(fd.as_raw_fd(), list.as_ptr(), list.len() as i32) })
}

pub fn readv(fd: &impl AsRawFd, sizes: &[usize]) -> std::io::Result<usize> {
    let mut buffers: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![0; size]).collect();
    let list: Vec<libc::iovec> = buffers
        .iter_mut()
        .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() })
        .collect();
    // SAFETY: valid iovecs of live buffers.
    done(unsafe { libc::readv(fd.as_raw_fd(), list.as_ptr(), list.len() as i32) })
}

pub fn sendmsg(fd: &impl AsRawFd, parts: &[&[u8]]) -> std::io::Result<usize> {
    let mut list = iovecs(parts);
    // SAFETY: an all-zero msghdr is valid; the iovecs live through the call.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = list.as_mut_ptr();
        message.msg_iovlen = list.len();
        done(libc::sendmsg(fd.as_raw_fd(), &message, 0))
    }
}

pub fn recvmsg(fd: &impl AsRawFd, size: usize, flags: i32) -> std::io::Result<usize> {
    let mut buffer = vec![0u8; size];
    let mut list = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size };
    // SAFETY: an all-zero msghdr is valid; buffer and iovec live through the call.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &mut list;
        message.msg_iovlen = 1;
        done(libc::recvmsg(fd.as_raw_fd(), &mut message, flags))
    }
}

pub fn recv(fd: &impl AsRawFd, size: usize, flags: i32) -> std::io::Result<usize> {
    let mut buffer = vec![0u8; size];
    // SAFETY: a live buffer of the size told.
    done(unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), size, flags) })
}

pub fn sendfile(to: &impl AsRawFd, from: &impl AsRawFd, count: usize) -> std::io::Result<usize> {
    let mut offset: libc::off_t = 0;
    // SAFETY: valid descriptors and a live offset.
    done(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), &mut offset, count) })
}

pub fn splice(from: RawFd, to: &impl AsRawFd, count: usize) -> std::io::Result<usize> {
    let none = std::ptr::null_mut();
    // SAFETY: valid descriptors, no offsets.
    done(unsafe { libc::splice(from, none, to.as_raw_fd(), none, count, 0) })
}

/// Number of messages sent by one `sendmmsg`.
pub fn sendmmsg(fd: &impl AsRawFd, messages: &[&[u8]]) -> std::io::Result<usize> {
    let mut lists = iovecs(messages);
    let mut headers: Vec<libc::mmsghdr> = lists
        .iter_mut()
        .map(|list| {
            // SAFETY: an all-zero mmsghdr is valid.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = list;
            header.msg_hdr.msg_iovlen = 1;
            header
        })
        .collect();
    // SAFETY: headers, iovecs and messages live through the call.
    done(unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), headers.len() as u32, 0) } as isize)
}

/// Connects a fresh socket of a kind; the error is the call's.
pub fn connect(domain: i32, kind: i32, address: &[u8]) -> std::io::Result<()> {
    use std::os::fd::FromRawFd as _;
    // SAFETY: a fresh descriptor that is owned at once; the address lives through the call.
    unsafe {
        let fd = libc::socket(domain, kind | libc::SOCK_CLOEXEC, 0);
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        let fd = std::os::fd::OwnedFd::from_raw_fd(fd);
        let result = libc::connect(fd.as_raw_fd(), address.as_ptr().cast(), address.len() as u32);
        done(result as isize).map(|_| ())
    }
}

/// Bytes of a `sockaddr_in`.
pub fn sockaddr_v4(address: [u8; 4], port: u16) -> Vec<u8> {
    let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
    bytes.extend(port.to_be_bytes());
    bytes.extend(address);
    bytes.extend([0; 8]);
    bytes
}

pub fn gettid() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get() as u32
}

/// `write` through the 32-bit entry, from a buffer it can address.
#[cfg(target_arch = "x86_64")]
pub fn write_32_bit(fd: &impl AsRawFd, bytes: &[u8]) -> i32 {
    /// `write` in the 32-bit table.
    const WRITE: i32 = 4;
    assert!(bytes.len() <= 4096);
    // SAFETY: a fresh page below 4 GiB, unmapped at the end; the call reads it and clobbers what is declared. `rbx`,
    // which the compiler keeps to itself, is swapped in and out.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        );
        assert_ne!(page, libc::MAP_FAILED);
        page.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        let mut result = WRITE;
        std::arch::asm!(
            "xchg rbx, {fd}",
            "int 0x80",
            "xchg rbx, {fd}",
            fd = inout(reg) i64::from(fd.as_raw_fd()) => _,
            inout("eax") result,
            in("rcx") page,
            in("rdx") bytes.len(),
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
        libc::munmap(page, 4096);
        result
    }
}
