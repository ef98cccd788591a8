//! What standard error says when all is attached: what is observed, where it goes, and where to ask.

use std::time::Duration;

use super::RunOptions;
use crate::kernel::{CallsSeen, Hook, Kernel, ProbeStatus};
use crate::mask;
use crate::privileges::Settled;
use crate::settings::{ConsoleFormat, Settings};

/// With nothing seen for so long, somebody who waits for a first call wants to know why.
pub(super) const SILENCE: Duration = Duration::from_secs(30);

/// What is missing, if anything.
pub(super) fn shortfalls(kernel: &Kernel, settled: &Settled) {
    for w in kernel.warnings() {
        tracing::warn!("{w}");
    }
    for p in kernel.probes() {
        match &p.status {
            ProbeStatus::Attached => tracing::debug!("{}: attached ({})", p.name, p.purpose),
            ProbeStatus::Skipped(why) => tracing::debug!("{}: not used: {why}", p.name),
            ProbeStatus::Failed(why) => tracing::warn!("{} ({}) is missing: {why}", p.name, p.purpose),
        }
    }
    match kernel.calls_seen() {
        seen @ (CallsSeen::Tracepoints(_) | CallsSeen::Every(_)) => {
            tracing::info!("log lines and failed connects are {seen}")
        }
        seen => tracing::debug!("log lines and failed connects are {seen}"),
    }
    for failure in &settled.failures {
        tracing::warn!("less confined than it could be: {failure}");
    }
    tracing::info!("{settled}");
}

/// The last lines of the start.
pub(super) fn ready(settings: &Settings, run: &RunOptions, answers: bool, hook: Hook, took: Duration) {
    let hook = match hook {
        Hook::Syscall => "syscall",
        Hook::Auto | Hook::Socket => "socket",
    };
    let (what, ms) = (scope(settings), took.as_millis());
    tracing::info!("observing {what} (hook {hook}, ready after {ms} ms); stop with Ctrl-C");
    let ask = match answers {
        true => {
            "; ask why one failed with `ktrdr-agent explain last error`, or for a list with `explain --list`"
        }
        false => "",
    };
    tracing::info!("{}{ask}", destinations(settings, run));
}

/// Said once.
pub(super) fn nothing_seen(settings: &Settings) {
    tracing::info!(
        "no call and no failed connect in {} s of observing {}: HTTP/1.1 without TLS is what can be read, so try \
         `curl http://127.0.0.1:8000/` with the port of a service",
        SILENCE.as_secs(),
        scope(settings)
    );
}

fn scope(settings: &Settings) -> String {
    let (include, exclude) = (&settings.include, &settings.exclude);
    let some_processes =
        !(include.pids.is_empty() && include.executables.is_empty() && include.commands.is_empty());
    let processes =
        if some_processes { "the processes that were named" } else { "every process on this host" };
    let mut text = processes.to_owned();
    if !include.ports.is_empty() {
        let ports: Vec<String> = include.ports.iter().map(ToString::to_string).collect();
        text += &format!(", on port {} only", ports.join(", "));
    }
    if *exclude != crate::settings::Exclude::default() {
        text += ", less what was excluded";
    }
    text
}

fn destinations(settings: &Settings, run: &RunOptions) -> String {
    let mut to = Vec::new();
    if run.export {
        match settings.console.format {
            ConsoleFormat::Human => to.push("shown on standard output, a tree per trace".to_owned()),
            ConsoleFormat::Json => to.push("printed on standard output, a span per line".to_owned()),
            ConsoleFormat::Off => {}
        }
        to.extend(run.spans_out.as_ref().map(|path| format!("written to {}", path.display())));
        to.extend(settings.otlp.traces.as_ref().map(|target| format!("sent to {}", mask::url(&target.url))));
    }
    let records = run.record.as_ref().map(|path| format!("raw records are written to {}", path.display()));
    match (to.is_empty(), records) {
        (true, Some(records)) => records,
        (true, None) => "calls are neither printed nor sent (console.format, otlp.endpoint)".to_owned(),
        (false, records) => {
            let records = records.map_or_else(String::new, |r| format!("; {r}"));
            format!("calls are {}{records}", to.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Override;

    fn settings(of: &[(&str, &str)]) -> Settings {
        let all: Vec<_> = of.iter().map(|(key, value)| Override::new("--x", key, *value)).collect();
        Settings::from_text(None, &[], &all).unwrap()
    }

    #[test]
    fn what_is_observed_is_said() {
        for (of, want) in [
            (&[][..], "every process on this host"),
            (&[("include.ports", "[8000, 5001]")], "every process on this host, on port 8000, 5001 only"),
            (
                &[("include.pids", "[7]"), ("exclude.ports", "[1]")],
                "the processes that were named, less what was excluded",
            ),
        ] {
            assert_eq!(scope(&settings(of)), want);
        }
    }

    #[test]
    fn where_it_goes_is_said() {
        let run = RunOptions { export: true, ..RunOptions::default() };
        let sent = settings(&[("otlp.endpoint", "http://c:4317")]);
        let secret = settings(&[("console.format", "off"), ("otlp.endpoint", "http://u:s3cret@c:4317")]);
        assert_eq!(destinations(&secret, &run), "calls are sent to http://REDACTED@c:4317");
        let off = settings(&[("console.format", "off")]);
        assert_eq!(
            destinations(&sent, &run),
            "calls are shown on standard output, a tree per trace, sent to http://c:4317"
        );
        assert_eq!(
            destinations(&off, &run),
            "calls are neither printed nor sent (console.format, otlp.endpoint)"
        );
        let record = RunOptions { record: Some("r.gz".into()), ..RunOptions::default() };
        assert_eq!(destinations(&sent, &record), "raw records are written to r.gz");
    }
}
