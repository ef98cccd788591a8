//! Attributes of JSON-RPC calls: those of the Model Context Protocol
//! (<https://github.com/open-telemetry/semantic-conventions-genai/blob/main/docs/gen-ai/mcp.md>, status Development, read
//! in November 2026), for anything else those of JSON-RPC (semantic conventions 1.41, `rpc.*`, release candidate).

use super::arguments;
use super::json::{Raw, truncate};
use super::message::{Id, Message};
use crate::mask::Mask;
use crate::protocol::{TraceContext, parse_traceparent};
use crate::trace::model::{Attributes, Status};

/// Longest name of a tool or prompt, and longest URI, that is told.
const MAX_NAME: usize = 256;
/// Longest name that may be part of a span's name, which is to have few values.
const MAX_IN_NAME: usize = 64;
/// Text kept of an error's message.
const MAX_MESSAGE: usize = 1024;

/// Requests of the Model Context Protocol, in both directions; notifications begin with `notifications/`
/// (<https://modelcontextprotocol.io/specification/2025-11-25/schema>). Other protocols have `initialize` (LSP) and `ping`.
const MCP: &[&str] = &[
    "tools/call",
    "tools/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    "logging/setLevel",
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/cancel",
    "server/discover",
];

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asked {
    /// Name of the span, if the method makes one.
    pub name: Option<String>,
    /// Attributes.
    pub attributes: Attributes,
    /// It is of the Model Context Protocol.
    pub mcp: bool,
    /// A trace context in `params._meta` (MCP's SEP-414).
    pub context: Option<TraceContext>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answered {
    /// Attributes.
    pub attributes: Attributes,
    /// Status of the span; unset unless it failed.
    pub status: Status,
}

/// Whether a method is of the Model Context Protocol.
pub fn is_mcp(m: &Message<'_>) -> bool {
    let Some(method) = m.method.as_deref() else { return false };
    let param = |name: &str| m.params.and_then(|p| p.member(name));
    MCP.contains(&method)
        || method.strip_prefix("notifications/").is_some_and(|rest| !rest.is_empty())
        || (method == "initialize" && param("protocolVersion").is_some())
}

/// Describes a request or notification; `mcp`: it is known from elsewhere that the Model Context Protocol is spoken.
pub fn asked(m: &Message<'_>, mcp: bool, mask: &Mask) -> Asked {
    let Some(method) = m.method.clone() else { return Asked::default() };
    let mcp = mcp || is_mcp(m);
    let mut a = Attributes::with_capacity(8);
    let param = |name: &str| m.params.and_then(|p| p.member(name))?.text(MAX_NAME);
    let mut target = None;
    if mcp {
        a.push("mcp.method.name", method.clone());
        match method.as_str() {
            "tools/call" => {
                a.push("gen_ai.operation.name", "execute_tool");
                target = param("name");
                if let Some(name) = &target {
                    a.push("gen_ai.tool.name", name.clone());
                }
                let arguments = m.params.and_then(|p| p.member("arguments"));
                if let Some(text) = arguments.and_then(|raw| arguments::shown(raw, mask)) {
                    a.push("gen_ai.tool.call.arguments", text);
                }
            }
            "prompts/get" => {
                target = param("name");
                if let Some(name) = &target {
                    a.push("gen_ai.prompt.name", name.clone());
                }
            }
            "initialize" => {
                if let Some(version) = param("protocolVersion") {
                    a.push("mcp.protocol.version", version);
                }
            }
            _ => {
                if let Some(uri) = param("uri") {
                    a.push("mcp.resource.uri", uri);
                }
            }
        }
    } else {
        a.push("rpc.system.name", "jsonrpc");
        a.push("rpc.method", method.clone());
    }
    if let Some(id) = m.id.and_then(Id::text) {
        a.push("jsonrpc.request.id", id);
    }
    let name = plain(&method).then(|| match target.filter(|t| plain(t)) {
        Some(target) => [&method, " ", &target].concat(),
        None => method,
    });
    let context = m.params.and_then(|p| p.at(&["_meta", "traceparent"])).and_then(|c| c.text(64));
    let context = context.and_then(|c| parse_traceparent(c.as_bytes()));
    Asked { name, attributes: a, mcp, context }
}

/// Whether a word may be part of a span's name: what a program calls its methods, not what somebody wrote into one.
fn plain(word: &str) -> bool {
    let fits = (1..=MAX_IN_NAME).contains(&word.len());
    fits && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./:$".contains(&b))
}

/// Describes the answer to a request of this method.
pub fn answered(m: &Message<'_>, mask: &Mask) -> Answered {
    let mut a = Attributes::with_capacity(4);
    if let Some(error) = m.error {
        let code = error.member("code").and_then(Raw::int).map(|c| c.to_string());
        if let Some(code) = &code {
            a.push("rpc.response.status_code", code.clone());
        }
        a.push("error.type", code.unwrap_or_else(|| "_OTHER".into()));
        let message = error.member("message").and_then(|t| t.text(MAX_MESSAGE));
        return Answered { attributes: a, status: failed(message, mask) };
    }
    let Some(result) = m.result else { return Answered::default() };
    if result.whole {
        a.push("ktrdr.jsonrpc.result.size", result.bytes.len() as u64);
    }
    // Where a server and its client agree on another version than was asked for.
    if let Some(version) = result.member("protocolVersion").and_then(|v| v.text(MAX_NAME)) {
        a.push("mcp.protocol.version", version);
    }
    if !result.member("isError").is_some_and(|e| e.is("true")) {
        return Answered { attributes: a, status: Status::Unset };
    }
    a.push("error.type", "tool_error");
    let content = result.member("content");
    let texts = content.iter().flat_map(|c| c.items().filter_map(|item| item.member("text")));
    let message = texts.filter_map(|t| t.text(MAX_MESSAGE)).next();
    Answered { attributes: a, status: failed(message, mask) }
}

fn failed(message: Option<String>, mask: &Mask) -> Status {
    let mut message = message.unwrap_or_default();
    mask.string(&mut message);
    truncate(&mut message, MAX_MESSAGE);
    Status::Error(message)
}

#[cfg(test)]
mod tests {
    use super::super::message::Body;
    use super::*;

    fn told(a: &Attributes) -> Vec<(String, String)> {
        a.iter()
            .map(|a| {
                let text = a.value.as_str().map_or_else(|| format!("{:?}", a.value), str::to_owned);
                (a.key.to_string(), text)
            })
            .collect()
    }

    fn ask(text: &str) -> Asked {
        asked(&Body::json(text.as_bytes()).messages[0], false, &Mask::default())
    }

    fn answer(text: &str) -> Answered {
        answered(&Body::json(text.as_bytes()).messages[0], &Mask::default())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_tool_call_as_the_python_client_writes_it() {
        let asked = ask(
            r#"{"method":"tools/call","params":{"name":"fetch","arguments":{"path":"/a","api_key":"hunter2"},"_meta":{"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}},"jsonrpc":"2.0","id":2}"#,
        );
        assert_eq!(asked.name.as_deref(), Some("tools/call fetch"));
        assert_eq!(asked.context.map(|c| c.span_id.to_string()).as_deref(), Some("00f067aa0ba902b7"));
        let want = [
            ("mcp.method.name", "tools/call"),
            ("gen_ai.operation.name", "execute_tool"),
            ("gen_ai.tool.name", "fetch"),
            ("gen_ai.tool.call.arguments", r#"{"path":"/a","api_key":"REDACTED"}"#),
            ("jsonrpc.request.id", "2"),
        ];
        assert_eq!(told(&asked.attributes), pairs(&want));
    }

    #[test]
    fn other_methods_of_mcp_and_of_others() {
        let asked =
            ask(r#"{"jsonrpc":"2.0","id":"a","method":"resources/read","params":{"uri":"data://x"}}"#);
        assert_eq!(asked.name.as_deref(), Some("resources/read"));
        assert_eq!(asked.attributes.get("mcp.resource.uri").and_then(|v| v.as_str()), Some("data://x"));
        let asked = ask(r#"{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"p q"}}"#);
        assert_eq!(asked.name.as_deref(), Some("prompts/get"), "no name for a span's name");
        let lsp = ask(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"processId":1}}"#);
        assert!(!lsp.mcp);
        let asked = ask(r#"{"jsonrpc":"2.0","id":1,"method":"eth_call","params":[]}"#);
        let want = [("rpc.system.name", "jsonrpc"), ("rpc.method", "eth_call"), ("jsonrpc.request.id", "1")];
        assert_eq!(told(&asked.attributes), pairs(&want));
        assert_eq!(ask(r#"{"jsonrpc":"2.0","method":"a\nb"}"#).name, None);
    }

    #[test]
    fn failures_are_told() {
        let told_of = |text: &str| {
            let a = answer(text);
            (a.status, a.attributes.get("error.type").and_then(|v| v.as_str()).map(str::to_owned))
        };
        let error = |text: &str| Status::Error(text.to_owned());
        assert_eq!(
            told_of(r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"Unknown tool"}}"#),
            (error("Unknown tool"), Some("-32602".into()))
        );
        assert_eq!(told_of(r#"{"jsonrpc":"2.0","id":1,"error":"what"}"#), (error(""), Some("_OTHER".into())));
        assert_eq!(
            told_of(
                r#"{"jsonrpc":"2.0","id":4,"result":{"content":[{"type":"image"},{"type":"text","text":"password=hunter2 is wrong"}],"isError":true}}"#
            ),
            (error("password=REDACTED is wrong"), Some("tool_error".into()))
        );
        let fine = answer(r#"{"jsonrpc":"2.0","id":4,"result":{"content":[],"isError":false}}"#);
        assert_eq!((fine.status, told(&fine.attributes).len()), (Status::Unset, 1));
        // Whether a result that is cut off is an error is not known.
        assert_eq!(answer(r#"{"jsonrpc":"2.0","id":4,"result":{"content":[{"#), Answered::default());
    }
}
