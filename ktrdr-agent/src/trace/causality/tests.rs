//! Scenarios: small worlds of processes, threads and contexts, whose true origins are known.

mod greenlets;
mod older;
mod partial;
mod pool;
mod scenario;
mod servers;
mod serving;
mod simulation;
mod standing;
