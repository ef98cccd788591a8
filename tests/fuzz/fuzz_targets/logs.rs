//! Any writes of a server's threads, in any pieces and with any times between them: no panic, records within their
//! bound, the same bytes counted, and no record with a trace: no request was ever served, and text is no evidence.
//!
//! Input: pieces of `what`, `length / 4`, bytes. The lower bits of `what` choose the thread and the descriptor, the upper ones
//! how long it is until the write, and whether more of it follows.
#![no_main]

use ktrdr_agent::core::{Core, CoreConfig, Output};
use ktrdr_agent::event::ShellEvent;
use ktrdr_agent::event::shell::{FileMeta, ListenerMeta, ProcessMeta, Start, tick};
use ktrdr_ebpf_common::limits::{MAX_PAYLOAD, MAX_WRITE_RECORDS};
use ktrdr_ebpf_common::{EventHeader, WriteBody, file, kind, maps::FileId};
use libfuzzer_sys::fuzz_target;
use zerocopy::IntoBytes;

const SERVER: u32 = 5;
const MS: u64 = 1_000_000;
const MAX_RECORD: usize = 4_096;

fn feed(core: &mut Core, record: &[u8]) {
    core.feed(record);
    while let Some(output) = core.next_output() {
        let Output::Log(record) = output else { continue };
        assert!(record.body.len() <= MAX_RECORD, "{} bytes", record.body.len());
        assert!(record.trace_id.is_none() && record.span_id.is_none(), "{record:?}");
        assert!(!record.body.contains('\x1b'), "{:?}", record.body);
    }
}

fuzz_target!(|input: &[u8]| {
    let mut core = Core::new(CoreConfig { max_record: MAX_RECORD, ..CoreConfig::default() });
    let mut now = 1_000 * MS;
    for fact in [
        ShellEvent::Start(Start { agent_tgid: 1, ..Start::default() }),
        ShellEvent::Process(ProcessMeta { tgid: SERVER, service: "api".into(), ..ProcessMeta::default() }),
        ShellEvent::Listener(ListenerMeta { tgid: SERVER, port: 8000, ..ListenerMeta::default() }),
        ShellEvent::File(FileMeta { inode: 3, device: 1, generation: 1, path: "/a.log".into(), log: true }),
    ] {
        feed(&mut core, &fact.to_record(now));
    }
    let mut written = 0;
    let mut rest = input;
    while let [what, len, tail @ ..] = rest {
        let (bytes, tail) = tail.split_at(tail.len().min(usize::from(*len) * 4));
        rest = tail;
        now += [0, 1, 40 * MS, 1_500 * MS][usize::from(what >> 6)];
        let fd = u32::from(what >> 2 & 3);
        // A fuzzer makes no long inputs: some bytes stand for many.
        let long = if what & 0x20 != 0 { bytes.repeat(700) } else { bytes.to_vec() };
        for (n, part) in long.chunks(MAX_PAYLOAD).take(MAX_WRITE_RECORDS as usize).enumerate() {
            let body = WriteBody {
                py_context: u64::from(what & 1) << 4,
                id: FileId { inode: fd.into(), device: 1, generation: 1 },
                lost: u64::from(*len),
                fd,
                len: long.len() as u32,
                offset: (n * MAX_PAYLOAD) as u32,
                captured: part.len() as u32,
                file: if fd < 3 { file::PIPE } else { file::REGULAR },
                reserved: [0; 7],
            };
            let len = (size_of::<EventHeader>() + size_of::<WriteBody>() + part.len()) as u32;
            let tid = SERVER + u32::from(what & 3);
            let header = EventHeader { ts: now, tgid: SERVER, tid, len, kind: kind::WRITE, flags: 0 };
            feed(&mut core, &[header.as_bytes(), body.as_bytes(), part].concat());
            written += part.len() as u64;
        }
        feed(&mut core, &tick(now));
    }
    feed(&mut core, &ShellEvent::End.to_record(now));
    let counts = core.counts();
    assert!(counts.undecoded.is_empty(), "{:?}", counts.undecoded);
    assert_eq!(counts.logs.join.bytes, written);
});
