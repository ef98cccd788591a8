//! Asks a running agent.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::protocol::{MAX_ANSWER, Request};

/// An agent under full load answers within milliseconds; a listing of 50 big operations takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No agent.
    #[error(
        "no agent is running here ({0} {1}): start one with `sudo ktrdr-agent run`, or read a file with --file"
    )]
    NoAgent(PathBuf, &'static str),
    /// Not allowed.
    #[error(
        "not permitted to ask the agent at {0}: it answers its own user only, run `sudo ktrdr-agent explain …`"
    )]
    Forbidden(PathBuf),
    /// The agent says no.
    #[error("{message}")]
    Refused {
        /// Its reason, for programs.
        code: String,
        /// Its reason.
        message: String,
        /// What may have been meant.
        suggestions: Vec<String>,
    },
    /// Whoever answers there is no agent of this version.
    #[error("what answers at {0} is no ktrdr-agent of this version: {1}")]
    Strange(PathBuf, String),
    /// The conversation broke.
    #[error("the agent at {0} did not answer: {1}")]
    Io(PathBuf, #[source] io::Error),
}

/// One question, one answer.
pub fn ask<T: DeserializeOwned>(path: &Path, request: &Request) -> Result<T, AskError> {
    let mut stream = UnixStream::connect(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => AskError::NoAgent(path.to_owned(), "does not exist"),
        io::ErrorKind::ConnectionRefused => AskError::NoAgent(path.to_owned(), "is not answered"),
        io::ErrorKind::PermissionDenied => AskError::Forbidden(path.to_owned()),
        _ => AskError::Io(path.to_owned(), e),
    })?;
    let text = converse(&mut stream, request).map_err(|e| AskError::Io(path.to_owned(), e))?;
    let strange = |why: String| AskError::Strange(path.to_owned(), why);
    let mut answer: Value = serde_json::from_str(&text).map_err(|e| strange(e.to_string()))?;
    if answer["ok"] == Value::Bool(true) {
        return serde_json::from_value(answer["result"].take()).map_err(|e| strange(e.to_string()));
    }
    let word = |key: &str| answer["error"][key].as_str().map(str::to_owned);
    let (Some(code), Some(message)) = (word("code"), word("message")) else {
        return Err(strange("neither a result nor an error".to_owned()));
    };
    let suggestions = answer["error"]["suggestions"].as_array();
    let suggestions =
        suggestions.into_iter().flatten().filter_map(|s| s.as_str().map(str::to_owned)).collect();
    Err(AskError::Refused { code, message, suggestions })
}

fn converse(stream: &mut UnixStream, request: &Request) -> io::Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut text = String::new();
    stream.take(MAX_ANSWER as u64).read_to_string(&mut text)?;
    Ok(text)
}
