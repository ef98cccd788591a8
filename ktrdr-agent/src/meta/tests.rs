use ktrdr_ebpf_common::{ConnTuple, ExitBody};
use zerocopy::IntoBytes;

use super::{fake::FakeProc, *};
use crate::event::shell::{NameSource, ProcessMeta};

fn metadata(fake: &FakeProc, toml: &str) -> Metadata {
    let path = std::path::Path::new("test.toml");
    let mut settings = Settings::from_text(Some((path, toml)), &[], &[]).unwrap();
    settings.host.proc = fake.root().to_string_lossy().into_owned();
    settings.host.root = fake.root().join("no-root").to_string_lossy().into_owned();
    Metadata::new(&settings)
}

/// Time of the records: well after the fake processes started.
const T: u64 = 1_000_000_000_000;

fn feed(m: &mut Metadata, kind: u16, flags: u16, tgid: u32, ts: u64, body: &[u8]) -> Option<ProcessMeta> {
    let len = u32::try_from(24 + body.len()).unwrap();
    let header = EventHeader { ts, tgid, tid: tgid, len, kind, flags };
    match m.observe(&header, &[header.as_bytes(), body].concat()) {
        Some(ShellEvent::Process(p)) => Some(p),
        None => None,
        Some(other) => panic!("{other:?}"),
    }
}

fn data(m: &mut Metadata, tgid: u32, ts: u64) -> Option<ProcessMeta> {
    feed(m, kind::DATA, 0, tgid, ts, &[])
}

fn state(m: &mut Metadata, tgid: u32, new: u8, port: u16) -> Option<ProcessMeta> {
    let tuple = ConnTuple { local_port: port, ..ConnTuple::default() };
    let body = StateBody {
        conn: 1,
        py_context: 0,
        write_seq: 0,
        copied_seq: 0,
        old: tcp::CLOSE,
        new,
        error: 0,
        tuple,
    };
    feed(m, kind::STATE, 0, tgid, T, body.as_bytes())
}

fn exec(m: &mut Metadata, tgid: u32, ppid: u32, ts: u64, args: &[u8]) {
    let body = ExecBody {
        ppid,
        args_len: u32::try_from(args.len()).unwrap(),
        comm: *b"prog\0\0\0\0\0\0\0\0\0\0\0\0",
    };
    assert_eq!(feed(m, kind::EXEC, 0, tgid, ts, &[body.as_bytes(), args].concat()), None);
}

fn fork(m: &mut Metadata, parent: u32, child: u32, ts: u64, flags: u16) {
    let body = ForkBody { child_tgid: child, child_tid: child, py_context: 0 };
    assert_eq!(feed(m, kind::FORK, flags, parent, ts, body.as_bytes()), None);
}

fn exit(m: &mut Metadata, tgid: u32, ts: u64) {
    let body = ExitBody { code: 0, ppid: 1, comm: [0; 16] };
    assert_eq!(feed(m, kind::EXIT, 0, tgid, ts, body.as_bytes()), None);
}

#[test]
fn a_process_is_told_once_and_when_its_name_changes() {
    let fake = FakeProc::new();
    let args = ["python", "/venv/bin/uvicorn", "ktrdr.training.training_worker:app"];
    fake.process(10, 1, &args).link("exe", "/usr/bin/python3.13").link("ns/net", "net:[77]");
    let mut m = metadata(&fake, "");
    let first = data(&mut m, 10, T).unwrap();
    assert_eq!((first.service.as_str(), first.source), ("ktrdr-training-worker", NameSource::Builtin));
    assert_eq!((first.tgid, first.ppid, first.netns, first.command.len()), (10, 1, 77, 3));
    assert_eq!(data(&mut m, 10, T), None);
    assert_eq!(state(&mut m, 10, tcp::LISTEN, 5006).unwrap().service, "ktrdr-training-worker-5006");
    assert_eq!(state(&mut m, 10, tcp::LISTEN, 5006), None);
    assert_eq!(data(&mut m, 10, T), None);
    // States that interrupts enter say nothing about the process in whose context they came.
    fake.process(11, 1, &["nginx"]);
    assert_eq!(state(&mut m, 11, tcp::ESTABLISHED, 80), None);
    assert_eq!(data(&mut m, 0, T), None);
    assert_eq!(state(&mut m, 11, tcp::SYN_SENT, 0).unwrap().service, "nginx");
    // A record cut short is the decoder's business.
    assert_eq!(feed(&mut m, kind::STATE, 0, 12, T, &[0; 10]), None);
}

#[test]
fn a_reused_number_is_read_again() {
    let fake = FakeProc::new();
    fake.process(10, 1, &["nginx"]);
    let mut m = metadata(&fake, "");
    assert_eq!(data(&mut m, 10, T).unwrap().service, "nginx");
    exit(&mut m, 10, T + 100);
    fake.end(10);
    // Late records of another CPU still belong to it.
    assert_eq!(data(&mut m, 10, T + 50), None);
    fake.started(10, 1, &["redis-server"], 100_100);
    assert_eq!(data(&mut m, 10, T + 2_000_000_000).unwrap().service, "redis-server");
    // With the fork seen, no exit is needed.
    fork(&mut m, 1, 10, T + 3_000_000_000, 0);
    fake.end(10);
    fake.started(10, 1, &["memcached"], 100_300);
    assert_eq!(data(&mut m, 10, T + 3_000_000_000).unwrap().service, "memcached");
}

#[test]
fn after_a_loss_processes_are_compared_with_proc() {
    let fake = FakeProc::new();
    fake.process(10, 1, &["nginx"]);
    fake.process(11, 1, &["redis-server"]);
    fake.process(12, 1, &["memcached"]);
    let mut m = metadata(&fake, "");
    assert!([10, 11, 12].iter().all(|pid| data(&mut m, *pid, T).is_some()));
    // The exit of 10 and the fork and exec of its successor were lost; 12 is gone, its last records are not.
    fake.end(10);
    fake.started(10, 1, &["postgres"], 50_000);
    fake.end(12);
    assert_eq!(data(&mut m, 10, T), None);
    m.doubt();
    assert_eq!(data(&mut m, 10, T).unwrap().service, "postgres");
    assert_eq!([11, 12].map(|pid| data(&mut m, pid, T)), [None, None]);
    // A successor that started after the record was made is not the one the record is about.
    fake.end(11);
    fake.started(11, 1, &["later"], 200_000);
    m.doubt();
    assert_eq!(data(&mut m, 11, T), None);
    assert_eq!(data(&mut m, 10, T), None);
}

#[test]
fn a_zombie_is_described_by_its_exec_record() {
    let fake = FakeProc::new();
    let mut m = metadata(&fake, "");
    fake.process(8, 5, &[]).file("stat", format!("8 (curl) Z 5 {}800 0", "0 ".repeat(17)));
    exec(&mut m, 8, 5, T, b"curl\0http://x\0");
    let curl = data(&mut m, 8, T).unwrap();
    assert_eq!((curl.service.as_str(), curl.command.len()), ("curl", 2));
}

#[test]
fn a_process_that_lost_its_memory_is_completed_by_its_exec_record() {
    let fake = FakeProc::new();
    let mut m = metadata(&fake, "[exclude]\ncommands = ['curl']");
    // Read at exec, or only when it used the network: in both cases it is already ending.
    for (pid, early) in [(8, true), (9, false)] {
        let appear = || fake.process(pid, 5, &[]).link("cwd", "/tmp").link("ns/net", "net:[3]");
        if early {
            appear();
        }
        exec(&mut m, pid, 5, T, b"curl\0http://x\0");
        if !early {
            appear();
        }
        let curl = data(&mut m, pid, T).unwrap();
        assert_eq!((curl.service.as_str(), curl.command.len(), curl.excluded), ("curl", 2, true), "{early}");
        assert_eq!((curl.cwd.as_str(), curl.netns), ("/tmp", 3));
    }
}

#[test]
fn a_program_that_is_gone_is_described_by_its_exec_record() {
    let fake = FakeProc::new();
    fake.process(5, 1, &["bash"]).link("cwd", "/work").link("ns/net", "net:[9]");
    let mut m = metadata(&fake, "");
    assert!(data(&mut m, 5, T).is_some());
    fork(&mut m, 5, 6, T, 0);
    exec(&mut m, 6, 5, T + 1, b"curl\0http://localhost:8000\0");
    let curl = data(&mut m, 6, T + 2).unwrap();
    assert_eq!((curl.service.as_str(), curl.cwd.as_str(), curl.netns, curl.ppid), ("curl", "/work", 9, 5));
    assert_eq!(curl.command, ["curl", "http://localhost:8000"]);
    // Meanwhile its number belongs to a process that started after the record was made: not this one.
    exec(&mut m, 7, 5, T, b"wget\0x\0");
    fake.started(7, 1, &["nginx"], T / 10_000_000 + 50);
    assert_eq!(data(&mut m, 7, T + 1).unwrap().service, "wget");
    // Nothing is known at all: still a name.
    assert_eq!(data(&mut m, 999, T).unwrap().service, "pid-999");
}

#[test]
fn a_forked_copy_is_named_as_its_parent() {
    let fake = FakeProc::new();
    fake.process(20, 1, &["postgres"]).link("exe", "/usr/lib/postgresql/15/bin/postgres");
    let mut m = metadata(&fake, "");
    assert!(data(&mut m, 20, T).is_some());
    fork(&mut m, 20, 21, T, 0);
    assert_eq!(data(&mut m, 21, T + 1).unwrap().service, "postgres");
    // A thread is no process.
    fork(&mut m, 20, 22, T, flags::THREAD);
    assert_eq!(data(&mut m, 22, T + 1).unwrap().service, "pid-22");
}

#[test]
fn an_exec_changes_the_name_and_early_reading_outlives_the_process() {
    let fake = FakeProc::new();
    fake.process(30, 1, &["bash"]);
    let mut m = metadata(&fake, "");
    assert_eq!(data(&mut m, 30, T).unwrap().service, "bash");
    fake.end(30);
    let id = "ab".repeat(32);
    fake.process(30, 1, &["python", "/venv/bin/tool", "data"])
        .link("exe", "/usr/bin/python3")
        .file("cgroup", format!("0::/docker/{id}"));
    exec(&mut m, 30, 1, T, b"python\0/venv/bin/tool\0");
    fake.end(30);
    let cli = data(&mut m, 30, T + 1).unwrap();
    assert!(!cli.command_line);
    assert_eq!((cli.service.as_str(), cli.exe.as_str()), ("tool", "/usr/bin/python3"));
    assert_eq!(cli.container_id, Some(id));
}

#[test]
fn commands_are_told_when_they_are_executed() {
    let fake = FakeProc::new();
    for (pid, args) in [
        (30, &["python", "/venv/bin/ktrdr", "data"][..]),
        (31, &["python", "-m", "ktrdr.cli", "data"]),
        (32, &["python", "/venv/bin/uvicorn", "ktrdr.api.main:app"]),
    ] {
        fake.process(pid, 1, args).link("exe", "/usr/bin/python3");
    }
    let mut m = metadata(&fake, "");
    let told = |m: &mut Metadata, pid| {
        let body = ExecBody { ppid: 1, args_len: 0, comm: [0; 16] };
        feed(m, kind::EXEC, 0, pid, T, body.as_bytes())
    };
    for pid in [30, 31] {
        let p = told(&mut m, pid).unwrap();
        assert_eq!((p.service.as_str(), p.command_line), ("ktrdr-cli", true));
    }
    assert_eq!(told(&mut m, 32), None);
    let mut off = metadata(&fake, "[commands]\nenabled = false");
    assert_eq!(told(&mut off, 30), None);
}

#[test]
fn what_many_executions_cost_is_bounded() {
    let mut budget = Budget::default();
    let taken = (0..1000).filter(|_| budget.take(T, 200)).count();
    assert_eq!(taken, 200);
    assert!(budget.take(T + 1_000_000_000, 200));
}

#[test]
fn the_start_tells_host_listeners_and_their_owners() {
    let fake = FakeProc::new();
    let tcp = "head\n 0: 0100007F:1389 00000000:0000 0A 0:0 00:0 0 0 0 77 1\n";
    fake.process(40, 1, &["python", "main.py"])
        .link("exe", "/usr/bin/python3")
        .link("cwd", "/srv/ib-host-service")
        .link("ns/net", "net:[1]")
        .file("net/tcp", tcp)
        .link("fd/3", "socket:[77]");
    fake.process(41, 40, &["python", "-c", "from multiprocessing.spawn import spawn_main; spawn_main()"])
        .link("exe", "/usr/bin/python3")
        .link("cwd", "/srv/ib-host-service")
        .link("fd/3", "socket:[77]");
    let mut m = metadata(&fake, "");
    let events = m.start();
    let ShellEvent::Start(start) = &events[0] else { panic!("{:?}", events[0]) };
    assert_eq!(start.agent_tgid, std::process::id());
    assert!(m.port_names().contains(&(4002, "ib-gateway".into())));
    let names: Vec<_> = events
        .iter()
        .filter_map(
            |e| if let ShellEvent::Process(p) = e { Some((p.tgid, p.service.as_str())) } else { None },
        )
        .collect();
    assert_eq!(names, [(40, "ktrdr-ib-host-service"), (41, "ktrdr-ib-host-service")]);
    // A spawned child's own command line says nothing to a person.
    let origins: Vec<_> = events
        .iter()
        .filter_map(|e| if let ShellEvent::Process(p) = e { Some(p.origin.join(" ")) } else { None })
        .collect();
    assert_eq!(origins, ["", "python main.py"]);
    let listeners: Vec<_> = events
        .iter()
        .filter_map(|e| if let ShellEvent::Listener(l) = e { Some((l.tgid, l.port)) } else { None })
        .collect();
    assert_eq!(listeners, [(40, 5001), (41, 5001)]);
    assert_eq!(data(&mut m, 41, T), None);
}

/// Between a server on pipes and its client may stand who does nothing else.
#[test]
fn who_reads_requests_is_told_with_who_started_its_parent() {
    let fake = FakeProc::new();
    fake.process(10, 1, &["assistant"]);
    fake.process(20, 10, &["npx", "server"]);
    fake.process(30, 20, &["sh", "-c", "tee log | python server.py"]);
    let mut m = metadata(&fake, "");
    exec(&mut m, 40, 30, T, b"python\0server.py");
    let told = feed(&mut m, kind::READ, 0, 40, T + 1, &[]).unwrap();
    assert_eq!((told.ppid, told.starters), (30, vec![20, 10]));
    assert!(data(&mut m, 20, T).unwrap().starters.is_empty());
}

#[test]
fn filters_hold_for_descendants_and_commands() {
    let fake = FakeProc::new();
    fake.process(50, 1, &["nginx"]).link("exe", "/usr/sbin/nginx");
    fake.process(51, 50, &["helper"]);
    fake.process(60, 1, &["redis-server", "--port", "1"]);
    let excluded = |toml: &str| {
        let mut m = metadata(&fake, toml);
        [50, 51, 60].map(|pid| data(&mut m, pid, T).unwrap().excluded)
    };
    assert_eq!(excluded(""), [false; 3]);
    assert_eq!(excluded("[include]\npids = [50]"), [false, false, true]);
    assert_eq!(excluded("[exclude]\npids = [50]"), [true, true, false]);
    assert_eq!(excluded("[exclude]\nexecutables = ['nginx', 'redis*']"), [true, false, true]);
    assert_eq!(excluded("[include]\ncommands = ['*redis*']\n[exclude]\ncommands = ['--port 1']"), [true; 3]);
    // Ports narrow connections, not processes.
    assert_eq!(excluded("[include]\nports = [80]"), [false; 3]);
}

#[test]
fn attributes_are_told_once() {
    let fake = FakeProc::new();
    fake.process(70, 1, &["shop"]).file(
        "environ",
        "OTEL_RESOURCE_ATTRIBUTES=service.name=web,service.namespace=own,deployment.environment.name=prod\0",
    );
    let toml = "[services]\nnamespace = 'all'\n[services.attributes]\n\
                'deployment.environment.name' = 'other'\nteam = 'x'";
    let mut m = metadata(&fake, toml);
    let p = data(&mut m, 70, T).unwrap();
    assert_eq!((p.service.as_str(), p.source), ("web", NameSource::Environment));
    let own = [("service.namespace", "own"), ("deployment.environment.name", "prod"), ("team", "x")];
    assert_eq!(p.attributes, own.map(|(k, v)| (k.to_owned(), v.to_owned())));
}

#[test]
fn the_cache_is_bounded() {
    let fake = FakeProc::new();
    let mut m = metadata(&fake, "[limits]\nprocesses = 2");
    for pid in 1..100 {
        assert!(data(&mut m, pid, T).is_some());
        assert!(m.known.len() <= 2);
    }
    assert_eq!(data(&mut m, 99, T), None);
    assert!(data(&mut m, 1, T).is_some());
    for pid in 1..3000 {
        exec(&mut m, pid, 1, T, b"x\0");
    }
    assert!(m.prospects.len() <= MAX_PROSPECTS);
}
