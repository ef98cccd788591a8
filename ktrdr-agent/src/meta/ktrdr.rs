//! KTRDR's layout: the names its users expect, without configuration.
//!
//! Source: KTRDR's public repository (kpiteira/ktrdr), states of November 2025 and April 2026.
//!
//! A port alone proves little: whoever tests a server of their own on 5001 does not run KTRDR's IB host. So ports
//! name a process only when it is a Python program whose command line says nothing (`python main.py`, a spawned
//! child whose parent is gone); and they name peers that are not observed themselves.

use super::{
    guess::{self, Guess},
    service::Subject,
};
use crate::settings::Rule;

/// (executable, command line, working directory, container, ports, name): all that is given has to hold.
type Row = (&'static str, &'static str, &'static str, &'static str, &'static [u16], &'static str);

const ROWS: [Row; 18] = [
    (PYTHON, "ktrdr.api.main:app", "", "", &[], API),
    (PYTHON, "ktrdr.backtesting.backtest_worker:app", "", "", &[], "ktrdr-backtest-worker-{port}"),
    (PYTHON, "ktrdr.training.training_worker:app", "", "", &[], "ktrdr-training-worker-{port}"),
    (PYTHON, "* main.py*", "ib-host-service", "", &[], IB_HOST),
    (PYTHON, "*/ib-host-service/main.py*", "", "", &[], IB_HOST),
    (PYTHON, "* main:app*", "ib-host-service", "", &[], IB_HOST),
    (PYTHON, "* main.py*", "training-host-service", "", &[], TRAINING_HOST),
    (PYTHON, "*/training-host-service/main.py*", "", "", &[], TRAINING_HOST),
    (PYTHON, "* main:app*", "training-host-service", "", &[], TRAINING_HOST),
    (PYTHON, "*/bin/ktrdr", "", "", &[], CLI),
    (PYTHON, "*/bin/ktrdr *", "", "", &[], CLI),
    (PYTHON, "*-m ktrdr.cli*", "", "", &[], CLI),
    (PYTHON, "*-m src.main*", "*mcp*", "", &[], MCP),
    (PYTHON, "*-m src.main*", "", "*mcp*", &[], MCP),
    (PYTHON, "*/mcp/src/main.py*", "", "", &[], MCP),
    ("java", "*ibgateway*", "", "", &[], GATEWAY),
    ("java", "", "", "", GATEWAY_PORTS, GATEWAY),
    ("*ibgateway*", "", "", "", &[], GATEWAY),
];

const PYTHON: &str = "python*";
const API: &str = "ktrdr-api";
const IB_HOST: &str = "ktrdr-ib-host-service";
const TRAINING_HOST: &str = "ktrdr-training-host-service";
const CLI: &str = "ktrdr-cli";
const MCP: &str = "ktrdr-mcp-server";
const GATEWAY: &str = "ib-gateway";
const GATEWAY_PORTS: &[u16] = &[4001, 4002, 7496, 7497];

/// What is expected behind a port. Ports 5003 and 5004 serve workers of both kinds.
pub(super) const PEERS: [(u16, &str); 14] = [
    (4001, GATEWAY),
    (4002, GATEWAY),
    (5001, IB_HOST),
    (5002, TRAINING_HOST),
    (5003, "ktrdr-worker-5003"),
    (5004, "ktrdr-worker-5004"),
    (5005, "ktrdr-training-worker-5005"),
    (5006, "ktrdr-training-worker-5006"),
    (5007, "ktrdr-backtest-worker-5007"),
    (5008, "ktrdr-training-worker-5008"),
    (5432, "postgresql"),
    (7496, GATEWAY),
    (7497, GATEWAY),
    (8000, API),
];

/// The rules by command line and directory.
pub(super) fn rules() -> Vec<Rule> {
    let rule = |(executable, command, cwd, container, ports, name): Row| Rule {
        name: name.into(),
        ports: ports.into(),
        executable: executable.into(),
        command: command.into(),
        cwd: cwd.into(),
        container: container.into(),
        ..Rule::default()
    };
    ROWS.into_iter().map(rule).collect()
}

/// The name by port of a Python program whose command line says nothing.
pub(super) fn by_port(subject: &Subject<'_>, guess: &Guess) -> Option<String> {
    if !guess.vague || !guess::is_python(subject.process) {
        return None;
    }
    let port = subject.port()?;
    // The gateway and the database are never Python programs.
    PEERS.iter().find(|(p, n)| *p == port && n.starts_with("ktrdr-")).map(|(_, name)| (*name).to_owned())
}

/// The name of the peer expected behind a port.
pub(super) fn peer(port: u16) -> Option<String> {
    PEERS.iter().find(|(p, _)| *p == port).map(|(_, name)| (*name).to_owned())
}
