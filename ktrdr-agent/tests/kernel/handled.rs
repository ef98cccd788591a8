//! A write to a socket is told from all others by a mark: no line of a log may be taken for one.

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use ktrdr_ebpf_common::maps::Watch;

use crate::{
    observer::{Body, Observer, ways},
    sys,
};

/// Lines of equal length, as long as what goes to the socket between them.
const LENGTH: usize = 16;
const LINES: usize = 20_000;

/// Writes lines and bytes to a socket through one descriptor, which stands for now this, now that: only what happened
/// since can tell one from the other. After each there may be no, one or two of the other.
fn alternate(pipe: &OwnedFd, socket: i32, unix: i32) {
    // SAFETY: both are open.
    let fd = unsafe { libc::dup(pipe.as_raw_fd()) };
    let through = |to: i32, bytes: &[u8; LENGTH], parts: bool| {
        // SAFETY: open descriptors, live bytes.
        let written = unsafe {
            assert_eq!(libc::dup2(to, fd), fd);
            match parts {
                true => sys::writev(&fd, &[&bytes[..3], &bytes[3..]]).unwrap() as isize,
                false => libc::write(fd, bytes.as_ptr().cast(), LENGTH),
            }
        };
        assert_eq!(written, LENGTH as isize);
    };
    for line in 0..LINES {
        let sockets = line % 3;
        for n in 0..sockets {
            through(if (line + n) % 5 == 0 { unix } else { socket }, &[b'.'; LENGTH], (line + n) % 2 == 0);
        }
        let text: [u8; LENGTH] = format!("line {line:010}\n").into_bytes().try_into().unwrap();
        through(pipe.as_raw_fd(), &text, line % 7 == 0);
    }
    // SAFETY: made above, and nobody else's.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
}

fn drained(mut from: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || std::io::copy(&mut from, &mut std::io::sink()).unwrap())
}

/// Moves a thread from processor to processor until told to stop. On one processor there is nothing to do.
fn unrest(tid: u32, stop: &AtomicBool) {
    let cpus = std::thread::available_parallelism().unwrap().get();
    while !stop.load(Relaxed) {
        for cpu in 0..cpus {
            // SAFETY: plain bits; a thread that has ended is an error that does not matter.
            unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(cpu, &mut set);
                libc::sched_setaffinity(tid.cast_signed(), size_of_val(&set), &raw const set);
            }
        }
    }
}

#[test]
fn every_line_between_writes_to_sockets_is_seen() {
    for way in ways() {
        for moving in [false, true] {
            let Some(mut observer) = Observer::start(&way) else { return };
            let me = std::process::id();
            observer.kernel.watch(me, u32::MAX, Watch::PIPES).unwrap();
            let (reader, pipe) = std::io::pipe().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (unix, other) = UnixStream::pair().unwrap();
            let sinks = [drained(reader), drained(listener.accept().unwrap().0), drained(other)];
            let stop = Arc::new(AtomicBool::new(false));
            let (told, tid) = std::sync::mpsc::channel();
            let writer = std::thread::spawn(move || {
                told.send(sys::gettid()).unwrap();
                alternate(&pipe.into(), socket.as_raw_fd(), unix.as_raw_fd());
            });
            let mover = moving.then(|| {
                let (tid, stop) = (tid.recv().unwrap(), stop.clone());
                std::thread::spawn(move || unrest(tid, &stop))
            });
            while !writer.is_finished() {
                observer.drain();
            }
            writer.join().unwrap();
            stop.store(true, Relaxed);
            if let Some(mover) = mover {
                mover.join().unwrap();
            }
            let moved = sinks.map(|sink| sink.join().unwrap());
            observer.settle();
            let mut lines = 0;
            for record in &observer.records {
                match &record.body {
                    Body::Write { payload, .. }
                        if record.header.tgid == me && payload.starts_with(b"line") =>
                    {
                        let expected = format!("line {lines:010}\n");
                        assert_eq!(payload, expected.as_bytes(), "{way:?}, moving: {moving}");
                        lines += 1;
                    }
                    _ => {}
                }
            }
            assert_eq!(lines, LINES, "{way:?}, moving: {moving}");
            assert_eq!(moved[0], (LINES * LENGTH) as u64);
            assert!(moved[1] > 0 && moved[2] > 0);
        }
    }
}

/// Where two processes would have the same place, both are watched.
#[test]
fn processes_that_share_a_place_are_watched_side_by_side() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let me = std::process::id();
        // Above every process id that the kernel gives (4,194,304), and as far away as there are places.
        let other = me + (1 << 22);
        assert_eq!(ktrdr_ebpf_common::maps::place_of(me), ktrdr_ebpf_common::maps::place_of(other));
        let (mut reader, pipe) = std::io::pipe().unwrap();
        let mut say = |text: &[u8; 4]| {
            sys::writev(&pipe, &[text]).unwrap();
            reader.read_exact(&mut [0; 4]).unwrap();
        };
        let kernel = &mut observer.kernel;
        say(b"none");
        kernel.watch(other, u32::MAX, Watch::PIPES).unwrap();
        say(b"none");
        kernel.watch(me, u32::MAX, Watch::PIPES).unwrap();
        say(b"1st.");
        kernel.unwatch(other).unwrap();
        say(b"2nd.");
        // Takes the place that is free now.
        kernel.watch(me, u32::MAX, Watch::PIPES).unwrap();
        say(b"3rd.");
        kernel.watch(other, u32::MAX, Watch::PIPES).unwrap();
        say(b"4th.");
        kernel.unwatch(me).unwrap();
        say(b"none");
        observer.settle();
        let seen = observer.records.iter().filter_map(|record| match &record.body {
            Body::Write { payload, .. } if record.header.tgid == me => Some(payload.as_slice()),
            _ => None,
        });
        assert_eq!(seen.collect::<Vec<_>>(), [b"1st.", b"2nd.", b"3rd.", b"4th."], "{way:?}");
    }
}
