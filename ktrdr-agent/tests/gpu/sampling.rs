//! The sampling thread: its pace, its news, and devices that go and come back.

use std::time::{Duration, Instant};

use ktrdr_agent::event::ShellEvent;
use ktrdr_agent::event::gpu::{GpuCondition, GpuSample, GpuStatus};
use ktrdr_agent::gpu::nvml::NvmlSource;
use ktrdr_agent::gpu::sampler::{Pace, Sampler};

use crate::standin::StandIn;

const PACE: Pace = Pace {
    idle: Duration::from_millis(20),
    busy: Duration::from_millis(5),
    retry: Duration::from_millis(40),
};
/// Far more than any step takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

fn start(lib: &StandIn) -> Sampler {
    let path = lib.path();
    Sampler::start(PACE, move || Box::new(NvmlSource::new(Some(path.into())))).unwrap()
}

/// The first word that `pick` takes.
fn wait_for<T>(sampler: &Sampler, what: &str, mut pick: impl FnMut(ShellEvent) -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    while Instant::now() < until {
        if let Some(found) = sampler.wait_for(DEADLINE).and_then(|(_, event)| pick(event)) {
            return found;
        }
    }
    panic!("waited in vain for {what}");
}

fn status(event: ShellEvent) -> Option<GpuStatus> {
    if let ShellEvent::Gpu(s) = event { Some(s) } else { None }
}

fn sample(event: ShellEvent) -> Option<GpuSample> {
    if let ShellEvent::GpuSample(s) = event { Some(s) } else { None }
}

#[test]
fn the_state_comes_first_and_samples_follow_at_two_paces() {
    let lib = StandIn::new("util 0 50 1");
    let sampler = start(&lib);
    let (_, first) = sampler.wait_for(DEADLINE).unwrap();
    let first = status(first).unwrap();
    assert_eq!((first.condition, first.devices.len()), (GpuCondition::Ok, 1));
    assert_eq!(wait_for(&sampler, "a sample", sample).period_ms, 20);
    sampler.set_busy(true);
    wait_for(&sampler, "the other pace", |e| sample(e).filter(|s| s.period_ms == 5));
    sampler.set_busy(false);
    wait_for(&sampler, "the first pace again", |e| sample(e).filter(|s| s.period_ms == 20));
}

#[test]
fn times_grow() {
    let lib = StandIn::new("");
    let sampler = start(&lib);
    let mut last = 0;
    for _ in 0..20 {
        let (ts, _) = sampler.wait_for(DEADLINE).unwrap();
        assert!(ts >= last);
        last = ts;
    }
}

#[test]
fn trouble_is_told_once_however_often_it_is_met() {
    let lib = StandIn::new("init 9");
    let sampler = start(&lib);
    let first = wait_for(&sampler, "the trouble", status);
    assert_eq!(first.condition, GpuCondition::DriverNotLoaded);
    // Several tries later, something else is the next word.
    assert!(sampler.wait_for(PACE.retry * 8).is_none(), "the same news twice");
    lib.say("init 18");
    assert_eq!(wait_for(&sampler, "other trouble", status).condition, GpuCondition::VersionMismatch);
    lib.say("util 0 5 5");
    assert_eq!(wait_for(&sampler, "the end of it", status).condition, GpuCondition::Ok);
    assert_eq!(wait_for(&sampler, "a sample", sample).devices[0].utilization, Some(5));
}

#[test]
fn no_library_is_told_once() {
    let missing = || Box::new(NvmlSource::new(Some("/nonexistent/libnvidia-ml.so.1".into()))) as Box<_>;
    let sampler = Sampler::start(PACE, missing).unwrap();
    assert_eq!(wait_for(&sampler, "the news", status).condition, GpuCondition::LibraryNotFound);
    assert!(sampler.wait_for(PACE.retry * 8).is_none());
}

#[test]
fn one_of_two_devices_is_lost_and_comes_back() {
    let lib = StandIn::new("count 2");
    let sampler = start(&lib);
    wait_for(&sampler, "both", |e| sample(e).filter(|s| s.devices.len() == 2));
    lib.say("count 2\nlost 0");
    let lost = wait_for(&sampler, "the loss", status);
    assert_eq!(lost.condition, GpuCondition::Ok, "the other one is there");
    let device = lost.devices.iter().find(|d| d.uuid == "GPU-standin-0").unwrap();
    assert!(device.trouble.contains("lost"), "{}", device.trouble);
    let id = device.id;
    wait_for(&sampler, "the other one's samples", |e| sample(e).filter(|s| s.devices.len() == 1));
    lib.say("count 2");
    wait_for(&sampler, "its return", |e| {
        status(e).filter(|s| s.devices.iter().all(|d| d.trouble.is_empty()))
    });
    let both = wait_for(&sampler, "both again", |e| sample(e).filter(|s| s.devices.len() == 2));
    assert!(both.devices.iter().any(|d| d.id == id), "it keeps its number");
}

#[test]
fn a_device_that_the_driver_forgets_is_remembered() {
    let lib = StandIn::new("count 2");
    let sampler = start(&lib);
    wait_for(&sampler, "both", |e| sample(e).filter(|s| s.devices.len() == 2));
    lib.say("count 1");
    // The one that is gone is asked for by its number, which is none any more.
    let gone = wait_for(&sampler, "the loss", status);
    assert!(gone.devices.iter().any(|d| d.uuid == "GPU-standin-1" && !d.trouble.is_empty()), "{gone:?}");
    lib.say("count 2");
    wait_for(&sampler, "its return", |e| {
        status(e).filter(|s| s.devices.iter().all(|d| d.trouble.is_empty()))
    });
}

#[test]
fn the_only_device_is_lost_and_comes_back() {
    let lib = StandIn::new("");
    let sampler = start(&lib);
    wait_for(&sampler, "a sample", sample);
    lib.say("lost 0");
    assert_eq!(wait_for(&sampler, "the loss", status).condition, GpuCondition::DeviceLost);
    lib.say("");
    assert_eq!(wait_for(&sampler, "its return", status).condition, GpuCondition::Ok);
    wait_for(&sampler, "a sample", sample);
}

#[test]
fn what_nobody_takes_is_dropped_and_counted() {
    let lib = StandIn::new("");
    let sampler = start(&lib);
    sampler.set_busy(true);
    let until = Instant::now() + DEADLINE;
    while sampler.dropped() == 0 && Instant::now() < until {
        std::thread::yield_now();
    }
    assert!(sampler.dropped() > 0);
    assert_eq!(sampler.poll().take(64).count(), 64, "what had room is there");
}

#[test]
fn a_driver_that_hangs_does_not_hold_up_the_end() {
    let lib = StandIn::new("hang");
    let sampler = start(&lib);
    let begin = Instant::now();
    drop(sampler);
    assert!(begin.elapsed() < DEADLINE);
}
