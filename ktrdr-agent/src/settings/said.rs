//! What the user can say: every setting with its doc comment and its default.
//!
//! The doc comments below are the documentation: they become the default file of `ktrdr-agent config print`. What
//! the program works with is derived from this once, in [`super::Settings`].

use std::collections::BTreeMap;

use super::{
    budget::CpuBudget,
    schema::settings,
    values::{
        CallEnds, Colour, Compression, ConsoleFormat, GpuSource, Hook, Period, Protocol, Secret, Semconv,
        Size,
    },
};

settings! {
    /// Settings of ktrdr-agent. Every key is optional; the values shown are the defaults.
    ///
    /// A value comes from the first of: command line, environment, this file, default. Each key has a variable
    /// KTRDR_AGENT_<SECTION>__<KEY> (KTRDR_AGENT_CAPTURE__HOOK); the OTEL_EXPORTER_OTLP_* variables and
    /// OTEL_SEMCONV_STABILITY_OPT_IN are understood too.
    pub struct Said {
        capture: Capture = Capture::default(),
        include: Include = Include::default(),
        exclude: Exclude = Exclude::default(),
        mask: Mask = Mask::default(),
        services: Services = Services::default(),
        http: Http = Http::default(),
        connect: Connect = Connect::default(),
        operations: Operations = Operations::default(),
        logs: Logs = Logs::default(),
        commands: Commands = Commands::default(),
        python: Python = Python::default(),
        metrics: Metrics = Metrics::default(),
        otlp: Otlp = Otlp::default(),
        sampling: Sampling = Sampling::default(),
        console: Console = Console::default(),
        explain: Explain = Explain::default(),
        ui: Ui = Ui::default(),
        gpu: Gpu = Gpu::default(),
        kubernetes: Kubernetes = Kubernetes::default(),
        limits: Limits = Limits::default(),
        budget: Budget = Budget::default(),
        security: Security = Security::default(),
        self_telemetry: SelfTelemetry = SelfTelemetry::default(),
        host: Host = Host::default(),
    }

    /// What is read from the kernel.
    pub struct Capture {
        /// Kernel hooks: "socket" (Linux 6.3 and later, cheapest), "syscall" (5.8 and later) or "auto".
        hook: Hook = Hook::Auto,
        /// Where log lines, requests on standard input and failed connects are seen beside the socket hook: at the
        /// "functions" of their system calls, which costs other calls nothing (not every kernel takes programs there), at their
        /// "tracepoints" (an event of perf; 60 ns for each other call), at the end of "every" system call (150 ns), or "auto".
        call_ends: CallEnds = CallEnds::Auto,
        /// Bytes copied of each transfer, at most 16KiB. Request heads and the start of bodies have to fit; bytes
        /// beyond are counted but not seen.
        capture_bytes: Size = Size(ktrdr_ebpf_common::limits::DEFAULT_CAPTURE as u64),
        /// Buffer between kernel and agent: a power of two of at least 64KiB. Larger survives longer bursts.
        ring_bytes: Size = Size(ktrdr_ebpf_common::limits::RING_BYTES as u64),
        /// Requests in JSON-RPC on standard input and output (servers of the Model Context Protocol). Takes
        /// `logs.enabled`, too.
        stdio: bool = true,
    }

    /// Narrows what is observed. With nothing here, everything that speaks a known protocol is. Ports narrow the
    /// connections; process ids, executables and commands together narrow the processes (any of them suffices).
    pub struct Include {
        /// Ports, at either end of the connection.
        ports: Vec<u16> = Vec::new(),
        /// Process ids; their descendants belong to them.
        pids: Vec<u32> = Vec::new(),
        /// Executables: a path, its last part, or a pattern with * and ?.
        executables: Vec<String> = Vec::new(),
        /// Command lines: a pattern with * and ? for the whole line, or a text that occurs in it.
        commands: Vec<String> = Vec::new(),
    }

    /// Leaves out what matches any entry, included or not.
    pub struct Exclude {
        /// Ports, at either end of the connection.
        ports: Vec<u16> = Vec::new(),
        /// Process ids; their descendants belong to them.
        pids: Vec<u32> = Vec::new(),
        /// Executables: a path, its last part, or a pattern with * and ?.
        executables: Vec<String> = Vec::new(),
        /// Command lines: a pattern with * and ? for the whole line, or a text that occurs in it.
        commands: Vec<String> = Vec::new(),
    }

    /// Secrets: what stands in their place is REDACTED, in everything that is stored, printed or sent. Built in: values
    /// under names such as password, token, secret, apiKey, credential, signature, cookie or authorization (headers,
    /// queries, JSON, options, log text); user information of URLs; JWTs, PEM keys, Bearer and Basic credentials, and
    /// keys in the form of AWS, GitHub, GitLab, Slack, Google, OpenAI and others. See docs/secrets.md.
    pub struct Mask {
        /// Further names whose values are secret. Case, - and _ do not matter.
        keys: Vec<String> = Vec::new(),
        /// Names whose values are no secret although a built-in rule knows them.
        allow: Vec<String> = Vec::new(),
        /// Regular expressions for further secrets: the first group, or without one the whole match.
        patterns: Vec<String> = Vec::new(),
    }

    /// How services are named. A name comes from the first of: the rules below in their order; OTEL_SERVICE_NAME
    /// or OTEL_RESOURCE_ATTRIBUTES in the process's environment; KTRDR's layout; a guess from the command line.
    pub struct Services {
        /// Know KTRDR's services (ktrdr-api, ktrdr-ib-host-service, workers, ib-gateway, …) without rules.
        ktrdr: bool = true,
        /// service.namespace for every service that sets none itself; empty = none.
        namespace: String = String::new(),
        /// Resource attributes for every service that does not give them itself, for example
        /// { "deployment.environment.name" = "production" }.
        attributes: BTreeMap<String, String> = BTreeMap::new(),
        rules: Vec<Rule> = Vec::new(),
    }

    /// Names the processes for which every condition given holds; the first such rule counts. A rule with ports
    /// alone also names the peer behind such a port when the peer itself is not observed.
    pub struct Rule {
        /// service.name. {port} = lowest listening port, {pid}, {dir} = last part of the working directory,
        /// {container} = container name.
        name: String = String::new(),
        /// service.namespace; empty = the one above.
        namespace: String = String::new(),
        /// service.version; empty = none.
        version: String = String::new(),
        /// Any of these is a port on which the process, or the parent it was spawned from, listens.
        ports: Vec<u16> = Vec::new(),
        /// Executable: a path, its last part, or a pattern with * and ?.
        executable: String = String::new(),
        /// Command line: a pattern with * and ? for the whole line, or a text that occurs in it.
        command: String = String::new(),
        /// Working directory: a path, its last part, or a pattern with * and ?.
        cwd: String = String::new(),
        /// Container: its name, id, or a pattern with * and ? for the name.
        container: String = String::new(),
    }

    /// HTTP.
    pub struct Http {
        /// Longest request or response head that is read; a longer one marks its call as incomplete.
        max_head: Size = Size(64 * 1024),
        /// Attribute names: "http" (stable) or "http/dup" (the ones from before, too).
        semconv: Semconv = Semconv::Stable,
    }

    /// KTRDR's operations: long work that is known by an id. What is built in for KTRDR counts in any case.
    pub struct Operations {
        /// Headers of requests and responses that carry an operation id. X-Request-ID counts only where its value looks
        /// like one; of baggage, the member operation.id counts.
        headers: Vec<String> = vec!["X-Operation-ID".into(), "X-Request-ID".into(), "baggage".into()],
        /// Further JSON keys whose value is an operation id, whatever it looks like (operation_id is built in).
        keys: Vec<String> = Vec::new(),
        /// Further beginnings of ids, for example "job-"; at least six letters or digits follow.
        id_prefixes: Vec<String> = Vec::new(),
        /// A running operation whose progress has not moved for so long is called stuck.
        stuck_after: Period = Period::secs(120),
        failures: Vec<Failure> = Vec::new(),
    }

    /// A successful HTTP answer that speaks of a failure, besides success = false and JSON-RPC's error.
    pub struct Failure {
        /// JSON pointer (RFC 6901) to the field that decides, such as "/status".
        pointer: String = String::new(),
        /// Its value that means failure, as text (failed, false, 0); empty = the field is there at all.
        value: String = String::new(),
        /// JSON pointer to the message.
        message: String = String::new(),
    }

    /// Refused and failed connects.
    pub struct Connect {
        /// How long a failed connect to an IPv6 address waits for another address of the same name to succeed (::1
        /// refused, 127.0.0.1 accepted) before it is reported. Clients try the next one after 250 ms at the latest.
        grace: Period = Period(std::time::Duration::from_nanos(crate::trace::connects::FALLBACK_NS)),
    }

    /// Log lines of observed services, read as they are written, and joined to the request they were written for.
    pub struct Logs {
        /// Read what observed services write to standard output and error.
        enabled: bool = true,
        /// Log files that are read, too, when an observed service writes them: paths or names, with * and ?.
        files: Vec<String> = vec!["*.log".to_owned()],
        /// Most bytes a second that are read of one process; what it writes beyond is counted and not read.
        rate: Size = Size(1 << 20),
        /// Longest record (a line, or a traceback with its lines); the rest of a longer one is counted.
        max_record: Size = Size(64 << 10),
    }

    /// Command lines: a program that is started, makes calls and ends gets a span from its start to its end, with its
    /// arguments and its exit code, and its calls hang below it. Services (who listens, or serves) never do.
    pub struct Commands {
        /// Give commands spans.
        enabled: bool = true,
        /// Programs that are commands however long they run, and whether they make calls or not: the name of the program,
        /// or of the script or module that an interpreter runs, with * and ?. Any other is one if it makes its first call
        /// within 10 seconds and ends within two of its last one.
        programs: Vec<String> = vec!["ktrdr".into(), "ktrdr.cli".into(), "ktrdr.cli.*".into()],
    }

    /// CPython processes.
    pub struct Python {
        /// Follow `contextvars` contexts, so that calls are given to the request that caused them however many a
        /// process serves at once. Costs about 2 microseconds per task created. Without it a call in an event loop
        /// is a root, unless a single request was in flight.
        causality: bool = true,
    }

    /// Metrics: counted from every call, whatever becomes of its span.
    pub struct Metrics {
        /// How often they are sent to the OpenTelemetry receiver (OTEL_METRIC_EXPORT_INTERVAL, in milliseconds).
        interval: Period = Period::secs(15),
        /// Address on which Prometheus scrapes them at /metrics, such as "127.0.0.1:9464"; empty = none. /healthz and /readyz
        /// answer there too. Off by default: an observed service may want that port.
        listen: String = String::new(),
        /// Bearer token that a client must show for /metrics; needed where the address is not a loopback one.
        token: Secret = Secret::default(),
    }

    /// Sending to an OpenTelemetry receiver.
    pub struct Otlp {
        /// URL such as "http://localhost:4317"; empty = nothing is sent. Over HTTP, /v1/traces etc. is appended.
        endpoint: String = String::new(),
        /// "grpc", "http/protobuf" or "http/json".
        protocol: Protocol = Protocol::Grpc,
        /// Headers (gRPC metadata) sent with every request.
        headers: BTreeMap<String, Secret> = BTreeMap::new(),
        /// "none" or "gzip".
        compression: Compression = Compression::None,
        /// Time for one request.
        timeout: Period = Period::secs(10),
        /// An endpoint without a scheme, as gRPC allows, is http:// and not an error.
        insecure: bool = false,
        /// File with the certificates (PEM) to trust; empty = the system's.
        certificate: String = String::new(),
        /// File with the client's certificate (PEM) for mutual TLS; empty = none.
        client_certificate: String = String::new(),
        /// File with the client's key (PEM) for mutual TLS; empty = none.
        client_key: String = String::new(),
        /// Spans waiting to be sent; when full, new ones are dropped and counted.
        queue_size: usize = 65_536,
        /// Most spans in one request.
        batch_size: usize = 4_096,
        /// Longest time a span waits for its batch to fill.
        batch_delay: Period = Period::millis(200),
        traces: Signal = Signal::default(),
        metrics: Signal = Signal::default(),
        logs: Signal = Signal::default(),
    }

    /// Where this signal differs from the `otlp` section.
    pub struct Signal {
        /// Send this signal at all.
        enabled: bool = true,
        /// URL, used as it is; empty = as in `otlp`.
        endpoint: Option<String> = None,
        /// "grpc", "http/protobuf" or "http/json".
        protocol: Option<Protocol> = None,
        /// Headers in place of those in `otlp`.
        headers: Option<BTreeMap<String, Secret>> = None,
        /// "none" or "gzip".
        compression: Option<Compression> = None,
        /// Time for one request.
        timeout: Option<Period> = None,
        /// An endpoint without a scheme, as gRPC allows, is http:// and not an error.
        insecure: Option<bool> = None,
        /// File with the certificates (PEM) to trust.
        certificate: Option<String> = None,
        /// File with the client's certificate (PEM) for mutual TLS.
        client_certificate: Option<String> = None,
        /// File with the client's key (PEM) for mutual TLS.
        client_key: Option<String> = None,
    }

    /// Which spans are sent to the receiver (docs/sampling.md). Metrics count every call and `explain` knows every span
    /// whatever is said here.
    pub struct Sampling {
        /// Part of the traces that is sent, from 0 to 1; the trace id decides (OTEL_TRACES_SAMPLER, _ARG).
        ratio: f64 = 1.0,
        /// A trace whose context came with a request goes as its caller decided.
        parent_based: bool = false,
        keep: Keep = Keep::default(),
    }

    /// What is sent of the other traces.
    pub struct Keep {
        /// Traces with an error.
        errors: bool = false,
        /// Traces with a span that took so long, such as "1s"; "0s" = none.
        slow: Period = Period::secs(0),
        /// Traces of operations.
        operations: bool = false,
        /// How long the spans of a trace wait for one of these.
        wait: Period = Period::secs(60),
    }

    /// What is printed on standard output.
    pub struct Console {
        /// "human" (a tree per trace), "json" (one span per line) or "off".
        format: ConsoleFormat = ConsoleFormat::Human,
        /// Colours: "auto" (on a terminal), "always" or "never".
        colour: Colour = Colour::Auto,
    }

    /// Answering `ktrdr-agent explain`.
    pub struct Explain {
        /// Unix socket on which a running agent answers its own user; empty = none. With no ui.listen either, no traces
        /// are remembered. Its directory is made if it is missing.
        socket: String = "/run/ktrdr-agent/explain.sock".into(),
        /// Memory for recent traces, at least 1MiB. Failed ones and those of operations are kept longest.
        memory: Size = Size(24 << 20),
    }

    /// Recent traces over HTTP: a page for a browser at /, and Jaeger's query API under /api/ for Grafana's Jaeger data
    /// source and whatever else asks Jaeger (docs/ui.md). They are the traces that `explain` knows.
    pub struct Ui {
        /// Address such as "127.0.0.1:16686"; empty = none. On a loopback address every user of this host can read the
        /// traces, unless a token is set.
        listen: String = String::new(),
        /// Bearer token that a client must show; needed where the address is not a loopback one.
        token: Secret = Secret::default(),
    }

    /// What GPUs did during a call (docs/gpu.md).
    pub struct Gpu {
        /// "nvml" (NVIDIA's library, if this host has it), "synthetic" (an invented device for demonstrations, labelled
        /// as such), "recording" (the samples of a recorded file, again and again) or "off".
        source: GpuSource = GpuSource::Nvml,
        /// Path of NVIDIA's library; empty = libnvidia-ml.so.1 as the system finds it.
        library: String = String::new(),
        /// The recorded file, for source = "recording".
        recording: String = String::new(),
        /// Time between samples while no observed process uses a GPU, from 100ms to 1m.
        idle_period: Period = Period::secs(1),
        /// Time between samples while one does, from 50ms to 1m.
        busy_period: Period = Period::millis(200),
        /// Longest pause before a library or device that is not there is looked for again, at least 1s.
        retry: Period = Period::secs(60),
    }

    /// Names of pods, namespaces, workloads and nodes from Kubernetes, for agents built with the feature `kubernetes`.
    pub struct Kubernetes {
        /// "in-cluster" = the API server of the cluster this agent runs in; or its URL; empty = nobody is asked. The pods of
        /// this node are listed, and nothing else.
        api: String = String::new(),
        /// Name of this node, as Kubernetes knows it.
        node: String = String::new(),
        /// File with the token to show.
        token_file: String = "/var/run/secrets/kubernetes.io/serviceaccount/token".into(),
        /// File with the certificates (PEM) to trust.
        ca_file: String = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt".into(),
    }

    /// Bounds on the agent's memory.
    pub struct Limits {
        /// Processes known at once; the one unused for longest is forgotten and read again when seen again.
        /// About 1 KiB each.
        processes: usize = 8_192,
        /// Connections followed at once, at most 65536; the one unused for longest is given up. About 600 bytes each.
        connections: usize = crate::engine::MAX_CONNS,
    }

    /// What the agent may take of this host for itself (docs/budget.md).
    pub struct Budget {
        /// Part of all processors of this host, such as "5%", from 0.1% to 100%; "off" = as much as it takes. When the agent
        /// takes more for some seconds, it observes only a part of the connections of the busiest ports, and says so.
        cpu: CpuBudget = CpuBudget::percent(5),
    }

    /// What the agent may do itself (docs/privileges.md).
    pub struct Security {
        /// Once everything is attached, give up what is not needed any more: capabilities, writing to files, starting
        /// programs, changing other processes. Costs no function; off only to find out whether it does.
        confine: bool = true,
    }

    /// The agent's own log and the spans of its slow steps (start-up, requests to receivers, housekeeping), sent by
    /// OpenTelemetry's SDK, apart from all that it observes: to find out what the agent itself does (docs/self-telemetry.md).
    pub struct SelfTelemetry {
        /// URL of a receiver of OTLP over gRPC, such as "http://localhost:4317"; empty = nothing is sent.
        endpoint: String = String::new(),
        /// gRPC metadata sent with every request.
        headers: BTreeMap<String, Secret> = BTreeMap::new(),
        /// File with the certificates (PEM) to trust; empty = the system's.
        certificate: String = String::new(),
    }

    /// Where the host's files are, for an agent that runs in a container.
    pub struct Host {
        /// procfs of the host's pid namespace.
        proc: String = "/proc".into(),
        /// Root directory of the host.
        root: String = "/".into(),
    }
}
