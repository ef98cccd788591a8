//! Joins what was said in the file, the environment and on the command line, and remembers who said what.

use std::{collections::BTreeMap, ops::Range, path::Path};

use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    error::{Origin, SettingsError, hint},
    otel_env,
    said::Said,
    schema::{Schema, Shape},
};

/// Prefix of the agent's own environment variables.
pub(super) const ENV_PREFIX: &str = "KTRDR_AGENT_";

/// A value given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Option as the user typed it, for messages: `--otlp-endpoint`.
    pub flag: String,
    /// Dotted key: `otlp.endpoint`.
    pub key: String,
    /// Value as typed.
    pub value: String,
}

impl Override {
    /// `flag` sets `key` to `value`.
    pub fn new(flag: &str, key: &str, value: impl Into<String>) -> Self {
        Self { flag: flag.into(), key: key.into(), value: value.into() }
    }
}

/// The layers, the upper ones already laid over the lower ones.
#[derive(Default)]
pub(super) struct Layers {
    table: Table,
    origins: BTreeMap<String, Origin>,
}

impl Layers {
    /// Who said the value of this key.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).cloned().unwrap_or(Origin::Default)
    }

    /// The result.
    pub fn said(&self) -> Result<Said, SettingsError> {
        // Every layer was checked when it was laid, so this names no key.
        Table::try_into(self.table.clone()).map_err(|e: toml::de::Error| SettingsError::BadValue {
            origin: Origin::Default,
            key: String::new(),
            message: e.message().to_owned(),
        })
    }

    /// Lays the file's text: keys first (their spelling), then values.
    pub fn lay_file(&mut self, path: &Path, text: &str) -> Result<(), SettingsError> {
        let origin = |at: usize| Origin::File(path.to_owned(), line_of(text, at));
        let syntax = |e: toml::de::Error| SettingsError::Syntax {
            origin: origin(e.span().map_or(0, |s| s.start)),
            message: one_line(e.message()),
        };
        let document = DeTable::parse(text).map_err(syntax)?;
        let mut keys = Vec::new();
        check_keys(document.get_ref(), &Said::SCHEMA, "", &mut keys)
            .map_err(|(at, key, hint)| SettingsError::UnknownKey { origin: origin(at), key, hint })?;
        if let Err(e) = toml::from_str::<Said>(text) {
            let at = e.span().unwrap_or(0..0);
            // The innermost key whose value holds the place of the error.
            let inner = keys.iter().filter(|(_, span)| span.start <= at.start && at.end <= span.end);
            let key = inner.min_by_key(|(_, span)| span.len()).map_or("", |(key, _)| key);
            let message = one_line(e.message());
            return Err(SettingsError::BadValue { origin: origin(at.start), key: key.to_owned(), message });
        }
        self.table = text.parse().map_err(syntax)?;
        self.origins.extend(keys.into_iter().map(|(key, span)| (key, origin(span.start))));
        Ok(())
    }

    /// Lays the environment: OpenTelemetry's variables, then the agent's own over them.
    pub fn lay_environment(&mut self, env: &[(String, String)]) -> Result<(), SettingsError> {
        for (name, key, value) in otel_env::values(env)? {
            self.lay_text(&key, &value, Origin::Environment(name))?;
        }
        let mut own: Vec<_> = env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
        // By length, so that `otlp.endpoint` comes before `otlp.traces.endpoint`, which it would set aside.
        own.sort_by_key(|(name, _)| (name.len(), name.as_str()));
        for (name, value) in own {
            // Other variables of that prefix (KTRDR_AGENT_LOG) are not settings: those have a section.
            if let Some((section, key)) = name[ENV_PREFIX.len()..].split_once("__") {
                let key = format!("{section}.{}", key.replace("__", ".")).to_lowercase();
                self.lay_text(&key, value, Origin::Environment(name.clone()))?;
            }
        }
        Ok(())
    }

    /// Lays the command line.
    pub fn lay_overrides(&mut self, overrides: &[Override]) -> Result<(), SettingsError> {
        for o in overrides {
            self.lay_text(&o.key, &o.value, Origin::Flag(o.flag.clone()))?;
        }
        Ok(())
    }

    /// Lays one value given as text: TOML if it can be read so, else a string, else a comma-separated list.
    fn lay_text(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), SettingsError> {
        match Said::SCHEMA.at(key) {
            Some(Shape::Value) => {}
            Some(Shape::Section(_) | Shape::List(_)) => {
                let message = "only the file can set a whole section".to_owned();
                return Err(SettingsError::BadValue { origin, key: key.to_owned(), message });
            }
            None => {
                let (section, last) = key.rsplit_once('.').unwrap_or(("", key));
                let hint = hint(&Said::SCHEMA, section, last);
                return Err(SettingsError::UnknownKey { origin, key: key.to_owned(), hint });
            }
        }
        let mut failure = String::new();
        for value in readings(key, text) {
            let mut table = self.table.clone();
            put(&mut table, key, value);
            set_signals_aside(&mut table, key);
            match Table::try_into::<Said>(table.clone()) {
                Ok(_) => {
                    self.table = table;
                    self.origins.insert(key.to_owned(), origin);
                    return Ok(());
                }
                Err(e) => failure = one_line(e.message()),
            }
        }
        Err(SettingsError::BadValue { origin, key: key.to_owned(), message: failure })
    }
}

/// A value of `[otlp]` that a stronger layer gives holds for every signal: what a weaker layer said for one signal
/// goes.
fn set_signals_aside(table: &mut Table, key: &str) {
    let Some(("otlp", name)) = key.split_once('.') else { return };
    let Some(Value::Table(otlp)) = table.get_mut("otlp") else { return };
    for signal in ["traces", "metrics", "logs"] {
        if let Some(Value::Table(t)) = otlp.get_mut(signal) {
            t.remove(name);
        }
    }
}

/// The ways in which a text can be meant, the likeliest first; the last one's failure is the one to report.
fn readings(key: &str, text: &str) -> Vec<Value> {
    let toml = |t: &str| format!("v = {t}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
    let list = || {
        let items = text.split(',').map(str::trim).filter(|i| !i.is_empty());
        Value::Array(items.map(|i| toml(i).unwrap_or_else(|| Value::String(i.to_owned()))).collect())
    };
    let mut all: Vec<Value> = toml(text).into_iter().collect();
    if key.ends_with(".headers") || key.ends_with(".attributes") {
        let pairs = otel_env::headers(text).unwrap_or_default();
        all.push(Value::Table(pairs.into_iter().map(|(k, v)| (k, Value::String(v))).collect()));
    }
    all.push(list());
    all.push(Value::String(text.to_owned()));
    all
}

fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let below = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(below) = below {
                put(below, rest, value);
            }
        }
    }
}

/// Place, dotted key and hint of a key that does not exist.
type Unknown = (usize, String, Option<String>);

/// Checks the spelling of every key; collects the keys with the places of their values.
fn check_keys(
    table: &DeTable<'_>,
    schema: &Schema,
    at: &str,
    keys: &mut Vec<(String, Range<usize>)>,
) -> Result<(), Unknown> {
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        let path = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        let Some(field) = schema.field(name) else {
            return Err((key.span().start, path, hint(&Said::SCHEMA, at, name)));
        };
        keys.push((path.clone(), key.span().start..value.span().end));
        match (field.shape, value.get_ref()) {
            (Shape::Section(below), DeValue::Table(t)) => check_keys(t, below, &path, keys)?,
            (Shape::List(below), DeValue::Array(items)) => {
                for item in items.iter() {
                    if let DeValue::Table(t) = item.get_ref() {
                        check_keys(t, below, &path, keys)?;
                    }
                }
            }
            // A value, or something of the wrong type, which the types find.
            _ => {}
        }
    }
    Ok(())
}

/// Line (from 1) of a byte position.
fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes()[..at.min(text.len())].iter().filter(|b| **b == b'\n').count()
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}
