//! What bodies say about operations, workers and success: a few known fields, wherever they stand.

use super::rules::Rules;
use crate::trace::body::{Scalar, scan};

/// A field of interest.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// JSON pointer.
    pub pointer: String,
    /// Value as text; truth values as `true` and `false`.
    pub text: String,
    /// Value as a number, if it is one.
    pub number: Option<f64>,
    /// It is an operation id.
    pub is_id: bool,
}

/// Last parts of the pointers that are kept.
const KEYS: &[&str] = &[
    "success",
    "status",
    "error",
    "error_message",
    "message",
    "detail",
    "code",
    "percentage",
    "progress_percentage",
    "current_step",
    "timeframe",
    "strategy",
    "strategy_name",
    "operation_type",
    "worker_id",
    "worker_type",
    "endpoint_url",
    "worker_status",
    "current_operation",
];
/// Fields kept per body.
const MAX_FIELDS: usize = 64;

/// The fields of interest of one body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<Field>);

impl Fields {
    /// Reads a body, of which only a prefix may be at hand.
    pub fn of(body: &[u8]) -> Self {
        Self::by(body, &Rules::default())
    }

    /// As [`of`](Self::of), with the user's rules.
    pub fn by(body: &[u8], rules: &Rules) -> Self {
        let mut fields = Vec::new();
        scan(body, &mut |pointer, value| {
            let known = KEYS.contains(&last_part(pointer)) || is_symbol(pointer);
            // By its place first: most fields are of no interest whatever they hold, and all bodies come here.
            if !known && !rules.may_concern(pointer) {
                return true;
            }
            let (text, number) = match value {
                Scalar::Text(t) => (t.to_owned(), None),
                Scalar::Number(n) => (n.to_string(), Some(n)),
                Scalar::Bool(b) => (b.to_string(), None),
                Scalar::Null => return true,
            };
            if known || rules.concern(pointer, &text) {
                let is_id = rules.in_field(pointer, &text);
                fields.push(Field { pointer: pointer.to_owned(), text, number, is_id });
            }
            fields.len() < MAX_FIELDS
        });
        Self(fields)
    }

    /// The text at a pointer.
    pub fn get(&self, pointer: &str) -> Option<&str> {
        self.0.iter().find(|f| f.pointer == pointer).map(|f| f.text.as_str())
    }

    /// The first field with this last part, below `prefix`.
    pub fn below(&self, prefix: &str, key: &str) -> Option<&Field> {
        self.0.iter().find(|f| {
            f.pointer
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with('/') && rest.rsplit('/').next() == Some(key))
        })
    }

    /// All operation ids, with the pointer of the object each stands in.
    pub fn ids(&self) -> impl Iterator<Item = (&str, &str)> {
        let object = |f: &'_ Field| f.pointer.rfind('/').unwrap_or_default();
        self.0.iter().filter(|f| f.is_id).map(move |f| (&f.pointer[..object(f)], f.text.as_str()))
    }

    /// All symbols: what stands at a key `symbol`, or in a list at `symbols`.
    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|f| is_symbol(&f.pointer) && f.number.is_none()).map(|f| f.text.as_str())
    }

    /// Whether there is nothing of interest.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a field holds a symbol.
fn is_symbol(pointer: &str) -> bool {
    match last_part(pointer) {
        "symbol" => true,
        index => {
            let list = &pointer[..pointer.len() - index.len()];
            index.bytes().all(|b| b.is_ascii_digit())
                && list.strip_suffix('/').is_some_and(|list| last_part(list) == "symbols")
        }
    }
}

/// What stands behind the last slash of a pointer.
pub(super) fn last_part(pointer: &str) -> &str {
    pointer.as_bytes().iter().rposition(|b| *b == b'/').map_or(pointer, |at| &pointer[at + 1..])
}

/// A failure that an HTTP status does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusinessError {
    /// What the service says.
    pub message: String,
    /// Its code, if it gives one.
    pub code: Option<String>,
}

/// A rule for failures inside successful replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRule {
    /// JSON pointer that decides.
    pub pointer: String,
    /// Its value that means failure; `None` = it is there at all.
    pub value: Option<String>,
    /// Pointers of the message; the first that is there is taken.
    pub messages: Vec<String>,
}

impl FailureRule {
    /// Whether it needs to know what stands at this pointer.
    pub fn asks(&self, pointer: &str) -> bool {
        self.pointer == pointer || self.messages.iter().any(|m| m == pointer)
    }

    /// KTRDR's rule (`success: false`) and JSON-RPC's (`error.message`, JSON-RPC 2.0 §5.1).
    pub fn builtin() -> Vec<Self> {
        let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        vec![
            Self {
                pointer: "/success".into(),
                value: Some("false".into()),
                messages: texts(&["/error", "/error/message", "/error_message", "/message", "/detail"]),
            },
            Self { pointer: "/error/message".into(), value: None, messages: texts(&["/error/message"]) },
        ]
    }
}

/// The failure that a reply speaks of, if it does.
pub fn failure(fields: &Fields, rules: &[FailureRule]) -> Option<BusinessError> {
    let rule = rules.iter().find(|r| match (&r.value, fields.get(&r.pointer)) {
        (Some(want), Some(got)) => want == got,
        (None, Some(_)) => true,
        (_, None) => false,
    })?;
    let message = rule.messages.iter().find_map(|p| fields.get(p)).unwrap_or("no message given").to_owned();
    Some(BusinessError { message, code: fields.get("/error/code").map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_inside_success_are_found() {
        let rules = FailureRule::builtin();
        let said = |body: &str| failure(&Fields::of(body.as_bytes()), &rules).map(|e| (e.message, e.code));
        assert_eq!(
            said(r#"{"success":false,"error":"IB Gateway not connected"}"#),
            Some(("IB Gateway not connected".into(), None))
        );
        assert_eq!(
            said(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}"#),
            Some(("Method not found".into(), Some("-32601".into())))
        );
        assert_eq!(said(r#"{"success":true,"error":null}"#), None);
        assert_eq!(said(r#"{"data":{"success":false}}"#), None);
        assert_eq!(said("success: false"), None);
    }

    #[test]
    fn ids_know_their_object() {
        let f = Fields::of(br#"{"data":[{"operation_id":"op_a_123456","status":"running"},{"operation_id":"op_b_123456","status":"failed"}]}"#);
        let ids: Vec<_> = f.ids().collect();
        assert_eq!(ids, [("/data/0", "op_a_123456"), ("/data/1", "op_b_123456")]);
        assert_eq!(f.below("/data/1", "status").unwrap().text, "failed");
    }
}
