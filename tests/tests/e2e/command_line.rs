//! What goes wrong before anything is observed: one clear sentence, a status that is not 0, and never a panic.

use std::path::Path;
use std::process::{Command, Output};

use ktrdr_tests::agent::{Options, binary, can_observe};
use ktrdr_tests::net::free_port;
use ktrdr_tests::process::{output, run};
use ktrdr_tests::raw::Listener;

fn agent(arguments: &[&str]) -> Output {
    output(Command::new(binary()).args(arguments).env_remove("RUST_LOG"))
}

/// Its error, which must be one sentence in one line.
fn refused(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    for bad in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
        assert!(!said.contains(bad), "{said}");
    }
    let errors: Vec<&str> = said.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    errors[0].to_owned()
}

fn config(dir: &Path, text: &str) -> String {
    let path = dir.join("agent.toml");
    std::fs::write(&path, text).unwrap();
    path.to_string_lossy().into_owned()
}

#[test]
fn a_typo_in_the_configuration_is_named_with_its_line_and_the_nearest_key() {
    let dir = tempfile::tempdir().unwrap();
    let path =
        config(dir.path(), "[capture]\nhook = \"auto\"\n\n[otlp]\nendpiont = \"http://localhost:4317\"\n");
    for command in ["run", "check"] {
        let said = refused(&agent(&[command, "--config", &path]));
        assert!(said.contains(&format!("{path}:5")), "{said}");
        assert!(said.contains("`otlp.endpiont`") && said.contains("`otlp.endpoint`"), "{said}");
    }
    let path = config(dir.path(), "[capture]\nhook = \"sokcet\"\n");
    let said = refused(&agent(&["run", "--config", &path]));
    assert!(said.contains(&format!("{path}:2")) && said.contains("socket"), "{said}");
    let path = config(dir.path(), "[capture\n");
    let said = refused(&agent(&["run", "--config", &path]));
    assert!(said.contains(&format!("{path}:1")), "{said}");
}

#[test]
fn files_that_are_not_there_or_not_recordings_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let said = refused(&agent(&["run", "--config", "/nonexistent/agent.toml"]));
    assert!(said.contains("/nonexistent/agent.toml"), "{said}");
    let said = refused(&agent(&["replay", "/nonexistent/recording"]));
    assert!(said.contains("/nonexistent/recording"), "{said}");
    let picture = dir.path().join("picture");
    std::fs::write(&picture, b"GIF89a and so on, certainly not a recording").unwrap();
    let said = refused(&agent(&["replay", &picture.to_string_lossy()]));
    assert!(said.contains("not a ktrdr-agent recording"), "{said}");
    let said = refused(&agent(&["replay", "--spans-out", "/nonexistent/spans", &picture.to_string_lossy()]));
    assert!(said.contains("/nonexistent/spans") || said.contains("not a ktrdr-agent recording"), "{said}");
}

#[test]
fn without_capabilities_it_says_what_is_missing() {
    if !can_observe() {
        return;
    }
    // Where nobody may look, the binary cannot be started either: a copy that everybody can reach.
    let dir =
        tempfile::Builder::new().permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)).tempdir();
    let dir = dir.unwrap();
    let copy = dir.path().join("ktrdr-agent");
    std::fs::copy(binary(), &copy).unwrap();
    let nobody = |command: &str, more: &[&str]| {
        let mut setpriv = Command::new("setpriv");
        setpriv.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ]);
        output(setpriv.arg(&copy).arg(command).args(more).current_dir(dir.path()))
    };
    let said = refused(&nobody("run", &["--console", "off"]));
    assert!(
        said.contains("needs CAP_BPF and CAP_PERFMON") && said.contains("sudo ktrdr-agent run"),
        "{said}"
    );
    // `check` is for finding out: it answers in a table, and with its status.
    let check = nobody("check", &[]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned() + &String::from_utf8_lossy(&check.stderr);
    assert!(!check.status.success() && !said.contains("panicked"), "{said}");
    // What needs no kernel needs no root.
    assert!(nobody("config", &["print"]).status.success());
}

#[test]
fn as_root_check_passes_here() {
    if !can_observe() {
        return;
    }
    let check = agent(&["check"]);
    let said = String::from_utf8_lossy(&check.stdout);
    assert!(check.status.success(), "{said}{}", String::from_utf8_lossy(&check.stderr));
}

/// A mount namespace of its own hides the kernel's type information, as a kernel built without it does.
#[test]
fn without_btf_it_says_so() {
    if !can_observe() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs none /sys/kernel/btf 2>/dev/null || mount --bind {} /sys/kernel/btf || exit 77; exec {} run --console off",
        dir.path().display(),
        binary().display()
    );
    let output = output(Command::new("unshare").args(["--mount", "sh", "-c", &script]));
    assert_ne!(output.status.code(), Some(77), "{}", String::from_utf8_lossy(&output.stderr));
    let said = refused(&output);
    assert!(said.contains("/sys/kernel/btf/vmlinux") && said.contains("CONFIG_DEBUG_INFO_BTF"), "{said}");
}

#[test]
fn a_receiver_that_is_not_there_costs_one_line_and_no_span() {
    if !can_observe() {
        return;
    }
    for protocol in ["grpc", "http/protobuf"] {
        let listener = Listener::new();
        let nobody = free_port();
        let endpoint = format!("http://127.0.0.1:{nobody}");
        let mut agent = Options::ports(&[listener.port(), nobody])
            .args(&["--otlp-endpoint", &endpoint, "--otlp-protocol", protocol])
            .start();
        for _ in 0..10 {
            let server = listener.serve(|mut peer| {
                peer.receive_head();
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            });
            let mut client = listener.connect();
            client.send("GET /kept HTTP/1.1\r\nHost: t\r\n\r\n");
            client.receive_head();
            server.join().unwrap();
        }
        // Its own connects fail, and are no spans.
        let spans = agent.wait_for_spans(20);
        ktrdr_tests::wait::until("a word about the receiver", || {
            agent.log().contains("cannot reach the OTLP receiver").then_some(())
        });
        assert_eq!(spans.len(), 20, "{}", ktrdr_tests::span::brief(&spans));
        agent.signal(libc::SIGINT);
        assert!(agent.wait_for_end().success(), "{}", agent.log());
        let log = agent.log();
        for signal in ["(spans)", "(metrics)", "(log records)"] {
            let lines = log.lines().filter(|l| l.contains(&endpoint) && l.contains(signal)).count();
            assert!(lines == 1 || lines == 0 && signal != "(spans)", "{log}");
        }
        assert!(log.contains("20 spans dropped") && !log.contains("panicked"), "{log}");
        assert_eq!(agent.spans().len(), 20, "{}", ktrdr_tests::span::brief(&agent.spans()));
    }
}

#[test]
fn a_reason_is_said_once() {
    for arguments in [
        &["config", "print", "--config", "/nonexistent"][..],
        &["explain", "op_1", "--file", "/nonexistent"],
        &["replay", "/nonexistent"],
    ] {
        let said = refused(&agent(arguments));
        assert_eq!(said.matches("No such file").count(), 1, "{said}");
    }
}

#[test]
fn help_and_version_need_nothing() {
    assert!(run(Command::new(binary()).arg("--version")).starts_with("ktrdr-agent "));
    let help = run(Command::new(binary()).args(["run", "--help"]));
    for option in ["--port", "--duration", "--otlp-endpoint", "--console"] {
        assert!(help.contains(option), "{help}");
    }
}
