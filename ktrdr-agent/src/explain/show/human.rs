//! One screen for a person: the verdict, how it came to it, what happened, what is missing, what to do.

use std::fmt::Write;

use super::Style;
use crate::explain::schema::{LogLine, Report, Row, Step};
use crate::explain::{Kind, Listing};
use crate::export::console::human::text::{clean, duration, fit, width, wrap};
use crate::export::time::{Utc, parse_rfc3339};

mod sgr {
    pub const RESET: &str = "\x1b[0m";
    pub const DIM: &str = "\x1b[2m";
    pub const BOLD: &str = "\x1b[1m";
    pub const RED: &str = "\x1b[31m";
    pub const GREEN: &str = "\x1b[32m";
    pub const YELLOW: &str = "\x1b[33m";
}

/// A narrower screen is treated as this wide.
const MIN_WIDTH: usize = 72;
/// Timeline lines on a screen of 24 to 50 lines, with the rest around them.
const MAX_ROWS: usize = 22;
/// Lines of a sentence in a list: 20 rows stay on a screen or two.
const MAX_LINES: usize = 2;
/// Columns of a log record's text, at least.
const MIN_LOG: usize = 30;
/// Blanks before the text of a section.
const LEFT: usize = 2;

/// The whole answer.
pub fn report(r: &Report, style: &Style) -> String {
    let mut p = Page { out: String::new(), style };
    p.verdict(r);
    p.chain(r);
    p.logs(r);
    p.timeline(r);
    p.list("also", r.causes.iter().skip(1).map(|c| format!("{}: {}", c.kind.outcome(), c.sentence)));
    p.list("not in the picture", r.gaps.iter().cloned());
    p.list("next", r.hints.iter().cloned());
    p.out
}

/// Recent operations and errors.
pub fn listing(l: &Listing, style: &Style) -> String {
    let mut p = Page { out: String::new(), style };
    if l.rows.is_empty() {
        let _ = writeln!(
            p.out,
            "no operations and no errors in the {} spans of {} traces kept so far",
            l.spans, l.traces
        );
        return p.out;
    }
    for row in &l.rows {
        p.put(sgr::DIM, &p.clock(&row.time));
        let (color, word) = mood(row.kind);
        p.out.push_str("  ");
        p.put(color, &format!("{:<16}", word));
        p.put(sgr::BOLD, &clean(&row.id));
        let times = if row.count > 1 { format!(", the last of {}", row.count) } else { String::new() };
        let _ = writeln!(p.out, "  {}{times}", ms(row.duration_ms));
        let room = p.width() - 10;
        let mut lines = wrap(&clean(&row.sentence), room);
        if lines.len() > MAX_LINES {
            lines.truncate(MAX_LINES);
            // The rest is asked for with the id.
            if let Some(last) = lines.last_mut() {
                *last = fit(&format!("{last} …"), room);
            }
        }
        for line in lines {
            let _ = writeln!(p.out, "{:10}{line}", "");
        }
    }
    let _ = writeln!(p.out);
    p.put(sgr::DIM, "ktrdr-agent explain <id>   # says why");
    p.out.push('\n');
    p.out
}

fn mood(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Ok => (sgr::GREEN, "ok"),
        Kind::Slow | Kind::Waiting | Kind::GpuNotUsed | Kind::GpuIdle | Kind::MissingData => {
            (sgr::YELLOW, kind.outcome())
        }
        _ => (sgr::RED, kind.outcome()),
    }
}

fn ms(ms: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
    duration((ms.max(0.0) * 1e6) as u64)
}

struct Page<'a> {
    out: String,
    style: &'a Style,
}

impl Page<'_> {
    fn width(&self) -> usize {
        self.style.width.max(MIN_WIDTH)
    }

    fn put(&mut self, sgr: &str, text: &str) {
        if self.style.color && !sgr.is_empty() {
            self.out.extend([sgr, text, sgr::RESET]);
        } else {
            self.out.push_str(text);
        }
    }

    fn paragraph(&mut self, sgr: &str, text: &str, left: usize) {
        for line in wrap(&clean(text), self.width() - left) {
            self.out.extend(std::iter::repeat_n(' ', left));
            self.put(sgr, &line);
            self.out.push('\n');
        }
    }

    fn heading(&mut self, text: &str) {
        self.out.push('\n');
        self.put(sgr::DIM, text);
        self.out.push('\n');
    }

    fn verdict(&mut self, r: &Report) {
        let (color, word) = mood(r.verdict.kind);
        let word = word.to_uppercase();
        let bold = format!("{color}{}", sgr::BOLD);
        let text = clean(&r.verdict.sentence);
        // The word stands on the sentence's first line.
        for (i, line) in wrap(&text, self.width() - word.len() - 2).into_iter().enumerate() {
            if i == 0 {
                self.put(&bold, &word);
                self.out.push_str("  ");
            } else {
                self.out.extend(std::iter::repeat_n(' ', word.len() + 2));
            }
            self.out.push_str(&line);
            self.out.push('\n');
        }
        let mut about = Vec::new();
        if r.verdict.confidence == "inferred" {
            about.push("inferred, see below".to_owned());
        }
        if let Some(o) = &r.operation {
            let status = o.status.as_ref().map(|s| format!(", {s}")).unwrap_or_default();
            about.push(format!("operation {}{status}", o.id));
        }
        match r.trace_ids.as_slice() {
            [] => {}
            [one] => about.push(format!("trace {one}")),
            [first, ..] => about.push(format!("trace {first} and others")),
        }
        about.push(format!("{} spans in {}", r.spans, ms(r.duration_ms)));
        self.paragraph(sgr::DIM, &about.join(" · "), word.len() + 2);
    }

    /// A chain of one call says no more than the verdict.
    fn chain(&mut self, r: &Report) {
        if r.chain.len() < 2 {
            return;
        }
        self.heading("how it came to that");
        for (i, step) in r.chain.iter().enumerate() {
            self.step(i, step, i + 1 == r.chain.len());
        }
    }

    fn step(&mut self, i: usize, step: &Step, last: bool) {
        let left = LEFT + 2 * i.min(8);
        let word = match step.relation.as_str() {
            "calls" => String::new(),
            other => format!("{other}: "),
        };
        let to = step.to.as_ref().map(|t| format!(" → {t}")).unwrap_or_default();
        let sure = if step.confidence == "inferred" { ", inferred" } else { "" };
        let text = format!(
            "{word}{}{to}  {}  {} after {}{sure}",
            step.service,
            step.what,
            step.outcome,
            ms(step.duration_ms)
        );
        let text = fit(&clean(&text), self.width() - left - 2);
        self.out.extend(std::iter::repeat_n(' ', left));
        self.put(sgr::DIM, if i == 0 { "" } else { "└ " });
        self.put(if last { sgr::RED } else { "" }, &text);
        self.out.push('\n');
    }

    fn logs(&mut self, r: &Report) {
        if r.logs.is_empty() {
            return;
        }
        self.heading("what was logged");
        for line in &r.logs {
            self.log(line);
        }
    }

    fn log(&mut self, l: &LogLine) {
        let color = match l.severity.as_str() {
            "ERROR" | "FATAL" => sgr::RED,
            "WARN" => sgr::YELLOW,
            _ => "",
        };
        let first = |text: &str| clean(text.lines().next().unwrap_or_default());
        let mut text = first(&l.message);
        if let Some(logger) = &l.logger {
            text = format!("{}: {text}", clean(logger));
        }
        if let Some(exception) = l.exception.as_deref().map(first).filter(|e| !text.contains(e.as_str())) {
            text = format!("{text} ({exception})");
        }
        if l.count > 1 {
            text = format!("{text} (×{})", l.count);
        }
        if l.relation == "last_words" {
            text = format!("{text} (before it ended)");
        }
        if l.confidence == "inferred" {
            text = format!("{text} (inferred)");
        }
        let head = format!("{}  {}  ", self.clock(&l.time), clean(&l.service));
        self.out.push_str("  ");
        self.put(sgr::DIM, &head);
        let severity = if l.severity.is_empty() { String::new() } else { format!("{} ", l.severity) };
        self.put(color, &clean(&severity));
        let room = self.width().saturating_sub(LEFT + width(&head) + width(&severity)).max(MIN_LOG);
        self.out.push_str(&fit(&text, room));
        self.out.push('\n');
        // The frame in which it was thrown; of Python's the last one of the service's own code, if it is among them.
        let at = l.stack.as_deref().and_then(|s| {
            let mut python = s.lines().filter(|f| f.starts_with("File \"")).rev();
            let own = python.clone().find(|f| !crate::explain::logged::is_of_a_library(f));
            own.or_else(|| python.next()).or_else(|| s.lines().next())
        });
        if let Some(at) = at {
            self.put(sgr::DIM, &format!("{:16}{}", "", fit(&clean(at.trim()), self.width() - 16)));
            self.out.push('\n');
        }
    }

    fn timeline(&mut self, r: &Report) {
        if r.timeline.is_empty() {
            return;
        }
        self.heading(&format!("what happened, from {}", self.clock(&r.start_time)));
        let mut rows = r.timeline.clone();
        let cut = crate::explain::timeline::thin(&mut rows, MAX_ROWS);
        let lines: Vec<(String, String, String, String)> = rows.iter().map(cells).collect();
        let longest =
            |f: fn(&(String, String, String, String)) -> usize| lines.iter().map(f).max().unwrap_or(0);
        let at = longest(|c| width(&c.0));
        let outcome = longest(|c| width(&c.2)).min(24);
        let took = longest(|c| width(&c.3)).min(34);
        let room = self.width().saturating_sub(LEFT + at + outcome + took + 6);
        let call = longest(|c| width(&c.1)).min(room);
        for (row, (when, text, went, how_long)) in rows.iter().zip(&lines) {
            let color = match (row.cause, row.failed) {
                (true, _) => sgr::RED,
                (_, true) => sgr::YELLOW,
                _ => "",
            };
            let pad =
                |text: &str, to: usize| format!("{}{}", text, " ".repeat(to.saturating_sub(width(text))));
            self.out.push_str("  ");
            self.put(sgr::DIM, &format!("{:>at$}  ", when));
            self.out.push_str(&pad(&fit(text, call), call));
            self.out.push_str("  ");
            self.put(color, &pad(&fit(went, outcome), outcome));
            self.out.push_str("  ");
            let end = format!("{}{}", fit(how_long, took), if row.cause { "  ◄ cause" } else { "" });
            self.out.push_str(end.trim_end());
            self.out.push('\n');
        }
        let mut left_out = r.truncated.clone();
        if cut > 0 {
            left_out.push(format!("{cut} lines here (see --json)"));
        }
        if !left_out.is_empty() {
            self.put(sgr::DIM, &format!("  left out: {}", clean(&left_out.join(", "))));
            self.out.push('\n');
        }
    }

    fn list(&mut self, heading: &str, items: impl Iterator<Item = String>) {
        for (i, item) in items.enumerate() {
            if i == 0 {
                self.heading(heading);
            }
            self.paragraph("", &item, LEFT);
        }
    }

    /// `12:31:04.512`, local time.
    fn clock(&self, rfc3339: &str) -> String {
        let Some(ns) = parse_rfc3339(rfc3339) else { return clean(rfc3339) };
        let offset = (self.style.utc_offset)(ns / 1_000_000_000).saturating_mul(1_000_000_000);
        let Utc { time: (h, m, s), nanos, .. } = Utc::from_unix_ns(ns.saturating_add_signed(offset));
        format!("{h:02}:{m:02}:{s:02}.{:03}", nanos / 1_000_000)
    }
}

/// When, who called whom, how it went, how long.
fn cells(row: &Row) -> (String, String, String, String) {
    let indent = "  ".repeat(row.depth.min(10));
    let to = row.to.as_ref().map(|t| format!(" → {t}")).unwrap_or_default();
    let after = if row.after { "later: " } else { "" };
    let text = format!("{indent}{after}{}{to}  {}", row.service, row.what);
    let mark = if row.failed { "✗ " } else { "" };
    let took = match (row.count, row.until_ms, row.mean_ms) {
        (2.., Some(until), Some(mean)) => {
            format!("×{}, {} each, until +{}", row.count, ms(mean), ms(until))
        }
        _ => ms(row.duration_ms),
    };
    (format!("+{}", ms(row.at_ms)), clean(&text), clean(&format!("{mark}{}", row.outcome)), took)
}
