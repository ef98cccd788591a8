//! What the demo plays.

/// One command of a user, in a known state of the stack.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub title: &'static str,
    /// Arguments of `ktrdr`.
    pub arguments: &'static [&'static str],
    /// Whether the IB host service runs.
    pub ib_host: bool,
    /// Path of the API's request that this is about.
    pub request: &'static str,
    /// Whether the API's call is expected to fail, and the port it goes to.
    pub fails: bool,
    pub to_ports: &'static [u16],
    /// What the agent must show, for the message if it does not.
    pub expected: &'static str,
}

pub const ALL: [Scenario; 3] = [
    Scenario {
        title: "data download while the IB host service is down",
        arguments: &["data", "load", "AAPL", "--wait"],
        ib_host: false,
        request: "/api/v1/data/acquire/download",
        fails: true,
        to_ports: &[5001],
        expected: "a refused call to port 5001 as a child of the API's request",
    },
    Scenario {
        title: "data download with the IB host service up",
        arguments: &["data", "load", "AAPL", "--wait"],
        ib_host: true,
        request: "/api/v1/data/acquire/download",
        fails: false,
        to_ports: &[5001],
        expected: "a call to port 5001 as a child of the API's request",
    },
    Scenario {
        title: "training dispatched to a worker",
        arguments: &["train", "AAPL", "--wait"],
        ib_host: true,
        request: "/api/v1/trainings/start",
        fails: false,
        to_ports: &[5005, 5006],
        expected: "a call to a training worker as a child of the API's request",
    },
];
