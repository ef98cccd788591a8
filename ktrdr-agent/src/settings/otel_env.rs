//! OpenTelemetry's environment variables as settings.
//!
//! Source: OpenTelemetry specification, "OTLP exporter" and "General SDK configuration". An empty variable counts
//! as not set, as the specification asks.

use super::{
    error::{Origin, SettingsError},
    load::ENV_PREFIX,
};

/// Variable name, key, value as the settings spell it.
pub(super) type EnvValue = (String, String, String);

const SIGNALS: [(&str, &str); 4] =
    [("", "otlp"), ("TRACES_", "otlp.traces"), ("METRICS_", "otlp.metrics"), ("LOGS_", "otlp.logs")];

const KEYS: [(&str, &str); 9] = [
    ("ENDPOINT", "endpoint"),
    ("PROTOCOL", "protocol"),
    ("HEADERS", "headers"),
    ("COMPRESSION", "compression"),
    ("TIMEOUT", "timeout"),
    ("INSECURE", "insecure"),
    ("CERTIFICATE", "certificate"),
    ("CLIENT_CERTIFICATE", "client_certificate"),
    ("CLIENT_KEY", "client_key"),
];

/// The variables of this process that matter to settings. A value that is not UTF-8 is read with replacement
/// characters, for the check to refuse it by name.
pub fn environment() -> Vec<(String, String)> {
    let pairs = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.into_string().ok().filter(|n| n.starts_with("OTEL_") || n.starts_with(ENV_PREFIX))?;
        Some((name, value.to_string_lossy().into_owned()))
    });
    pairs.collect()
}

/// The settings that the environment gives, those for all signals before those for one.
pub(super) fn values(env: &[(String, String)]) -> Result<Vec<EnvValue>, SettingsError> {
    let get = |name: &str| env.iter().find(|(n, v)| n == name && !v.trim().is_empty()).map(|(_, v)| v.trim());
    let mut out = Vec::new();
    for (signal, section) in SIGNALS {
        for (variable, key) in KEYS {
            let name = format!("OTEL_EXPORTER_OTLP_{signal}{variable}");
            if let Some(value) = get(&name) {
                let path = format!("{section}.{key}");
                let value = translate(key, value).map_err(|message| SettingsError::BadValue {
                    origin: Origin::Environment(name.clone()),
                    key: path.clone(),
                    message,
                })?;
                out.push((name, path, value));
            }
        }
    }
    for (variable, key) in [
        ("OTEL_TRACES_EXPORTER", "otlp.traces.enabled"),
        ("OTEL_METRICS_EXPORTER", "otlp.metrics.enabled"),
        ("OTEL_LOGS_EXPORTER", "otlp.logs.enabled"),
    ] {
        // Other exporters than OTLP belong to SDKs; "none" is the only value that says something to this agent.
        if get(variable) == Some("none") {
            out.push((variable.to_owned(), key.to_owned(), "false".to_owned()));
        }
    }
    if let Some(value) = get("OTEL_METRIC_EXPORT_INTERVAL") {
        let (name, path) = ("OTEL_METRIC_EXPORT_INTERVAL".to_owned(), "metrics.interval".to_owned());
        let value = translate("timeout", value).map_err(|message| SettingsError::BadValue {
            origin: Origin::Environment(name.clone()),
            key: path.clone(),
            message,
        })?;
        out.push((name, path, value));
    }
    sampler(get("OTEL_TRACES_SAMPLER"), get("OTEL_TRACES_SAMPLER_ARG"), &mut out)?;
    let opt_in = "OTEL_SEMCONV_STABILITY_OPT_IN";
    if let Some(list) = get(opt_in) {
        // A list over all domains; those that are not HTTP are not ours to judge. "http/dup" wins over "http".
        let has = |word: &str| list.split(',').any(|w| w.trim() == word);
        let word = if has("http/dup") { Some("http/dup") } else { has("http").then_some("http") };
        out.extend(word.map(|w| (opt_in.to_owned(), "http.semconv".to_owned(), format!("\"{w}\""))));
    }
    Ok(out)
}

/// "General SDK configuration", known values of OTEL_TRACES_SAMPLER. Those of others (`jaeger_remote`, `xray`) mean nothing
/// here: the specification asks to warn and go on.
fn sampler(name: Option<&str>, arg: Option<&str>, out: &mut Vec<EnvValue>) -> Result<(), SettingsError> {
    let Some(name) = name else { return Ok(()) };
    let (parent_based, plain) = match name.strip_prefix("parentbased_") {
        Some(plain) => (true, plain),
        None => (false, name),
    };
    let (variable, ratio) = match plain {
        "always_on" => ("OTEL_TRACES_SAMPLER", "1"),
        "always_off" => ("OTEL_TRACES_SAMPLER", "0"),
        "traceidratio" => ("OTEL_TRACES_SAMPLER_ARG", arg.unwrap_or("1")),
        _ => {
            tracing::warn!("OTEL_TRACES_SAMPLER: `{name}` is no sampler of this agent; every span is sent");
            return Ok(());
        }
    };
    let number = ratio.parse::<f64>().ok().filter(|r| (0.0..=1.0).contains(r));
    let number = number.ok_or_else(|| SettingsError::BadValue {
        origin: Origin::Environment(variable.to_owned()),
        key: "sampling.ratio".to_owned(),
        message: format!("`{ratio}` is not a number from 0 to 1"),
    })?;
    out.push((variable.to_owned(), "sampling.ratio".to_owned(), format!("{number:?}")));
    out.push((
        "OTEL_TRACES_SAMPLER".to_owned(),
        "sampling.parent_based".to_owned(),
        parent_based.to_string(),
    ));
    Ok(())
}

/// The variable's value in the settings' spelling (TOML).
fn translate(key: &str, value: &str) -> Result<String, String> {
    let quoted = |s: &str| toml::Value::String(s.to_owned()).to_string();
    match key {
        "timeout" => {
            let ms: u64 = value.parse().map_err(|_| format!("`{value}` is not a number of milliseconds"))?;
            Ok(quoted(&format!("{ms}ms")))
        }
        "insecure" => match value.to_ascii_lowercase().as_str() {
            "true" => Ok("true".into()),
            // The specification reads everything else as false.
            _ => Ok("false".into()),
        },
        "headers" => headers(value).map(|pairs| {
            let items = pairs.iter().map(|(k, v)| format!("{} = {}", quoted(k), quoted(v)));
            format!("{{ {} }}", items.collect::<Vec<_>>().join(", "))
        }),
        _ => Ok(quoted(value)),
    }
}

/// `key=value,key=value`, values percent-encoded; the last of a repeated key counts.
pub(super) fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut out: Vec<(String, String)> = Vec::new();
    for pair in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("`{pair}` is not key=value"))?;
        let value = percent_encoding::percent_decode_str(value.trim())
            .decode_utf8()
            .map_err(|_| format!("the value of `{}` is not UTF-8 once decoded", key.trim()))?;
        out.retain(|(k, _)| k != key.trim());
        out.push((key.trim().to_owned(), value.into_owned()));
    }
    Ok(out)
}
