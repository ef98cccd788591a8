//! Every metric of the agent. Names, units and attributes of `http.*`, `process.*` and `hw.*` follow OpenTelemetry's semantic
//! conventions; those of operations and workers are KTRDR's (`ktrdr_operations_total` …); `traces_service_graph_*` are
//! the names that Grafana's service graph reads (Tempo's metrics generator).
//!
//! Files named `…_table.rs` are flat tables: exporters, documentation and the checks of dashboards iterate them.

use super::instrument::{
    BYTES, FRACTIONS, IB_SECONDS, Instrument, Kind, OPERATION_SECONDS, SECONDS, instruments,
};
use Kind::{Counter, FloatCounter, Gauge, Histogram, UpDown};

instruments! {
    /// Duration of HTTP requests at the server, from the first byte of the request to the last of the response.
    HttpServerDuration = "http.server.request.duration", "s", Histogram(SECONDS),
        ["http.request.method", "url.scheme", "http.route", "http.response.status_code", "error.type"];
    /// Size of HTTP request bodies at the server.
    HttpServerRequestBody = "http.server.request.body.size", "By", Histogram(BYTES),
        ["http.request.method", "url.scheme", "http.route", "http.response.status_code", "error.type"];
    /// Size of HTTP response bodies at the server.
    HttpServerResponseBody = "http.server.response.body.size", "By", Histogram(BYTES),
        ["http.request.method", "url.scheme", "http.route", "http.response.status_code", "error.type"];
    /// HTTP requests that are being served now.
    HttpServerActive = "http.server.active_requests", "{request}", UpDown, ["http.request.method", "url.scheme"];
    /// Duration of HTTP requests at the client, from the first byte of the request to the last of the response.
    HttpClientDuration = "http.client.request.duration", "s", Histogram(SECONDS),
        ["http.request.method", "server.address", "server.port", "url.template", "http.response.status_code",
         "error.type", "peer.service"];
    /// Size of HTTP request bodies at the client.
    HttpClientRequestBody = "http.client.request.body.size", "By", Histogram(BYTES),
        ["http.request.method", "server.address", "server.port", "url.template", "http.response.status_code",
         "error.type", "peer.service"];
    /// Size of HTTP response bodies at the client.
    HttpClientResponseBody = "http.client.response.body.size", "By", Histogram(BYTES),
        ["http.request.method", "server.address", "server.port", "url.template", "http.response.status_code",
         "error.type", "peer.service"];

    /// Attempts to connect over TCP that ended; those with an error.type failed.
    Connects = "ktrdr.connects", "{connect}", Counter, ["server.address", "server.port", "error.type", "peer.service"];

    /// Operations that ended, by type and final status.
    Operations = "ktrdr.operations", "{operation}", Counter, ["operation.type", "status"];
    /// Duration of operations, from the call that created one to the reply that told its end.
    OperationDuration = "ktrdr.operation.duration", "s", Histogram(OPERATION_SECONDS), ["operation.type", "status"];
    /// Operations under way.
    OperationsActive = "ktrdr.operations.active", "{operation}", UpDown, ["operation.type"];
    /// Seconds since the progress of an operation under way last moved: the longest one of each type.
    OperationStalled = "ktrdr.operation.stalled", "s", Gauge, ["operation.type"];

    /// Registrations of workers that the API took.
    WorkersRegistered = "ktrdr.workers.registered", "{registration}", Counter, ["worker.type"];
    /// Workers heard of in the last two minutes, by what they are up to: idle, busy or lost (not reachable).
    Workers = "ktrdr.workers", "{worker}", UpDown, ["worker.type", "worker.id", "worker.state"];
    /// Workers that are registered, reachable and not busy.
    WorkersAvailable = "ktrdr.workers.available", "{worker}", UpDown, ["worker.type"];
    /// Dispatches of operations to workers, by outcome: selected, busy, rejected, no_answer or unreachable.
    WorkerDispatches = "ktrdr.worker.dispatches", "{dispatch}", Counter,
        ["worker.type", "worker.id", "worker.selection_status"];

    /// Duration of requests to the IB Gateway.
    IbDuration = "ktrdr.ib.request.duration", "s", Histogram(IB_SECONDS), ["rpc.method", "error.type"];
    /// Errors that the IB Gateway told, by code.
    IbErrors = "ktrdr.ib.errors", "{error}", Counter, ["rpc.method", "ib.error.code"];

    /// Processes of observed services that ended.
    ProcessExits = "ktrdr.process.exits", "{process}", Counter, ["process.exit.code", "signal"];
    /// Processes that began to listen after the previous one of their service had ended.
    ProcessRestarts = "ktrdr.process.restarts", "{process}", Counter, [];

    /// Calls between two services.
    GraphRequests = "traces_service_graph_request", "", Counter, ["client", "server", "connection_type"];
    /// Calls between two services that failed.
    GraphFailed = "traces_service_graph_request_failed", "", Counter, ["client", "server", "connection_type"];
    /// Duration of calls between two services, as the client saw it.
    GraphClientSeconds = "traces_service_graph_request_client", "s", Histogram(SECONDS),
        ["client", "server", "connection_type"];
    /// Duration of calls between two services, as the server saw it.
    GraphServerSeconds = "traces_service_graph_request_server", "s", Histogram(SECONDS),
        ["client", "server", "connection_type"];

    /// Part of the time in which a GPU ran a kernel, before the last sample.
    GpuUtilization = "hw.gpu.utilization", "1", Gauge, ["hw.id", "hw.name", "hw.type", "hw.gpu.task"];
    /// Memory of a GPU in use.
    GpuMemoryUsage = "hw.gpu.memory.usage", "By", UpDown, ["hw.id", "hw.name", "hw.type"];
    /// Memory of a GPU.
    GpuMemoryLimit = "hw.gpu.memory.limit", "By", UpDown, ["hw.id", "hw.name", "hw.type"];
    /// Part of a GPU's memory in use.
    GpuMemoryUtilization = "hw.gpu.memory.utilization", "1", Gauge, ["hw.id", "hw.name", "hw.type"];
    /// Power that a GPU takes.
    GpuPower = "hw.power", "W", Gauge, ["hw.id", "hw.name", "hw.type"];
    /// Temperature of a GPU.
    GpuTemperature = "hw.temperature", "Cel", Gauge, ["hw.id", "hw.name", "hw.type"];
    /// Whether a GPU can be sampled, by hw.state: ok, or failed (lost, or not open to the agent). One of them is 1.
    GpuStatus = "hw.status", "1", UpDown, ["hw.id", "hw.name", "hw.type", "hw.state"];
    /// Errors of a GPU by error.type: ECC's corrected and uncorrected ones since the driver was loaded, xid_N what the driver
    /// reported since the agent was started.
    GpuErrors = "hw.errors", "{error}", Counter, ["hw.id", "hw.name", "hw.type", "error.type"];
    /// Part of the time in which a GPU's memory was read or written, before the last sample.
    GpuMemoryBusy = "ktrdr.gpu.memory.busy", "1", Gauge, ["hw.id", "hw.name"];
    /// Clocks of a GPU: of its multiprocessors (sm) and of its memory.
    GpuClock = "ktrdr.gpu.clock.frequency", "Hz", Gauge, ["hw.id", "hw.name", "ktrdr.gpu.clock"];
    /// What holds a GPU's clocks down: 1 for each reason there is now, 0 for the others.
    GpuThrottled = "ktrdr.gpu.throttled", "1", UpDown, ["hw.id", "hw.name", "ktrdr.gpu.throttle.reason"];
    /// Bytes a second between a GPU and its host, as measured for an instant of the last second.
    GpuPcie = "ktrdr.gpu.pcie.throughput", "By/s", Gauge, ["hw.id", "hw.name", "network.io.direction"];
    /// Memory of a GPU that processes of the service hold.
    GpuProcessMemory = "ktrdr.gpu.process.memory.usage", "By", UpDown, ["hw.id", "process.pid"];
    /// Part of the time in which a GPU ran a kernel of a process of the service.
    GpuProcessUtilization = "ktrdr.gpu.process.utilization", "1", Gauge, ["hw.id", "process.pid"];
    /// Mean utilisation of the GPU during each call and operation that a process on it served or made.
    GpuCallUtilization = "ktrdr.gpu.call.utilization", "1", Histogram(FRACTIONS), ["hw.id", "hw.name"];

    /// Records by how far they came: submitted by the kernel programs, read from the ring, told by the agent itself, decoded.
    AgentRecords = "ktrdr.agent.records", "{record}", Counter, ["stage"];
    /// What is missing from the traces, by reason.
    AgentLost = "ktrdr.agent.lost", "{event}", Counter, ["reason"];
    /// Part of the connections of a port that is observed, as long as not all are, to stay within the budget; without a port the
    /// least of them, 1 = all of all. Metrics of calls count those that are observed (docs/budget.md).
    AgentObservedShare = "ktrdr.agent.observed.share", "1", Gauge, ["server.port"];
    /// What was left out to stay within the budget: transfers, states (begins and ends of connections), and transfers that
    /// were told all the same, for the sake of causality or before the kernel programs knew.
    AgentLeftOut = "ktrdr.agent.left_out", "{event}", Counter, ["what"];
    /// Spans made.
    AgentSpans = "ktrdr.agent.spans", "{span}", Counter, [];
    /// Bytes of followed connections by what became of them: moved and gaps are what came, the others where it went.
    AgentBytes = "ktrdr.agent.stream.io", "By", Counter, ["fate"];
    /// Zero while the books balance: records submitted and not read, read and not decoded, and items of sinks not accounted for.
    AgentImbalance = "ktrdr.agent.books.imbalance", "{item}", Gauge, ["book"];
    /// Runs of a kernel program; counted by the kernel while its statistics are on.
    AgentProgramRuns = "ktrdr.agent.program.runs", "{run}", Counter, ["program"];
    /// Time spent in a kernel program; measured by the kernel while its statistics are on.
    AgentProgramTime = "ktrdr.agent.program.time", "s", FloatCounter, ["program"];
    /// Runs of a kernel program that the kernel refused, because it was running already.
    AgentProgramMissed = "ktrdr.agent.program.missed", "{run}", Counter, ["program"];
    /// Kernel programs by state: attached, skipped (not needed here) or failed.
    AgentProbes = "ktrdr.agent.probes", "{program}", Gauge, ["state"];
    /// Python processes by how sure their causality is: exact or degraded.
    AgentPython = "ktrdr.agent.python.processes", "{process}", Gauge, ["causality"];
    /// Items given to a sink.
    AgentSinkItems = "ktrdr.agent.sink.items", "{item}", Counter, ["sink"];
    /// Items of a sink by outcome: exported, rejected, dropped_full, dropped_stop, sampled_out.
    AgentSinkOutcomes = "ktrdr.agent.sink.outcomes", "{item}", Counter, ["sink", "outcome"];
    /// Deliveries that a sink tried again.
    AgentSinkRetries = "ktrdr.agent.sink.retries", "{attempt}", Counter, ["sink"];
    /// Items waiting in a sink's queue.
    AgentSinkQueue = "ktrdr.agent.sink.queue.size", "{item}", Gauge, ["sink"];
    /// Connections followed.
    AgentConnections = "ktrdr.agent.connections", "{connection}", Gauge, [];
    /// Series of metrics held.
    AgentSeries = "ktrdr.agent.metric.series", "{series}", Gauge, [];
    /// Measurements that went to an overflow series, by metric.
    AgentOverflow = "ktrdr.agent.metric.overflow", "{measurement}", Counter, ["metric"];
    /// Resident memory of the agent.
    ProcessMemory = "process.memory.usage", "By", UpDown, [];
    /// Processor time of the agent.
    ProcessCpu = "process.cpu.time", "s", FloatCounter, ["cpu.mode"];
    /// Time since the agent was started.
    ProcessUptime = "process.uptime", "s", Gauge, [];
}
