//! nginx with one worker and a small answer: the fastest server here, so the agent's worst case.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::stack::child::Child;
use crate::stack::ports;
use crate::{host, wait};

pub const PORT: u16 = 18080;
const START_DEADLINE: Duration = Duration::from_secs(10);

pub struct Nginx {
    _child: Child,
}

impl Nginx {
    pub fn start(directory: &Path) -> Result<Self> {
        if let Some(owner) = ports::listener(PORT)? {
            bail!(
                "port {PORT} is needed for the benchmark's nginx and is in use by {owner}: stop that first"
            );
        }
        let file = directory.join("nginx.conf");
        std::fs::write(&file, configuration(directory))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let program = host::which("nginx").unwrap_or_else(|| "/usr/sbin/nginx".into());
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).arg("-p").arg(directory);
        let child = Child::spawn("nginx", &mut command, &directory.join("nginx.log"))?;
        let up = wait::until(START_DEADLINE, || matches!(ports::listens(PORT), Ok(true)).then_some(()));
        up.with_context(|| format!("nginx does not listen: see {}", directory.join("nginx.log").display()))?;
        Ok(Self { _child: child })
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{PORT}/")
    }
}

fn configuration(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "daemon off;\nworker_processes 1;\npid {directory}/nginx.pid;\nerror_log stderr;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 1000000000;\n  client_body_temp_path {directory}/body;\n  \
         proxy_temp_path {directory}/proxy;\n  fastcgi_temp_path {directory}/fastcgi;\n  \
         uwsgi_temp_path {directory}/uwsgi;\n  scgi_temp_path {directory}/scgi;\n  \
         server {{ listen 127.0.0.1:{PORT}; location / {{ return 200 \"ok\\n\"; }} }}\n}}\n"
    )
}
