//! End to end on the running kernel: real clients and servers, the real agent, and what the clients themselves say.
//! Needs root; says so and passes where it is missing (on CI it fails), and fails for any other reason.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, also in its helpers")]

mod books;
mod budget;
mod causality;
mod command_line;
mod commands;
mod confined;
mod connects;
mod dashboards;
mod deaths;
mod gateway;
mod gpu;
mod hostile;
mod large;
mod libraries;
mod logs;
mod mcp;
mod messages;
mod metrics;
mod nat;
mod odd;
mod places;
mod privileges;
mod proxies;
mod recordings;
mod relays;
mod secrets;
mod secrets_logged;
mod self_telemetry;
mod ui;
