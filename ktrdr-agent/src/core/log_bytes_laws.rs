//! What holds for the bytes that services write, whatever else the kernel side tells or was kept from telling: each is in a
//! record, or counted under what became of it.

use ktrdr_ebpf_common::limits::{MAX_PAYLOAD, MAX_WRITE_RECORDS};
use ktrdr_ebpf_common::{EventHeader, WriteBody, file, kind, maps::FileId};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::scenario::Host;
use crate::core::{Core, CoreConfig, Output};
use crate::event::ShellEvent;
use crate::event::shell::{FileMeta, ProcessMeta};
use crate::trace::logs::{Aside, ByteCounts};

/// Few, so that numbers are used again. 1 is the agent.
const PIDS: std::ops::Range<u32> = 1..6;
const EXCLUDED: u32 = 5;
const LISTENS: &str = "127.0.0.1:8000";
/// What a client says to a server: a request, and what is none.
const SAID: [&str; 2] = ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "good morning\n"];
const ASKED: &str = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}\n";
const TEXTS: [&str; 8] = [
    "a line\n",
    "2026-11-22 09:26:24,275 | ERROR | app.work | it failed\n",
    "half a line",
    "\n\n  \r\n\x1b[0m\n",
    "Traceback (most recent call last):\n  File \"a\", line 1, in f\n\nValueError: x\n\nafter it\n",
    "\0\0binary\0\nand text\n",
    "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n",
    ASKED,
];

#[derive(Clone, Debug)]
enum Step {
    Fork(u32, u32),
    Exec(u32),
    Exit(u32),
    Listen(u32),
    Talk(u32, u32, &'static str),
    Reads(u32),
    Writes { pid: u32, thread: u32, fd: u32, bytes: Vec<u8> },
    Passes(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let long = MAX_PAYLOAD * MAX_WRITE_RECORDS as usize;
    let bytes = prop_oneof![
        8 => prop::collection::vec(0..TEXTS.len(), 1..4)
            .prop_map(|all| all.into_iter().map(|n| TEXTS[n]).collect::<String>().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..100),
        4 => (MAX_PAYLOAD..long + 100).prop_map(|n| vec![b'x'; n]),
        1 => (1..long).prop_map(|n| "many lines\n".repeat(n.div_ceil(11)).into_bytes()),
    ];
    prop_oneof![
        1 => (PIDS, PIDS).prop_map(|(parent, child)| Step::Fork(parent, child)),
        2 => PIDS.prop_map(Step::Exec),
        1 => PIDS.prop_map(Step::Exit),
        1 => PIDS.prop_map(Step::Listen),
        2 => (PIDS, PIDS, 0..2_usize).prop_map(|(client, server, n)| Step::Talk(client, server, SAID[n])),
        1 => PIDS.prop_map(Step::Reads),
        12 => (PIDS, 0..2_u32, 1..5_u32, bytes)
            .prop_map(|(pid, thread, fd, bytes)| Step::Writes { pid, thread, fd, bytes }),
        3 => (0..1_500_u64).prop_map(Step::Passes),
    ]
}

/// The records of all that.
fn records(steps: &[Step]) -> Vec<Vec<u8>> {
    let mut host = Host::new();
    let excluded = ProcessMeta { tgid: EXCLUDED, excluded: true, ..ProcessMeta::default() };
    host.shell(ShellEvent::Process(excluded));
    let no_log = FileMeta { inode: 4, device: 1, generation: 1, path: "/tmp/data".into(), log: false };
    host.shell(ShellEvent::File(no_log));
    for step in steps {
        match step {
            Step::Fork(parent, child) => host.fork(*parent, *child),
            Step::Exec(pid) => host.exec(*pid, 1, "x", "x", false),
            Step::Exit(pid) => host.exit(*pid, 0),
            Step::Listen(pid) => host.listen(*pid, LISTENS),
            Step::Talk(client, server, said) => {
                let mut pipe = host.connect(*client, *server, LISTENS);
                host.request(&mut pipe, said.as_bytes());
            }
            Step::Reads(pid) => host.record(kind::READ, 0, (*pid, *pid), &read(ASKED.as_bytes())),
            Step::Writes { pid, thread, fd, bytes } => host.write(*pid, *pid * 10 + *thread, *fd, bytes),
            Step::Passes(ms) => host.pass(*ms),
        }
    }
    host.records
}

/// The body of a read from standard input.
fn read(bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    let body = WriteBody {
        py_context: 0,
        id: FileId { inode: 9, device: 1, generation: 1 },
        lost: 0,
        fd: 0,
        len,
        offset: 0,
        captured: len,
        file: file::PIPE,
        reserved: [0; 7],
    };
    [body.as_bytes(), bytes].concat()
}

/// Bytes that a record brings of a write.
fn written(record: &[u8]) -> u64 {
    let (header, rest) = EventHeader::read_from_prefix(record).unwrap();
    if header.kind != kind::WRITE {
        return 0;
    }
    u64::from(WriteBody::read_from_prefix(rest).unwrap().0.captured)
}

/// What a core makes of them: its counts, and how many records of logs.
fn told(records: &[Vec<u8>]) -> (ByteCounts, u64, Core) {
    let mut core = Core::new(CoreConfig { max_record: 9_000, ..CoreConfig::default() });
    let mut logs = 0;
    for record in records.iter().chain([&ShellEvent::End.to_record(u64::MAX / 2)]) {
        core.feed(record);
        while let Some(output) = core.next_output() {
            logs += u64::from(matches!(output, Output::Log(_)));
        }
    }
    (core.counts().logs.bytes, logs, core)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn no_byte_goes_without_a_count(
        steps in prop::collection::vec(step(), 0..40),
        lost in prop::collection::vec(0..5_u8, 1..200),
    ) {
        // What the kernel refused to run, or the ring had no room for: of any kind, parts of writes among them.
        let mut records = records(&steps);
        let mut fates = lost.iter().cycle();
        records.retain(|_| fates.next() != Some(&0));
        let captured: u64 = records.iter().map(|r| written(r)).sum();
        let (bytes, logs, core) = told(&records);
        prop_assert_eq!(core.logs.in_hand(), 0);
        prop_assert_eq!(bytes.captured, captured);
        prop_assert_eq!(bytes.accounted_for(), captured, "{:?}", bytes);
        prop_assert_eq!(core.counts().logs.records, logs);
    }
}

#[test]
fn each_fate_is_met() {
    let line = |pid: u32, fd: u32, text: &str| Step::Writes { pid, thread: 0, fd, bytes: text.into() };
    let steps = [
        Step::Listen(2),
        line(2, 1, TEXTS[0]),
        line(2, 3, TEXTS[0]),
        line(2, 1, TEXTS[3]),
        line(2, 2, TEXTS[5]),
        line(3, 1, TEXTS[0]),
        line(2, 4, TEXTS[0]),
        line(EXCLUDED, 1, TEXTS[0]),
        Step::Reads(4),
        line(4, 1, TEXTS[6]),
    ];
    let (bytes, ..) = told(&records(&steps));
    let aside = |why: Aside| bytes.aside[why as usize];
    let of_line = TEXTS[0].len() as u64;
    assert_eq!((bytes.output, bytes.copies), (of_line, of_line), "{bytes:?}");
    assert_eq!((aside(Aside::NoLog), aside(Aside::Unobserved)), (of_line, of_line), "{bytes:?}");
    assert_eq!(aside(Aside::Conversation), TEXTS[6].len() as u64, "{bytes:?}");
    assert_eq!((bytes.binary, bytes.blank), (10, TEXTS[3].len() as u64), "{bytes:?}");
    assert_eq!(bytes.records, of_line + "and text\n".len() as u64, "{bytes:?}");
}

#[test]
fn parts_of_a_write_are_told_when_the_last_one_is_lost() {
    let whole = vec![b'x'; MAX_PAYLOAD + 100];
    let steps = [Step::Listen(2), Step::Writes { pid: 2, thread: 0, fd: 1, bytes: whole }];
    for next in
        [Step::Passes(2_000), Step::Exit(2), Step::Writes { pid: 2, thread: 0, fd: 1, bytes: b"y\n".into() }]
    {
        let mut records = records(&[&steps[..], &[next]].concat());
        let last = records.iter().rposition(|r| written(r) == 100).unwrap();
        records.remove(last);
        let (bytes, logs, core) = told(&records);
        assert_eq!((bytes.accounted_for(), core.logs.in_hand()), (bytes.captured, 0), "{bytes:?}");
        assert_eq!(logs, 1 + u64::from(bytes.captured as usize > MAX_PAYLOAD));
        assert_eq!(core.counts().logs.join.uncaptured_bytes, 100);
    }
}

/// On a kernel that refuses programs runs, it may not be told that a process listens, nor that it began.
#[test]
fn who_serves_without_having_been_seen_to_listen_logs() {
    let serve = Step::Talk(3, 2, SAID[1]);
    let line = Step::Writes { pid: 2, thread: 0, fd: 1, bytes: TEXTS[0].into() };
    let (bytes, logs, _) = told(&records(&[serve, line.clone()]));
    assert_eq!((logs, bytes.records), (1, TEXTS[0].len() as u64), "{bytes:?}");
    let ask = Step::Talk(2, 3, SAID[1]);
    let (bytes, logs, _) = told(&records(&[ask, line]));
    assert_eq!((logs, bytes.output), (0, TEXTS[0].len() as u64), "{bytes:?}");
}
