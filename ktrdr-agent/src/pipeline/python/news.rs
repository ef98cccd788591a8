//! What the agent's log says of Python processes as they come.
//!
//! Each has a line: a service that starts is one of few. A host that runs Python programs all the time (a deployment, a test run) has
//! thousands, which would bury all else; so beyond the first few of a while they are counted, and told together.

use crate::event::shell::PythonStatus;
use crate::event::{MS, Ns};

/// How long a while is.
const WHILE: Ns = 10 * MINUTE;
const MINUTE: Ns = 60_000 * MS;
/// Processes of one kind that have a line of their own in that time: a host's services when they are started together.
const LINES: u32 = 16;

/// Which processes had a line.
#[derive(Debug, Default)]
pub(super) struct News {
    since: Ns,
    exact: Kind,
    degraded: Kind,
    /// The last degraded one without a line, and why.
    last: String,
}

/// Exact ones, or degraded ones.
#[derive(Debug, Default)]
struct Kind {
    told: u32,
    untold: u32,
}

/// A line of the log.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Info(String),
    Warn(String),
}

impl News {
    /// What to say of a process, if anything.
    pub fn of(&mut self, status: &PythonStatus) -> Option<Line> {
        let PythonStatus { tgid, version, exact, why, .. } = status;
        let kind = if *exact { &mut self.exact } else { &mut self.degraded };
        if kind.told == LINES {
            kind.untold = kind.untold.saturating_add(1);
            if !exact {
                self.last = format!("pid {tgid}: {why}");
            }
            return None;
        }
        kind.told += 1;
        Some(match exact {
            true if why.is_empty() => {
                Line::Info(format!("python causality: exact (pid {tgid}, CPython {version})"))
            }
            true => Line::Info(format!(
                "python causality: exact (pid {tgid}, CPython {version}), but not of {why}"
            )),
            false => Line::Warn(format!("python causality: degraded (pid {tgid}): {why}")),
        })
    }

    /// Time goes on; what to say of processes that had no line.
    pub fn pass(&mut self, now: Ns) -> Vec<Line> {
        if now.saturating_sub(self.since) < WHILE {
            return Vec::new();
        }
        self.since = now;
        let minutes = WHILE / MINUTE;
        let exact = std::mem::take(&mut self.exact).untold;
        let degraded = std::mem::take(&mut self.degraded).untold;
        let mut lines = Vec::new();
        if exact > 0 {
            lines.push(Line::Info(format!(
                "python causality: exact in {exact} more processes within {minutes} min"
            )));
        }
        if degraded > 0 {
            let last = std::mem::take(&mut self.last);
            lines.push(Line::Warn(format!(
                "python causality: degraded in {degraded} more processes within {minutes} min, last {last}"
            )));
        }
        lines
    }

    /// Into the log.
    pub fn say(line: Line) {
        match line {
            Line::Info(text) => tracing::info!("{text}"),
            Line::Warn(text) => tracing::warn!("{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(tgid: u32, exact: bool) -> PythonStatus {
        PythonStatus {
            tgid,
            version: "3.11.7".into(),
            exact,
            why: if exact { String::new() } else { "no room".into() },
            ..PythonStatus::default()
        }
    }

    #[test]
    fn the_first_of_a_while_have_a_line_each_and_the_rest_one() {
        let mut news = News::default();
        assert_eq!(news.pass(20 * WHILE), []);
        let lines: Vec<_> = (0..40).filter_map(|n| news.of(&status(n, true))).collect();
        assert_eq!(lines.len(), LINES as usize);
        assert_eq!(lines[3], Line::Info("python causality: exact (pid 3, CPython 3.11.7)".into()));
        // Degraded ones are not hidden by those.
        let lines: Vec<_> = (50..67).filter_map(|n| news.of(&status(n, false))).collect();
        assert_eq!(lines.len(), LINES as usize);
        assert_eq!(lines[0], Line::Warn("python causality: degraded (pid 50): no room".into()));

        assert_eq!(news.pass(21 * WHILE - 1), []);
        let told = news.pass(21 * WHILE);
        let exact = "python causality: exact in 24 more processes within 10 min";
        let degraded = "python causality: degraded in 1 more processes within 10 min, last pid 66: no room";
        assert_eq!(told, [Line::Info(exact.into()), Line::Warn(degraded.into())]);
        assert!(news.of(&status(41, true)).is_some());
        assert_eq!(news.pass(30 * WHILE), [], "all had a line");
    }
}
