//! What the demo plays.

/// One command of a user, in a known state of the stack.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub title: &'static str,
    /// Arguments of `ktrdr`.
    pub arguments: &'static [&'static str],
    /// Services that are down; all others run.
    pub down: &'static [&'static str],
    /// Workers that have a job already.
    pub busy: usize,
    /// Path of the API's request that this is about.
    pub request: &'static str,
    /// Whether a call below it is expected to fail, and the port it goes to.
    pub fails: bool,
    pub to_ports: &'static [u16],
    /// Whether an operation below it must say what the GPU did meanwhile.
    pub gpu: bool,
    /// What the agent must show, for the message if it does not.
    pub expected: &'static str,
}

pub const IB_HOST: &str = "ktrdr-ib-host-service";
pub const GATEWAY: &str = "ib-gateway";
const DOWNLOAD: &[&str] = &["data", "load", "AAPL", "--wait"];
const TRAINING: &[&str] = &["train", "AAPL", "--wait"];
/// Long enough for several samples of a GPU, which are 200 ms apart.
const LONG_TRAINING: &[&str] = &["train", "AAPL", "--wait", "--epochs", "200"];
const DOWNLOADS: &str = "/api/v1/data/acquire/download";
const TRAININGS: &str = "/api/v1/trainings/start";

pub const ALL: [Scenario; 5] = [
    Scenario {
        title: "data download while the IB host service is down",
        arguments: DOWNLOAD,
        down: &[IB_HOST],
        busy: 0,
        request: DOWNLOADS,
        fails: true,
        to_ports: &[5001],
        gpu: false,
        expected: "a refused call to port 5001 as a child of the API's request",
    },
    Scenario {
        title: "data download while the IB gateway behind the IB host is down",
        arguments: DOWNLOAD,
        down: &[GATEWAY],
        busy: 0,
        request: DOWNLOADS,
        fails: true,
        to_ports: &[4002],
        gpu: false,
        expected: "the IB host's refused connect to port 4002 below the API's request",
    },
    Scenario {
        title: "data download with all of them up",
        arguments: DOWNLOAD,
        down: &[],
        busy: 0,
        request: DOWNLOADS,
        fails: false,
        to_ports: &[4002],
        gpu: false,
        expected: "the IB host's call to the gateway below the API's request",
    },
    Scenario {
        title: "training dispatched to the worker that is free",
        arguments: LONG_TRAINING,
        down: &[],
        busy: 1,
        request: TRAININGS,
        fails: false,
        to_ports: &[5005, 5006],
        gpu: true,
        expected: "a call to a training worker as a child of the API's request, and what the GPU did during the training",
    },
    Scenario {
        title: "training while all workers are busy",
        arguments: TRAINING,
        down: &[],
        busy: 2,
        request: TRAININGS,
        fails: true,
        to_ports: &[5005, 5006],
        gpu: false,
        expected: "a refusal of each training worker as a child of the API's request",
    },
];
