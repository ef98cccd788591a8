//! HTTP spoken byte by byte, for what no library does on request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::net::free_port;

/// Longest wait for a byte of the other end.
const PATIENCE: Duration = Duration::from_secs(20);

/// A listener on a port of its own.
pub struct Listener {
    listener: TcpListener,
    port: u16,
}

impl Default for Listener {
    fn default() -> Self {
        Self::new()
    }
}

impl Listener {
    /// Listens on 127.0.0.1.
    pub fn new() -> Self {
        let port = free_port();
        Self { listener: TcpListener::bind(("127.0.0.1", port)).unwrap(), port }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Accepts one connection and serves it on a thread.
    pub fn serve<T: Send + 'static>(&self, serve: impl FnOnce(Peer) -> T + Send + 'static) -> JoinHandle<T> {
        let listener = self.listener.try_clone().unwrap();
        std::thread::spawn(move || serve(Peer::new(listener.accept().unwrap().0)))
    }

    /// Connects to it.
    pub fn connect(&self) -> Peer {
        Peer::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }
}

/// One end of a connection.
pub struct Peer {
    /// The socket.
    pub stream: TcpStream,
}

impl Peer {
    /// Takes a connected socket.
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream }
    }

    /// Sends everything with one call, as far as the kernel takes it at once.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Receives exactly this many bytes.
    pub fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Receives up to and with a mark.
    pub fn receive_until(&mut self, mark: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        while !bytes.windows(mark.len()).any(|w| w == mark) {
            let n = self.stream.read(&mut buffer).unwrap();
            assert!(n > 0, "the other end closed before {}", mark.escape_ascii());
            bytes.extend_from_slice(&buffer[..n]);
        }
        bytes
    }

    /// Receives a head, whatever follows it.
    pub fn receive_head(&mut self) -> String {
        String::from_utf8(self.receive_until(b"\r\n\r\n")).unwrap()
    }

    /// Receives until the other end closes; a reset counts as that.
    pub fn receive_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }

    /// Own address.
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Closes with a reset (`SO_LINGER` 0).
    pub fn reset(self) {
        use std::os::fd::AsRawFd as _;
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        // SAFETY: a live descriptor and a live option of the length told.
        let result = unsafe {
            libc::setsockopt(
                self.stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as u32,
            )
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}
