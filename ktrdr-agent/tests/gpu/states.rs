//! Every way in which there can be nothing to sample.

use std::time::Duration;

use ktrdr_agent::event::gpu::GpuCondition;
use ktrdr_agent::gpu::nvml::NvmlSource;
use ktrdr_agent::gpu::sampler::look;
use ktrdr_agent::gpu::{Source, Trouble};

use crate::standin::StandIn;

fn trouble(mut source: NvmlSource) -> Trouble {
    source.open().expect_err("there is trouble")
}

#[test]
fn no_library() {
    let t = trouble(NvmlSource::new(Some("/nonexistent/libnvidia-ml.so.1".into())));
    assert_eq!(t.condition, GpuCondition::LibraryNotFound);
    assert!(t.detail.contains("/nonexistent/libnvidia-ml.so.1"), "{t}");
}

#[test]
fn something_else_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("libnvidia-ml.so.1");
    std::fs::write(&file, "not a library").unwrap();
    assert_eq!(trouble(NvmlSource::new(Some(file.into()))).condition, GpuCondition::LibraryNotFound);
}

#[test]
fn a_library_without_the_one_function() {
    assert_eq!(trouble(StandIn::with(&["-DNO_INIT"], "").source()).condition, GpuCondition::LibraryTooOld);
}

#[test]
fn every_error_of_its_start() {
    for (code, want) in [
        (4, GpuCondition::NoPermission),
        (9, GpuCondition::DriverNotLoaded),
        (15, GpuCondition::DeviceLost),
        (17, GpuCondition::NoPermission),
        (18, GpuCondition::VersionMismatch),
        (999, GpuCondition::Failed),
        (12345, GpuCondition::Failed),
    ] {
        let t = trouble(StandIn::new(&format!("init {code}")).source());
        assert_eq!(t.condition, want, "{code}: {t}");
        assert!(!t.detail.is_empty());
    }
}

#[test]
fn no_device() {
    assert_eq!(trouble(StandIn::new("count 0").source()).condition, GpuCondition::NoDevice);
}

#[test]
fn no_permission_for_any_device() {
    let t = trouble(StandIn::new("count 2\nhandle 0 4\nhandle 1 4").source());
    assert_eq!(t.condition, GpuCondition::NoPermission);
    assert!(t.detail.starts_with("device 0: "), "{t}");
}

#[test]
fn permission_for_one_of_two() {
    let lib = StandIn::new("count 2\nhandle 0 4\nutil 1 70 30");
    let mut source = lib.source();
    let devices = source.open().unwrap().devices;
    let of = |index: &str| devices.iter().find(|d| d.index == index).unwrap();
    assert!(of("0").trouble.contains("no permission"), "{devices:?}");
    assert_eq!((of("1").uuid.as_str(), of("1").trouble.as_str()), ("GPU-standin-1", ""));
    let read = source.read().unwrap().devices;
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].id, read[0].utilization), (of("1").id, Some(70)));
}

#[test]
fn a_driver_that_never_answers_does_not_hold_up_check() {
    let lib = StandIn::new("hang");
    let path = lib.path();
    let source = move || Box::new(NvmlSource::new(Some(path.into()))) as Box<dyn Source>;
    let t = look(Duration::from_millis(100), source).unwrap_err();
    assert_eq!((t.condition, t.detail.as_str()), (GpuCondition::Failed, "no answer from the driver"));
}
