//! Settings → options of the parts.

use std::path::Path;

use crate::core::CoreConfig;
use crate::export::sampling::{Keep, Rules};
use crate::export::{ConsoleOptions, ExportOptions, OtlpOptions, console, otlp};
use crate::kernel::{CallEnds, Hook, KernelOptions};
use crate::meta::host_attributes;
use crate::settings::{self, Settings, values};
use crate::telemetry::SenderOptions;

/// Options of the core.
pub fn core(s: &Settings, port_names: Vec<(u16, String)>) -> CoreConfig {
    CoreConfig {
        capture: s.capture.capture_bytes,
        max_head: s.http.max_head,
        operations: s.operations.clone(),
        connections: s.limits.connections,
        mask: s.mask.clone(),
        connect_grace: u64::try_from(s.connect_grace.as_nanos()).unwrap_or(u64::MAX),
        metrics: s.otlp.metrics.is_some() || s.metrics.listen.is_some(),
        follow_sampled: s.sampling.parent_based,
        watch: s.logs.enabled,
        max_record: s.logs.max_record,
        commands: s.commands.enabled,
        semconv_dup: s.http.old_names,
        port_names,
        ports: s.include.ports.clone(),
        excluded_ports: s.exclude.ports.clone(),
    }
}

/// What of the host is observed, in words; `None`: all of it.
pub fn narrowed(s: &Settings) -> Option<String> {
    fn list<T: ToString>(what: &str, of: &[T]) -> Option<String> {
        let all: Vec<String> = of.iter().map(T::to_string).collect();
        (!all.is_empty()).then(|| format!("{what} {}", all.join(", ")))
    }
    let parts = [
        list("only port", &s.include.ports),
        list("only process", &s.include.pids),
        list("only executable", &s.include.executables),
        list("only command", &s.include.commands),
        list("without port", &s.exclude.ports),
        list("without process", &s.exclude.pids),
        list("without executable", &s.exclude.executables),
        list("without command", &s.exclude.commands),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Options of the kernel side.
pub fn kernel(s: &Settings) -> KernelOptions {
    KernelOptions {
        hook: match s.capture.hook {
            settings::Hook::Auto => Hook::Auto,
            settings::Hook::Socket => Hook::Socket,
            settings::Hook::Syscall => Hook::Syscall,
        },
        call_ends: match s.capture.call_ends {
            settings::CallEnds::Auto => CallEnds::Auto,
            settings::CallEnds::Functions => CallEnds::Functions,
            settings::CallEnds::Tracepoints => CallEnds::Tracepoints,
            settings::CallEnds::Every => CallEnds::Every,
        },
        ring_bytes: s.capture.ring_bytes,
        unknown_capture: s.capture.capture_bytes,
        exclude: s.exclude.pids.clone(),
        logs: s.logs.enabled,
        stdio: s.logs.enabled && s.capture.stdio,
        ..KernelOptions::default()
    }
}

/// Options of the exporters.
pub fn export(s: &Settings, spans_out: Option<&Path>) -> ExportOptions {
    let color = match s.console.colour {
        values::Colour::Auto => console::Color::Auto,
        values::Colour::Always => console::Color::Always,
        values::Colour::Never => console::Color::Never,
    };
    let mut consoles = Vec::new();
    let mut console = |format, output| consoles.push(ConsoleOptions { format, output, color });
    match s.console.format {
        settings::ConsoleFormat::Human => console(console::Format::Human, console::Output::Stdout),
        settings::ConsoleFormat::Json => console(console::Format::Json, console::Output::Stdout),
        settings::ConsoleFormat::Off => {}
    }
    if let Some(path) = spans_out {
        console(console::Format::Json, console::Output::File(path.to_owned()));
    }
    let to = |target: &Option<settings::Target>| target.as_ref().map(|t| otlp_options(s, t));
    let logs = if s.logs.enabled { to(&s.otlp.logs) } else { None };
    let sampling = s.sampling.samples().then(|| sampling(&s.sampling));
    ExportOptions { console: consoles, otlp: to(&s.otlp.traces), sampling, otlp_logs: logs }
}

fn sampling(s: &settings::Sampling) -> Rules {
    let ns = |period: values::Period| u64::try_from(period.0.as_nanos()).unwrap_or(u64::MAX);
    let said = &s.keep;
    let slow = Some(ns(said.slow)).filter(|ns| *ns > 0);
    let keep = Keep { errors: said.errors, slow, operations: said.operations, wait: ns(said.wait) };
    Rules { ratio: s.ratio, keep }
}

/// Where the agent's own telemetry goes, if anywhere.
pub fn self_telemetry(s: &Settings) -> Option<SenderOptions> {
    let otlp = otlp_options(s, s.self_telemetry.as_ref()?);
    Some(SenderOptions { otlp, host: host_attributes(s), mask: s.mask.clone() })
}

pub fn otlp_options(s: &Settings, t: &settings::Target) -> OtlpOptions {
    OtlpOptions {
        url: t.url.clone(),
        protocol: match t.protocol {
            settings::Protocol::Grpc => otlp::Protocol::Grpc,
            settings::Protocol::HttpProtobuf => otlp::Protocol::HttpProtobuf,
            settings::Protocol::HttpJson => otlp::Protocol::HttpJson,
        },
        headers: t.headers.clone(),
        compression: match t.compression {
            settings::Compression::None => otlp::Compression::None,
            settings::Compression::Gzip => otlp::Compression::Gzip,
        },
        timeout: t.timeout,
        tls: otlp::TlsFiles { certificate: t.tls.certificate.clone(), client: t.tls.client.clone() },
        queue_size: s.otlp.queue_size,
        batch_size: s.otlp.batch_size,
        batch_delay: s.otlp.batch_delay,
    }
}
