//! HTTP/1.x (RFC 9112), with the attributes of the OpenTelemetry HTTP semantic conventions.

#[cfg(test)]
mod attribute_tests;
mod attributes;
mod body;
mod forwarded;
mod gist;
mod head;
mod memo;
mod odd;
mod old_names;
mod outstanding;
mod parser;
pub mod route;
mod sniff;
mod target;
#[cfg(test)]
mod tests;

pub use memo::Memo;

use super::{ConnContext, Parser, Protocol, Sniff};

/// HTTP/1.x.
pub struct Http1;

impl Protocol for Http1 {
    fn name(&self) -> &'static str {
        "http"
    }
    fn sniff(&self, bytes: &[u8]) -> Sniff {
        sniff::sniff(bytes)
    }
    fn opens(&self, bytes: &[u8]) -> Sniff {
        sniff::opens(bytes)
    }
    fn parser(&self, context: &ConnContext) -> Box<dyn Parser> {
        Box::new(parser::Http1Parser::new(context))
    }
}
