//! Prometheus as Debian packages it, scraping an agent.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::net::free_port;
use crate::process::{Process, root, run};
use crate::wait;

/// A running Prometheus that scrapes one agent every second; killed when dropped.
pub struct Prometheus {
    process: Process,
    port: u16,
}

impl Prometheus {
    /// Scrapes the agent whose metrics are served at this port, with the rules under deploy/.
    pub fn start(agent: u16, dir: &Path) -> Self {
        let port = free_port();
        let rules: Vec<String> = ["recording.yml", "alerts.yml"].map(|name| rules(name, dir)).to_vec();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n\
             - job_name: ktrdr-agent\n  static_configs: [{{targets: ['127.0.0.1:{agent}']}}]\n",
            rules.join(", ")
        );
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(&file).arg("--storage.tsdb.path").arg(dir.join("prometheus"));
        command.args(["--enable-feature=exemplar-storage", "--log.level=warn"]);
        command.arg(format!("--web.listen-address={}:{port}", Ipv4Addr::LOCALHOST));
        let mut process = Process::start(command, dir);
        let ready = format!("http://127.0.0.1:{port}/-/ready");
        process.wait_until("Prometheus is ready", || {
            Command::new("curl").args(["-sf", "-o", "/dev/null", &ready]).status().is_ok_and(|s| s.success())
        });
        Self { process, port }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The data of an answer of its API.
    pub fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-G", &format!("{}/api/v1/{path}", self.url())]);
        for (name, value) in parameters {
            curl.args(["--data-urlencode", &format!("{name}={value}")]);
        }
        let text = run(&mut curl);
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e} in {text}"));
        assert_eq!(answer["status"], "success", "{path} {parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// The sum of what an expression returns; `None` if that is nothing.
    pub fn sum(&self, expr: &str) -> Option<f64> {
        let data = self.ask("query", &[("query", expr)]);
        let values = data["result"].as_array().unwrap().iter().map(|r| r["value"][1].as_str().unwrap());
        values.map(|v| v.parse::<f64>().unwrap()).reduce(|a, b| a + b)
    }

    /// Waits until an expression's sum is this one.
    pub fn wait_for(&mut self, expr: &str, wanted: f64) {
        let mut last = None;
        let found = wait::within(wait::DEADLINE, || {
            last = self.sum(expr);
            (last == Some(wanted)).then_some(())
        });
        assert!(found.is_some(), "{expr} is {last:?} and not {wanted}; {}", self.process.log());
    }
}

/// A file of rules as a test needs it: they are worked out as often as is scraped.
fn rules(name: &str, dir: &Path) -> String {
    let text = std::fs::read_to_string(root().join("deploy/prometheus").join(name)).unwrap();
    let file = dir.join(name);
    std::fs::write(&file, text.replace("interval: 15s", "interval: 1s")).unwrap();
    file.to_string_lossy().into_owned()
}
