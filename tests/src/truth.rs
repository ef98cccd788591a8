//! What a client says it did, one JSON line per request.

use serde::Deserialize;

/// A request as its client knows it.
#[derive(Clone, Debug, Deserialize)]
pub struct Truth {
    /// Path of the URL, unique in a test.
    pub path: String,
    /// Method.
    pub method: String,
    /// Status of the response.
    pub status: i64,
    /// Body bytes sent.
    #[serde(default)]
    pub sent: i64,
    /// Body bytes received.
    #[serde(default)]
    pub received: i64,
    /// The client's port, where its library tells.
    #[serde(default)]
    pub local_port: Option<i64>,
    /// Requests of one group were made one after the other; of different groups, at the same time.
    #[serde(default)]
    pub group: String,
    /// The request's body has marks inside that the capture may miss: its size may be unknown, but not wrong.
    #[serde(default)]
    pub vague: bool,
}

impl Truth {
    /// All lines.
    pub fn parse_all(text: &str) -> Vec<Truth> {
        text.lines()
            .filter(|l| l.starts_with('{'))
            .map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e} in {l}")))
            .collect()
    }
}
