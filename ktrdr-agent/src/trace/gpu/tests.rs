use std::sync::Arc;

use super::demand::Call;
use super::*;
use crate::event::gpu::{GpuDevice, GpuUse};
use crate::protocol::Role;
use crate::trace::model::{Attributes, Resource, Span, SpanKind, Status, Value};

const S: Ns = 1000 * MS;
const GIB: u64 = 1 << 30;

fn device(id: u32) -> GpuDevice {
    GpuDevice {
        id,
        index: id.to_string(),
        uuid: format!("GPU-{id}"),
        name: "Test GPU".into(),
        memory: Some(16 * GIB),
        trouble: String::new(),
    }
}

fn on(devices: u32) -> Gpus {
    let mut g = Gpus::new();
    g.status_is(GpuStatus {
        condition: GpuCondition::Ok,
        devices: (0..devices).map(device).collect(),
        ..GpuStatus::default()
    });
    g
}

fn using(pid: u32, gib: u64, sm: u32) -> GpuUse {
    GpuUse { pid, memory: Some(gib * GIB), sm: Some(sm) }
}

fn reading(id: u32, utilization: u32, gib: u64, processes: Vec<GpuUse>) -> GpuReading {
    GpuReading {
        id,
        utilization: Some(utilization),
        memory_used: Some(gib * GIB),
        processes: Some(processes),
        ..GpuReading::default()
    }
}

fn feed(g: &mut Gpus, ms: u64, devices: Vec<GpuReading>) {
    g.sample(ms * MS, &GpuSample { period_ms: 200, devices }, &|pid| (pid == 71).then_some(70));
}

fn span(start_ms: u64, end_ms: u64) -> Span {
    Span {
        trace_id: Default::default(),
        span_id: Default::default(),
        parent_span_id: None,
        kind: SpanKind::Server,
        name: "POST /training/start".into(),
        start: start_ms * MS,
        end: end_ms * MS,
        wall_offset_ns: 0,
        status: Status::Unset,
        attributes: Attributes::new(),
        events: Vec::new(),
        links: Vec::new(),
        resource: Arc::new(Resource::default()),
    }
}

fn text<'a>(s: &'a Span, key: &str) -> Option<&'a str> {
    s.attributes.get(key).and_then(Value::as_str)
}

fn float(s: &Span, key: &str) -> f64 {
    match s.attributes.get(key) {
        Some(Value::Float(f)) => *f,
        other => panic!("{key}: {other:?}"),
    }
}

fn int(s: &Span, key: &str) -> i64 {
    match s.attributes.get(key) {
        Some(Value::Int(n)) => *n,
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn a_span_gets_its_own_window() {
    let mut g = on(1);
    for (i, percent) in [0, 20, 40, 60, 80].into_iter().enumerate() {
        let ms = 1000 + 200 * i as u64;
        feed(&mut g, ms, vec![reading(0, percent, 2 + i as u64, vec![using(70, 1 + i as u64, percent)])]);
    }
    // (1000, 1600]: the readings 20, 40, 60.
    let mut s = span(1000, 1600);
    assert!(g.annotate(&mut s, &[70]));
    assert_eq!(int(&s, "ktrdr.gpu.samples"), 3);
    assert_eq!((float(&s, "ktrdr.gpu.utilization.min"), float(&s, "ktrdr.gpu.utilization.max")), (0.2, 0.6));
    assert_eq!((float(&s, "gpu.utilization_percent"), float(&s, "ktrdr.gpu.utilization.avg")), (40.0, 0.4));
    assert_eq!(int(&s, "ktrdr.gpu.memory.usage.max"), 5 << 30);
    assert_eq!((float(&s, "gpu.memory_allocated_mb"), float(&s, "ktrdr.gpu.coverage")), (4096.0, 1.0));
    assert_eq!((text(&s, "hw.id"), text(&s, "hw.name")), (Some("GPU-0"), Some("Test GPU")));
    assert_eq!((text(&s, "gpu.device"), text(&s, "ktrdr.gpu.state")), (Some("0"), Some("sampled")));
    assert_eq!(int(&s, "ktrdr.gpu.memory.limit"), 16 << 30);
}

#[test]
fn a_short_span_has_no_sample_and_one_of_a_stranger_has_nothing() {
    let mut g = on(1);
    for ms in [1000, 1200, 1400] {
        feed(&mut g, ms, vec![reading(0, 90, 2, vec![using(70, 1, 90)])]);
    }
    let mut s = span(1210, 1390);
    assert!(g.annotate(&mut s, &[70]));
    assert_eq!((text(&s, "ktrdr.gpu.state"), int(&s, "ktrdr.gpu.samples")), (Some("no_sample"), 0));
    assert_eq!(text(&s, "hw.id"), Some("GPU-0"));
    assert_eq!(s.attributes.get("gpu.utilization_percent"), None, "nothing is invented");
    let mut s = span(1000, 1600);
    assert!(!g.annotate(&mut s, &[99]));
    assert!(s.attributes.is_empty());
    // The process was gone long before.
    let mut s = span(9000, 9100);
    assert!(!g.annotate(&mut s, &[70]));
}

#[test]
fn a_child_counts_for_its_parent() {
    let mut g = on(1);
    feed(&mut g, 1200, vec![reading(0, 90, 2, vec![using(71, 1, 90)])]);
    let mut s = span(1000, 1300);
    assert!(g.annotate(&mut s, &[70]));
    assert_eq!(int(&s, "ktrdr.gpu.process.pid"), 71);
}

#[test]
fn of_many_devices_each_has_its_say_and_the_busiest_the_first() {
    let mut g = on(3);
    for ms in [1000, 1200, 1400] {
        let idle = reading(0, 2, 1, vec![using(70, 1, 1)]);
        let busy = reading(1, 95, 9, vec![using(70, 8, 95), using(80, 1, 1)]);
        let other = reading(2, 50, 3, vec![using(80, 3, 50)]);
        feed(&mut g, ms, vec![idle, busy, other]);
    }
    let mut s = span(900, 1500);
    assert!(g.annotate(&mut s, &[70]));
    assert_eq!(text(&s, "hw.id"), Some("GPU-1"));
    let list = Value::from(vec!["GPU-1".to_owned(), "GPU-0".to_owned()]);
    assert_eq!(s.attributes.get("ktrdr.gpu.devices"), Some(&list));
    assert_eq!(s.events.len(), 1);
    assert_eq!(s.events[0].attributes.get("hw.id").and_then(Value::as_str), Some("GPU-0"));
}

#[test]
fn what_a_device_does_not_offer_is_left_out() {
    let mut g = on(1);
    let bare = GpuReading {
        id: 0,
        processes: Some(vec![GpuUse { pid: 70, memory: None, sm: None }]),
        ..GpuReading::default()
    };
    feed(&mut g, 1200, vec![bare]);
    let mut s = span(1000, 1300);
    assert!(g.annotate(&mut s, &[70]));
    assert_eq!(int(&s, "ktrdr.gpu.samples"), 1);
    for key in ["gpu.utilization_percent", "gpu.memory_allocated_mb", "ktrdr.gpu.power.avg", "ktrdr.gpu.idle"]
    {
        assert_eq!(s.attributes.get(key), None, "{key}");
    }
}

#[test]
fn errors_and_throttling_of_the_window_show() {
    let mut g = on(1);
    for (i, ms) in [1000, 1200, 1400, 1600].into_iter().enumerate() {
        let r = GpuReading {
            throttle: Some([0x1, 0x44, 0x44, 0x1][i]),
            ecc: Some((0, [3, 3, 5, 5][i])),
            xids: if i == 2 { vec![79, 79] } else { vec![] },
            power: Some(250_000),
            temperature: Some(60 + i as u32),
            ..reading(0, 90, 2, vec![using(70, 1, 90)])
        };
        feed(&mut g, ms, vec![r]);
    }
    let mut s = span(1000, 1400);
    g.annotate(&mut s, &[70]);
    let list = |s: &Span, key: &str| match s.attributes.get(key) {
        Some(Value::List(l)) => l.join(","),
        other => format!("{other:?}"),
    };
    assert_eq!(list(&s, "ktrdr.gpu.throttled"), "sw_power_cap,hw_thermal_slowdown");
    assert_eq!((list(&s, "ktrdr.gpu.xids"), int(&s, "ktrdr.gpu.ecc.uncorrected")), ("79".into(), 2));
    assert_eq!((float(&s, "ktrdr.gpu.power.avg"), float(&s, "ktrdr.gpu.temperature.max")), (250.0, 62.0));
    // Afterwards it is over.
    let mut s = span(1600, 1601);
    feed(&mut g, 1601, vec![reading(0, 90, 2, vec![using(70, 1, 90)])]);
    g.annotate(&mut s, &[70]);
    assert_eq!(s.attributes.get("ktrdr.gpu.throttled"), None);
    assert_eq!(s.attributes.get("ktrdr.gpu.xids"), None);
}

/// An operation of worker 70 that was asked to use CUDA.
fn asked(g: &mut Gpus) -> Arc<str> {
    let id: Arc<str> = "op_training_1".into();
    let request = br#"{"task_id":"op_training_1","device":"cuda"}"#;
    g.demand.called(&id, &Call { role: Role::Server, tgid: 70, name: "POST /training/start", request });
    id
}

#[test]
fn a_gpu_asked_for_in_vain_shows_only_when_all_was_seen() {
    let state = |prepare: &dyn Fn(&mut Gpus), end: u64| {
        let mut g = on(1);
        let id = asked(&mut g);
        prepare(&mut g);
        let mut s = span(1000, end);
        g.annotate_operation(&mut s, &id);
        text(&s, "ktrdr.gpu.state").map(str::to_owned)
    };
    let run = |processes: Vec<GpuUse>| {
        move |g: &mut Gpus| {
            for ms in (1000..=31_000).step_by(200) {
                feed(g, ms, vec![reading(0, 0, 1, processes.clone())]);
            }
        }
    };
    assert_eq!(state(&run(vec![]), 31_000).as_deref(), Some("no_process"));
    assert_eq!(state(&run(vec![using(5, 1, 1)]), 31_000).as_deref(), Some("no_process"), "another's process");
    assert_eq!(state(&run(vec![using(70, 1, 1)]), 31_000).as_deref(), Some("sampled"));
    assert_eq!(state(&run(vec![using(71, 1, 1)]), 31_000).as_deref(), Some("sampled"), "its child");
    assert_eq!(state(&run(vec![using(0, 1, 1)]), 31_000), None, "a process that could not be told");
    assert_eq!(state(&run(vec![]), 5_000), None, "too short to have opened a device");
    assert_eq!(state(&run(vec![]), 60_000), None, "half of it was not sampled");
    assert_eq!(state(&|_| {}, 31_000), None, "not sampled at all");
    let no_driver = |g: &mut Gpus| {
        g.status_is(GpuStatus { condition: GpuCondition::DriverNotLoaded, ..GpuStatus::default() });
    };
    assert_eq!(state(&no_driver, 31_000).as_deref(), Some("no_gpu"));
    let no_library = |g: &mut Gpus| {
        g.status_is(GpuStatus { condition: GpuCondition::LibraryNotFound, ..GpuStatus::default() });
    };
    assert_eq!(state(&no_library, 31_000), None, "the worker may have a library of its own");
}

#[test]
fn room_is_bounded_and_what_is_refused_counted() {
    let mut g = on(1);
    feed(&mut g, 1000, (0..3).map(|i| reading(i, 1, 1, vec![])).collect());
    assert_eq!(g.counts.refused, 2, "devices nobody told of");
    feed(&mut g, 1000, vec![reading(0, 1, 1, vec![])]);
    assert_eq!(g.counts.refused, 3, "the same time again");
    feed(&mut g, 1200, vec![reading(0, 1, 1, (100..300).map(|pid| using(pid, 1, 1)).collect())]);
    assert_eq!((g.uses.len(), g.counts.forgotten), (MAX_USES, 200 - MAX_USES as u64));
    g.status_is(GpuStatus { devices: (0..1000).map(device).collect(), ..GpuStatus::default() });
    assert_eq!(g.devices.len(), MAX_DEVICES);
}

#[test]
fn a_device_that_was_lost_and_came_back_keeps_what_it_did() {
    let mut g = on(1);
    feed(&mut g, 1000, vec![reading(0, 50, 1, vec![using(70, 1, 50)])]);
    let mut lost = device(0);
    lost.trouble = "fell off the bus".into();
    g.status_is(GpuStatus {
        condition: GpuCondition::DeviceLost,
        devices: vec![lost],
        ..GpuStatus::default()
    });
    g.status_is(GpuStatus { condition: GpuCondition::Ok, devices: vec![device(0)], ..GpuStatus::default() });
    feed(&mut g, 20_000, vec![reading(0, 70, 1, vec![using(70, 1, 70)])]);
    let mut s = span(900, 20_000);
    g.annotate(&mut s, &[70]);
    assert_eq!(int(&s, "ktrdr.gpu.samples"), 2);
    assert!(float(&s, "ktrdr.gpu.coverage") < 0.1, "the time without it is not covered");
    assert_eq!(s.end - s.start, 19 * S + 100 * MS);
}
