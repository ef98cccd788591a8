//! OpenTelemetry's names as Prometheus': the rules of the OpenTelemetry specification, "Prometheus and OpenMetrics
//! compatibility", which Prometheus' own OTLP receiver follows too, so that one query serves both ways in.

use crate::metrics::{Id, Kind};

/// Name of the metric family, without the `_total` of a counter.
pub fn family(id: Id) -> String {
    let i = id.instrument();
    let mut name = plain(i.name);
    if let Some(unit) = unit(id)
        && !name.split('_').any(|word| word == unit)
    {
        name.push('_');
        name.push_str(unit);
    }
    name
}

/// The base unit, where there is one: `{things}` are not written.
pub fn unit(id: Id) -> Option<&'static str> {
    let i = id.instrument();
    match i.unit {
        "s" => Some("seconds"),
        "By" => Some("bytes"),
        "By/s" => Some("bytes_per_second"),
        "Hz" => Some("hertz"),
        "W" => Some("watts"),
        "Cel" => Some("celsius"),
        // Of gauges only: so the specification, and Prometheus.
        "1" if i.kind == Kind::Gauge => Some("ratio"),
        _ => None,
    }
}

/// Whether samples of the family end in `_total`.
pub fn is_counter(id: Id) -> bool {
    matches!(id.instrument().kind, Kind::Counter | Kind::FloatCounter)
}

/// A name with nothing but letters, digits and `_`.
pub fn plain(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// Every name that samples can have, for the checks of queries.
pub fn samples(id: Id) -> Vec<String> {
    let name = family(id);
    match id.instrument().kind {
        Kind::Counter | Kind::FloatCounter => vec![format!("{name}_total")],
        Kind::UpDown | Kind::Gauge => vec![name],
        Kind::Histogram(_) => ["bucket", "sum", "count"].map(|s| format!("{name}_{s}")).to_vec(),
    }
}

/// Labels that every series has besides those of its instrument, if its service has such an attribute. A Prometheus that
/// takes OTLP is told to make the same of the Resources (`promote_resource_attributes`), so that queries serve both.
pub const SERVICE_LABELS: [&str; 4] =
    ["service_name", "service_namespace", "service_instance_id", "host_name"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_people_know() {
        for (id, want) in [
            (Id::Operations, "ktrdr_operations_total"),
            (Id::OperationDuration, "ktrdr_operation_duration_seconds_bucket"),
            (Id::OperationsActive, "ktrdr_operations_active"),
            (Id::WorkersRegistered, "ktrdr_workers_registered_total"),
            (Id::HttpServerDuration, "http_server_request_duration_seconds_bucket"),
            (Id::HttpServerRequestBody, "http_server_request_body_size_bytes_bucket"),
            (Id::HttpServerActive, "http_server_active_requests"),
            (Id::GraphRequests, "traces_service_graph_request_total"),
            (Id::GraphFailed, "traces_service_graph_request_failed_total"),
            (Id::GraphClientSeconds, "traces_service_graph_request_client_seconds_bucket"),
            (Id::GpuPower, "hw_power_watts"),
            (Id::GpuTemperature, "hw_temperature_celsius"),
            (Id::GpuUtilization, "hw_gpu_utilization_ratio"),
            (Id::GpuStatus, "hw_status"),
            (Id::GpuClock, "ktrdr_gpu_clock_frequency_hertz"),
            (Id::GpuPcie, "ktrdr_gpu_pcie_throughput_bytes_per_second"),
            (Id::GpuCallUtilization, "ktrdr_gpu_call_utilization_bucket"),
            (Id::AgentBytes, "ktrdr_agent_stream_io_bytes_total"),
            (Id::ProcessCpu, "process_cpu_time_seconds_total"),
        ] {
            assert_eq!(samples(id)[0], want);
        }
    }
}
