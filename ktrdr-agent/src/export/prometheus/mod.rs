//! The endpoint that Prometheus scrapes, with `/healthz` and `/readyz`.

pub mod names;
mod server;
pub mod text;

pub use server::{Endpoint, EndpointOptions};
