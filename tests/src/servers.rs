//! Servers that the tests observe. All give the same answers: what they answer is in the path.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::net;
use crate::process::{Process, program, python, python_program};

/// A server program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    /// uvicorn on asyncio's selector loop with h11, as KTRDR's services run.
    UvicornH11,
    /// uvicorn on asyncio's selector loop with httptools.
    UvicornHttptools,
    /// uvicorn on uvloop.
    UvicornUvloop,
    /// aiohttp's own server.
    Aiohttp,
    /// Python's http.server, a thread per connection.
    Threaded,
    /// Node.
    Node,
}

impl Server {
    /// Starts it and waits until it listens on 127.0.0.1.
    pub fn start(self, port: u16, dir: &Path) -> Process {
        let port_text = port.to_string();
        let command = match self {
            Server::UvicornH11 => uvicorn("asyncio", "h11", &port_text),
            Server::UvicornHttptools => uvicorn("asyncio", "httptools", &port_text),
            Server::UvicornUvloop => uvicorn("uvloop", "httptools", &port_text),
            Server::Aiohttp => with_port(python_program("aiohttp_server.py"), &port_text),
            Server::Threaded => with_port(python_program("threaded_server.py"), &port_text),
            Server::Node => {
                let mut command = Command::new("node");
                command.arg(program("node_server.js"));
                with_port(command, &port_text)
            }
        };
        listening(command, port, dir)
    }
}

/// Starts a command and waits until `port` is listened on.
pub fn listening(command: Command, port: u16, dir: &Path) -> Process {
    let mut process = Process::start(command, dir);
    process.wait_until(&format!("it listens on port {port}"), || net::listens(port));
    process
}

fn with_port(mut command: Command, port: &str) -> Command {
    command.arg(port);
    command
}

fn uvicorn(event_loop: &str, http: &str, port: &str) -> Command {
    let mut command = Command::new(python());
    command.args(["-m", "uvicorn", "--app-dir"]).arg(program("")).arg("asgi_app:app");
    command.args(["--loop", event_loop, "--http", http, "--port", port, "--log-level", "warning"]);
    command
}

/// HAProxy in the foreground, on two threads, with kept connections to `upstream` that its clients share.
pub fn haproxy(port: u16, upstream: u16, dir: &Path) -> Process {
    let text = format!(
        "global\n nbthread 2\n maxconn 512\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n http-reuse always\n\
         frontend in\n bind 127.0.0.1:{port}\n default_backend app\n\
         backend app\n server one 127.0.0.1:{upstream} pool-max-conn 8\n"
    );
    let config: PathBuf = dir.join(format!("haproxy-{port}.cfg"));
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&config);
    listening(command, port, dir).with_children()
}

/// Go's proxy and a service, `programs/service.go`, that makes calls by itself or not; none where there is no Go.
pub fn go_service(port: u16, upstream: u16, quiet: bool, dir: &Path) -> Option<Process> {
    let service = dir.join("service");
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&service).arg(program("service.go"));
    // Where it keeps what it has compiled: a user without a home has none.
    build.env("GOCACHE", dir.join("go-cache")).env("GO111MODULE", "off");
    let built = build.output().ok()?;
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let mut command = Command::new(service);
    command.arg(port.to_string()).arg(format!("http://127.0.0.1:{upstream}"));
    command.args(quiet.then_some("quiet"));
    Some(listening(command, port, dir))
}

/// nginx in the foreground with a configuration of its own: static files from `files` on `port`, and `/c/` proxied
/// to `upstream` with kept connections.
pub fn nginx(port: u16, files: &Path, upstream: Option<u16>, dir: &Path) -> Process {
    let proxy = upstream.map_or_else(String::new, |upstream| {
        format!(
            "upstream app {{ server 127.0.0.1:{upstream}; keepalive 4; }}\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://app; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_request_buffering off; client_max_body_size 0; }} }}"
        )
    });
    let files = files.display();
    let serve = match upstream {
        Some(_) => proxy,
        None => format!("server {{ listen 127.0.0.1:{port}; root {files}; sendfile on; }}"),
    };
    let here = dir.display();
    let text = format!(
        "daemon off; worker_processes 1; user root; pid {here}/nginx.pid; error_log {here}/nginx-error.log;\n\
         events {{ worker_connections 256; }}\n\
         http {{ access_log off; sendfile on; keepalive_requests 1000000;\n\
         client_body_temp_path {here}/body; proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/f;\n\
         uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n{serve} }}\n"
    );
    let config: PathBuf = dir.join(format!("nginx-{port}.conf"));
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&config).arg("-p").arg(dir).args(["-e", "stderr"]);
    listening(command, port, dir).with_children()
}
