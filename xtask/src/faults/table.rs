//! The faults: what is done to the stack, and what `explain` must say first. One place for each.

use super::act::Act::{self, *};

pub struct Fault {
    pub name: &'static str,
    /// What is done, in order. The stack is whole before; it is made whole again afterwards.
    pub acts: &'static [Act],
    pub asked: Asked,
    pub expected: Expected,
}

/// What `explain` is asked.
#[derive(Clone, Copy)]
pub enum Asked {
    /// The operation that the command line was told last.
    Operation,
    /// `last error`: the command line got no operation id.
    LastError,
}
use Asked::{LastError, Operation};

/// The true cause. Empty texts and lists ask for nothing.
pub struct Expected {
    /// Its kind; several where timing decides which of two words for one thing it is.
    pub kinds: &'static [&'static str],
    /// In whose span it shows.
    pub service: &'static str,
    /// Whom that one called.
    pub peer: &'static str,
    /// Parts of the sentence.
    pub says: &'static [&'static str],
}

/// `kind at service → peer: parts of the sentence`.
const fn cause(
    kinds: &'static [&'static str],
    service: &'static str,
    peer: &'static str,
    says: &'static [&'static str],
) -> Expected {
    Expected { kinds, service, peer, says }
}

/// Nothing failed, or what did was made good.
const fn fine(says: &'static [&'static str]) -> Expected {
    cause(&["ok", "slow"], "", "", says)
}

const CLI: &str = "ktrdr-cli";
pub const API: &str = "ktrdr-api";
pub const IB_HOST: &str = "ktrdr-ib-host-service";
pub const GATEWAY: &str = "ib-gateway";
pub const WORKER_1: &str = "ktrdr-training-worker-1";
pub const WORKER_2: &str = "ktrdr-training-worker-2";
pub const BACKTESTER: &str = "ktrdr-backtest-worker-1";

const AT_IB_HOST: &str = "ktrdr-ib-host-service:5001";
const AT_GATEWAY: &str = "ib-gateway:4002";
/// As the agent names them, by what they run and where.
const SEEN_1: &str = "ktrdr-training-worker-5005";
const SEEN_2: &str = "ktrdr-training-worker-5006";
const SEEN_BACKTESTER: &str = "ktrdr-backtest-worker-5003";

/// Nobody in the stack uses it.
pub const NOBODYS_PORT: u16 = 5999;
/// Where a gateway of a live account listens; the stack's is one for paper trading.
pub const LIVE_PORT: u16 = 4001;
const LOAD: Act = Cli(&["data", "load", "AAPL"]);
const TRAIN: Act = Cli(&["train", "AAPL"]);
/// A job that stays until it is cancelled.
const HOLD_A_WORKER: Act = Cli(&["train", "STALL", "--detach"]);
/// An IB host that is more patient than its caller.
const PATIENT_IB_HOST: Act = Restart(IB_HOST, &[("IB_REQUEST_TIMEOUT", "60"), ("IB_CONNECT_PATIENCE", "60")]);

pub const FAULTS: &[Fault] = &[
    Fault { name: "healthy download", acts: &[LOAD], asked: Operation, expected: fine(&["completed"]) },
    Fault { name: "healthy training", acts: &[TRAIN], asked: Operation, expected: fine(&["completed"]) },
    Fault {
        name: "healthy backtest",
        acts: &[Cli(&["backtest", "MSFT"])],
        asked: Operation,
        expected: fine(&["completed"]),
    },
    // Who is not there.
    Fault {
        name: "API down",
        acts: &[Stop(API), LOAD],
        asked: LastError,
        expected: cause(&["refused"], CLI, "ktrdr-api:8000", &["nothing is listening on port 8000"]),
    },
    Fault {
        name: "IB host down",
        acts: &[Stop(IB_HOST), LOAD],
        asked: Operation,
        expected: cause(&["refused"], API, AT_IB_HOST, &["nothing is listening on port 5001"]),
    },
    Fault {
        name: "IB host killed, caller waits for its data",
        acts: &[Kill(IB_HOST), Cli(&["data", "load", "AAPL", "--wait"])],
        asked: Operation,
        expected: cause(&["refused"], API, AT_IB_HOST, &["was killed by SIGKILL"]),
    },
    Fault {
        name: "IB host at a wrong port",
        acts: &[AnotherApi(&[("IB_HOST_SERVICE_URL", "http://127.0.0.1:5999")]), LOAD],
        asked: Operation,
        expected: cause(&["refused"], API, "127.0.0.1:5999", &["nothing is listening on port 5999"]),
    },
    Fault {
        name: "IB host at a wrong address",
        acts: &[AnotherApi(&[("IB_HOST_SERVICE_URL", "http://127.0.0.2:5001")]), LOAD],
        asked: Operation,
        expected: cause(&["refused"], API, AT_IB_HOST, &["127.0.0.2", "127.0.0.1:5001"]),
    },
    Fault {
        name: "IB host at an address without a way",
        acts: &[AnotherApi(&[("IB_HOST_SERVICE_URL", "http://255.255.255.255:5001")]), LOAD],
        asked: Operation,
        expected: cause(&["unreachable"], API, "", &["255.255.255.255", "unreachable"]),
    },
    Fault {
        name: "IB host's name unknown to DNS",
        acts: &[AnotherApi(&[("IB_HOST_SERVICE_URL", "http://ib-host.invalid:5001")]), LOAD],
        asked: Operation,
        expected: cause(&["name_not_resolved"], API, "", &["could not be resolved"]),
    },
    Fault {
        name: "gateway down",
        acts: &[Stop(GATEWAY), LOAD],
        asked: Operation,
        expected: cause(&["refused"], IB_HOST, AT_GATEWAY, &["nothing is listening on port 4002"]),
    },
    Fault {
        name: "gateway down, and the IB host tries on while the API times out",
        acts: &[PATIENT_IB_HOST, Stop(GATEWAY), LOAD],
        asked: Operation,
        expected: cause(&["refused"], IB_HOST, AT_GATEWAY, &["nothing is listening on port 4002"]),
    },
    Fault {
        name: "flapping IB host, down again",
        acts: &[Stop(IB_HOST), LOAD, Start(IB_HOST), LOAD, Stop(IB_HOST), LOAD],
        asked: Operation,
        expected: cause(&["refused"], API, AT_IB_HOST, &["nothing is listening on port 5001"]),
    },
    Fault {
        name: "flapping IB host, up again",
        acts: &[Stop(IB_HOST), LOAD, Start(IB_HOST), LOAD],
        asked: Operation,
        expected: fine(&["completed"]),
    },
    // What the gateway says.
    Fault {
        name: "gateway: no such security (200)",
        acts: &[Cli(&["data", "load", "NOPE"])],
        asked: Operation,
        expected: cause(&["gateway_error"], GATEWAY, "", &["error 200", "NOPE"]),
    },
    Fault {
        name: "gateway: pacing violation (162)",
        acts: &[Cli(&["data", "load", "PACING"])],
        asked: Operation,
        expected: cause(&["gateway_error"], GATEWAY, "", &["error 162", "pacing"]),
    },
    Fault {
        name: "gateway: no permission (354)",
        acts: &[Cli(&["data", "load", "DENIED"])],
        asked: Operation,
        expected: cause(&["gateway_error"], GATEWAY, "", &["error 354"]),
    },
    Fault {
        name: "gateway: client id in use (326)",
        acts: &[Restart(GATEWAY, &[("IB_GATEWAY_TAKEN", "1")]), LOAD],
        asked: Operation,
        expected: cause(&["gateway_error"], GATEWAY, "", &["error 326", "client id"]),
    },
    Fault {
        name: "gateway: no data (162), which is no pacing",
        acts: &[Cli(&["data", "load", "NODATA"])],
        asked: Operation,
        expected: cause(&["gateway_error"], GATEWAY, "", &["error 162", "returned no data"]),
    },
    Fault {
        name: "gateway: link to IB lost and restored on the way",
        acts: &[Cli(&["data", "load", "LOST"])],
        asked: Operation,
        expected: fine(&["completed"]),
    },
    Fault {
        name: "gateway: at another port than the IB host asks (paper and live mixed up)",
        acts: &[Restart(IB_HOST, &[("IB_GATEWAY_PORT", "4001")]), LOAD],
        asked: Operation,
        expected: cause(&["refused"], IB_HOST, "ib-gateway:4001", &["nothing is listening on port 4001"]),
    },
    Fault {
        name: "gateway: silent",
        acts: &[Cli(&["data", "load", "SILENT"])],
        asked: Operation,
        expected: cause(&["timed_out"], IB_HOST, AT_GATEWAY, &["reqHistoricalData SILENT"]),
    },
    Fault {
        name: "gateway: resets the connection",
        acts: &[Cli(&["data", "load", "RESET"])],
        asked: Operation,
        expected: cause(&["reset"], IB_HOST, AT_GATEWAY, &["reset"]),
    },
    Fault {
        name: "gateway: half open, hangs",
        acts: &[LOAD, Halt(GATEWAY), LOAD],
        asked: Operation,
        expected: cause(&["timed_out"], IB_HOST, AT_GATEWAY, &[]),
    },
    Fault {
        name: "gateway: slow, and the API gives up",
        acts: &[PATIENT_IB_HOST, Cli(&["data", "load", "SLOW"])],
        asked: Operation,
        expected: cause(&["timed_out"], API, AT_IB_HOST, &["waiting for ib-gateway:4002"]),
    },
    Fault {
        name: "client gives up",
        acts: &[
            PATIENT_IB_HOST,
            AnotherApi(&[("KTRDR_IB_TIMEOUT", "30")]),
            Impatient(&["data", "load", "SLOW", "--wait"]),
        ],
        asked: LastError,
        expected: cause(&["timed_out"], CLI, "ktrdr-api:8001", &["waiting for ib-gateway:4002"]),
    },
    Fault {
        name: "gateway: slow, and everybody waits",
        acts: &[PATIENT_IB_HOST, AnotherApi(&[("KTRDR_IB_TIMEOUT", "30")]), Cli(&["data", "load", "SLOW"])],
        asked: Operation,
        expected: cause(&["slow"], "ib-gateway", "", &["completed", "in ib-gateway itself"]),
    },
    // What the IB host does.
    Fault {
        name: "IB host held up by a request that the gateway does not answer",
        acts: &[
            PATIENT_IB_HOST,
            Begin(&["data", "load", "SILENT"]),
            Logged(IB_HOST, "Fetching SILENT"),
            LOAD,
        ],
        asked: Operation,
        expected: cause(&["timed_out"], API, AT_IB_HOST, &["was waiting for ib-gateway:4002 at that time"]),
    },
    Fault {
        name: "IB host hangs",
        acts: &[Halt(IB_HOST), LOAD],
        asked: Operation,
        expected: cause(&["timed_out"], API, AT_IB_HOST, &[]),
    },
    Fault {
        name: "IB host killed in the middle of a request",
        acts: &[
            PATIENT_IB_HOST,
            Begin(&["data", "load", "SILENT"]),
            Logged(IB_HOST, "Fetching SILENT"),
            Kill(IB_HOST),
            End,
        ],
        asked: Operation,
        expected: cause(&["reset", "no_response"], API, AT_IB_HOST, &["was killed by SIGKILL"]),
    },
    Fault {
        name: "IB host: 500 with a traceback",
        acts: &[Cli(&["data", "load", "AAPL", "--timeframe", "7x"])],
        asked: Operation,
        expected: cause(&["http_error"], IB_HOST, "", &["answered 500", "/data/historical"]),
    },
    Fault {
        name: "IB host: failure inside a 200",
        acts: &[Cli(&["data", "load", "A1"])],
        asked: Operation,
        expected: cause(&["business_error"], IB_HOST, "", &["200", "A1 is no symbol"]),
    },
    Fault {
        name: "API refuses the request (422)",
        acts: &[Cli(&["train", "AAPL", "--epochs", "many"])],
        asked: LastError,
        expected: cause(&["http_error"], "", "", &["ktrdr-api answered 422"]),
    },
    Fault {
        name: "API asked for an operation it does not know (404)",
        acts: &[Cli(&["operations", "follow", "op_training_20260101_000000_00000000"])],
        asked: LastError,
        expected: cause(
            &["http_error"],
            "",
            "",
            &["ktrdr-api answered 404", "op_training_20260101_000000_00000000"],
        ),
    },
    Fault {
        name: "API restarted, and it has forgotten an operation",
        acts: &[HOLD_A_WORKER, Restart(API, &[]), Follow],
        asked: Operation,
        expected: cause(
            &["operation_lost"],
            "",
            "",
            &[
                "the operation was lost with pid ",
                "which knew it and ",
                "has taken its place",
                "ktrdr-api answered 404",
            ],
        ),
    },
    // Workers.
    Fault {
        name: "no worker registered",
        acts: &[AnotherApi(&[]), TRAIN],
        asked: Operation,
        expected: cause(&["no_worker"], API, "", &["training worker"]),
    },
    Fault {
        name: "one worker busy, the next takes it",
        acts: &[HOLD_A_WORKER, TRAIN],
        asked: Operation,
        expected: fine(&["completed"]),
    },
    Fault {
        name: "all workers busy",
        acts: &[HOLD_A_WORKER, HOLD_A_WORKER, TRAIN],
        asked: Operation,
        expected: cause(&["worker_busy"], "", "", &[SEEN_1, SEEN_2, "503", "is at work on op_training_"]),
    },
    Fault {
        name: "the only backtest worker down",
        acts: &[Stop(BACKTESTER), Cli(&["backtest", "MSFT"])],
        asked: Operation,
        expected: cause(&["refused"], API, SEEN_BACKTESTER, &["nothing is listening on port 5003"]),
    },
    Fault {
        name: "all training workers down",
        acts: &[Kill(WORKER_1), Kill(WORKER_2), TRAIN],
        asked: Operation,
        expected: cause(&["refused"], API, "", &["ktrdr-training-worker-500", "nothing is listening"]),
    },
    Fault {
        name: "worker killed in the middle of a job",
        acts: &[Stop(WORKER_2), HOLD_A_WORKER, Logged(WORKER_1, "Operation ID"), Kill(WORKER_1), Follow],
        asked: Operation,
        expected: cause(&["worker_lost"], API, SEEN_1, &["lost"]),
    },
    Fault {
        name: "worker hangs in the middle of a job",
        acts: &[Stop(WORKER_2), HOLD_A_WORKER, Logged(WORKER_1, "Operation ID"), Halt(WORKER_1), Follow],
        asked: Operation,
        expected: cause(&["timed_out"], API, SEEN_1, &[]),
    },
    Fault {
        name: "job fails in the worker",
        acts: &[Cli(&["train", "BROKEN"])],
        asked: Operation,
        expected: cause(&["business_error"], "", "", &["failed on training-worker-", "ZeroDivisionError"]),
    },
    // Asked before anything has ended.
    Fault {
        name: "job stands still, asked while it runs",
        acts: &[Begin(&["train", "STALL"])],
        asked: Operation,
        expected: cause(&["stuck"], "", "", &["stands at 12.5 %", "no progress"]),
    },
    Fault {
        name: "gateway silent, asked while the caller still waits",
        acts: &[
            PATIENT_IB_HOST,
            AnotherApi(&[("KTRDR_IB_TIMEOUT", "30")]),
            Begin(&["data", "load", "SILENT"]),
        ],
        asked: Operation,
        expected: cause(&["waiting"], IB_HOST, AT_GATEWAY, &["has been waiting for ib-gateway:4002"]),
    },
    Fault {
        name: "job cancelled",
        acts: &[HOLD_A_WORKER, Cancel],
        asked: Operation,
        expected: cause(&["cancelled"], "", "", &["cancelled by ktrdr-cli"]),
    },
];
