//! JSON-RPC 2.0, and the Model Context Protocol (MCP) that is made of it: what messages say, in HTTP bodies and streams
//! of server-sent events.

pub mod arguments;
pub mod describe;
pub mod http;
pub mod json;
pub mod message;
