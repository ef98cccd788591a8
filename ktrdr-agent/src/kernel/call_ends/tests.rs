//! Which form is chosen, on kernels that refuse one step.

use super::*;

/// A kernel that refuses one step.
#[derive(Default)]
struct Fake {
    lacks: Option<&'static str>,
    refuses_load: Vec<&'static str>,
    refuses_attach: Vec<&'static str>,
    refuses_everywhere: bool,
    loaded: Vec<&'static str>,
    attached: Vec<&'static str>,
}

impl Programs for Fake {
    fn lacks(&self, way: Single, call: &Call) -> Option<String> {
        (self.lacks == Some(call.program(way))).then(|| format!("no place {}", call.place(way)))
    }

    fn load(&mut self, way: Single, call: &Call) -> Result<(), String> {
        assert!(self.attached.is_empty(), "the verifier is asked first");
        let program = call.program(way);
        if self.refuses_load.contains(&program) {
            return Err("EINVAL".into());
        }
        self.loaded.push(program);
        Ok(())
    }

    fn attach(&mut self, way: Single, call: &Call) -> Result<(), String> {
        let program = call.program(way);
        assert!(self.loaded.contains(&program));
        if self.refuses_attach.contains(&program) {
            return Err("ENOTSUPP".into());
        }
        self.attached.push(program);
        Ok(())
    }

    fn unload(&mut self, way: Single, call: &Call) {
        self.loaded.retain(|name| *name != call.program(way));
        self.attached.retain(|name| *name != call.program(way));
    }

    fn attach_everywhere(&mut self) -> Result<(), String> {
        assert!(self.attached.is_empty() && self.loaded.is_empty(), "nothing is told twice");
        if self.refuses_everywhere {
            return Err("EPERM".into());
        }
        self.attached.push(EVERY_CALL);
        Ok(())
    }
}

const FUNCTIONS: [&str; 4] = ["exit_read", "exit_write", "exit_writev", "exit_connect"];
const TRACEPOINTS: [&str; 4] = ["point_read", "point_write", "point_writev", "point_connect"];

fn of(call_ends: CallEnds) -> KernelOptions {
    KernelOptions { call_ends, ..KernelOptions::default() }
}

fn is_skipped(status: &ProbeStatus, why: &str) -> bool {
    matches!(status, ProbeStatus::Skipped(said) if said.contains(why))
}

#[test]
fn functions_where_the_kernel_takes_all_of_them() {
    for way in [CallEnds::Auto, CallEnds::Functions] {
        let mut kernel = Fake::default();
        let attached = choose(&mut kernel, &of(way));
        assert_eq!(attached.seen, CallsSeen::Functions);
        assert_eq!(kernel.attached, FUNCTIONS);
        assert!(FUNCTIONS.iter().all(|name| attached.status(name) == ProbeStatus::Attached));
        let others = TRACEPOINTS.iter().chain([&EVERY_CALL]);
        assert!(others.into_iter().all(|name| is_skipped(&attached.status(name), BY_ANOTHER)));
    }
}

#[test]
fn only_what_is_asked_for() {
    let some = KernelOptions { connect_errors: false, stdio: false, ..of(CallEnds::Auto) };
    let mut kernel = Fake { lacks: Some("exit_read"), ..Fake::default() };
    let attached = choose(&mut kernel, &some);
    assert_eq!(kernel.attached, ["exit_write", "exit_writev"]);
    assert_eq!(attached.status("exit_write"), ProbeStatus::Attached);
    assert!(is_skipped(&attached.status("exit_connect"), "nobody asks"));

    let none = KernelOptions { logs: false, ..some };
    let mut kernel = Fake::default();
    let attached = choose(&mut kernel, &none);
    assert_eq!((attached.seen.clone(), kernel.loaded.len()), (CallsSeen::Not, 0));
    let off = |name: &str| is_skipped(&attached.status(name), "switched off");
    assert!(FUNCTIONS.iter().chain(&TRACEPOINTS).all(|name| off(name)) && off(EVERY_CALL));
}

#[test]
fn one_refusal_and_all_go_again() {
    for name in FUNCTIONS {
        for load in [true, false] {
            let mut kernel = Fake::default();
            if load { &mut kernel.refuses_load } else { &mut kernel.refuses_attach }.push(name);
            let attached = choose(&mut kernel, &of(CallEnds::Auto));
            assert_eq!(kernel.attached, TRACEPOINTS);
            let CallsSeen::Tracepoints(why) = &attached.seen else { panic!("{:?}", attached.seen) };
            let call = name.trim_start_matches("exit_");
            assert!(why.contains(&format!("_sys_{call} ({}", if load { "EINVAL" } else { "ENOTSUPP" })));
            assert!(TRACEPOINTS.iter().all(|name| attached.status(name) == ProbeStatus::Attached));
            let others = FUNCTIONS.iter().chain([&EVERY_CALL]);
            assert!(others.into_iter().all(|name| is_skipped(&attached.status(name), BY_ANOTHER)));
        }
    }
}

#[test]
fn every_call_where_neither_is_to_be_had() {
    let mut kernel =
        Fake { lacks: Some("exit_writev"), refuses_attach: vec!["point_connect"], ..Fake::default() };
    let attached = choose(&mut kernel, &of(CallEnds::Auto));
    assert_eq!(kernel.attached, [EVERY_CALL]);
    let CallsSeen::Every(why) = &attached.seen else { panic!("{:?}", attached.seen) };
    assert!(why.starts_with("no place __") && why.contains("_sys_writev; the kernel refuses"), "{why}");
    assert!(why.ends_with("a program at sys_exit_connect (ENOTSUPP)"), "{why}");
}

#[test]
fn what_is_forced_has_no_other_way() {
    let cases = [
        (CallEnds::Functions, "exit_write", "ENOTSUPP"),
        (CallEnds::Tracepoints, "point_writev", "ENOTSUPP"),
    ];
    for (way, refused, why) in cases {
        let mut kernel = Fake { refuses_attach: vec![refused], ..Fake::default() };
        let attached = choose(&mut kernel, &of(way));
        assert_eq!((attached.seen.clone(), kernel.attached.len()), (CallsSeen::Not, 0));
        assert!(matches!(attached.status(refused), ProbeStatus::Failed(said) if said.contains(why)));
    }

    let mut kernel = Fake::default();
    let attached = choose(&mut kernel, &of(CallEnds::Tracepoints));
    assert_eq!(attached.seen, CallsSeen::Tracepoints("so the settings want it".into()));
    assert_eq!(kernel.attached, TRACEPOINTS);

    let mut kernel = Fake::default();
    let attached = choose(&mut kernel, &of(CallEnds::Every));
    assert_eq!(attached.seen, CallsSeen::Every("so the settings want it".into()));
    assert_eq!(kernel.attached, [EVERY_CALL]);
}

#[test]
fn no_way_at_all() {
    let mut kernel =
        Fake { refuses_load: vec!["exit_read", "point_read"], refuses_everywhere: true, ..Fake::default() };
    let attached = choose(&mut kernel, &of(CallEnds::Auto));
    assert_eq!(attached.seen, CallsSeen::Not);
    assert_eq!(attached.status(EVERY_CALL), ProbeStatus::Failed("EPERM".into()));
}
