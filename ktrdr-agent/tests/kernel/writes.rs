//! What watched processes write: every kind of file, long writes, the rate.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
};

use ktrdr_ebpf_common::{
    Counter, WriteBody, file, flags,
    limits::{MAX_PAYLOAD, MAX_WRITE_RECORDS},
    maps::Watch,
};

use crate::{
    observer::{Body, Observer, Record, ways},
    sys,
};

const PLENTY: u32 = 64 * 1024 * 1024;

/// Write records of one process: flags, body, payload.
fn writes(records: &[Record], tgid: u32) -> Vec<(u16, WriteBody, Vec<u8>)> {
    let of = |record: &Record| match &record.body {
        Body::Write { body, payload } if record.header.tgid == tgid => {
            Some((record.header.flags, *body, payload.clone()))
        }
        _ => None,
    };
    records.iter().filter_map(of).collect()
}

/// A shell that waits for a line before it runs `script`.
fn shell(script: &str, stdout: Stdio, stderr: Stdio) -> std::process::Child {
    let script = format!("read line; {script}");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(stdout).stderr(stderr).spawn().unwrap()
}

#[test]
fn standard_output_and_error_are_seen_whatever_they_are() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let mut child = shell("echo out; echo err >&2", File::create(&path).unwrap().into(), Stdio::piped());
        observer.kernel.watch(child.id(), PLENTY, 0).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        assert!(child.wait().unwrap().success());
        observer.settle();
        let seen: Vec<_> = writes(&observer.records, child.id())
            .into_iter()
            .map(|(flags, body, payload)| (flags, body.fd, body.file, body.len, payload))
            .collect();
        // The shell writes its error over a descriptor it gave another number.
        let [out, err] = seen.as_slice() else { panic!("{seen:?}") };
        assert_eq!(*out, (0, 1, file::REGULAR, 4, b"out\n".to_vec()));
        assert_eq!((err.2, err.4.as_slice()), (file::PIPE, b"err\n".as_slice()));
    }
}

#[test]
fn what_keeps_nothing_and_who_is_not_watched_is_left_alone() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let mut null = shell("echo nothing", Stdio::null(), Stdio::null());
        let mut other = shell("echo unwatched", Stdio::piped(), Stdio::null());
        observer.kernel.watch(null.id(), PLENTY, 0).unwrap();
        observer.kernel.watch(other.id(), PLENTY, 0).unwrap();
        observer.kernel.unwatch(other.id()).unwrap();
        observer.kernel.unwatch(other.id()).unwrap();
        for child in [&mut null, &mut other] {
            child.stdin.take().unwrap().write_all(b"go\n").unwrap();
            assert!(child.wait().unwrap().success());
        }
        observer.settle();
        for pid in [null.id(), other.id()] {
            assert!(writes(&observer.records, pid).is_empty());
        }
    }
}

#[test]
fn both_ends_of_a_pipe_are_one_file_and_each_byte_is_seen_once() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let me = std::process::id();
        observer.kernel.watch(me, PLENTY, Watch::PIPES).unwrap();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        let (mut left, mut right) = UnixStream::pair().unwrap();
        let mut buffer = [0; 16];
        writer.write_all(b"through a pipe").unwrap();
        reader.read_exact(&mut buffer[..14]).unwrap();
        sys::writev(&writer, &[b"in ", b"parts"]).unwrap();
        reader.read_exact(&mut buffer[..8]).unwrap();
        left.write_all(b"unix").unwrap();
        right.read_exact(&mut buffer[..4]).unwrap();
        sys::sendmsg(&right, &[b"ba", b"ck"]).unwrap();
        left.read_exact(&mut buffer[..4]).unwrap();
        // A child that reads the pipe and one that writes it hold the same file.
        let mut child = shell("echo hello", writer.into(), Stdio::null());
        observer.kernel.watch(child.id(), PLENTY, Watch::PIPES).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        reader.read_exact(&mut buffer[..6]).unwrap();
        child.wait().unwrap();
        observer.settle();
        let mine = writes(&observer.records, me);
        let found = |payload: &[u8]| {
            let mut all = mine.iter().filter(|(_, _, p)| p == payload);
            let (_, body, _) = all.next().unwrap_or_else(|| panic!("{payload:?} is missing"));
            assert!(all.next().is_none(), "{payload:?} came twice");
            *body
        };
        let pipe = found(b"through a pipe");
        assert_eq!((pipe.file, found(b"in parts").id), (file::PIPE, pipe.id));
        let (left, right) = (found(b"unix"), found(b"back"));
        assert_eq!((left.file, right.file), (file::UNIX_SOCKET, file::UNIX_SOCKET));
        assert_ne!(left.id, right.id, "each end of a socket pair is a file of its own");
        let theirs = writes(&observer.records, child.id());
        assert_eq!(theirs.len(), 1);
        assert_eq!((theirs[0].1.id, theirs[0].1.fd), (pipe.id, 1));
    }
}

#[test]
fn regular_files_are_asked_about_and_then_known() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let me = std::process::id();
        let directory = tempfile::tempdir().unwrap();
        let mut log = File::create(directory.path().join("a.log")).unwrap();
        log.write_all(b"before").unwrap();
        observer.kernel.watch(me, PLENTY, 0).unwrap();
        log.write_all(b"files are not wanted").unwrap();
        observer.kernel.watch(me, PLENTY, Watch::FILES).unwrap();
        log.write_all(b"first").unwrap();
        let (unknown, body, _) = observer.until("the first write", |records| writes(records, me).pop());
        assert_eq!((unknown, body.file, body.len), (flags::UNKNOWN_FILE, file::REGULAR, 5));
        observer.kernel.set_file(body.id, true).unwrap();
        log.write_all(b"second").unwrap();
        observer.kernel.set_file(body.id, false).unwrap();
        log.write_all(b"third").unwrap();
        let mut data = File::create(directory.path().join("b")).unwrap();
        data.write_all(b"another file").unwrap();
        observer.settle();
        let seen: Vec<_> = writes(&observer.records, me).into_iter().map(|(f, _, p)| (f, p)).collect();
        let unknown = flags::UNKNOWN_FILE;
        assert_eq!(
            seen,
            [(unknown, b"first".to_vec()), (0, b"second".to_vec()), (unknown, b"another file".to_vec())]
        );
    }
}

#[test]
fn a_long_write_is_several_records_and_the_rest_is_counted() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let me = std::process::id();
        let most = MAX_PAYLOAD * MAX_WRITE_RECORDS as usize;
        let bytes: Vec<u8> = (0..most + 100).map(|i| (i % 251) as u8).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("long");
        for (len, rest) in [(1, 0), (MAX_PAYLOAD, 0), (MAX_PAYLOAD + 1, 0), (most, 0), (most + 100, 100)] {
            let mut out = File::create(&path).unwrap();
            observer.records.clear();
            observer.kernel.watch(me, PLENTY, Watch::FILES).unwrap();
            let truncated = observer.counter(Counter::WriteBytesTruncated);
            out.write_all(&bytes[..len]).unwrap();
            observer.settle();
            observer.kernel.unwatch(me).unwrap();
            let mut whole = Vec::new();
            for (_, body, payload) in writes(&observer.records, me) {
                assert_eq!((body.len as usize, body.offset as usize), (len, whole.len()));
                whole.extend(payload);
            }
            assert_eq!(whole, bytes[..len - rest], "{len}");
            assert_eq!(observer.counter(Counter::WriteBytesTruncated) - truncated, rest as u64, "{len}");
            assert_eq!(fs::read(&path).unwrap(), bytes[..len]);
        }
    }
}

/// Beyond its rate a process's writes are counted, exactly, and the next captured one says how many.
#[test]
fn a_flood_is_cut_to_its_rate_and_counted() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let me = std::process::id();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let sink = std::thread::spawn(move || std::io::copy(&mut { reader }, &mut std::io::sink()).unwrap());
        let before = [Counter::WritesOverRate, Counter::WriteBytesOverRate].map(|c| observer.counter(c));
        observer.kernel.watch(me, 10_000, Watch::PIPES).unwrap();
        let mut written = 0;
        // Until a second window has begun.
        let last = loop {
            for _ in 0..1000 {
                writer.write_all(&[b'x'; 100]).unwrap();
            }
            written += 1000;
            observer.drain();
            let seen = writes(&observer.records, me);
            if let Some((_, last, _)) = seen.last().filter(|(_, body, _)| body.lost > 0) {
                break *last;
            }
        };
        observer.kernel.unwatch(me).unwrap();
        drop(writer);
        sink.join().unwrap();
        observer.settle();
        let captured = writes(&observer.records, me).len() as u64;
        let lost = observer.counter(Counter::WritesOverRate) - before[0];
        assert_eq!(captured + lost, written);
        assert_eq!(observer.counter(Counter::WriteBytesOverRate) - before[1], 100 * lost);
        assert!(last.lost <= lost && captured >= 100, "{captured} captured, {lost} lost, {last:?}");
    }
}

/// While a process floods one descriptor, what it writes to another is judged by what that one stands for.
#[test]
fn a_flood_hides_no_other_file() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let me = std::process::id();
        let (reader, mut writer) = std::io::pipe().unwrap();
        let sink = std::thread::spawn(move || std::io::copy(&mut { reader }, &mut std::io::sink()).unwrap());
        let mut null = File::options().write(true).open("/dev/null").unwrap();
        let (left, mut right) = UnixStream::pair().unwrap();
        observer.kernel.watch(me, 1_000, Watch::PIPES).unwrap();
        let counted = |observer: &Observer| observer.counter(Counter::WriteBytesOverRate);
        // Within one window: if another began meanwhile, once more.
        loop {
            let before = counted(&observer);
            for _ in 0..100 {
                writer.write_all(&[b'x'; 100]).unwrap();
            }
            let flooded = counted(&observer);
            null.write_all(&[b'x'; 100]).unwrap();
            let nothing = counted(&observer);
            sys::writev(&left, &[&[b'x'; 20]]).unwrap();
            sys::writev(&left, &[&[b'x'; 30]]).unwrap();
            right.read_exact(&mut [0; 50]).unwrap();
            let other = counted(&observer);
            writer.write_all(&[b'x'; 100]).unwrap();
            let again = counted(&observer);
            if again == other || other == flooded {
                continue;
            }
            assert!(flooded > before, "{way:?}");
            assert_eq!(nothing, flooded, "{way:?}: what keeps nothing is no loss");
            assert_eq!((other - nothing, again - other), (50, 100), "{way:?}");
            break;
        }
        observer.kernel.unwatch(me).unwrap();
        drop(writer);
        sink.join().unwrap();
    }
}
