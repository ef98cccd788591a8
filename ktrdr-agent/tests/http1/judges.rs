//! What h11 and llhttp say of streams: a program of ours runs them (`tests/programs/http1_judges.py`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ktrdr_agent::protocol::Side;
use serde::Deserialize;
use serde_json::json;

/// Bytes of one side of a connection.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Whose.
    pub side: Side,
    /// For responses: the methods they answer.
    pub asked: Vec<String>,
    /// All of them.
    pub bytes: Vec<u8>,
}

/// A message as a judge read it.
#[derive(Clone, Debug, Deserialize)]
pub struct Message {
    /// Method and target, one character a byte; or the status code.
    pub start: String,
    /// Bytes of its body.
    pub size: u64,
    /// Its end was seen. llhttp is not told of the end of the stream, so with it the last one may be open.
    pub whole: bool,
}

/// What one judge made of a stream.
#[derive(Clone, Debug, Deserialize)]
pub struct Verdict {
    /// Messages, the last of which may be broken off.
    pub messages: Vec<Message>,
    /// Why it refused to go on, if it did.
    pub error: Option<String>,
    /// It read all and would go on; false, for instance, behind `Connection: close`.
    pub in_step: bool,
}

/// What both made of it; `None`: it cannot know what was asked.
#[derive(Debug, Deserialize)]
pub struct Verdicts {
    /// h11.
    pub h11: Option<Verdict>,
    /// llhttp.
    pub llhttp: Option<Verdict>,
}

impl Verdicts {
    /// Messages from the first that one of them read whole.
    pub fn understood(&self) -> usize {
        let whole = |v: &Verdict| v.messages.iter().take_while(|m| m.whole).count();
        [&self.h11, &self.llhttp].into_iter().flatten().map(whole).max().unwrap_or(0)
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Has all streams judged.
pub fn judge(streams: &[&Stream]) -> Vec<Verdicts> {
    let python =
        std::env::var_os("KTRDR_PYTHON").map_or_else(|| root().join("tests/.venv/bin/python"), PathBuf::from);
    assert!(python.exists(), "{} is missing: `cargo xtask setup` makes it", python.display());
    let mut judges = Command::new(python)
        .arg(root().join("tests/programs/http1_judges.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut asked = String::new();
    for stream in streams {
        let side = if stream.side == Side::Request { "request" } else { "response" };
        let bytes: String = stream.bytes.iter().map(|b| format!("{b:02x}")).collect();
        asked += &json!({ "side": side, "asked": stream.asked, "bytes": bytes }).to_string();
        asked.push('\n');
    }
    // Beside the reading, or both would wait for each other.
    let mut stdin = judges.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(asked.as_bytes()).unwrap());
    let output = judges.wait_with_output().unwrap();
    writing.join().unwrap();
    assert!(output.status.success(), "the judges failed: {}", output.status);
    let said = String::from_utf8(output.stdout).unwrap();
    let verdicts: Vec<Verdicts> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(verdicts.len(), streams.len());
    verdicts
}
