use std::path::Path;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn file(text: &str) -> Result<Settings, SettingsError> {
    Settings::from_text(Some((Path::new("agent.toml"), text)), &[], &[])
}

fn failure(text: &str) -> String {
    file(text).unwrap_err().to_string()
}

fn from_env(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::from_text(None, &env(pairs), &[])
}

#[test]
fn the_printed_file_reads_back_as_the_defaults() {
    let text = default_file();
    assert_eq!(toml::from_str::<Said>(&text).unwrap(), Said::default());
    assert_eq!(file(&text).unwrap(), Settings::default());
    // Every key is in it, documented.
    for path in Said::SCHEMA.paths() {
        let key = path.rsplit('.').next().unwrap();
        assert!(text.contains(&format!("{key} =")) || text.contains(&format!("{key}]")), "{path}");
    }
    let undocumented = text
        .lines()
        .zip(text.lines().skip(1))
        .find(|(before, line)| !line.starts_with('#') && line.contains(" = ") && !before.starts_with('#'));
    assert_eq!(undocumented, None);
}

#[test]
fn a_changed_file_survives_printing() {
    let mut said = Said::default();
    said.services.rules.push(Rule { name: "shop".into(), ports: vec![80], ..Rule::default() });
    said.otlp.traces.endpoint = Some("http://x:1".into());
    assert_eq!(toml::from_str::<Said>(&super::file(&said)).unwrap(), said);
}

#[test]
fn a_misspelt_key_is_named_with_its_line_and_the_nearest_one() {
    for (text, want) in [
        ("\n[captrue]\n", "agent.toml:2: unknown key `captrue`; did you mean `capture`?"),
        (
            "[otlp]\n\nendpiont = 'x'",
            "agent.toml:3: unknown key `otlp.endpiont`; did you mean `otlp.endpoint`?",
        ),
        (
            "[capture]\nendpoint = 'x'",
            "agent.toml:2: unknown key `capture.endpoint`; did you mean `otlp.endpoint`?",
        ),
        (
            "[[services.rules]]\nname = 'a'\nport = [1]",
            "agent.toml:3: unknown key `services.rules.port`; did you mean `services.rules.ports`?",
        ),
        (
            "[otlp.traces]\nend_point = 'x'",
            "agent.toml:2: unknown key `otlp.traces.end_point`; did you mean `otlp.traces.endpoint`?",
        ),
        ("zzzzzzzz = 1", "agent.toml:1: unknown key `zzzzzzzz`"),
    ] {
        assert_eq!(failure(text), want);
    }
}

#[test]
fn a_bad_value_is_named_with_its_line_and_key() {
    for (text, want) in [
        (
            "[services]\nktrdr = 3",
            "agent.toml:2: bad value for `services.ktrdr`: invalid type: integer `3`, expected a boolean",
        ),
        (
            "[capture]\n\nhook = 'tcp'",
            "agent.toml:3: bad value for `capture.hook`: unknown variant `tcp`, expected one of `auto`, `socket`, `syscall`",
        ),
        (
            "[connect]\ngrace = '3 days'",
            "agent.toml:2: bad value for `connect.grace`: `3 days` is not a duration: write a whole number and ms, s, m or h (`30s`)",
        ),
        (
            "[include]\nports = [70000]",
            "agent.toml:2: bad value for `include.ports`: invalid value: integer `70000`, expected u16",
        ),
        (
            "[capture]\nring_bytes = '3MiB'",
            "agent.toml:2: bad value for `capture.ring_bytes`: must be a power of two from 64KiB to 2GiB (16MiB, 32MiB, 64MiB, …)",
        ),
        (
            "[limits]\nconnections = 70000",
            "agent.toml:2: bad value for `limits.connections`: must be at most 65536",
        ),
        (
            "[otlp]\nendpoint = 'ftp://x'",
            "agent.toml:2: bad value for `otlp.endpoint`: `ftp://` is not supported: use http:// or https://",
        ),
        (
            "[otlp]\nclient_key = 'k'\nendpoint = 'http://x'",
            "agent.toml:2: bad value for `otlp.client_key`: it needs otlp.client_certificate beside it",
        ),
        (
            "[[services.rules]]\nname = 'x'",
            "agent.toml:1: bad value for `services.rules`: rule 1 has no condition: give ports, executable, command, cwd or container",
        ),
        (
            "capture = 3",
            "agent.toml:1: bad value for `capture`: invalid type: integer `3`, expected struct Capture",
        ),
    ] {
        assert_eq!(failure(text), want);
    }
    assert!(failure("[capture\nhook = 1").starts_with("agent.toml:1: not valid TOML"));
    let missing =
        Settings::load(Some(Path::new("/nonexistent/agent.toml")), &[], &[]).unwrap_err().to_string();
    assert!(missing.starts_with("cannot read the configuration file /nonexistent/agent.toml"), "{missing}");
}

#[test]
fn the_environment_is_checked_like_the_file() {
    let s = from_env(&[
        ("KTRDR_AGENT_CAPTURE__HOOK", "syscall"),
        ("KTRDR_AGENT_INCLUDE__PORTS", "5001, 8000"),
        ("KTRDR_AGENT_EXCLUDE__COMMANDS", "*nginx*"),
        ("KTRDR_AGENT_OTLP__HEADERS", "a=b"),
        ("KTRDR_AGENT_OTLP__TRACES__ENDPOINT", "http://t:1"),
        ("KTRDR_AGENT_LOG", "debug"),
    ])
    .unwrap();
    assert_eq!(s.capture.hook, Hook::Syscall);
    assert_eq!(s.include.ports, [5001, 8000]);
    assert_eq!(s.exclude.commands, ["*nginx*"]);
    let traces = s.otlp.traces.unwrap();
    assert_eq!((traces.url.as_str(), traces.headers), ("http://t:1", vec![("a".into(), "b".into())]));
    assert_eq!(s.otlp.logs, None);

    for (name, value, want) in [
        (
            "KTRDR_AGENT_CAPTURE__HOK",
            "x",
            "environment variable KTRDR_AGENT_CAPTURE__HOK: unknown key `capture.hok`; did you mean `capture.hook`?",
        ),
        (
            "KTRDR_AGENT_CAPTURE__RING_BYTES",
            "5",
            "environment variable KTRDR_AGENT_CAPTURE__RING_BYTES: bad value for `capture.ring_bytes`: must be a power of two from 64KiB to 2GiB (16MiB, 32MiB, 64MiB, …)",
        ),
        (
            "KTRDR_AGENT_LIMITS__PROCESSES",
            "many",
            "environment variable KTRDR_AGENT_LIMITS__PROCESSES: bad value for `limits.processes`: invalid type: string \"many\", expected usize",
        ),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "10s",
            "environment variable OTEL_EXPORTER_OTLP_TIMEOUT: bad value for `otlp.timeout`: `10s` is not a number of milliseconds",
        ),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "nope",
            "environment variable OTEL_EXPORTER_OTLP_HEADERS: bad value for `otlp.headers`: `nope` is not key=value",
        ),
    ] {
        assert_eq!(from_env(&[(name, value)]).unwrap_err().to_string(), want);
    }
}

#[test]
fn opentelemetry_variables_apply_per_signal() {
    let s = from_env(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs:1/custom"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "X-Key=a%20b, t=1"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "only=traces"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "250"),
        ("OTEL_SEMCONV_STABILITY_OPT_IN", "database, http/dup"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", ""),
    ])
    .unwrap();
    let [traces, metrics, logs] = [s.otlp.traces, s.otlp.metrics, s.otlp.logs].map(Option::unwrap);
    assert_eq!(traces.url, "http://all:4318/v1/traces");
    assert_eq!(metrics.url, "http://all:4318/v1/metrics");
    assert_eq!(logs.url, "http://logs:1/custom");
    assert_eq!(traces.headers, [("only".to_owned(), "traces".to_owned())]);
    assert_eq!(logs.headers, [("t".to_owned(), "1".to_owned()), ("x-key".to_owned(), "a b".to_owned())]);
    assert_eq!(metrics.timeout, Duration::from_millis(250));
    assert_eq!(logs.timeout, Duration::from_secs(10));
    assert_eq!(traces.compression, Compression::Gzip);
    assert!(s.http.old_names);
    assert!(!from_env(&[("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database/dup")]).unwrap().http.old_names);
    let none = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"), ("OTEL_METRICS_EXPORTER", "none")];
    let s = from_env(&none).unwrap();
    assert!(s.otlp.traces.is_some() && s.otlp.metrics.is_none());
}

#[test]
fn the_stronger_layer_wins() {
    let text = "[otlp]\nendpoint = 'http://file:1'\n[otlp.traces]\nendpoint = 'http://file-traces:1'\n\
                [console]\nformat = 'json'\n[capture]\nhook = 'socket'";
    let load = |vars: &[(&str, &str)], cli: &[Override]| {
        Settings::from_text(Some((Path::new("f"), text)), &env(vars), cli).unwrap()
    };
    let url = |s: &Settings| s.otlp.traces.clone().unwrap().url;
    let variables = [
        ("KTRDR_AGENT_CAPTURE__HOOK", "auto"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:1"),
        ("KTRDR_AGENT_CONSOLE__FORMAT", "off"),
    ];
    assert_eq!(url(&load(&[], &[])), "http://file-traces:1");
    let s = load(&variables, &[]);
    // The environment's general endpoint outranks the file's special one.
    assert_eq!(url(&s), "http://otel:1");
    assert_eq!((s.capture.hook, s.console.format), (Hook::Auto, ConsoleFormat::Off));
    let both =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:1"), ("KTRDR_AGENT_OTLP__ENDPOINT", "http://own:1")];
    assert_eq!(url(&load(&both, &[])), "http://own:1");
    let cli = [
        Override::new("--otlp-endpoint", "otlp.endpoint", "http://cli:1"),
        Override::new("--console", "console.format", "human"),
    ];
    let special = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://special:1")];
    let s = load(&special, &cli);
    assert_eq!((url(&s).as_str(), s.console.format), ("http://cli:1", ConsoleFormat::Human));
    let bad = [Override::new("--console", "console.format", "xml")];
    let message = Settings::from_text(None, &[], &bad).unwrap_err().to_string();
    assert!(message.starts_with("option --console: bad value for `console.format`"), "{message}");
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_reader(text: String, line in "\\[?[a-z_.]{0,12}\\]?( = .{0,12})?", value: String) {
        let _ = file(&text);
        if let Err(e) = file(&format!("[capture]\n{line}\n")) {
            proptest::prop_assert!(e.to_string().starts_with("agent.toml:"), "{}", e);
        }
        for name in ["KTRDR_AGENT_CAPTURE__HOOK", "KTRDR_AGENT_INCLUDE__PORTS", "OTEL_EXPORTER_OTLP_HEADERS"] {
            let _ = from_env(&[(name, value.as_str())]);
        }
    }
}

#[test]
fn the_token_is_not_shown() {
    let toml = "[metrics]\nlisten = '0.0.0.0:9464'\ntoken = 's3cret-word'";
    let s = file(toml).unwrap();
    assert_eq!(s.metrics.token.reveal(), Some("s3cret-word"));
    assert!(!format!("{s:?}").contains("s3cret"), "{s:?}");
    assert!(failure("[metrics]\nlisten = '0.0.0.0:9464'").contains("metrics.token"));
}

#[test]
fn opentelemetrys_samplers_are_understood() {
    for (name, arg, ratio, parent_based) in [
        ("always_on", None, 1.0, false),
        ("always_off", None, 0.0, false),
        ("traceidratio", Some("0.25"), 0.25, false),
        ("traceidratio", None, 1.0, false),
        ("parentbased_always_on", None, 1.0, true),
        ("parentbased_traceidratio", Some("0.5"), 0.5, true),
        ("jaeger_remote", Some("endpoint=http://x"), 1.0, false),
    ] {
        let mut env = vec![("OTEL_TRACES_SAMPLER", name)];
        env.extend(arg.map(|a| ("OTEL_TRACES_SAMPLER_ARG", a)));
        let s = from_env(&env).unwrap();
        assert_eq!((s.sampling.ratio, s.sampling.parent_based), (ratio, parent_based), "{name}");
        assert_eq!(s.sampling.samples(), ratio < 1.0 || parent_based, "{name}");
    }
    let env = |arg: &str| {
        let env = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", arg)];
        from_env(&env).unwrap_err().to_string()
    };
    for wrong in ["2", "-0.1", "a tenth", "NaN"] {
        assert!(
            env(wrong).contains("`sampling.ratio`") && env(wrong).contains("OTEL_TRACES_SAMPLER_ARG"),
            "{wrong}"
        );
    }
    assert!(failure("[sampling]\nratio = 1.5").contains("must be from 0 to 1"));
    assert!(failure("[sampling]\nkeep.wait = '1h'").contains("must be at most 10m"));
}
