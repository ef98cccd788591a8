//! The receiver's process, and the Python environment it runs in.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use ktrdr_agent::export::otlp::Protocol;
use serde_json::Value;

/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The interpreter with the receiver's packages: the one that set-up made, else one of our own.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let shared = root().join("tests/.venv/bin/python");
        if usable(&shared) {
            return shared;
        }
        let own = root().join("target/receivers-venv");
        let python = own.join("bin/python");
        // Test processes may run side by side.
        let lock = File::create(root().join("target/receivers-venv.lock")).unwrap();
        lock.lock().unwrap();
        if !usable(&python) {
            run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&own));
            let requirements = root().join("tests/receivers/requirements.txt");
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(requirements));
        }
        python
    })
}

fn usable(python: &Path) -> bool {
    let program = "import sys, grpc, opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc\n\
                   if sys.version_info < (3, 14): import rotel";
    let mut command = Command::new(python);
    command.args(["-c", program]).stderr(Stdio::null());
    command.status().is_ok_and(|s| s.success())
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Ports of a receiver.
#[derive(Clone, Copy)]
pub struct Ports {
    grpc: u16,
    http: u16,
}

impl Ports {
    /// Where to send.
    pub fn url(&self, protocol: Protocol) -> String {
        match protocol {
            Protocol::Grpc => format!("http://127.0.0.1:{}", self.grpc),
            _ => format!("http://127.0.0.1:{}/v1/traces", self.http),
        }
    }
}

/// Two ports on which nothing listens now.
pub fn free_ports() -> Ports {
    let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (grpc, http) = (bind(), bind());
    let port = |l: &std::net::TcpListener| l.local_addr().unwrap().port();
    Ports { grpc: port(&grpc), http: port(&http) }
}

/// A running receiver; killed when dropped.
pub struct Receiver {
    child: Child,
    lines: mpsc::Receiver<Value>,
    ports: Ports,
    requests: Vec<Value>,
}

impl Receiver {
    /// On free ports.
    pub fn start(args: &[&str]) -> Self {
        Self::start_at(&Ports { grpc: 0, http: 0 }, args)
    }

    /// On these ports.
    pub fn start_at(ports: &Ports, args: &[&str]) -> Self {
        let mut child = Command::new(python())
            .arg(root().join("tests/receivers/otlp.py"))
            .args(["--grpc-port", &ports.grpc.to_string(), "--http-port", &ports.http.to_string()])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        let first: Value = lines.recv_timeout(DEADLINE).expect("the receiver says its ports");
        let port = |key: &str| u16::try_from(first[key].as_u64().unwrap()).unwrap();
        let ports = Ports { grpc: port("grpc"), http: port("http") };
        Self { child, lines, ports, requests: Vec::new() }
    }

    /// Where to send.
    pub fn url(&self, protocol: Protocol) -> String {
        self.ports.url(protocol)
    }

    /// Waits until so many further spans have arrived; they come in the order of their arrival.
    pub fn spans(&mut self, count: usize) -> Vec<Value> {
        self.items("spans", count)
    }

    /// The same for points of metrics.
    pub fn points(&mut self, count: usize) -> Vec<Value> {
        self.items("metrics", count)
    }

    fn items(&mut self, what: &str, count: usize) -> Vec<Value> {
        let mut got = Vec::new();
        self.requests.clear();
        let deadline = Instant::now() + DEADLINE;
        while got.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|e| panic!("{} of {count} {what} came: {e}", got.len()));
            if let Some(items) = line[what].as_array() {
                got.extend(items.iter().cloned());
                self.requests.push(line);
            }
        }
        assert_eq!(got.len(), count, "more {what} than were sent");
        got
    }

    /// The requests of the last wait.
    pub fn requests(&self) -> &[Value] {
        &self.requests
    }

    /// Ends it at once, as a crash would.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

/// A rotel collector that passes everything on; killed when dropped.
pub struct Collector {
    child: Child,
    ports: Ports,
    _dir: tempfile::TempDir,
}

impl Collector {
    /// Starts one in front of a receiver, and waits until it listens. `None` where none is published for the
    /// interpreter.
    pub fn start(behind: &Receiver) -> Option<Self> {
        let find = "import sys, os\n\
                    if sys.version_info < (3, 14):\n\
                    \x20import rotel; print(os.path.join(os.path.dirname(rotel.__file__), 'rotel-agent'))";
        let found = Command::new(python()).args(["-c", find]).output().unwrap();
        assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
        let binary = String::from_utf8(found.stdout).unwrap();
        if binary.trim().is_empty() {
            return None;
        }
        let (ports, dir) = (free_ports(), tempfile::tempdir().unwrap());
        let child = Command::new(binary.trim())
            .arg("start")
            .args(["--otlp-grpc-endpoint", &format!("127.0.0.1:{}", ports.grpc)])
            .args(["--otlp-http-endpoint", &format!("127.0.0.1:{}", ports.http)])
            .args(["--exporter", "otlp", "--otlp-exporter-protocol", "grpc"])
            .args(["--otlp-exporter-endpoint", &behind.url(Protocol::Grpc)])
            .arg("--pid-file")
            .arg(dir.path().join("pid"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let collector = Self { child, ports, _dir: dir };
        for port in [ports.grpc, ports.http] {
            wait_until("rotel listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        }
        Some(collector)
    }

    /// Where to send.
    pub fn url(&self, protocol: Protocol) -> String {
        self.ports.url(protocol)
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate authority with a server's and a client's certificate.
pub struct Pki(tempfile::TempDir);

impl Pki {
    /// Made with openssl.
    pub fn new() -> Self {
        let pki = Self(tempfile::tempdir().unwrap());
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let openssl = |args: &[&str]| run(Command::new("openssl").current_dir(pki.0.path()).args(args));
        let ca =
            ["req", "-x509", "-subj", "/CN=test CA", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"];
        openssl(&[&ca[..], &curve[..]].concat());
        for (name, alternative) in [("server", "DNS:localhost"), ("client", "DNS:client")] {
            let file = |suffix: &str| format!("{name}.{suffix}");
            let (subject, extension) = (format!("/CN={name}"), format!("subjectAltName={alternative}"));
            let request = [
                "req",
                "-x509",
                "-subj",
                &subject,
                "-days",
                "2",
                "-addext",
                &extension,
                "-addext",
                "basicConstraints=critical,CA:false",
                "-CA",
                "ca.pem",
                "-CAkey",
                "ca.key",
                "-keyout",
                &file("key"),
                "-out",
                &file("pem"),
            ];
            openssl(&[&request[..], &curve[..]].concat());
        }
        pki
    }

    /// Path of a file of it.
    pub fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}
