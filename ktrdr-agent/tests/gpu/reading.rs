//! What is read of a device, and what is left out when it is not offered.

use ktrdr_agent::event::gpu::{GpuReading, GpuUse};
use ktrdr_agent::gpu::Source;

use crate::standin::StandIn;

const GIB: u64 = 1 << 30;

/// Opens the library and reads it once.
fn read(lib: &StandIn) -> Vec<GpuReading> {
    let mut source = lib.source();
    source.open().unwrap();
    source.read().unwrap().devices
}

fn using(pid: u32, memory: Option<u64>, sm: Option<u32>) -> GpuUse {
    GpuUse { pid, memory, sm }
}

#[test]
fn everything_a_device_offers() {
    let lib = StandIn::new(
        "util 0 87 41\nmemory 0 3221225472 17179869184\nproc 0 4711 2147483648 86\nproc 0 4712 1048576 -1",
    );
    let want = GpuReading {
        id: 0,
        utilization: Some(87),
        memory_utilization: Some(41),
        memory_used: Some(3 * GIB),
        temperature: Some(61),
        power: Some(123_456),
        sm_clock: Some(1001),
        memory_clock: Some(1002),
        throttle: Some(0x44),
        ecc: Some((7, 8)),
        pcie: Some((501, 500)),
        xids: vec![],
        processes: Some(vec![
            using(4711, Some(2 * GIB), Some(86)),
            // Listed, but not among the busy.
            using(4712, Some(1 << 20), Some(0)),
        ]),
    };
    assert_eq!(read(&lib), [want]);
    let mut source = lib.source();
    let inventory = source.open().unwrap();
    assert_eq!(inventory.driver, "550.1-standin");
    assert_eq!(
        (inventory.devices[0].name.as_str(), inventory.devices[0].memory),
        ("Stand-in GPU", Some(16 * GIB))
    );
}

#[test]
fn slow_quantities_are_not_read_every_time() {
    let lib = StandIn::new("util 0 1 1");
    let mut source = lib.source();
    source.open().unwrap();
    let (first, second) = (source.read().unwrap().devices, source.read().unwrap().devices);
    assert!(first[0].pcie.is_some() && first[0].ecc.is_some());
    // Unless a second went by between the two calls.
    if second[0].pcie.is_none() {
        assert_eq!((second[0].ecc, second[0].temperature, second[0].sm_clock), (None, None, None));
    }
    assert!(second[0].utilization.is_some() && second[0].memory_used.is_some());
}

#[test]
fn what_is_not_supported_is_left_out() {
    let all = [
        "util",
        "memory",
        "power",
        "temperature",
        "clock",
        "throttle",
        "ecc",
        "pcie",
        "list",
        "sm",
        "events",
    ];
    for code in [3, 4, 999] {
        let lines: Vec<String> = all.iter().map(|f| format!("fail {f} {code}\n")).collect();
        assert_eq!(read(&StandIn::new(&lines.concat())), [GpuReading::default()], "{code}");
    }
    let lib = StandIn::new("fail sm 3\nproc 0 4711 -1 50");
    assert_eq!(
        read(&lib)[0].processes,
        Some(vec![using(4711, None, None)]),
        "memory and utilisation unknown"
    );
    // What came back later is asked again, unless it was said not to be supported.
    let lib = StandIn::new("fail power 999\nfail util 3");
    let mut source = lib.source();
    source.open().unwrap();
    source.read().unwrap();
    lib.say("util 0 50 1");
    let r = &source.read().unwrap().devices[0];
    assert_eq!((r.power, r.utilization), (Some(123_456), None));
}

#[test]
fn libraries_of_old_drivers() {
    let script = "util 0 50 1\nmemory 0 1073741824 17179869184\nproc 0 4711 1048576 50";
    let r = &read(&StandIn::with(&["-DOLD"], script))[0];
    assert_eq!((r.utilization, r.memory_used), (Some(50), Some(GIB)));
    assert_eq!(r.processes, Some(vec![using(4711, Some(1 << 20), None)]));
    assert_eq!(read(&StandIn::with(&["-DBARE"], script)), [GpuReading::default()]);
}

#[test]
fn many_devices() {
    let lines: Vec<String> =
        (0..8).map(|d| format!("util {d} {} 0\nproc {d} {} 1 1\n", 10 * d, 100 + d)).collect();
    let lib = StandIn::new(&format!("count 8\n{}", lines.concat()));
    let mut source = lib.source();
    let devices = source.open().unwrap().devices;
    for (i, (device, r)) in devices.iter().zip(source.read().unwrap().devices).enumerate() {
        let i = u32::try_from(i).unwrap();
        assert_eq!(
            (device.id, device.index.clone(), device.uuid.clone()),
            (i, i.to_string(), format!("GPU-standin-{i}"))
        );
        assert_eq!((r.id, r.utilization, r.processes.unwrap()[0].pid), (i, Some(10 * i), 100 + i));
    }
    assert_eq!(devices.len(), 8);
}

#[test]
fn mig_instances_are_devices_of_their_own() {
    let lib = StandIn::new(
        "count 2\nmig 1 2\nutil 0 30 1\nutil 1 60 1\nmemory 1 1073741824 5368709120\nproc 1 4711 1048576 50",
    );
    let mut source = lib.source();
    let devices = source.open().unwrap().devices;
    let list: Vec<_> = devices.iter().map(|d| (d.index.as_str(), d.uuid.as_str())).collect();
    assert_eq!(
        list,
        [
            ("0", "GPU-standin-0"),
            ("1", "GPU-standin-1"),
            ("1/0", "MIG-standin-1-0"),
            ("1/1", "MIG-standin-1-1")
        ]
    );
    let read = source.read().unwrap().devices;
    assert_eq!(
        (read[2].utilization, read[2].memory_used),
        (None, Some(GIB)),
        "NVML tells no utilisation of instances"
    );
    assert_eq!(read[3].processes, Some(vec![using(4711, Some(1 << 20), None)]));
}

#[test]
fn an_xid_error_is_told_once_and_of_its_device() {
    let lib = StandIn::new("count 2");
    let mut source = lib.source();
    source.open().unwrap();
    assert!(source.read().unwrap().devices.iter().all(|d| d.xids.is_empty()));
    lib.say("count 2\nxid 1 79 1");
    // The stand-in sees its new script when a device is opened: at the latest in the first of these.
    let told: Vec<Vec<u64>> = (0..3).map(|_| source.read().unwrap().devices[1].xids.clone()).collect();
    assert_eq!(told.concat(), [79], "{told:?}");
}
