//! What each kernel program costs per run, by the kernel's own statistics.
//!
//! With `kernel.bpf_stats_enabled` the kernel counts runs and time of every program; a file descriptor's
//! fdinfo tells them, so the agent's own descriptors name exactly its programs. The clock reads that the
//! statistics take are part of the figure, some tens of ns per run.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::Bench;
use super::wrk::Load;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

#[derive(Debug, Serialize, PartialEq)]
pub struct Program {
    /// The tracepoint it sits on, or its type and id.
    pub name: String,
    pub runs: u64,
    pub ns_per_run: f64,
    /// Runs per request of the load.
    pub runs_per_request: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    runs: u64,
    ns: u64,
}

/// Runs the load under an agent with these `options` and the statistics on; the costliest program first.
pub fn measure(bench: &Bench, load: &Load, options: &[&str]) -> Result<Vec<Program>> {
    let mut agent = bench.agent_with(options)?;
    let switched = Statistics::on()?;
    let before = read(agent.id())?;
    let requests = load.run()?.requests;
    let after = read(agent.id())?;
    agent.still_runs()?;
    drop(switched);
    let mut programs: Vec<(u64, Program)> = after
        .into_iter()
        .filter_map(|(id, (name, counts))| {
            let earlier = before.get(&id).map(|(_, counts)| *counts).unwrap_or_default();
            let (runs, ns) = (counts.runs - earlier.runs, counts.ns - earlier.ns);
            let per = |of: f64| runs as f64 / of;
            let ns_per_run = ns as f64 / runs as f64;
            (runs > 0)
                .then(|| (ns, Program { name, runs, ns_per_run, runs_per_request: per(requests as f64) }))
        })
        .collect();
    programs.sort_by_key(|(ns, _)| std::cmp::Reverse(*ns));
    Ok(programs.into_iter().map(|(_, program)| program).collect())
}

/// The kernel's statistics, switched on, and back as they were when dropped.
struct Statistics {
    before: String,
}

impl Statistics {
    fn on() -> Result<Self> {
        let before = std::fs::read_to_string(SWITCH).context("this kernel keeps no BPF statistics")?;
        std::fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(SWITCH, &self.before) {
            eprintln!("bench: {SWITCH} stays on: {error}");
        }
    }
}

/// Every program that `pid` holds, by id.
fn read(pid: u32) -> Result<BTreeMap<u64, (String, Counts)>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let entries = std::fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))?;
    // A descriptor may be closed between the listing and the reading.
    let texts: Vec<String> = entries.flatten().filter_map(|entry| text(&entry.path())).collect();
    Ok(from_fdinfo(&texts))
}

fn text(path: &Path) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// Links name the tracepoint of a program, programs have the counts; both carry the program's id.
fn from_fdinfo(texts: &[String]) -> BTreeMap<u64, (String, Counts)> {
    let points: BTreeMap<u64, &str> = texts
        .iter()
        .filter_map(|text| Some((field(text, "prog_id")?.parse().ok()?, field(text, "tp_name")?)))
        .collect();
    let mut programs = BTreeMap::new();
    for text in texts {
        let Some((id, kind, counts)) = program(text) else { continue };
        let name =
            points.get(&id).map_or_else(|| format!("type {kind}, id {id}"), |point| (*point).to_owned());
        programs.insert(id, (name, counts));
    }
    programs
}

fn program(text: &str) -> Option<(u64, &str, Counts)> {
    let counts =
        Counts { runs: field(text, "run_cnt")?.parse().ok()?, ns: field(text, "run_time_ns")?.parse().ok()? };
    Some((field(text, "prog_id")?.parse().ok()?, field(text, "prog_type")?, counts))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_get_the_names_of_their_links() {
        let texts = [
            "pos:\t0\nprog_type:\t17\nprog_id:\t7\nrun_time_ns:\t1200\nrun_cnt:\t4\n",
            "pos:\t0\nlink_type:\traw_tracepoint\nlink_id:\t3\nprog_id:\t7\ntp_name:\tsock_send_length\n",
            "pos:\t0\nprog_type:\t2\nprog_id:\t8\nrun_time_ns:\t0\nrun_cnt:\t0\n",
            "pos:\t0\nmap_type:\t27\n",
        ];
        let programs = from_fdinfo(&texts.map(str::to_owned));
        assert_eq!(programs[&7], ("sock_send_length".to_owned(), Counts { runs: 4, ns: 1200 }));
        assert_eq!(programs[&8].0, "type 2, id 8");
        assert_eq!(programs.len(), 2);
    }
}
