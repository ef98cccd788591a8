//! What to do next: commands to try, most useful first.

use std::net::IpAddr;

use super::cause::{Analysis, Finding};
use super::tree::Tree;
use super::{Case, Kind, view};
use crate::trace::model::{Span, TraceId};

/// Hints for the verdict.
pub fn make(case: &Case, tree: &Tree<'_>, analysis: &Analysis<'_>) -> Vec<String> {
    let mut hints = Vec::new();
    match analysis.first() {
        Some(finding) => for_cause(case, finding, tree, &mut hints),
        None if tree.len() == 0 => {}
        None => {}
    }
    if analysis.findings.len() > 1 {
        hints.push(
            "the other causes are listed under `also`; the first is the one to look at first".to_owned(),
        );
    }
    let same = match (&case.operation, tree.spans.first()) {
        (Some(operation), _) => Some(operation.clone()),
        // Of several traces none stands for the others.
        (None, Some(_)) if case.by_part => Some(quoted(&case.query)),
        (None, span) => span.map(|s| s.trace_id.to_string()),
    };
    hints.extend(same.map(|same| format!("ktrdr-agent explain {same} --json   # the same, for a program")));
    hints
}

fn for_cause(case: &Case, finding: &Finding<'_>, tree: &Tree<'_>, hints: &mut Vec<String>) {
    let span = finding.span(tree);
    let port = view::port(span);
    let local = view::text(span, "network.peer.address").or_else(|| view::text(span, "server.address"));
    let here = local.is_some_and(|a| a == "localhost" || a == "::1" || a.starts_with("127."));
    match finding.kind {
        Kind::Refused | Kind::WorkerLost => refused(span, port, here, hints),
        // A container that is gone took its address with it.
        Kind::Unreachable | Kind::TimedOut if listener_gone(span) => refused(span, port, here, hints),
        Kind::Unreachable | Kind::TimedOut if view::is_connect(span) => {
            if let Some(address) = local {
                hints.push(format!("ip route get {address}   # is there a way to it?"));
            }
        }
        Kind::TimedOut | Kind::NoResponse | Kind::ResponseCut | Kind::Reset | Kind::Stuck | Kind::Waiting => {
            if let Some(service) = callee(tree, finding) {
                hints.push(format!("look at the log of {service} at {}", time(span)));
            }
        }
        Kind::OperationLost => {
            hints.push("start it again: what its process kept in memory is gone".to_owned());
        }
        Kind::HttpError if super::symptom::is_soft(span) => {
            hints.push(
                "the answer blames the request: compare its path and body with what the service expects"
                    .into(),
            );
        }
        Kind::Failed if view::is_command(span) && super::place::given_up(tree, finding.last()).is_some() => {
            let service = super::place::given_up(tree, finding.last()).and_then(view::peer_name);
            hints.push(format!(
                "look at the log of {} at {}: it was still at work, or waited",
                service.unwrap_or("its peer"),
                time(span)
            ));
        }
        Kind::Failed if view::is_command(span) => {
            hints.push(format!("run `{}` again and read what it says: why is its own to tell", span.name));
        }
        Kind::HttpError | Kind::BusinessError | Kind::Failed => {
            if let Some(service) = callee(tree, finding) {
                // Of a line that stands beside the verdict.
                let here = |trace: TraceId| tree.spans.iter().any(|s| s.trace_id == trace);
                let logged = case.logs.iter().any(|r| {
                    r.resource.service == service && r.exception.is_some() && r.trace_id.is_none_or(here)
                });
                hints.push(match logged {
                    true => {
                        format!("the message and stack trace are in the log of {service} at {}", time(span))
                    }
                    false => format!("look at the log of {service} at {}", time(span)),
                });
            }
        }
        Kind::NameNotResolved => {
            hints.push(format!("check the host names in the settings of {}", span.resource.service));
            hints.push("getent hosts NAME   # does this host know the name?".to_owned());
        }
        Kind::WorkerBusy | Kind::NoWorker => {
            let asker = tree.client_end(finding.last()).map_or(span, |c| tree.spans[c]);
            let api = |s: &&&Span| view::text(s, "peer.service") == Some(&asker.resource.service);
            let port = tree.spans.iter().find(api).and_then(|s| view::port(s)).unwrap_or(8000);
            hints.push(format!("curl -s localhost:{port}/api/v1/workers   # who is busy with what"));
            hints
                .push("start another worker of this kind, or wait until one registers or is free".to_owned());
        }
        Kind::GpuOutOfMemory => {
            hints.push("nvidia-smi   # who holds the GPU's memory now".to_owned());
            hints.push("a smaller batch or model needs less; the log has the sizes asked for".to_owned());
        }
        Kind::GatewayError => match view::int(span, "ib.error.code") {
            Some(326) => {
                hints.push("give this client another client id (IB_CLIENT_ID), or stop the other one".into())
            }
            Some(162 | 420 | 100) => {
                hints.push("ask for less at once; IB allows 60 historical requests in 10 minutes".into())
            }
            Some(502 | 504 | 507) => {
                hints.push("is the gateway logged in, and does it allow API connections?".into())
            }
            _ => {}
        },
        _ => {}
    }
}

/// As a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    if text.chars().all(plain) { text.to_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn listener_gone(span: &Span) -> bool {
    view::text(span, "ktrdr.listener.state") == Some("listener_gone")
}

fn refused(span: &Span, port: Option<i64>, here: bool, hints: &mut Vec<String>) {
    let state = view::text(span, "ktrdr.listener.state");
    let place = view::text(span, "ktrdr.listener.place");
    if let (Some(command), true) = (view::text(span, "ktrdr.listener.command"), listener_gone(span)) {
        // A command line that was cut cannot be used.
        let whole = !command.contains('…') && command.len() <= 200;
        let command = if whole { format!(": `{command}`") } else { String::new() };
        hints.push(format!("start {} again{command}", view::text(span, "peer.service").unwrap_or("it")));
    } else if state == Some("not_yet_listening") {
        hints.push("it listens by now: try again, or have the caller wait until it does".to_owned());
    } else if let ("other_namespace_only", Some(place)) = (state.unwrap_or_default(), place) {
        hints.push(format!("call it where it listens, {place}: localhost is another one in each container"));
    } else if let (Some(service), None) = (view::text(span, "peer.service"), state) {
        hints.push(format!("start {service} again if it has ended; its log says why it did"));
    } else if let Some(service) = view::text(span, "peer.service").filter(|_| state != Some("listening")) {
        hints.push(format!("start {service}, or correct the address it is called at"));
    }
    if state == Some("other_address_only")
        && let Some(address) = view::text(span, "ktrdr.listener.address")
    {
        hints.push(match place {
            Some(place) if address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) => {
                format!("have it listen on all addresses: {address} {place} is for those there alone")
            }
            _ => format!("call it at {address}, or have it listen on all addresses"),
        });
    }
    if let Some(port) = port {
        let whose = match place {
            Some(place) => format!(" ({place})"),
            None if here => String::new(),
            None => " (on that host)".to_owned(),
        };
        hints.push(format!("ss -ltnp 'sport = :{port}'   # who listens on port {port} now{whose}"));
    }
}

fn callee<'a>(tree: &Tree<'a>, finding: &Finding<'a>) -> Option<&'a str> {
    if let Some(span) = finding.beyond.last() {
        return Some(&span.resource.service);
    }
    // An operation is done by the worker that took it, not by who tells of it.
    let took = |i: &usize| {
        let span = tree.spans[*i];
        view::is_client(span)
            && view::text(span, "worker.selection_status") == Some("selected")
            && view::path(span).is_some_and(super::symptom::starts_work)
    };
    if view::is_operation(finding.span(tree))
        && let Some(dispatch) = (0..tree.len()).rev().find(took)
    {
        return super::place::callee(tree, dispatch);
    }
    super::place::callee(tree, finding.last())
}

/// `12:31:04 UTC`, to be found in a log.
fn time(span: &Span) -> String {
    let text = crate::export::time::rfc3339(span.start_wall_ns());
    format!("{} UTC", text.get(11..19).unwrap_or_default())
}

/// At most `max` characters.
pub fn shorten(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut out: String = text.chars().take(max.saturating_sub(1)).collect();
    out.push('…');
    out
}
