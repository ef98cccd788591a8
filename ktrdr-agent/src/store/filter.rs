//! Which operations and errors a listing shows.

use serde::{Deserialize, Serialize};

use crate::explain::{Case, Report};
use crate::trace::model::Value;

/// What a row has to fit; nothing said = anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    /// Only what failed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub errors: bool,
    /// Type of operation.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// A service or worker that took part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Symbol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbol: Option<String>,
    /// Begun or still going on in the last so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_s: Option<u64>,
}

/// Attributes that name a service or a worker.
const SERVICES: [&str; 3] = ["peer.service", "worker.selected_id", "worker.id"];
/// Attributes that name a symbol.
const SYMBOLS: [&str; 2] = ["data.symbol", "ib.symbol"];

impl Filter {
    /// Whether everything fits.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the case fits, by its spans. `now`: nanoseconds since the Unix epoch.
    pub fn takes(&self, case: &Case, now: u64) -> bool {
        let text = |key: &str, want: &str, part: fn(&str, &str) -> bool| {
            case.spans
                .iter()
                .any(|s| s.attributes.get(key).and_then(Value::as_str).is_some_and(|v| part(v, want)))
        };
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let listed = |a: &str, b: &str| a.split(',').any(|a| a.trim().eq_ignore_ascii_case(b));
        let service = |want: &str| {
            case.spans.iter().any(|s| same(&s.resource.service, want))
                || SERVICES.iter().any(|key| text(key, want, |a, b| a.eq_ignore_ascii_case(b)))
        };
        let recent = |seconds: u64| {
            let from = now.saturating_sub(seconds.saturating_mul(1_000_000_000));
            case.spans.iter().any(|s| s.end_wall_ns() >= from)
        };
        self.service.as_deref().is_none_or(service)
            && self.symbol.as_deref().is_none_or(|want| SYMBOLS.iter().any(|key| text(key, want, listed)))
            && self.since_s.is_none_or(recent)
    }

    /// Whether the answer about it fits.
    pub fn shows(&self, report: &Report) -> bool {
        let kind = report.operation.as_ref().and_then(|o| o.kind.as_deref());
        (!self.errors || report.verdict.kind.is_failure())
            && self.kind.as_deref().is_none_or(|want| kind.is_some_and(|k| k.eq_ignore_ascii_case(want)))
    }
}
