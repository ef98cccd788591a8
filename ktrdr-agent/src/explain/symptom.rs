//! What is wrong with one span, seen alone.

use serde::{Deserialize, Serialize};

use super::{knowledge, view};
use crate::trace::model::{Span, SpanKind, Status};

/// What went wrong; the `kind` of a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nothing.
    Ok,
    /// Nothing failed, and it took long.
    Slow,
    /// The peer's host answered that nothing accepts connections there.
    Refused,
    /// No way to the peer's host.
    Unreachable,
    /// The connect failed for a reason on the client's own host.
    ConnectFailed,
    /// A service could not find the address of a name; it says so, the question itself is not observed.
    NameNotResolved,
    /// The caller gave up waiting.
    TimedOut,
    /// The connection was reset.
    Reset,
    /// The connection was closed before an answer.
    NoResponse,
    /// The connection ended in the middle of an answer.
    ResponseCut,
    /// A process ended in the middle of a call.
    ProcessEnded,
    /// An answer with an HTTP error status.
    HttpError,
    /// A failure inside an answer that says 200.
    BusinessError,
    /// An error of the IB gateway.
    GatewayError,
    /// A worker said that it is busy.
    WorkerBusy,
    /// No worker was asked: none is known that could do the job.
    NoWorker,
    /// A worker went away while it had work.
    WorkerLost,
    /// An operation is unknown since the process that knew it ended.
    OperationLost,
    /// A GPU's memory was full.
    GpuOutOfMemory,
    /// No progress.
    Stuck,
    /// A service still speaks of an operation as running, although another has said that it ended.
    Unheard,
    /// Nothing failed so far, and an answer is waited for.
    Waiting,
    /// Somebody asked for the end of it.
    Cancelled,
    /// Nothing failed, and work that was to run on a GPU did not.
    GpuNotUsed,
    /// Nothing failed, and the GPU had little to do meanwhile.
    GpuIdle,
    /// Another failure, named by `error.type`.
    Failed,
    /// The agent did not see enough to say.
    MissingData,
    /// A kind that a newer agent knows.
    #[serde(other)]
    Other,
}

impl Kind {
    /// As in a timeline.
    pub const fn outcome(self) -> &'static str {
        match self {
            Kind::Ok => "ok",
            Kind::Slow => "slow",
            Kind::Refused => "refused",
            Kind::Unreachable => "unreachable",
            Kind::ConnectFailed => "connect failed",
            Kind::NameNotResolved => "name not resolved",
            Kind::TimedOut => "timed out",
            Kind::Reset => "reset",
            Kind::NoResponse => "no response",
            Kind::ResponseCut => "cut off",
            Kind::ProcessEnded => "process ended",
            Kind::HttpError => "http error",
            Kind::BusinessError => "failed",
            Kind::GatewayError => "gateway error",
            Kind::WorkerBusy => "busy",
            Kind::NoWorker => "no worker",
            Kind::WorkerLost => "worker lost",
            Kind::OperationLost => "operation lost",
            Kind::GpuOutOfMemory => "GPU out of memory",
            Kind::GpuNotUsed => "not on a GPU",
            Kind::GpuIdle => "GPU idle",
            Kind::Stuck => "stuck",
            Kind::Unheard => "end not heard of",
            Kind::Waiting => "waiting",
            Kind::Cancelled => "cancelled",
            Kind::Failed | Kind::Other => "failed",
            Kind::MissingData => "incomplete",
        }
    }

    /// Whether something failed.
    pub const fn is_failure(self) -> bool {
        !matches!(
            self,
            Kind::Ok
                | Kind::Slow
                | Kind::Waiting
                | Kind::Cancelled
                | Kind::MissingData
                | Kind::GpuNotUsed
                | Kind::GpuIdle
        )
    }

    /// Of two causes side by side, the one with the lower rank is named first: facts about who is not there before
    /// waits, waits before answers, answers before "try another".
    pub const fn rank(self) -> u8 {
        match self {
            Kind::WorkerLost => 0,
            Kind::Refused
            | Kind::Unreachable
            | Kind::ConnectFailed
            | Kind::NameNotResolved
            | Kind::GatewayError => 1,
            Kind::Reset | Kind::NoResponse | Kind::ResponseCut | Kind::ProcessEnded => 2,
            Kind::TimedOut | Kind::Stuck | Kind::Unheard | Kind::GpuOutOfMemory => 3,
            Kind::BusinessError | Kind::OperationLost | Kind::Failed | Kind::Other => 4,
            Kind::HttpError => 5,
            Kind::WorkerBusy | Kind::NoWorker => 6,
            Kind::MissingData => 7,
            Kind::Waiting => 8,
            Kind::Cancelled => 9,
            Kind::Slow | Kind::GpuNotUsed | Kind::GpuIdle => 10,
            Kind::Ok => 11,
        }
    }
}

/// The symptom of a span, if it has one.
pub fn kind_of(span: &Span) -> Option<Kind> {
    let failed = matches!(span.status, Status::Error(_));
    if !failed {
        return if view::is_operation(span) { operation(span) } else { waiting(span) };
    }
    if view::int(span, "ib.error.code").is_some() {
        return Some(Kind::GatewayError);
    }
    if super::gpu::says_out_of_memory(span) {
        return Some(Kind::GpuOutOfMemory);
    }
    let Some(error) = view::text(span, "error.type") else {
        return Some(if view::is_operation(span) { said(span) } else { Kind::Failed });
    };
    Some(match error {
        "peer_closed" | "connection_reset" | "connection_timeout" if view::code(span).is_some() => {
            Kind::ResponseCut
        }
        "connection_refused" => Kind::Refused,
        "host_unreachable" | "network_unreachable" => Kind::Unreachable,
        "address_not_available"
        | "permission_denied"
        | "invalid_argument"
        | "connect_error"
        | "address_family_not_supported" => Kind::ConnectFailed,
        "timeout" | "connection_timeout" => Kind::TimedOut,
        "connection_reset" | "connection_aborted" => Kind::Reset,
        "peer_closed" | "connection_closed" => Kind::NoResponse,
        "process_ended" => Kind::ProcessEnded,
        "business_error" | "operation_failed" | "tool_error" => said(span),
        _ if view::text(span, "rpc.response.status_code").is_some() => said(span),
        "gateway_error" => Kind::GatewayError,
        "operation_stuck" | "stuck" => Kind::Stuck,
        "worker_lost" => Kind::WorkerLost,
        "worker_busy" => Kind::WorkerBusy,
        other if other.len() == 3 && other.bytes().all(|b| b.is_ascii_digit()) => http(span),
        _ if view::code(span).is_some_and(|c| c >= 400) => http(span),
        _ => Kind::Failed,
    })
}

/// A call whose answer is waited for longer than answers take when all is well.
fn waiting(span: &Span) -> Option<Kind> {
    let waits =
        view::is_open(span) && span.kind == SpanKind::Client && view::duration(span) >= super::slow::SLOW_NS;
    waits.then_some(Kind::Waiting)
}

/// A failure told in words. Two kinds of it leave no call behind that could be seen; their words are known.
fn said(span: &Span) -> Kind {
    let told = view::message(span).or_else(|| view::text(span, "operation.error")).unwrap_or_default();
    if knowledge::is_about_a_name(told) {
        Kind::NameNotResolved
    } else if knowledge::is_about_no_worker(told) {
        Kind::NoWorker
    } else {
        Kind::BusinessError
    }
}

/// An operation without progress for so long is stuck, in milliseconds: KTRDR's slowest step without any is an epoch
/// of a large model, a minute or so.
const STUCK_MS: i64 = 120_000;

/// An operation that failed says so in its status, whoever set it; one that was not seen to end may be stuck.
fn operation(span: &Span) -> Option<Kind> {
    match view::text(span, "operation.status") {
        Some("failed") => Some(said(span)),
        Some("completed" | "cancelled") if view::flag(span, "ktrdr.operation.unheard") => Some(Kind::Unheard),
        Some("completed" | "cancelled") => None,
        _ if view::flag(span, "ktrdr.operation.stuck") => Some(Kind::Stuck),
        _ => {
            let still = view::int(span, "ktrdr.operation.last_progress_ms_before_end");
            still.is_some_and(|ms| ms >= STUCK_MS).then_some(Kind::Stuck)
        }
    }
}

/// 503 from a worker is KTRDR's way to say "busy, ask another".
fn http(span: &Span) -> Kind {
    let server = match span.kind {
        SpanKind::Client => view::peer_name(span),
        _ => Some(span.resource.service.as_str()),
    };
    let busy = view::code(span) == Some(503)
        && (server.is_some_and(view::is_worker) || view::path(span).is_some_and(starts_work));
    let lost = view::code(span) == Some(404) && view::text(span, "ktrdr.operation.known_to.exit").is_some();
    match (busy, lost) {
        (true, _) => Kind::WorkerBusy,
        (_, true) => Kind::OperationLost,
        _ if view::exception(span).is_some_and(knowledge::is_about_a_name) => Kind::NameNotResolved,
        _ => Kind::HttpError,
    }
}

/// Whether a path hands work to a worker (the API's routes to its workers).
pub fn starts_work(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "/training/start" | "/backtests/start")
}

/// Whether a worker's registration was rejected here.
pub fn is_rejected_registration(span: &Span) -> bool {
    view::text(span, "worker.registration_status") == Some("rejected")
}

/// Whether a symptom means that there was no answer, or no end of one.
pub fn unanswered(kind: Kind) -> bool {
    use Kind::{NoResponse, ProcessEnded, Reset, ResponseCut, TimedOut};
    matches!(kind, TimedOut | Reset | NoResponse | ResponseCut | ProcessEnded)
}

/// An answer that blames the request: the caller may have asked just to find out.
pub fn is_soft(span: &Span) -> bool {
    matches!(kind_of(span), Some(Kind::HttpError | Kind::OperationLost))
        && view::code(span).is_some_and(|c| (400..500).contains(&c))
}
