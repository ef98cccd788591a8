//! Lines into columns: time, who, what, outcome, duration; sentences and notes below their line.

use std::fmt::Write;
use std::time::Duration;

use super::describe::Mood;
use super::forest::{Forest, Line, Repeat};
use super::text::{duration, fit, width, wrap};
use crate::export::time::Utc;
use crate::trace::logs::Severity;
use crate::trace::model::TraceId;

/// How to write.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Columns of the screen.
    pub width: usize,
    /// Use colours.
    pub color: bool,
    /// Seconds that local time is ahead of UTC at a second since the Unix epoch.
    pub utc_offset: fn(u64) -> i64,
}

/// `12:31:04.512`.
const TIME: usize = 12;
/// `✗ no route`, the longest common outcome; a longer one is cut.
const OUTCOME: usize = 10;
/// `2 m 05 s`, `34.1 ms`.
const DURATION: usize = 8;
/// Blanks between columns.
const GAP: usize = 2;
/// A narrower screen is treated as this wide: the columns need it.
const MIN_WIDTH: usize = 72;
/// Where less than this is left for who and what together, what goes below who rather than be cut.
const NARROW: usize = 68;
/// Least widths of who and what, so that short traces stand in the same columns as most others.
const USUAL: (usize, usize) = (34, 36);

/// SGR sequences.
mod sgr {
    pub const RESET: &str = "\x1b[0m";
    pub const DIM: &str = "\x1b[2m";
    pub const RED: &str = "\x1b[31m";
    pub const GREEN: &str = "\x1b[32m";
    pub const YELLOW: &str = "\x1b[33m";
    pub const BOLD: &str = "\x1b[1m";
}

/// Appends a trace and an empty line. `late`: how long ago the other part of it was printed.
pub fn trace(id: TraceId, forest: &Forest, late: Option<Duration>, style: &Style, out: &mut String) {
    let painter = Painter { style };
    if let Some(ago) = late {
        let text = format!("later in trace {id}, printed {} ago:", duration(ago.as_nanos() as u64));
        painter.put(out, sgr::DIM, &text);
        out.push('\n');
    }
    let columns = columns(&forest.lines, style.width);
    for line in &forest.lines {
        painter.line(line, &columns, out);
    }
    // The id is what `explain` and the backend are asked with; a lone good call needs none.
    if late.is_none() && (forest.lines.len() > 1 || forest.failed > 0) {
        let errors = match forest.failed {
            0 => String::new(),
            1 => ", 1 error".into(),
            n => format!(", {n} errors"),
        };
        let plural = if forest.spans == 1 { "" } else { "s" };
        let text = format!("{:TIME$}  trace {id}, {} span{plural}{errors}", "", forest.spans);
        painter.put(out, sgr::DIM, &text);
        out.push('\n');
    }
    out.push('\n');
}

/// Widths of two columns.
struct Columns {
    who: usize,
    /// `None`: below who.
    what: Option<usize>,
}

/// Widths of who and what: as wide as their longest text, as far as the screen allows.
fn columns(lines: &[Line], screen: usize) -> Columns {
    let fixed = TIME + OUTCOME + DURATION + 4 * GAP;
    let room = screen.max(MIN_WIDTH) - fixed;
    let longest = |f: fn(&Line) -> usize| lines.iter().map(f).max().unwrap_or(0);
    let who = longest(|l| indent(l.depth) + width(&l.who));
    let what = longest(|l| width(&l.what));
    if who + what <= room {
        let who = who.max(USUAL.0).min(room - what);
        return Columns { who, what: Some(what.max(USUAL.1).min(room - who)) };
    }
    if room < NARROW {
        return Columns { who: room + GAP, what: None };
    }
    // Too wide: each may keep half, and what the other does not need.
    let half = room / 2;
    let who = who.min(half.max(room.saturating_sub(what)));
    Columns { who, what: Some(room - who) }
}

/// Columns taken by the tree's lines: `└ ` from depth 1 on.
fn indent(depth: usize) -> usize {
    2 * depth
}

/// Appends a log record's text in the colour of its severity.
pub fn put_log(style: &Style, severity: Severity, text: &str, out: &mut String) {
    let color = if severity >= Severity::ERROR { sgr::RED } else { sgr::YELLOW };
    Painter { style }.put(out, color, text);
}

struct Painter<'a> {
    style: &'a Style,
}

impl Painter<'_> {
    fn put(&self, out: &mut String, sgr: &str, text: &str) {
        if self.style.color && !sgr.is_empty() {
            out.extend([sgr, text, sgr::RESET]);
        } else {
            out.push_str(text);
        }
    }

    /// Puts a text into a column, filled up with blanks.
    fn cell(&self, out: &mut String, sgr: &str, text: &str, columns: usize) {
        let text = fit(text, columns);
        self.put(out, sgr, &text);
        out.extend(std::iter::repeat_n(' ', columns.saturating_sub(width(&text))));
    }

    fn line(&self, line: &Line, columns: &Columns, out: &mut String) {
        let who = columns.who;
        let gap = " ".repeat(GAP);
        self.put(out, sgr::DIM, &self.time(line.start_ns));
        out.push_str(&gap);
        let indent = indent(line.depth).min(who / 2);
        if indent >= 2 {
            out.push_str(&" ".repeat(indent - 2));
            self.put(out, sgr::DIM, "└ ");
        }
        self.cell(out, sgr::BOLD, &line.who, who - indent);
        out.push_str(&gap);
        if let Some(what) = columns.what {
            self.cell(out, "", &line.what, what);
            out.push_str(&gap);
        }
        let (color, mark) = match line.outcome.mood {
            Mood::Plain => ("", ""),
            Mood::Good => (sgr::GREEN, ""),
            Mood::Odd => (sgr::YELLOW, ""),
            Mood::Bad => (sgr::RED, "✗ "),
        };
        self.cell(out, color, &format!("{mark}{}", line.outcome.word), OUTCOME);
        out.push_str(&gap);
        let _ = writeln!(out, "{:>DURATION$}", duration(line.duration_ns));
        let left = TIME + GAP + indent + if line.depth > 0 { 0 } else { 2 };
        if columns.what.is_none() {
            self.below("", &line.what, left, out);
        }
        if let Some(sentence) = &line.sentence {
            self.below(sgr::RED, sentence, left, out);
        }
        for (severity, text) in &line.logs {
            let color = if *severity >= Severity::ERROR { sgr::RED } else { sgr::YELLOW };
            self.below(color, &format!("▸ {text}"), left, out);
        }
        if let Some(Repeat { count, last_ns, slowest_ns }) = line.repeat {
            let (last, slowest) = (self.time(last_ns), duration(slowest_ns));
            let text = format!("{count} times, the last at {last}, the slowest {slowest}");
            self.below(sgr::DIM, &text, left, out);
        }
        if !line.notes.is_empty() {
            self.below(sgr::DIM, &line.notes.join("; "), left, out);
        }
    }

    fn below(&self, sgr: &str, text: &str, left: usize, out: &mut String) {
        let room = self.style.width.max(MIN_WIDTH) - left;
        for part in wrap(text, room) {
            out.push_str(&" ".repeat(left));
            self.put(out, sgr, &part);
            out.push('\n');
        }
    }

    fn time(&self, ns: u64) -> String {
        let offset = (self.style.utc_offset)(ns / 1_000_000_000).saturating_mul(1_000_000_000);
        let Utc { time: (h, m, s), nanos, .. } = Utc::from_unix_ns(ns.saturating_add_signed(offset));
        format!("{h:02}:{m:02}:{s:02}.{:03}", nanos / 1_000_000)
    }
}
