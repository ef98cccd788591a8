//! The local socket on which a running agent answers questions. Only its own user may connect (mode 0600).

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use super::Answers;
use super::protocol::{self, MAX_REQUEST};
use crate::privileges::{self, Reach};

/// Clients at a time: people and scripts, not load.
const MAX_CLIENTS: usize = 8;
/// A client that says nothing, or does not read its answer, is let go after this.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers there.
    #[error("another agent answers at {0} (give this one its own with the setting explain.socket)")]
    Taken(PathBuf),
    /// There is a file that is no socket.
    #[error("{0} exists and is not a socket")]
    NotASocket(PathBuf),
    /// The path cannot be used.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// A running server. Dropping it ends the thread and removes the socket.
pub struct Server {
    path: PathBuf,
    inode: Option<(u64, u64)>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the socket and answers on a thread of its own.
    pub fn start(path: &Path, answers: Arc<dyn Answers>) -> Result<Self, ServeError> {
        let failed = |e: io::Error| ServeError::Io(path.to_owned(), e);
        let listener = listen(path)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let wake =
            eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
        let wake = Arc::new(wake);
        let thread = std::thread::Builder::new()
            .name("explain-socket".to_owned())
            .spawn({
                let wake = wake.clone();
                move || {
                    privileges::worker(Reach::Nothing);
                    accept(&listener, &wake, &answers);
                }
            })
            .map_err(failed)?;
        Ok(Self { path: path.to_owned(), inode: inode(path), wake, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Adding to the counter fails only when it is full, and then the thread is awake.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Another agent may have taken the path over.
        if self.inode.is_some() && inode(&self.path) == self.inode {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).ok().map(|m| (m.dev(), m.ino()))
}

/// A socket at `path` that nobody else could connect to at any moment: it is made in a private directory and moved.
fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |e: io::Error| ServeError::Io(path.to_owned(), e);
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
        Ok(m) if !m.file_type().is_socket() => return Err(ServeError::NotASocket(path.to_owned())),
        // One left over refuses.
        Ok(_) => {
            if UnixStream::connect(path).is_ok() {
                return Err(ServeError::Taken(path.to_owned()));
            }
        }
    }
    if let Some(parent) = path.parent()
        && let Err(e) = fs::DirBuilder::new().mode(0o755).create(parent)
        && e.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(failed(e));
    }
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let private = path.with_file_name(format!(".{name}.{}", std::process::id()));
    // One left over by an agent that had this pid and was killed here.
    let _ = fs::remove_dir_all(&private);
    fs::DirBuilder::new().mode(0o700).create(&private).map_err(failed)?;
    let made = (|| {
        let inside = private.join("s");
        let listener = UnixListener::bind(&inside)?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    })();
    let _ = fs::remove_dir_all(&private);
    made.map_err(failed)
}

fn accept(listener: &UnixListener, wake: &OwnedFd, answers: &Arc<dyn Answers>) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(wake, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => {
                tracing::warn!("explain: the socket is given up: {e}");
                return;
            }
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => {
                // Out of descriptors: the queue stays, and turning at full speed would not help.
                tracing::debug!("explain: accept: {e}");
                if wait_woken(wake, 100) {
                    return;
                }
                continue;
            }
        };
        if clients.fetch_add(1, Ordering::AcqRel) >= MAX_CLIENTS {
            clients.fetch_sub(1, Ordering::AcqRel);
            let _ = refuse(stream);
            continue;
        }
        let (answers, count) = (answers.clone(), clients.clone());
        let client = std::thread::Builder::new().name("explain-client".to_owned()).spawn(move || {
            let _guard = Leave(count);
            if let Err(e) = serve(stream, &*answers) {
                tracing::debug!("explain: client: {e}");
            }
        });
        if client.is_err() {
            clients.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Waits for the end, at most so many milliseconds.
fn wait_woken(wake: &OwnedFd, ms: i64) -> bool {
    let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: ms * 1_000_000 };
    let mut fds = [PollFd::new(wake, PollFlags::IN)];
    poll(&mut fds, Some(&limit)).is_ok_and(|n| n > 0)
}

/// Counts the client out, whatever happened to it.
struct Leave(Arc<AtomicUsize>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn refuse(mut stream: UnixStream) -> io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(100)))?;
    let text = protocol::error("busy", "too many clients at once, try again", &[]).to_string();
    stream.write_all(text.as_bytes())?;
    stream.write_all(b"\n")
}

/// One question, one answer. Whether the client may ask was decided by the socket's mode.
fn serve(stream: UnixStream, answers: &dyn Answers) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = Vec::new();
    BufReader::new(&stream).take(MAX_REQUEST as u64 + 1).read_until(b'\n', &mut line)?;
    let text = if line.len() > MAX_REQUEST {
        format!("{}\n", protocol::error("bad_request", "the request is too long", &[]))
    } else {
        match std::str::from_utf8(&line) {
            Ok(text) => protocol::answer(answers, text.trim()),
            Err(_) => format!("{}\n", protocol::error("bad_request", "the request is not UTF-8", &[])),
        }
    };
    (&stream).write_all(text.as_bytes())
}
