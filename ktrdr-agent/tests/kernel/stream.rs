//! What a loop is given to send later: functions of this program stand in for uvloop's, and memory of its own for its streams
//! and for what is written to them.

use std::{
    io::Write as _,
    net::TcpStream,
    os::fd::{AsRawFd as _, RawFd},
    path::Path,
};

use ktrdr_ebpf_common::{
    GIVEN_BEFORE, SEND, flags,
    maps::{PyContexts, PyThread},
    policies::Policy,
};

use crate::{
    contexts::function,
    observer::{Body, Observer, Pretended, conn_of, ways},
    steering::Pair,
    sys,
};

/// Stand in for `UVStream.write` and `writelines`: exported, never inlined, two of them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ktrdr_test_stream_write(stream: u64, second: u64) -> u64 {
    std::hint::black_box(stream ^ second)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ktrdr_test_stream_writelines(stream: u64, second: u64) -> u64 {
    std::hint::black_box(stream.wrapping_add(second))
}

/// An object of a type with these flags, its size, and what is behind.
pub struct Object {
    words: Vec<u64>,
    _kind: Box<[u64; 22]>,
}

impl Object {
    fn new(flags: u64, size: usize, behind: &[u64]) -> Object {
        let mut kind = Box::new([0; 22]);
        kind[168 / 8] = flags;
        let words = [&[1, kind.as_ptr() as u64, size as u64], behind].concat();
        Object { words, _kind: kind }
    }

    pub fn bytes(text: &[u8; 16]) -> Object {
        let words: Vec<u64> =
            text.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().unwrap())).collect();
        // A hash is before them.
        Object::new(1 << 27, text.len(), &[&[7], words.as_slice()].concat())
    }

    fn address(&self) -> u64 {
        self.words.as_ptr() as u64
    }

    /// The bytes of such an object, where they are.
    pub fn text(&self) -> &[u8] {
        // SAFETY: two words behind the head, which live as long.
        unsafe { std::slice::from_raw_parts(self.words[4..].as_ptr().cast(), 16) }
    }
}

/// A stream of this descriptor.
pub struct Stream {
    words: [u64; 4],
    _handle: Box<[u64; 24]>,
}

impl Stream {
    pub fn of(fd: RawFd) -> Stream {
        let mut handle = Box::new([0; 24]);
        handle[184 / 8] = fd as u64;
        Stream { words: [1, 2, 3, handle.as_ptr() as u64], _handle: handle }
    }

    pub fn write(&self, object: &Object) {
        ktrdr_test_stream_write(std::hint::black_box(&self.words).as_ptr() as u64, object.address());
    }

    /// The same with arguments in memory.
    fn writelines(&self, object: &Object) {
        let arguments = [object.address()];
        let arguments = std::hint::black_box(&arguments).as_ptr() as u64;
        ktrdr_test_stream_writelines(std::hint::black_box(&self.words).as_ptr() as u64, arguments);
    }
}

/// A context that was entered from another one.
fn context() -> Box<[u64; 6]> {
    Box::new([0, 0, 7, 0, 0, 1])
}

/// This thread, as one of a loop that is given things in this way.
pub fn told(observer: &mut Observer, python: &Pretended, writes: u16) {
    let thread = python.thread();
    let thread = PyThread { contexts: PyContexts { writes, ..thread.contexts }, ..thread };
    observer.kernel.set_py_thread(sys::gettid(), thread).unwrap();
}

fn conn(observer: &Observer, pair: &Pair) -> u64 {
    let (client, server) = pair.ports();
    conn_of(&observer.records, client, server).unwrap()
}

/// What was sent on a connection: bytes, and under what.
fn sent(observer: &Observer, pair: &Pair) -> Vec<(u32, u64)> {
    let sent = observer.stream(conn(observer, pair), SEND);
    sent.iter().map(|t| (t.body.len, t.body.py_context)).collect()
}

/// What this thread was told to have given: context, number, and whether behind something.
fn given(observer: &Observer) -> Vec<(u64, u64, bool)> {
    let ours = observer.records.iter().filter(|r| r.header.tid == sys::gettid());
    let given = |record: &crate::observer::Record| match record.body {
        Body::PyWrite(w) => Some((w.py_context, w.item, record.header.flags & flags::BEHIND != 0)),
        _ => None,
    };
    ours.filter_map(given).collect()
}

/// Probes those functions; the probe's number.
pub fn attach(observer: &mut Observer) -> u64 {
    let at = ["ktrdr_test_stream_write", "ktrdr_test_stream_writelines"].map(function);
    observer.kernel.attach_py_stream(Path::new("/proc/self/exe"), at).unwrap()
}

fn send(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).unwrap();
}

#[test]
fn what_a_loop_sends_bears_the_number_under_which_it_was_given() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let mut python = Pretended::new();
        let (task, other, own) = (context(), context(), python.context());
        let [task, other] = [&task, &other].map(|context| context.as_ptr() as u64);
        attach(&mut observer);
        told(&mut observer, &python, PyContexts::OBJECT);
        let (mut a, mut b) = (Pair::new(), Pair::new());
        let [to_a, to_b] = [&a, &b].map(|pair| Stream::of(pair.client.as_raw_fd()));
        let (head, body) = (Object::bytes(b"GET / HTTP/1.1\r\n"), Object::bytes(b"\r\n.............."));

        // One object for two connections, by two.
        python.enter(task);
        to_a.write(&head);
        python.enter(other);
        to_b.write(&head);
        python.enter(own);
        send(&mut b.client, head.text());
        send(&mut a.client, head.text());
        // Nothing was given before this one.
        send(&mut a.client, head.text());
        // Several objects at once, whoever gave them; all are told of.
        python.enter(task);
        to_a.write(&head);
        python.enter(other);
        to_a.write(&body);
        python.enter(own);
        assert_eq!(sys::writev(&a.client, &[head.text(), body.text()]).unwrap(), 32);
        // Not all at once: the rest is nobody's.
        python.enter(task);
        to_a.write(&head);
        python.enter(own);
        send(&mut a.client, &head.text()[..5]);
        send(&mut a.client, &head.text()[5..]);
        // Something else first.
        python.enter(task);
        to_a.write(&head);
        python.enter(own);
        send(&mut a.client, body.text());
        send(&mut a.client, head.text());
        observer.settle();

        let numbers: Vec<u64> = given(&observer).iter().map(|(_, number, _)| *number).collect();
        let [n1, n2, n3, n4, n5, n6] = numbers[..] else { panic!("{:x?}", given(&observer)) };
        let expected = [
            (task, n1, false),
            (other, n2, false),
            (task, n3, false),
            (other, n3, true),
            (task, n5, false),
            (task, n6, false),
        ];
        assert_eq!((given(&observer).as_slice(), n4), (expected.as_slice(), n3));
        let mut different = vec![n1, n2, n3, n5, n6];
        different.sort_unstable();
        different.dedup();
        assert!(different.len() == 5 && different.iter().all(|n| n & 3 == GIVEN_BEFORE), "{different:x?}");
        assert_eq!(
            sent(&observer, &a),
            [(16, n1), (16, own), (32, n3), (5, n5), (11, own), (16, own), (16, own)]
        );
        assert_eq!(sent(&observer, &b), [(16, n2)]);
    }
}

#[test]
fn what_is_written_is_known_by_its_type() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let mut python = Pretended::new();
        let task = context();
        let (task, own) = (task.as_ptr() as u64, python.context());
        attach(&mut observer);
        told(&mut observer, &python, PyContexts::ARGUMENTS);
        let mut pair = Pair::new();
        let stream = Stream::of(pair.client.as_raw_fd());
        let text = Object::bytes(b"in several parts");
        let items = [text.address(), 0];
        let list = Object::new(1 << 25, 1, &[items.as_ptr() as u64]);
        let tuple = Object::new(1 << 26, 1, &[text.address()]);
        let buffers = Object::new(1 << 25, 1, &[list.address()]);
        let nested = Object::new(1 << 26, 1, &[list.address()]);
        let generator = Object::new(0, 0, &[text.address()]);
        // Whether the send is known to be of it.
        for (object, known) in
            [(&list, true), (&tuple, true), (&nested, false), (&buffers, false), (&generator, false)]
        {
            observer.records.clear();
            python.enter(task);
            stream.writelines(object);
            python.enter(own);
            send(&mut pair.client, text.text());
            observer.settle();
            let told = given(&observer);
            let [(context, number, false)] = told[..] else { panic!("{told:x?}") };
            let (client, server) = pair.ports();
            let found = conn_of(&observer.records, client, server);
            let sends = found.map(|conn| observer.stream(conn, SEND)).unwrap_or_default();
            let under: Vec<u64> = sends.iter().map(|t| t.body.py_context).collect();
            assert_eq!((context, under), (task, vec![if known { number } else { own }]));
        }
        observer.records.clear();
        python.enter(task);
        for nothing in
            [Object::new(1 << 27, 0, &[7, 0]), Object::new(1 << 25, 0, &[0]), Object::new(1 << 26, 0, &[])]
        {
            stream.writelines(&nothing);
        }
        observer.settle();
        assert!(given(&observer).is_empty(), "{:x?}", given(&observer));
    }
}

/// A probe is at a file, which others map; and what is not looked at needs no writer.
#[test]
fn only_what_a_loop_will_send_on_a_connection_that_is_looked_at_is_told() {
    for way in ways() {
        let Some(mut observer) = Observer::start(&way) else { return };
        let python = Pretended::new();
        let probe = attach(&mut observer);
        let mut pair = Pair::new();
        let (client, server) = pair.ports();
        let conn = observer.until("the client", |records| conn_of(records, client, server));
        let text = Object::bytes(b"nobody is told. ");
        let stream = Stream::of(pair.client.as_raw_fd());
        stream.write(&text);
        told(&mut observer, &python, PyContexts::AT_ONCE);
        stream.write(&text);
        told(&mut observer, &python, PyContexts::OBJECT);
        let file = tempfile::tempfile().unwrap();
        let listener = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for fd in [file.as_raw_fd(), listener.as_raw_fd(), -1, 1 << 20] {
            Stream::of(fd).write(&text);
        }
        observer.kernel.set_policy(conn, Policy::IGNORE);
        stream.write(&text);
        send(&mut pair.client, text.text());
        observer.kernel.forget_policy(conn);
        observer.kernel.detach_py(probe);
        stream.write(&text);
        send(&mut pair.client, text.text());
        observer.settle();
        assert_eq!(given(&observer), []);
        assert_eq!(sent(&observer, &pair), [(16, python.context())]);
    }
}
