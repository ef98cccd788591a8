//! A TCP socket.

use aya_ebpf::helpers::{bpf_get_socket_cookie, bpf_probe_read_kernel_buf, bpf_skc_to_tcp_sock};
use ktrdr_ebpf_common::ConnTuple;

use crate::{
    constants::*,
    error::Error,
    memory::{Direct, Object, Probed},
};

const AF_UNIX: u16 = 1;
pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;
const IPPROTO_TCP: u16 = 6;
/// Bit of `enum sock_flags`: the peer's FIN has arrived (`tcp_fin` is the only one to set it on a TCP socket).
const SOCK_DONE: u64 = 1 << 1;
const RCV_SHUTDOWN: u8 = 1;

/// A `struct sock`.
#[derive(Clone, Copy)]
pub struct Sock<O>(pub O);

/// The sequence numbers of a TCP socket, without the FINs.
#[derive(Clone, Copy)]
pub struct Positions {
    /// Of the next byte the process will receive.
    pub copied: u32,
    /// Of the next byte the process will send.
    pub written: u32,
}

impl<O: Object> Sock<O> {
    /// `AF_INET` or `AF_INET6` with TCP: all that is ever of interest.
    #[inline(always)]
    pub fn is_tcp(self) -> Result<bool, Error> {
        let family: u16 = self.0.load(&SK_FAMILY)?;
        Ok((family == AF_INET || family == AF_INET6) && self.0.load::<u16>(&SK_PROTOCOL)? == IPPROTO_TCP)
    }

    /// A Unix socket.
    #[inline(always)]
    pub fn is_unix(self) -> Result<bool, Error> {
        Ok(self.0.load::<u16>(&SK_FAMILY)? == AF_UNIX)
    }

    /// Identity of the socket, as `DataBody::conn` has it.
    #[inline(always)]
    pub fn conn(self) -> Result<u64, Error> {
        if HAS_SOCKET_COOKIE.get() == 0 {
            // A cookie that anybody's `ss` may create in mid-connection is no identity.
            return Ok(self.0.number()? | 1 << 63);
        }
        let cookie: u64 = self.0.load(&SK_COOKIE)?;
        if cookie != 0 {
            return Ok(cookie);
        }
        if O::TYPED {
            // SAFETY: the pointer is a `struct sock` to the verifier too.
            return Ok(unsafe { bpf_get_socket_cookie(self.0.address().cast_mut().cast()) });
        }
        // Not typed, so the helper cannot create it. State changes do for new sockets, their next transfer does for older ones.
        Ok(self.0.number()? | 1 << 63)
    }

    /// The same, but for a socket that has no cookie yet its address. Such a one is older than the agent.
    #[inline(always)]
    pub fn conn_so_far(self) -> Result<u64, Error> {
        let cookie: u64 = self.0.load(&SK_COOKIE)?;
        Ok(if cookie != 0 { cookie } else { self.0.number()? | 1 << 63 })
    }

    /// `sk_err`.
    #[inline(always)]
    pub fn error(self) -> Result<u16, Error> {
        self.0.load::<u32>(&SK_ERR).map(|errno| errno as u16)
    }

    /// Nothing more can be received: the peer or the process itself closed this direction.
    #[inline(always)]
    pub fn receive_ended(self) -> Result<bool, Error> {
        Ok(self.0.load::<u8>(&SK_SHUTDOWN)? & RCV_SHUTDOWN != 0)
    }

    /// The process holds the socket by a file descriptor. Not so for the kernel's own (NFS, CIFS, iSCSI), which may
    /// send inside a process's `read` of a file.
    #[inline(always)]
    pub fn has_file(self) -> Result<bool, Error> {
        Ok(self.0.follow(&SK_SOCKET)?.load::<u64>(&SOCKET_FILE)? != 0)
    }

    /// Local and remote port, in the host's byte order.
    #[inline(always)]
    pub fn ports(self) -> Result<(u16, u16), Error> {
        let mut local: u16 = self.0.load(&SK_NUM)?;
        if local == 0 {
            // The bound port is given back before a socket enters CLOSE; `inet_sport` keeps it.
            local = u16::from_be(Probed::at(self.0.address()).load(&INET_SPORT)?);
        }
        Ok((local, u16::from_be(self.0.load(&SK_DPORT)?)))
    }

    /// Addresses, namespace, state.
    #[inline(always)]
    pub fn tuple(self) -> Result<ConnTuple, Error> {
        let o = self.0;
        let family: u16 = o.load(&SK_FAMILY)?;
        let (local_port, remote_port) = self.ports()?;
        let mut tuple = ConnTuple {
            local_addr: [0; 16],
            remote_addr: [0; 16],
            local_port,
            remote_port,
            netns: o.follow(&SK_NET)?.load(&NET_INUM)?,
            family,
            state: o.load::<u8>(&SK_STATE)?.into(),
        };
        if family == AF_INET {
            tuple.local_addr = v4_mapped(o.load(&SK_RCV_SADDR)?);
            tuple.remote_addr = v4_mapped(o.load(&SK_DADDR)?);
        } else {
            read_into(o.address(), SK_V6_RCV_SADDR.get(), &mut tuple.local_addr)?;
            read_into(o.address(), SK_V6_DADDR.get(), &mut tuple.remote_addr)?;
        }
        Ok(tuple)
    }

    /// `write_seq` alone.
    #[inline(always)]
    pub fn written(self) -> Result<u32, Error> {
        Probed::at(self.0.address()).load(&TCP_WRITE_SEQ)
    }

    /// Both positions, by probing.
    #[inline(always)]
    pub fn positions(self) -> Result<Positions, Error> {
        self.positions_in(Probed::at(self.0.address()))
    }

    #[inline(always)]
    fn positions_in<T: Object>(self, tcp: T) -> Result<Positions, Error> {
        let written = tcp.load(&TCP_WRITE_SEQ)?;
        let mut copied: u32 = tcp.load(&TCP_COPIED_SEQ)?;
        // A FIN takes one sequence number, and `copied_seq` passes it together with the last byte or at end of file.
        // It is no byte of the stream: take it off again.
        if self.0.load::<u64>(&SK_FLAGS)? & SOCK_DONE != 0 && copied == tcp.load::<u32>(&TCP_RCV_NXT)? {
            copied = copied.wrapping_sub(1);
        }
        Ok(Positions { copied, written })
    }
}

/// Reading the positions of a transfer in the cheapest way there is.
pub trait TransferPositions {
    /// Both positions.
    fn transfer_positions(self) -> Result<Positions, Error>;
}

impl TransferPositions for Sock<Direct> {
    #[inline(always)]
    fn transfer_positions(self) -> Result<Positions, Error> {
        // SAFETY: the pointer is a `struct sock` to the verifier too.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.address().cast_mut().cast()) };
        if tcp.is_null() {
            return Err(Error::KernelRead);
        }
        self.positions_in(Direct::at(tcp.cast()))
    }
}

impl TransferPositions for Sock<Probed> {
    #[inline(always)]
    fn transfer_positions(self) -> Result<Positions, Error> {
        self.positions()
    }
}

/// `::ffff:a.b.c.d` of an address in network order.
#[inline(always)]
pub fn v4_mapped(address: u32) -> [u8; 16] {
    let [a, b, c, d] = address.to_ne_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

#[inline(always)]
fn read_into(base: *const u8, offset: u32, to: &mut [u8; 16]) -> Result<(), Error> {
    // SAFETY: the helper checks the address and reports a fault.
    unsafe { bpf_probe_read_kernel_buf(base.wrapping_add(offset as usize), to) }
        .map_err(|_| Error::KernelRead)
}
