//! What the agent serves over HTTP: few connections, little time, GET only, and no state. Metrics are one site
//! ([`crate::export::prometheus`]), recent traces the other ([`traces`]).

mod page;
pub mod reply;
mod server;
#[cfg(test)]
mod tests;
pub mod traces;
mod who;

pub use reply::Reply;
pub use server::{Asked, Server, ServerOptions, Site, WebError};
pub use traces::Traces;
pub use who::Who;
