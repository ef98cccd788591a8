//! The agent's spans as it writes them: one JSON object per line.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Clone, Deserialize)]
pub struct Span {
    pub trace_id: String,
    pub span_id: String,
    #[serde(default)]
    pub parent_span_id: Option<String>,
    pub name: String,
    pub kind: String,
    pub service: String,
    #[serde(default)]
    pub duration_ms: f64,
    #[serde(default)]
    pub status: String,
    #[serde(default)]
    pub status_message: Option<String>,
    #[serde(default)]
    pub attributes: Map<String, Value>,
}

impl Span {
    pub fn is_client(&self) -> bool {
        self.kind.eq_ignore_ascii_case("client")
    }

    pub fn is_server(&self) -> bool {
        self.kind.eq_ignore_ascii_case("server")
    }

    pub fn is_server_of(&self, service: &str) -> bool {
        self.is_server() && self.service == service
    }

    pub fn is_error(&self) -> bool {
        self.status.eq_ignore_ascii_case("error")
    }

    pub fn text(&self, attribute: &str) -> Option<&str> {
        self.attributes.get(attribute)?.as_str()
    }

    pub fn number(&self, attribute: &str) -> Option<u64> {
        self.attributes.get(attribute)?.as_u64()
    }

    /// The request's path; of a client, the path of its URL.
    pub fn path(&self) -> &str {
        let full = self.text("url.full").and_then(|url| url.split_once("://")).map(|(_, rest)| rest);
        let path = full.and_then(|rest| rest.find('/').map(|at| &rest[at..]));
        let path = self.text("url.path").or(path).unwrap_or_default();
        path.split('?').next().unwrap_or_default()
    }

    pub fn port(&self) -> Option<u64> {
        self.number("server.port")
    }

    pub fn status_code(&self) -> Option<u64> {
        self.number("http.response.status_code")
    }
}

/// The file, read as far as it is written.
pub struct SpanFile {
    path: PathBuf,
    read_to: u64,
    /// Begin of a line whose end is not there yet.
    partial: String,
    spans: Vec<Span>,
}

impl SpanFile {
    pub fn open(path: &Path) -> Self {
        Self { path: path.to_owned(), read_to: 0, partial: String::new(), spans: Vec::new() }
    }

    /// Reads what was added. A line that is no span is told and passed over.
    pub fn refresh(&mut self) {
        let Ok(mut file) = File::open(&self.path) else { return };
        let mut added = String::new();
        if file.seek(SeekFrom::Start(self.read_to)).is_err() {
            return;
        }
        // A character cut in the middle makes this read fail; the next one finds it whole.
        let Ok(length) = file.read_to_string(&mut added) else { return };
        self.read_to += length as u64;
        self.partial.push_str(&added);
        let Some(end) = self.partial.rfind('\n') else { return };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        // Log records are objects of their own.
        for line in whole.lines().filter(|line| !line.starts_with("{\"log\":")) {
            match serde_json::from_str(line) {
                Ok(span) => self.spans.push(span),
                Err(error) => {
                    eprintln!("demo: {} holds a line that is no span: {error}", self.path.display())
                }
            }
        }
    }

    pub fn len(&self) -> usize {
        self.spans.len()
    }

    pub fn since(&self, begin: usize) -> &[Span] {
        &self.spans[begin..]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_is_read_as_it_grows() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut spans = SpanFile::open(file.path());
        let line = r#"{"trace_id":"a","span_id":"b","name":"GET /x","kind":"CLIENT","service":"s"}"#;
        write!(file, "{line}\n{}", &line[..20]).unwrap();
        spans.refresh();
        assert_eq!(spans.len(), 1);
        writeln!(file, "{}", &line[20..]).unwrap();
        spans.refresh();
        assert_eq!((spans.len(), spans.since(1)[0].name.as_str()), (2, "GET /x"));
    }

    #[test]
    fn the_path_comes_from_either_end() {
        let span = |attributes: Value| Span {
            trace_id: String::new(),
            span_id: String::new(),
            parent_span_id: None,
            name: String::new(),
            kind: String::new(),
            service: String::new(),
            duration_ms: 0.0,
            status: String::new(),
            status_message: None,
            attributes: attributes.as_object().cloned().unwrap_or_default(),
        };
        assert_eq!(span(serde_json::json!({"url.path": "/a/b"})).path(), "/a/b");
        assert_eq!(span(serde_json::json!({"url.full": "http://h:1/a?b=c"})).path(), "/a");
        assert_eq!(span(serde_json::json!({})).path(), "");
    }
}
