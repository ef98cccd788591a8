//! Scenarios: small worlds of processes, threads and contexts, whose true origins are known.

mod partial;
mod scenario;
mod servers;
mod simulation;
