//! `check`: can this host run the agent?

use std::process::ExitCode;

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
        println!("{}", serde_json::json!({ "can_run": ok, "checks": rows }));
    } else {
        print(&rows);
        println!();
        println!(
            "{}",
            if ok {
                "This host can run ktrdr-agent: `sudo ktrdr-agent run` shows its calls as they happen."
            } else {
                "This host cannot run ktrdr-agent yet."
            }
        );
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(rows: &[Row]) {
    let width = rows.iter().map(|r| r.name.len()).max().unwrap_or(0);
    for r in rows {
        println!("{:<width$}  {:<8}  {}", r.name, word(r.status), r.detail);
        if let Some(remedy) = &r.remedy {
            println!("{:<width$}  {:<8}  → {remedy}", "", "");
        }
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Warning => "warning",
        Status::Failed => "failed",
    }
}
