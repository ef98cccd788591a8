//! One table for people, one JSON file for machines.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::compare::{BUDGET, Comparison};
use super::median::{median, range};
use super::programs::Program;
use super::replay::Replayed;

#[derive(Default)]
pub struct Report {
    rows: Vec<[String; 3]>,
    json: Map<String, Value>,
}

const MIB: f64 = 1024.0 * 1024.0;

impl Report {
    pub fn comparison(&mut self, compared: &Comparison) {
        let name = &compared.name;
        let budget = if name.starts_with("nginx") { "< 15 %" } else { "< 2 %" };
        let losses = compared.losses(|measured| measured.requests_per_second);
        let latency = -median(compared.losses(|measured| measured.p99_ms));
        let losses_within = compared.losses_within_budget();
        self.row(format!("{name}, all observed: throughput lost"), with_range(&losses), "");
        self.row(
            format!("{name}, within a budget of {BUDGET}: throughput lost"),
            with_range(&losses_within),
            budget,
        );
        let processors = compared.processors_within_budget();
        self.row(format!("{name}, …: processors that the agent uses"), format!("{processors:.2}"), "");
        let part = compared.part_within_budget();
        self.row(format!("{name}, …: connections that it observes"), percent(part), "");
        self.row(format!("{name}: p99 latency added"), percent(latency), "");
        self.row(
            format!("{name}: agent CPU per 10k requests"),
            format!("{:.3} s", compared.cpu_per_10k()),
            "",
        );
        let resident = compared.most_resident() as f64 / MIB;
        self.row(format!("{name}: agent resident memory"), format!("{resident:.0} MiB"), "< 60 MB");
        self.row(format!("{name}: attached in"), format!("{:.0} ms", compared.slowest_attach_ms()), "< 1 s");
        self.json.insert(
            name.clone(),
            json!({
                "throughput_loss": median(losses.clone()),
                "throughput_loss_range": range(losses),
                "throughput_loss_within_budget": median(losses_within.clone()),
                "throughput_loss_within_budget_range": range(losses_within),
                "agent_processors_within_budget": processors,
                "observed_within_budget": part,
                "p99_added": latency,
                "agent_cpu_seconds_per_10k_requests": compared.cpu_per_10k(),
                "agent_resident_bytes": compared.most_resident(),
                "attached_in_ms": compared.slowest_attach_ms(),
                "rounds": compared.rounds,
            }),
        );
    }

    /// Programs that run at least once in a hundred requests; what starts and ends processes is in the file only.
    pub fn programs(&mut self, case: &str, budget: &str, programs: &[Program]) {
        for program in programs.iter().filter(|program| program.runs_per_request >= 0.01) {
            let name = format!("{}, {case} ({:.2} runs/request)", program.name, program.runs_per_request);
            self.row(name, format!("{:.0} ns/run", program.ns_per_run), budget);
        }
        self.json.insert(format!("programs, {case}"), json!(programs));
    }

    pub fn replay(&mut self, replayed: &Replayed) {
        let rate = format!("{:.0} requests/s", replayed.requests_per_second);
        self.row("replay, decode to span".to_owned(), rate, "> 150,000/s");
        let rate = format!("{:.0} spans/s", replayed.otlp_spans_per_second);
        self.row("replay, decode to OTLP receiver".to_owned(), rate, "> 100,000/s");
        self.json.insert("replay".to_owned(), json!(replayed));
    }

    pub fn logs(&mut self, floods: &[super::logs::Floods]) {
        for f in floods {
            let name =
                format!("service logging {:.0} MB/s in lines of {}", f.megabytes_per_second(), f.characters);
            self.row(format!("{name}: throughput lost"), percent(f.loss()), "< 3 %");
            let more = format!("{} ({:.0} ns a line)", percent(f.cpu()), f.nanoseconds_per_line());
            self.row(format!("{name}: processor time of the service"), more, "< 3 %");
            let resident = f.most_resident() as f64 / MIB;
            self.row(format!("{name}: agent resident memory"), format!("{resident:.0} MiB"), "bounded");
            self.row(format!("{name}: agent CPU"), percent(f.agent_cpu()), "");
            self.row(format!("{name}: read, the rest counted"), percent(f.captured()), "");
        }
        self.json.insert("logs".to_owned(), json!(floods));
    }

    pub fn gpu(&mut self, paces: &[super::gpu::Pace]) {
        for pace in paces {
            let name = format!("GPU sampler at {} ms, stand-in library: CPU per hour", pace.period_ms);
            self.row(name, format!("{:.2} s", pace.seconds_per_hour), "");
        }
        self.json.insert("gpu sampler".to_owned(), json!(paces));
    }

    pub fn print(&self) {
        let width =
            |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let (first, second) = (width(0), width(1));
        println!("{:first$}  {:>second$}  budget", "measured", "");
        for [what, value, budget] in &self.rows {
            println!("{what:first$}  {value:>second$}  {budget}");
        }
    }

    pub fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.json)?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        println!("also in {}", file.display());
        Ok(())
    }

    fn row(&mut self, what: String, value: String, budget: &str) {
        self.rows.push([what, value, budget.to_owned()]);
    }
}

fn percent(fraction: f64) -> String {
    format!("{:.1} %", fraction * 100.0)
}

/// The median, and the range in which it lies with 95 %, if there are rounds enough to tell.
fn with_range(fractions: &[f64]) -> String {
    let median = percent(median(fractions.to_vec()));
    match range(fractions.to_vec()) {
        Some((low, high)) => format!("{median} ({} to {})", percent(low), percent(high)),
        None => median,
    }
}
