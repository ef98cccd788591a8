//! wrk: closed-loop load on one URL.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::cmd;

pub struct Load {
    pub url: String,
    pub connections: u32,
    pub seconds: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    pub requests: u64,
    pub requests_per_second: f64,
    pub p99_ms: f64,
}

impl Load {
    /// One thread of wrk drives the load; failed requests make the measurement worthless, so an error.
    pub fn run(&self) -> Result<Measured> {
        let mut wrk = Command::new("wrk");
        wrk.args(["--threads", "1", "--latency", "--connections", &self.connections.to_string()]);
        wrk.args(["--duration", &format!("{}s", self.seconds), &self.url]);
        let said = cmd::output(&mut wrk)?;
        if said.contains("Socket errors") || said.contains("Non-2xx") {
            bail!("wrk saw failures:\n{said}");
        }
        parse(&said).with_context(|| format!("wrk's output is not understood:\n{said}"))
    }
}

fn parse(said: &str) -> Option<Measured> {
    let after = |name: &str| said.lines().find_map(|line| line.trim().strip_prefix(name)).map(str::trim);
    let requests = said.lines().find(|line| line.contains(" requests in "))?;
    Some(Measured {
        requests: requests.split_whitespace().next()?.parse().ok()?,
        requests_per_second: after("Requests/sec:")?.parse().ok()?,
        p99_ms: milliseconds(after("99%")?)?,
    })
}

/// wrk prints a duration with the unit that suits it.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0), ("m", 60_000.0)];
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Printed by wrk 4.1.0.
    const SAID: &str = "Running 1s test @ http://127.0.0.1:18080/\n  1 threads and 32 connections\n  \
        Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   350.70us  171.45us   5.07ms   95.28%\n    \
        Req/Sec    88.27k     5.10k   93.29k    81.82%\n  Latency Distribution\n     50%  331.00us\n     75%  355.00us\n     \
        90%  397.00us\n     99%    0.88ms\n  96590 requests in 1.10s, 15.29MB read\nRequests/sec:  87815.94\n\
        Transfer/sec:     13.90MB\n";

    #[test]
    fn its_output_is_read() {
        let measured = parse(SAID).unwrap();
        assert_eq!(measured.requests, 96590);
        assert!((measured.requests_per_second - 87815.94).abs() < 0.001);
        assert!((measured.p99_ms - 0.88).abs() < 0.001);
    }

    #[test]
    fn units_are_told_apart() {
        assert_eq!(milliseconds("331.00us").map(|ms| (ms * 1000.0).round()), Some(331.0));
        assert_eq!(milliseconds("2.50s"), Some(2500.0));
        assert_eq!(milliseconds("2.50"), None);
    }
}
