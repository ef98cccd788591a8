//! Secrets in finished products, whoever built them: the gate that everything passes on its way out of the core.

use std::borrow::Cow;

use super::{Mask, REDACTED};
use crate::event::shell::ProcessMeta;
use crate::trace::logs::LogRecord;
use crate::trace::model::{Attribute, Attributes, Span, Status, Value};

impl Mask {
    /// Masks a span: name, attributes, events, links and status.
    pub fn span(&self, span: &mut Span) {
        self.string(&mut span.name);
        self.attributes(&mut span.attributes);
        for event in &mut span.events {
            self.attributes(&mut event.attributes);
        }
        for link in &mut span.links {
            self.attributes(&mut link.attributes);
        }
        if let Status::Error(text) = &mut span.status {
            self.string(text);
        }
    }

    /// Masks a log record: its text and its fields.
    pub fn log(&self, record: &mut LogRecord) {
        self.string(&mut record.body);
        self.attributes(&mut record.attributes);
    }

    /// Masks the facts about a process: its command line, and what its environment says of it.
    pub fn process(&self, p: &mut ProcessMeta) {
        p.command = self.args(&p.command);
        p.origin = self.args(&p.origin);
        self.string(&mut p.service);
        for (key, value) in &mut p.attributes {
            if let Cow::Owned(masked) = self.value(key, value) {
                *value = masked;
            } else if self.is_secret(key, value) {
                REDACTED.clone_into(value);
            }
        }
    }

    /// Masks values by their key and by what they hold.
    pub fn attributes(&self, attributes: &mut Attributes) {
        attributes.mask(|a| self.attribute(a));
    }

    /// What has to stand there instead of this value.
    fn attribute(&self, a: &Attribute) -> Option<Value> {
        match &a.value {
            Value::Static(_) | Value::Id(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) => None,
            _ if made_here(&a.key) => None,
            Value::Str(text) if !text_of_others(&a.key) && self.is_secret(&a.key, text) => {
                Some(REDACTED.into())
            }
            Value::Str(text) => match self.text(text) {
                Cow::Owned(masked) => Some(masked.into()),
                Cow::Borrowed(_) => None,
            },
            Value::List(items) if a.key == "process.command_args" => Some(self.args(items).into()),
            Value::List(items) => {
                let masked: Vec<Cow<'_, str>> = items.iter().map(|i| self.text(i)).collect();
                let any = masked.iter().any(|text| matches!(text, Cow::Owned(_)));
                any.then(|| masked.into_iter().map(Cow::into_owned).collect::<Vec<_>>().into())
            }
        }
    }
}

/// Keys whose values the agent makes of addresses, numbers and its own words: most attributes of most spans, which
/// would cost more to search than to build.
fn made_here(key: &str) -> bool {
    matches!(
        key,
        "http.request.method"
            | "server.address"
            | "client.address"
            | "network.peer.address"
            | "network.protocol.version"
            | "url.scheme"
            | "error.type"
            | "peer.service"
    )
}

/// Keys that are known to hold text, and name no secret: their names need no look.
fn text_of_others(key: &str) -> bool {
    matches!(
        key,
        "url.full" | "url.path" | "url.query" | "url.template" | "user_agent.original" | "operation.id"
    )
}
