//! HTTP/1.x (RFC 9112).
use super::{ConnContext, Parser, Protocol, Sniff};
/// HTTP/1.x.
pub struct Http1;
impl Protocol for Http1 {
    fn name(&self) -> &'static str {
        "http"
    }
    fn sniff(&self, _bytes: &[u8]) -> Sniff {
        Sniff::No
    }
    fn parser(&self, _context: &ConnContext) -> Box<dyn Parser> {
        unimplemented!()
    }
}
