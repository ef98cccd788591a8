//! Stack traces: which lines belong to one, and what was thrown.
//!
//! Python (chained exceptions, exception groups, the marker lines of 3.11 and later), Node, Java, Go and Rust.

/// Where in a stack trace a record's last line was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stack {
    /// In none.
    #[default]
    None,
    /// Announced: `Task exception was never retrieved`, `Exception in thread …`; so many lines may precede it.
    Announced(u8),
    /// Python: in the frames below `Traceback (most recent call last):`.
    Frames,
    /// Python: past the exception's own line; another one may be chained.
    Thrown,
    /// Python: in the boxes of an exception group.
    Group,
    /// Node and Java: below `at …` lines.
    At,
    /// Go: in a panic's goroutines.
    Go,
    /// Rust: below `thread … panicked at`, before the note about the backtrace.
    Panicked(u8),
    /// Rust: in a backtrace.
    Backtrace,
}

const TRACEBACK: &str = "Traceback (most recent call last):";
const GROUP_TRACEBACK: &str = "+ Exception Group Traceback (most recent call last):";
const CAUSED: &str = "The above exception was the direct cause of the following exception:";
const DURING: &str = "During handling of the above exception, another exception occurred:";
/// Lines between an announcement and its traceback: `future: <Task …>`.
const ANNOUNCED_LINES: u8 = 4;
/// Lines of a Rust panic's message.
const PANIC_LINES: u8 = 8;

/// Whether a line begins as one that says something of a stack trace: hardly any does, and each is asked several times.
fn may_announce(line: &str) -> bool {
    match line.as_bytes().first() {
        Some(b'T' | b'F' | b'E' | b'U' | b'p' | b'f' | b'g' | b't' | b'+') => true,
        // Blanks of any kind may come before a group's.
        Some(b) => b.is_ascii_whitespace() || *b == 0x0b || !b.is_ascii(),
        None => false,
    }
}

/// A line that announces a stack trace without a logger's help.
fn announces(line: &str) -> Option<Stack> {
    if !may_announce(line) {
        return None;
    }
    const ANNOUNCEMENTS: [&str; 6] = [
        "Task exception was never retrieved",
        "Future exception was never retrieved",
        "Exception in thread ",
        "Exception ignored in",
        "Unhandled exception in",
        "Exception in callback ",
    ];
    if line.starts_with(TRACEBACK) {
        Some(Stack::Frames)
    } else if line.trim_start().starts_with(GROUP_TRACEBACK) {
        Some(Stack::Group)
    } else if ANNOUNCEMENTS.iter().any(|a| line.starts_with(a)) {
        Some(Stack::Announced(ANNOUNCED_LINES))
    } else if line.starts_with("panic: ") || line.starts_with("fatal error: ") || is_goroutine(line) {
        Some(Stack::Go)
    } else if line.starts_with("thread '") && line.contains("panicked at") {
        Some(Stack::Panicked(PANIC_LINES))
    } else {
        None
    }
}

fn is_goroutine(line: &str) -> bool {
    line.starts_with("goroutine ") && line.ends_with("]:")
}

/// `    at f (file.js:1:2)`, `\tat a.b.C.d(C.java:1)`.
fn is_at(line: &str) -> bool {
    let inner = line.trim_start();
    inner.len() < line.len()
        && (inner.starts_with("at ") || (inner.starts_with("... ") && inner.ends_with(" more")))
}

impl Stack {
    /// The state after a record's first line.
    pub fn begin(line: &str) -> Stack {
        announces(line).unwrap_or_default()
    }

    /// Whether a line goes on with the record; the state moves on if it does.
    pub fn takes(&mut self, line: &str) -> bool {
        let next = self.next(line);
        if let Some(next) = next {
            *self = next;
        }
        next.is_some()
    }

    fn next(self, line: &str) -> Option<Stack> {
        let indented = line.starts_with([' ', '\t']);
        match self {
            Stack::Frames if indented || line.is_empty() => Some(Stack::Frames),
            // The exception's own line ends the frames, whatever it looks like.
            Stack::Frames => Some(Stack::Thrown),
            Stack::Thrown if line == CAUSED || line == DURING || line.is_empty() => Some(Stack::Thrown),
            Stack::Group if indented || line.is_empty() || line == CAUSED || line == DURING => {
                Some(Stack::Group)
            }
            Stack::Go if line.is_empty() || indented || line.starts_with("created by ") => Some(Stack::Go),
            Stack::Go if line.starts_with("[signal ") || line.ends_with(')') || is_goroutine(line) => {
                Some(Stack::Go)
            }
            Stack::Panicked(_) if line == "stack backtrace:" => Some(Stack::Backtrace),
            Stack::Panicked(_) if line.starts_with("note: ") => Some(Stack::None),
            Stack::Panicked(left) => left.checked_sub(1).map(Stack::Panicked),
            Stack::Backtrace if indented => Some(Stack::Backtrace),
            Stack::Backtrace if line.starts_with("note: ") => Some(Stack::None),
            Stack::At if line.starts_with("Caused by: ") || is_at(line) || indented => Some(Stack::At),
            _ if announces(line).is_some_and(|s| s != Stack::Announced(ANNOUNCED_LINES)) => announces(line),
            _ if is_at(line) => Some(Stack::At),
            Stack::Announced(left) => left.checked_sub(1).map(Stack::Announced),
            _ if indented => Some(self),
            _ => None,
        }
    }

    /// More is sure to come.
    pub fn unfinished(self) -> bool {
        matches!(self, Stack::Announced(_) | Stack::Frames | Stack::Panicked(_))
    }

    /// A stack trace was seen.
    pub fn any(self) -> bool {
        self != Stack::None
    }
}

/// What was thrown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// `exception.type`.
    pub kind: String,
    /// `exception.message`.
    pub message: String,
    /// `exception.stacktrace`, as it was written.
    pub stack: String,
}

impl Exception {
    /// "ValueError: bad", or only the type.
    pub fn summary(&self) -> String {
        if self.message.is_empty() { self.kind.clone() } else { format!("{}: {}", self.kind, self.message) }
    }
}

/// The exception in a record, and the part of the record before it. `text`: whole, or without its logger's prefix.
pub fn exception(text: &str) -> Option<(&str, Exception)> {
    // Nearly all records are of one line, which alone says this in Go and Rust only.
    if !may_announce(text) && memchr::memchr(b'\n', text.as_bytes()).is_none() {
        return None;
    }
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|l| {
        may_announce(l)
            && (l.starts_with(TRACEBACK)
                || l.trim_start().starts_with(GROUP_TRACEBACK)
                || l.starts_with("panic: ")
                || l.starts_with("fatal error: ")
                || (l.starts_with("thread '") && l.contains("panicked at")))
    });
    let (at, (kind, message)) = match first {
        Some(at) if lines[at].starts_with("thread '") => (at, rust(&lines[at..])),
        Some(at) if lines[at].starts_with("panic: ") || lines[at].starts_with("fatal error: ") => {
            let (kind, message) = lines[at].split_once(": ")?;
            (at, (kind.to_owned(), message.to_owned()))
        }
        Some(at) => (at, python(&lines[at..])?),
        None => {
            let at = lines.iter().position(|l| is_at(l)).filter(|at| *at > 0)? - 1;
            (at, thrown(lines[at].strip_prefix("Uncaught ").unwrap_or(lines[at]))?)
        }
    };
    // `lines` borrows from `text`, so the place of a line is the difference of addresses.
    let place = lines[at].as_ptr() as usize - text.as_ptr() as usize;
    let (before, stack) = text.split_at(place);
    Some((before.trim_end(), Exception { kind, message, stack: stack.trim_end().to_owned() }))
}

/// The exception thrown last: the first line after the last frames that is not indented, and what follows it.
fn python(lines: &[&str]) -> Option<(String, String)> {
    let group = lines.first()?.trim_start().starts_with(GROUP_TRACEBACK);
    let mut found = None;
    let mut in_frames = false;
    for (i, line) in lines.iter().enumerate() {
        let line = if group { group_line(line) } else { Some(*line) };
        let Some(line) = line else { continue };
        if line.starts_with(TRACEBACK) || line.starts_with(GROUP_TRACEBACK) {
            in_frames = true;
        } else if in_frames && !line.is_empty() && !line.starts_with([' ', '\t']) {
            in_frames = false;
            found = Some(i);
            if group {
                // The boxes below are the group's members.
                break;
            }
        }
    }
    let at = found?;
    let strip = |line| if group { group_line(line).unwrap_or_default() } else { line };
    let first = strip(lines[at]);
    let (kind, message) = thrown(first).unwrap_or_else(|| (first.to_owned(), String::new()));
    let mut message = message;
    for line in lines[at + 1..].iter().take_while(|l| !group && !l.is_empty() && !l.starts_with(TRACEBACK)) {
        message.push('\n');
        message.push_str(line);
    }
    Some((kind, message))
}

/// A line of the outermost box of an exception group, without its border.
fn group_line(line: &str) -> Option<&str> {
    let inner = line.strip_prefix("  ")?;
    inner.strip_prefix("| ").or_else(|| inner.starts_with(GROUP_TRACEBACK).then_some(inner))
}

/// `package.Type: message` or `Type`.
fn thrown(line: &str) -> Option<(String, String)> {
    let line = match line.strip_prefix("Exception in thread \"") {
        Some(rest) => rest.split_once("\" ")?.1,
        None => line,
    };
    let (kind, message) = line.split_once(": ").unwrap_or((line.strip_suffix(':').unwrap_or(line), ""));
    let name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '$' | '<' | '>');
    // Node adds its code: `TypeError [ERR_INVALID_ARG_TYPE]: …`.
    let kind = kind.split_once(" [").map_or(kind, |(kind, _)| kind);
    let plausible = kind.len() <= 200 && kind.starts_with(|c: char| c.is_alphabetic() || c == '_');
    (plausible && kind.chars().all(name)).then(|| (kind.to_owned(), message.to_owned()))
}

/// `thread 'main' panicked at src/main.rs:2:5:` and the message below, or before 1.73 the message in quotes.
fn rust(lines: &[&str]) -> (String, String) {
    let after = lines[0].split_once("panicked at ").map_or("", |(_, rest)| rest);
    let message = match after.strip_prefix('\'').and_then(|rest| rest.rsplit_once("', ")) {
        Some((message, _)) => message.to_owned(),
        None => {
            let ends = |l: &&&str| !l.starts_with("note: ") && **l != "stack backtrace:";
            lines[1..].iter().take_while(ends).copied().collect::<Vec<_>>().join("\n")
        }
    };
    ("panic".to_owned(), message)
}

#[cfg(test)]
mod tests;
