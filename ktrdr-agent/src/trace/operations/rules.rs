//! What tells operations and failures: built in for KTRDR, and what the user adds.

use super::body::{FailureRule, last_part};
use super::ids;
use crate::event::Ns;
use crate::protocol::Side;
use crate::trace::model::{Attribute, Attributes, Value};

/// The rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// Names of headers that carry an operation id, in lower case.
    pub headers: Vec<String>,
    /// JSON keys whose value is an operation id whatever it looks like, besides those built in.
    pub keys: Vec<String>,
    /// What ids begin with, besides those built in.
    pub prefixes: Vec<String>,
    /// Failures inside successful replies.
    pub failures: Vec<FailureRule>,
    /// An operation whose progress has not moved for so long is stuck.
    pub stuck_after: Ns,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            headers: ["x-operation-id", "x-request-id", "baggage"].map(str::to_owned).to_vec(),
            keys: Vec::new(),
            prefixes: Vec::new(),
            failures: FailureRule::builtin(),
            // KTRDR's slowest step without any progress is an epoch of a large model, a minute or so.
            stuck_after: 120_000_000_000,
        }
    }
}

impl Rules {
    /// Whether a text looks like an operation id.
    pub fn looks_like(&self, text: &str) -> bool {
        ids::looks_like(text)
            || self.prefixes.iter().any(|p| text.strip_prefix(p.as_str()).is_some_and(ids::is_tail))
    }

    /// Whether a JSON field holds an operation id.
    pub fn in_field(&self, pointer: &str, value: &str) -> bool {
        let key = last_part(pointer);
        let named = ids::is_key(key) || self.keys.iter().any(|k| k == key);
        (named && ids::plausible(value)) || (ids::may_be_key(key) && self.looks_like(value))
    }

    /// Whether a JSON field can say something that these rules ask for, as far as its place tells.
    pub fn may_concern(&self, pointer: &str) -> bool {
        let key = last_part(pointer);
        ids::is_key(key)
            || ids::may_be_key(key)
            || self.keys.iter().any(|k| k == key)
            || self.failures.iter().any(|f| f.asks(pointer))
    }

    /// Whether a JSON field says something that these rules ask for.
    pub fn concern(&self, pointer: &str, value: &str) -> bool {
        self.in_field(pointer, value) || self.failures.iter().any(|f| f.asks(pointer))
    }

    /// The id in a URL path or query, if there is one.
    pub fn in_path<'a>(&self, path: &'a str) -> Option<&'a str> {
        segments(path).find(|s| self.looks_like(s))
    }

    /// The id in the URL of a call.
    pub fn in_url<'a>(&self, a: &'a Attributes) -> Option<&'a str> {
        ["url.path", "url.full"].iter().find_map(|k| self.in_path(a.get(k)?.as_str()?))
    }

    /// The id in a header of the request or the response, if there is one.
    pub fn in_headers<'a>(&self, a: &'a Attributes) -> Option<&'a str> {
        // Most calls carry none of these headers, and every call comes here.
        if !a.iter().any(is_header) {
            return None;
        }
        self.headers.iter().find_map(|name| {
            let value = |side: Side| {
                let of = |key: &str| in_header(key).is_some_and(|(s, n)| s == side && n == name);
                match &a.iter().find(|a| of(&a.key))?.value {
                    Value::List(values) => values.first().map(String::as_str),
                    _ => None,
                }
            };
            let value = value(Side::Request).or_else(|| value(Side::Response))?;
            match name.as_str() {
                "baggage" => member(value, "operation.id").filter(|id| ids::plausible(id)),
                // Every gateway and framework writes one of its own.
                "x-request-id" => Some(value).filter(|id| self.looks_like(id)),
                _ => Some(value).filter(|id| ids::plausible(id)),
            }
        })
    }
}

/// Whether an attribute is a header.
pub(super) fn is_header(a: &Attribute) -> bool {
    in_header(&a.key).is_some()
}

/// Side and name of the header that an attribute holds.
fn in_header(key: &str) -> Option<(Side, &str)> {
    // By length first: most keys are shorter than what these begin with.
    let rest = if key.len() > 20 { key.strip_prefix("http.re")? } else { return None };
    let request = rest.strip_prefix("quest.header.").map(|name| (Side::Request, name));
    request.or_else(|| rest.strip_prefix("sponse.header.").map(|name| (Side::Response, name)))
}

/// The parts of a URL's path and query in which an id can stand.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let text = rest?;
        // All separators are ASCII, so they split no character. Searched by bytes, because every call comes here.
        let end = text.as_bytes().iter().position(|b| matches!(b, b'/' | b'?' | b'&' | b'=' | b'#'));
        rest = end.and_then(|end| text.get(end + 1..));
        text.get(..end.unwrap_or(text.len()))
    })
}

/// A member of W3C baggage: `operation.id=op_x;property, other=…`.
fn member<'a>(baggage: &'a str, key: &str) -> Option<&'a str> {
    baggage.split(',').find_map(|m| {
        let (name, value) = m.split(';').next()?.split_once('=')?;
        (name.trim() == key).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_operations() {
        let said = |pairs: &[(&str, &str)]| {
            let mut a = Attributes::new();
            for (name, value) in pairs {
                a.set(format!("http.request.header.{name}"), vec![(*value).to_owned()]);
            }
            Rules::default().in_headers(&a).map(str::to_owned)
        };
        assert_eq!(said(&[("x-operation-id", "job 7")]), None);
        assert_eq!(said(&[("x-operation-id", "job-7")]).as_deref(), Some("job-7"));
        assert_eq!(said(&[("x-request-id", "4bf92f3577b34da6a3ce929d0e0e4736")]), None);
        assert_eq!(
            said(&[("x-request-id", "op_training_20251113_101112_1a2b3c4d")]).as_deref(),
            Some("op_training_20251113_101112_1a2b3c4d")
        );
        assert_eq!(
            said(&[("baggage", "a=b, operation.id = op-xyz-789;p=1 ,c=d")]).as_deref(),
            Some("op-xyz-789")
        );
        assert_eq!(said(&[("x-operation-id", &"x".repeat(10_000))]), None);
    }

    #[test]
    fn keys_and_prefixes_can_be_added() {
        let rules = Rules { keys: vec!["job".into()], prefixes: vec!["run-".into()], ..Rules::default() };
        assert!(
            rules.in_field("/data/job", "anything") && !Rules::default().in_field("/data/job", "anything")
        );
        assert!(rules.in_field("/task_id", "run-123456") && !rules.in_field("/task_id", "running-late"));
        assert_eq!(rules.in_path("/api/v1/runs/run-123456/log?x=y"), Some("run-123456"));
        assert_eq!(rules.in_path("/api/v1/run-x"), None);
    }
}
