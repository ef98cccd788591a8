//! `check`: can this host run the agent?

use std::process::ExitCode;

use super::output::print;
use crate::kernel::features::{self, Row, Status};
use crate::pipeline;
use crate::settings::Settings;

/// Prints the table; fails if something that the agent cannot do without is missing.
pub fn run(settings: &Settings, json: bool) -> anyhow::Result<ExitCode> {
    let mut rows = features::check(&pipeline::kernel_options(settings));
    rows.push(pipeline::gpu::check(settings));
    let ok = rows.iter().all(|r| r.status != Status::Failed);
    if json {
        let rows: Vec<_> = rows
            .iter()
            .map(|r| {
                serde_json::json!({
                    "name": r.name, "status": word(r.status), "detail": r.detail, "remedy": r.remedy,
                })
            })
            .collect();
        print(&format!("{}\n", serde_json::json!({ "can_run": ok, "checks": rows })))?;
    } else {
        let verdict = match ok {
            true => "This host can run ktrdr-agent: `sudo ktrdr-agent run` shows its calls as they happen.",
            false => "This host cannot run ktrdr-agent yet.",
        };
        print(&format!("{}\n{verdict}\n", table(&rows)))?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(rows: &[Row]) -> String {
    let mut table = String::new();
    let width = rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
    for r in rows {
        table += &format!("{:<width$}  {:<8}  {}\n", r.name, word(r.status), r.detail);
        if let Some(remedy) = &r.remedy {
            table += &format!("{:<width$}  {:<8}  → {remedy}\n", "", "");
        }
    }
    table
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Failed => "failed",
    }
}
