//! What a receiver answers. The three signals' responses share one layout: `partial_success` with a count and a text.

use prost::Message as _;
use serde::Deserialize;

/// An accepted request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// Items of it that were refused all the same.
    pub rejected: u64,
    /// The receiver's reason, or a warning where nothing was rejected; may be empty.
    pub message: String,
}

/// `Export{Trace,Metrics,Logs}ServiceResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `Export{Trace,Metrics,Logs}PartialSuccess`.
#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

impl From<Response> for Accepted {
    fn from(response: Response) -> Self {
        let partial = response.partial_success.unwrap_or_default();
        Accepted { rejected: u64::try_from(partial.rejected).unwrap_or(0), message: partial.error_message }
    }
}

/// Reads the body of an HTTP 200. One that cannot be read does not undo the receiver's "accepted".
pub fn accepted(content_type: &str, body: &[u8]) -> Accepted {
    if is_json(content_type) {
        return json(body).unwrap_or_default();
    }
    Response::decode(body).map(Accepted::from).unwrap_or_default()
}

/// The text of an HTTP error: the message of a `google.rpc.Status`, or the first line of whatever came.
pub fn error_text(content_type: &str, body: &[u8]) -> String {
    #[derive(Clone, PartialEq, prost::Message)]
    struct RpcStatus {
        #[prost(string, tag = "2")]
        message: String,
    }
    #[derive(Deserialize)]
    struct JsonStatus {
        message: String,
    }
    let message = if content_type.starts_with("application/x-protobuf") {
        RpcStatus::decode(body).ok().map(|s| s.message)
    } else if is_json(content_type) {
        serde_json::from_slice::<JsonStatus>(body).ok().map(|s| s.message)
    } else {
        None
    };
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    // One line of a log, whatever error page a proxy sent.
    let line = text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn is_json(content_type: &str) -> bool {
    content_type.starts_with("application/json")
}

fn json(body: &[u8]) -> Option<Accepted> {
    let response: serde_json::Value = serde_json::from_slice(body).ok()?;
    let partial = response.get("partialSuccess")?;
    let rejected = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"]
        .iter()
        .find_map(|key| partial.get(key))
        // 64-bit integers are strings in protobuf's JSON; many servers send numbers.
        .and_then(|n| n.as_u64().or_else(|| n.as_str()?.parse().ok()))
        .unwrap_or(0);
    let message = partial.get("errorMessage").and_then(|m| m.as_str()).unwrap_or("").to_owned();
    Some(Accepted { rejected, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1 as proto;

    #[test]
    fn partial_success_is_read_from_both_encodings() {
        let want = Accepted { rejected: 3, message: "too old".into() };
        let full = proto::ExportTraceServiceResponse {
            partial_success: Some(proto::ExportTracePartialSuccess {
                rejected_spans: 3,
                error_message: "too old".into(),
            }),
        };
        assert_eq!(accepted("application/x-protobuf", &full.encode_to_vec()), want);
        for body in [
            r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"too old"}}"#,
            r#"{"partialSuccess":{"rejectedLogRecords":3,"errorMessage":"too old"}}"#,
        ] {
            assert_eq!(accepted("application/json; charset=utf-8", body.as_bytes()), want);
        }
        for (kind, body) in [("application/json", "{}"), ("application/json", "<"), ("", "\u{7f}"), ("", "")]
        {
            assert_eq!(accepted(kind, body.as_bytes()), Accepted::default());
        }
    }

    #[test]
    fn an_error_page_becomes_one_short_line() {
        assert_eq!(error_text("application/x-protobuf", b"\x12\x03bad"), "bad");
        assert_eq!(
            error_text("application/json", br#"{"code":3,"message":"no such tenant"}"#),
            "no such tenant"
        );
        assert_eq!(error_text("text/html", b"\n\n  <h1>502</h1>\r\nmore"), "<h1>502</h1>");
        assert_eq!(error_text("text/plain", "x".repeat(9999).as_bytes()).len(), 200);
        assert_eq!(error_text("application/x-protobuf", b"\x1b[31mred"), "[31mred");
    }
}
