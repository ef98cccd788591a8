//! A snapshot as text: OpenMetrics 1.0, with exemplars, or Prometheus' format 0.0.4.

use std::fmt::Write as _;

use super::names::{family, is_counter, plain, unit};
use crate::metrics::{Exemplar, Histogram, Id, Kind, Label, Point, Snapshot, Value};
use crate::trace::model::Resource;

/// Which text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
    /// `text/plain; version=0.0.4`.
    Prometheus,
}

impl Format {
    /// What a client takes, from its `Accept`; those that ask for nothing in particular get the older one.
    pub fn negotiate(accept: &str) -> Self {
        let asked = accept.split(',').any(|part| {
            let mut words = part.split(';').map(str::trim);
            words.next() == Some("application/openmetrics-text") && !words.any(|w| w == "q=0" || w == "q=0.0")
        });
        if asked { Format::OpenMetrics } else { Format::Prometheus }
    }

    /// Its media type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// All of a snapshot.
pub fn render(snapshot: &Snapshot, format: Format) -> String {
    let mut text = Text { out: String::with_capacity(snapshot.points.len() * 128), format };
    let services: Vec<String> = snapshot.services.iter().map(|r| service_labels(r)).collect();
    text.target_info(snapshot, &services);
    let mut points: Vec<&Point> = snapshot.points.iter().collect();
    // A family's samples stand together, whatever service they are of.
    points.sort_by_key(|p| (p.id, p.service));
    for of_id in points.chunk_by(|a, b| a.id == b.id) {
        let Some(first) = of_id.first() else { continue };
        text.family(first.id);
        for p in of_id {
            let service = services.get(usize::from(p.service)).map_or("", String::as_str);
            text.point(p, service);
        }
    }
    if format == Format::OpenMetrics {
        text.out.push_str("# EOF\n");
    }
    text.out
}

/// The labels that name a service, with a container standing in for an instance.
fn service_labels(r: &Resource) -> String {
    let get = |key: &str| r.attributes.get(key).and_then(|v| v.as_str());
    let instance = get("service.instance.id").or_else(|| get("container.id"));
    let mut out = format!("service_name=\"{}\"", escape(&r.service));
    for (name, value) in [
        ("service_namespace", get("service.namespace")),
        ("service_instance_id", instance),
        ("host_name", get("host.name")),
    ] {
        if let Some(value) = value {
            let _ = write!(out, ",{name}=\"{}\"", escape(value));
        }
    }
    out
}

struct Text {
    out: String,
    format: Format,
}

/// Writing into a String cannot fail.
macro_rules! put {
    ($text:expr, $($arg:tt)*) => { let _ = write!($text.out, $($arg)*); };
}

impl Text {
    fn target_info(&mut self, snapshot: &Snapshot, services: &[String]) {
        let (name, kind) = match self.format {
            Format::OpenMetrics => ("target", "info"),
            Format::Prometheus => ("target_info", "gauge"),
        };
        put!(
            self,
            "# HELP {name} Attributes of the services (OpenTelemetry Resources).\n# TYPE {name} {kind}\n"
        );
        for (resource, labels) in snapshot.services.iter().zip(services) {
            put!(self, "target_info{{{labels}");
            let mut seen: Vec<String> = super::names::SERVICE_LABELS.map(str::to_owned).to_vec();
            for a in &resource.attributes {
                let (key, Some(value)) = (plain(&a.key), a.value.as_str()) else { continue };
                if !seen.contains(&key) {
                    put!(self, ",{key}=\"{}\"", escape(value));
                    seen.push(key);
                }
            }
            self.out.push_str("} 1\n");
        }
    }

    fn family(&mut self, id: Id) {
        let i = id.instrument();
        let open = self.format == Format::OpenMetrics;
        let name = if is_counter(id) && !open { format!("{}_total", family(id)) } else { family(id) };
        let kind = match i.kind {
            Kind::Counter | Kind::FloatCounter => "counter",
            Kind::UpDown | Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        put!(self, "# HELP {name} {}\n# TYPE {name} {kind}\n", i.description);
        if let Some(unit) = unit(id).filter(|_| open) {
            put!(self, "# UNIT {name} {unit}\n");
        }
    }

    fn point(&mut self, p: &Point, service: &str) {
        let mut labels = service.to_owned();
        for (key, value) in p.labels.iter() {
            let _ = match value.get() {
                Label::Str(s) => write!(labels, ",{}=\"{}\"", plain(key), escape(s)),
                Label::Int(n) => write!(labels, ",{}=\"{n}\"", plain(key)),
                Label::Bool(b) => write!(labels, ",{}=\"{b}\"", plain(key)),
            };
        }
        let name = family(p.id);
        let suffix = if is_counter(p.id) { "_total" } else { "" };
        match &p.value {
            Value::Int(n) => {
                put!(self, "{name}{suffix}{{{labels}}} {n}\n");
            }
            Value::Float(f) => {
                put!(self, "{name}{suffix}{{{labels}}} {}\n", number(*f));
            }
            Value::Histogram(h) => self.histogram(&name, &labels, p.id, h),
        }
    }

    fn histogram(&mut self, name: &str, labels: &str, id: Id, h: &Histogram) {
        let Kind::Histogram(bounds) = id.instrument().kind else { return };
        let mut sum = 0;
        for (at, n) in h.counts.iter().enumerate() {
            sum += n;
            let le = bounds.get(at).map_or_else(|| "+Inf".to_owned(), |b| self.bound(*b));
            put!(self, "{name}_bucket{{{labels},le=\"{le}\"}} {sum}");
            if let Some(Some(e)) = h.exemplars.get(at).filter(|_| self.format == Format::OpenMetrics) {
                self.exemplar(e);
            }
            self.out.push('\n');
        }
        put!(self, "{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {}\n", number(h.sum), h.count());
    }

    /// OpenMetrics wants a bound to look like a float.
    fn bound(&self, bound: f64) -> String {
        let text = bound.to_string();
        if self.format == Format::OpenMetrics && !text.contains('.') { text + ".0" } else { text }
    }

    fn exemplar(&mut self, e: &Exemplar) {
        let Exemplar { value, wall_ns, trace_id, span_id } = e;
        let (s, ms) = (wall_ns / 1_000_000_000, wall_ns / 1_000_000 % 1000);
        put!(self, " # {{trace_id=\"{trace_id}\",span_id=\"{span_id}\"}} {} {s}.{ms:03}", number(*value));
    }
}

fn number(f: f64) -> String {
    if f == f64::INFINITY { "+Inf".to_owned() } else { f.to_string() }
}

/// A label's value: `\`, `"` and line feeds are escaped.
fn escape(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(['\\', '"', '\n']) {
        return text.into();
    }
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fixture::{call, service};
    use crate::metrics::Metrics;

    /// Metrics of a call, a connect and a service with an awkward name.
    pub fn sample() -> Snapshot {
        let mut m = Metrics::default();
        m.registry.started(1_000_000_000);
        let (cli, api) = (service("ktrdr-cli"), service("ktrdr-api"));
        for mut span in call(0xab, 1, 0, &cli, &api, "GET /api/v1/symbols", (0, 20), 200) {
            span.attributes.set("http.request.method", "GET");
            m.span(&span);
        }
        m.connected(&service("a\"b\\c\n"), "127.0.0.1", 5001, None);
        m.gauge(&cli, Id::AgentConnections, &[], 2.5, 0);
        m.registry.snapshot(0, 5_000_000_000)
    }

    #[test]
    fn openmetrics_has_exemplars_and_an_end() {
        let text = render(&sample(), Format::OpenMetrics);
        let trace = "ab".repeat(16);
        for want in [
            "# TYPE target info\n".to_owned(),
            "# TYPE ktrdr_connects counter\n".to_owned(),
            "ktrdr_connects_total{service_name=\"a\\\"b\\\\c\\n\",server_address=\"127.0.0.1\",server_port=\"5001\"} 1\n"
                .to_owned(),
            "# UNIT http_server_request_duration_seconds seconds\n".to_owned(),
            format!("le=\"0.025\"}} 1 # {{trace_id=\"{trace}\",span_id=\"0202020202020202\"}} 0.018 1763036106.019\n"),
            "le=\"1.0\"} 1\n".to_owned(),
            "ktrdr_agent_connections{service_name=\"ktrdr-cli\"} 2.5\n".to_owned(),
        ] {
            assert!(text.contains(&want), "{want} is not in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn the_older_format_has_neither() {
        let text = render(&sample(), Format::Prometheus);
        assert!(text.contains("# TYPE ktrdr_connects_total counter\n"), "{text}");
        assert!(!text.contains("trace_id") && !text.contains("EOF") && !text.contains("# UNIT"), "{text}");
        assert!(text.contains("le=\"1\"} 1\n"), "{text}");
    }

    #[test]
    fn a_client_gets_what_it_asks_for() {
        // What Prometheus 2.42 and 3 send.
        let both = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                    text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(Format::negotiate(both), Format::OpenMetrics);
        for plain in ["", "*/*", "text/plain", "application/openmetrics-text;q=0"] {
            assert_eq!(Format::negotiate(plain), Format::Prometheus, "{plain}");
        }
    }
}
