//! One sentence about a scenario, made from its spans alone.

use super::API;
use super::scenario::Scenario;
use super::spans::Span;

pub struct Story {
    /// Of the API's request that it is about.
    pub trace_id: String,
    pub operation: Option<String>,
    pub sentence: String,
}

/// What happened in `scenario` according to `spans`; none while they do not yet show it. The jobs that keep workers
/// busy make the same request: `operation` is what the scenario's own command was told, if it was.
pub fn of(spans: &[Span], scenario: &Scenario, operation: Option<&str>) -> Option<Story> {
    let is_it = |span: &&Span| {
        let names_it = operation.is_none_or(|id| span.text("operation.id") == Some(id));
        span.is_server_of(API) && span.path() == scenario.request && names_it
    };
    let request = spans.iter().find(is_it)?;
    let below = descendants(spans, request);
    let expected = |call: &&&Span| {
        let port_fits =
            call.port().is_some_and(|port| scenario.to_ports.iter().any(|to| u64::from(*to) == port));
        call.is_client() && port_fits && call.is_error() == scenario.fails
    };
    below.iter().find(expected)?;
    let command = command(spans, request)?;
    let causes = causes(&below);
    let calls: Vec<&Span> = below.iter().copied().filter(|span| span.is_client()).collect();
    // What a call that failed on the way was, the list of calls shows.
    let outcome = if causes.is_empty() || !scenario.fails {
        format!("it called {}", told(&calls, &below))
    } else {
        let whys: Vec<String> = causes.iter().map(|cause| why(cause)).collect();
        format!("the cause: {}", whys.join("; "))
    };
    let gpu = scenario.gpu.then(|| meanwhile(&below));
    let gpu = match gpu {
        Some(said) => format!("; {}", said?),
        None => String::new(),
    };
    let sentence = format!(
        "`{}` {}: {}{}; {outcome}{gpu}",
        command.name,
        ended(command),
        asked(spans, request),
        answered(request)
    );
    let operation = request.text("operation.id").map(str::to_owned);
    Some(Story { trace_id: request.trace_id.clone(), operation, sentence })
}

/// What the longest operation says of its GPU; none while no operation says anything.
fn meanwhile(below: &[&Span]) -> Option<String> {
    let tells = |span: &&&Span| {
        let is_call = span.is_client() || span.is_server();
        !is_call && span.text("operation.id").is_some() && span.text("ktrdr.gpu.state").is_some()
    };
    let operation = below.iter().filter(tells).max_by(|a, b| a.duration_ms.total_cmp(&b.duration_ms))?;
    let (gpu, ms) = (operation.text("hw.name")?, operation.duration_ms);
    // A fast machine is done before a sample is due.
    let Some(busy) = operation.attributes.get("ktrdr.gpu.utilization.avg").and_then(|busy| busy.as_f64())
    else {
        return Some(format!("its {ms:.0} ms were too short for a sample of the {gpu}"));
    };
    let samples = operation.number("ktrdr.gpu.samples")?;
    Some(format!("during its {ms:.0} ms the {gpu} was busy to {:.0} % ({samples} samples)", busy * 100.0))
}

/// Every span below `top`, nearest first.
fn descendants<'a>(spans: &'a [Span], top: &'a Span) -> Vec<&'a Span> {
    let mut below: Vec<&Span> = vec![top];
    let mut next = 0;
    while let Some(parent) = below.get(next).copied() {
        let is_child = |span: &&Span| {
            span.trace_id == parent.trace_id
                && span.parent_span_id.as_deref() == Some(parent.span_id.as_str())
        };
        // A span is taken once, so that wrong input with a cycle ends.
        let fresh: Vec<&Span> = spans.iter().filter(is_child).filter(|span| !holds(&below, span)).collect();
        below.extend(fresh);
        next += 1;
    }
    below.remove(0);
    below
}

fn holds(spans: &[&Span], wanted: &Span) -> bool {
    spans.iter().any(|span| span.trace_id == wanted.trace_id && span.span_id == wanted.span_id)
}

/// The failed calls that no failed call below explains; where no call failed, whatever else did.
fn causes<'a>(below: &[&'a Span]) -> Vec<&'a Span> {
    let mut failed: Vec<&Span> = below.iter().copied().filter(|span| span.is_error()).collect();
    let is_call = |span: &&Span| span.is_client() || span.is_server();
    if failed.iter().any(is_call) {
        failed.retain(is_call);
    }
    let explains = |span: &Span| {
        failed.iter().any(|other| other.parent_span_id.as_deref() == Some(span.span_id.as_str()))
    };
    failed.iter().copied().filter(|span| !explains(span)).collect()
}

fn why(cause: &Span) -> String {
    let known = cause.status_message.as_deref().filter(|message| !message.is_empty());
    if let (None, Some(code)) = (known, cause.status_code()) {
        let callee = cause.text("peer.service").or(cause.text("server.address")).unwrap_or("the service");
        // Seen from the server's end, it is the span's own service.
        let whom = if cause.is_server() { &cause.service } else { callee };
        return format!("{whom} answered {code} to {}", cause.name);
    }
    known.or(cause.text("error.type")).unwrap_or("an error without a message").to_owned()
}

/// The command that the trace begins with: from its exec to its exit.
fn command<'a>(spans: &'a [Span], request: &Span) -> Option<&'a Span> {
    let is_root = |span: &&Span| {
        span.trace_id == request.trace_id
            && span.parent_span_id.is_none()
            && span.attributes.contains_key("process.exit.code")
    };
    let root = spans.iter().find(is_root)?;
    holds(&descendants(spans, root), request).then_some(root)
}

fn ended(command: &Span) -> String {
    let code = command.number("process.exit.code").unwrap_or_default();
    format!("ended with {code} after {:.0} ms", command.duration_ms)
}

fn asked(spans: &[Span], request: &Span) -> String {
    let caller = spans.iter().find(|span| request.parent_span_id.as_deref() == Some(span.span_id.as_str()));
    let caller = caller.map_or("a client", |span| span.service.as_str());
    format!("{caller} asked {} for {}, ", request.service, request.name)
}

fn answered(request: &Span) -> String {
    let status = request.status_code().map_or_else(|| "no status".to_owned(), |code| code.to_string());
    format!("which answered {status} after {:.0} ms", request.duration_ms)
}

/// Calls that are told of a run to one service; of the others, how many.
const TOLD: usize = 3;

/// The calls in order; those in a row to one service together, the last one always.
fn told(calls: &[&Span], below: &[&Span]) -> String {
    let to = |call: &Span| {
        let is_server = |span: &&&Span| span.parent_span_id.as_deref() == Some(call.span_id.as_str());
        let port = call.port().map(|port| format!(" on port {port}")).unwrap_or_default();
        let server = below.iter().find(is_server);
        server.map_or_else(|| format!("a service{port}"), |span| format!("{}{port}", span.service))
    };
    let mut runs: Vec<(String, Vec<String>)> = Vec::new();
    for call in calls {
        let (whom, how) = (to(call), how(call));
        match runs.last_mut().filter(|(last, _)| *last == whom) {
            Some((_, run)) => run.push(how),
            None => runs.push((whom, vec![how])),
        }
    }
    let told = runs.into_iter().map(|(whom, mut run)| {
        if run.len() > TOLD {
            let left = run.len() - TOLD;
            run.splice(TOLD - 1..run.len() - 1, [format!("{left} more")]);
        }
        format!("{whom} with {}", run.join(", "))
    });
    told.collect::<Vec<_>>().join(", then ")
}

/// A call with its outcome. The gateway's answers have no status.
fn how(call: &Span) -> String {
    let status = match (call.status_code(), call.attributes.contains_key("ktrdr.response.first_byte_ms")) {
        (Some(code), _) => code.to_string(),
        (None, true) => "answered".to_owned(),
        (None, false) => "no answer".to_owned(),
    };
    format!("{} ({status}, {:.0} ms)", call.name, call.duration_ms)
}

#[cfg(test)]
mod tests {
    use super::super::scenario;
    use super::*;

    fn spans(lines: &[serde_json::Value]) -> Vec<Span> {
        lines.iter().map(|line| serde_json::from_value(line.clone()).unwrap()).collect()
    }

    fn download(extra: &[serde_json::Value]) -> Vec<Span> {
        let mut lines = vec![
            serde_json::json!({"trace_id":"t","span_id":"0","name":"ktrdr data","kind":"internal","service":"ktrdr-cli",
                "duration_ms":612.3,"attributes":{"process.exit.code":1}}),
            serde_json::json!({"trace_id":"t","span_id":"1","parent_span_id":"0","name":"POST /d","kind":"CLIENT",
                "service":"ktrdr-cli"}),
            serde_json::json!({"trace_id":"t","span_id":"2","parent_span_id":"1","name":"POST /d","kind":"SERVER",
                "service":"ktrdr-api","duration_ms":40.4,
                "attributes":{"url.path":"/api/v1/data/acquire/download","http.response.status_code":200}}),
        ];
        lines.extend_from_slice(extra);
        spans(&lines)
    }

    fn refused(parent: Option<&str>) -> serde_json::Value {
        serde_json::json!({"trace_id":"t","span_id":"3","parent_span_id":parent,"name":"POST","kind":"CLIENT",
            "service":"ktrdr-api","status":"ERROR","status_message":"connection refused, nothing listens",
            "attributes":{"server.port":5001}})
    }

    #[test]
    fn a_refused_call_is_told_with_its_cause() {
        let sentence = of(&download(&[refused(Some("2"))]), &scenario::ALL[0], None).unwrap().sentence;
        let expected = "`ktrdr data` ended with 1 after 612 ms: ktrdr-cli asked ktrdr-api for POST /d, which answered 200 \
                        after 40 ms; the cause: connection refused, nothing listens";
        assert_eq!(sentence, expected);
    }

    #[test]
    fn a_training_is_told_with_its_gpu() {
        let training = Scenario { fails: true, to_ports: &[5001], gpu: true, ..scenario::ALL[3] };
        let training = Scenario { request: scenario::ALL[0].request, ..training };
        assert!(of(&download(&[refused(Some("2"))]), &training, None).is_none(), "no sample yet");
        let told = |attributes: &[(&str, serde_json::Value)], end: &str| {
            let mut operation = serde_json::json!({"trace_id":"t","span_id":"6","parent_span_id":"2",
                "name":"operation training","kind":"internal","service":"worker","duration_ms":812.4,
                "attributes":{"operation.id":"op_1","hw.name":"Synthetic GPU"}});
            for (name, value) in attributes {
                operation["attributes"][*name] = value.clone();
            }
            let sentence = of(&download(&[refused(Some("2")), operation]), &training, None).unwrap().sentence;
            assert!(sentence.ends_with(end), "{sentence}");
        };
        let sampled = [
            ("ktrdr.gpu.state", "sampled".into()),
            ("ktrdr.gpu.utilization.avg", 0.871.into()),
            ("ktrdr.gpu.samples", 4.into()),
        ];
        told(&sampled, "; during its 812 ms the Synthetic GPU was busy to 87 % (4 samples)");
        told(
            &[("ktrdr.gpu.state", "no_sample".into())],
            "; its 812 ms were too short for a sample of the Synthetic GPU",
        );
    }

    #[test]
    fn who_refused_is_named_from_either_end() {
        let answered = |kind: &str| {
            let line = serde_json::json!({"trace_id":"t","span_id":"5","name":"POST /training/start","kind":kind,
                "service":if kind == "SERVER" { "worker" } else { "api" },"status":"ERROR",
                "attributes":{"peer.service":if kind == "SERVER" { "caller" } else { "worker" },"server.address":"127.0.0.1","http.response.status_code":503}});
            why(&spans(&[line])[0])
        };
        assert_eq!(answered("SERVER"), "worker answered 503 to POST /training/start");
        assert_eq!(answered("CLIENT"), answered("SERVER"));
    }

    #[test]
    fn a_failed_operation_is_no_cause_beside_a_failed_call() {
        let operation = serde_json::json!({"trace_id":"t","span_id":"4","parent_span_id":"2","name":"operation",
            "kind":"internal","service":"ktrdr-api","status":"error","status_message":"the operation failed"});
        let sentence = of(&download(&[operation.clone(), refused(Some("2"))]), &scenario::ALL[0], None)
            .unwrap()
            .sentence;
        assert!(!sentence.contains("operation failed"), "{sentence}");
        assert_eq!(causes(&[&spans(&[operation])[0]]).len(), 1);
    }

    #[test]
    fn a_refused_call_that_is_no_child_does_not_count() {
        assert!(of(&download(&[refused(None)]), &scenario::ALL[0], None).is_none());
        assert!(of(&download(&[refused(Some("2"))]), &scenario::ALL[2], None).is_none());
    }

    #[test]
    fn a_trace_that_does_not_begin_with_its_command_does_not_count() {
        let mut spans = download(&[refused(Some("2"))]);
        assert!(of(&spans, &scenario::ALL[0], None).is_some());
        let command = spans.remove(0);
        assert!(of(&spans, &scenario::ALL[0], None).is_none());
        spans[0].parent_span_id = None;
        spans.push(command);
        assert!(of(&spans, &scenario::ALL[0], None).is_none(), "the request hangs elsewhere");
    }

    #[test]
    fn calls_that_worked_are_told_in_order() {
        let call = |id: &str, name: &str| {
            serde_json::json!({"trace_id":"t","span_id":id,"parent_span_id":"2","name":name,"kind":"CLIENT",
                "service":"ktrdr-api","duration_ms":3.2,
                "attributes":{"server.port":5001,"http.response.status_code":200}})
        };
        let served = serde_json::json!({"trace_id":"t","span_id":"9","parent_span_id":"3","name":"x","kind":"SERVER",
            "service":"ktrdr-ib-host-service"});
        let fine = Scenario { to_ports: &[5001], ..scenario::ALL[2] };
        let sentence = of(&download(&[call("3", "POST /a"), call("4", "POST /b"), served]), &fine, None)
            .unwrap()
            .sentence;
        let told = "ktrdr-ib-host-service on port 5001 with POST /a (200, 3 ms), then a service on port 5001 with POST /b";
        assert!(sentence.contains(told), "{sentence}");
    }

    #[test]
    fn many_calls_to_one_service_are_told_shortly() {
        let calls: Vec<serde_json::Value> = (0..9)
            .map(|n| {
                serde_json::json!({"trace_id":"t","span_id":format!("c{n}"),"name":format!("IB {n}"),"kind":"CLIENT",
                    "service":"h","attributes":{"server.port":4002,"ktrdr.response.first_byte_ms":0.1}})
            })
            .collect();
        let calls = spans(&calls);
        let calls: Vec<&Span> = calls.iter().collect();
        let expected = "a service on port 4002 with IB 0 (answered, 0 ms), IB 1 (answered, 0 ms), 6 more, IB 8 (answered, 0 ms)";
        assert_eq!(told(&calls, &[]), expected);
        assert!(!told(&calls[..3], &[]).contains("more"));
    }

    #[test]
    fn a_cycle_in_the_input_ends() {
        let spans = spans(&[
            serde_json::json!({"trace_id":"t","span_id":"1","parent_span_id":"2","name":"a","kind":"CLIENT","service":"s"}),
            serde_json::json!({"trace_id":"t","span_id":"2","parent_span_id":"1","name":"b","kind":"CLIENT","service":"s"}),
        ]);
        assert_eq!(descendants(&spans, &spans[0]).len(), 1);
    }
}
