//! Log records as answers need them: short, and independent of where they came from.

use std::sync::Arc;

use super::hints::shorten;
use crate::trace::logs::{LogRecord, Severity};
use crate::trace::model::{Resource, SpanId, TraceId, Value};

/// Characters of a message that are kept: a sentence with a request's body in it.
const MAX_MESSAGE: usize = 600;
/// Characters of what was thrown.
const MAX_EXCEPTION: usize = 300;
/// Characters of a stack trace: where it was thrown, and by whom that was called.
const MAX_STACK: usize = 600;
/// Lines of it.
const MAX_FRAMES: usize = 6;

/// A log record, kept short. At most about 2 kB.
#[derive(Clone, Debug, PartialEq)]
pub struct Logged {
    /// When it was written, nanoseconds since the Unix epoch.
    pub wall_ns: u64,
    /// How bad.
    pub severity: Severity,
    /// Name of the logger.
    pub logger: Option<String>,
    /// What it says.
    pub message: String,
    /// `ValueError: no such symbol`, if it tells of an exception.
    pub exception: Option<String>,
    /// The frames next to where that was thrown.
    pub stack: Option<String>,
    /// The trace it was written in, if that is known, …
    pub trace_id: Option<TraceId>,
    /// … and the span.
    pub span_id: Option<SpanId>,
    /// Operation that it belongs to or names.
    pub operation: Option<String>,
    /// Whether its place, or its operation where it has no place, is not certain.
    pub inferred: bool,
    /// Who wrote it.
    pub resource: Arc<Resource>,
}

impl Logged {
    /// What is kept of a record.
    pub fn of(record: &LogRecord) -> Self {
        let text = |key: &str| record.attributes.get(key).and_then(Value::as_str);
        let kind = text("exception.type").unwrap_or_default();
        let said = text("exception.message").unwrap_or_default();
        let exception = (!kind.is_empty()).then(|| {
            let colon = if said.is_empty() { "" } else { ": " };
            shorten(&format!("{kind}{colon}{said}"), MAX_EXCEPTION)
        });
        let certainty =
            if record.trace_id.is_some() { "ktrdr.link.certainty" } else { "ktrdr.operation.certainty" };
        Self {
            wall_ns: record.wall_ns(),
            severity: record.severity,
            logger: text("log.logger").map(|l| shorten(l, 80)),
            message: shorten(record.body.trim_end(), MAX_MESSAGE),
            exception,
            stack: text("exception.stacktrace").and_then(innermost),
            trace_id: record.trace_id,
            span_id: record.span_id,
            operation: text("operation.id").map(|id| shorten(id, 100)),
            inferred: text(certainty) == Some("inferred"),
            resource: record.resource.clone(),
        }
    }

    /// The process that wrote it.
    pub fn pid(&self) -> Option<i64> {
        match self.resource.attributes.get("process.pid")? {
            Value::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// Memory it takes, estimated. The resource is shared.
    pub fn weight(&self) -> usize {
        let some = |t: &Option<String>| t.as_ref().map_or(0, String::len);
        size_of::<Self>()
            + self.message.len()
            + some(&self.logger)
            + some(&self.exception)
            + some(&self.stack)
            + some(&self.operation)
    }
}

/// Whether a frame of Python's is in an installed package or the standard library.
pub fn is_of_a_library(frame: &str) -> bool {
    let path = frame
        .trim_start()
        .strip_prefix("File \"")
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default();
    let standard =
        || path.split('/').any(|part| part.strip_prefix("python3.").is_some_and(|v| v.parse::<u8>().is_ok()));
    path.contains("/site-packages/")
        || path.contains("/dist-packages/")
        || path.starts_with('<')
        || standard()
}

/// The frames next to the failure. Python writes the innermost last, others write it first.
fn innermost(stack: &str) -> Option<String> {
    let lines: Vec<&str> = stack.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let python = stack.contains("Traceback (most recent call last)");
    // The last line of Python's is the exception itself, which has its own place; its first lines are of others.
    let shown = if python {
        let frames: Vec<&&str> = lines.iter().filter(|l| l.starts_with(' ') || l.starts_with('\t')).collect();
        let is_frame = |l: &str| l.trim_start().starts_with("File \"");
        let last = frames.iter().rposition(|l| is_frame(l));
        let first = last.map_or(0, |at| at.saturating_sub(2));
        // Where the service's own code called the library that failed, with the line of its text.
        let own = frames[..first].iter().rposition(|l| is_frame(l) && !is_of_a_library(l));
        let own = own.filter(|_| frames[first..].iter().all(|l| !is_frame(l) || is_of_a_library(l)));
        let called = own.map_or(&frames[..0], |at| {
            let text = frames.get(at + 1).is_some_and(|l| !is_frame(l));
            &frames[at..=at + usize::from(text)]
        });
        called.iter().chain(&frames[first..]).take(MAX_FRAMES).map(|l| l.trim()).collect::<Vec<_>>()
    } else {
        let at = |l: &&&str| l.starts_with(' ') || l.starts_with('\t');
        lines.iter().filter(at).take(MAX_FRAMES).map(|l| l.trim()).collect()
    };
    (!shown.is_empty()).then(|| shorten(&shown.join("\n"), MAX_STACK))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_stack_the_frames_next_to_the_failure_are_kept() {
        let python = "Traceback (most recent call last):\n  File \"a.py\", line 1, in outer\n    middle()\n  File \"b.py\", \
                      line 2, in middle\n    inner()\n  File \"c.py\", line 3, in inner\n    raise ValueError(1)\n\
                      ValueError: 1";
        let kept = innermost(python).unwrap();
        assert!(kept.starts_with("File \"b.py\"") && kept.ends_with("raise ValueError(1)"), "{kept}");
        let own = "Traceback (most recent call last):\n  File \"/srv/app.py\", line 44, in to\n    await client.get(url)\n  \
                   File \"/v/lib/python3.11/site-packages/httpx/_client.py\", line 1, in get\n    send()\n  \
                   File \"/v/lib/python3.11/site-packages/httpx/_a.py\", line 2, in send\n    go()\n  \
                   File \"/usr/lib/python3.11/asyncio/b.py\", line 3, in go\n    raise OSError(1)\nOSError: 1";
        let kept = innermost(own).unwrap();
        assert!(kept.starts_with("File \"/srv/app.py\", line 44, in to\nawait client.get(url)\n"), "{kept}");
        assert!(kept.ends_with("raise OSError(1)"), "{kept}");
        let node = "TypeError: x\n    at f (/a.js:1:2)\n    at g (/a.js:3:4)";
        assert_eq!(innermost(node).as_deref(), Some("at f (/a.js:1:2)\nat g (/a.js:3:4)"));
        assert_eq!(innermost("ValueError: 1"), None);
        let deep = format!("Error\n{}", "    at f (/a.js:1:2)\n".repeat(500));
        assert_eq!(innermost(&deep).unwrap().lines().count(), MAX_FRAMES);
    }
}
