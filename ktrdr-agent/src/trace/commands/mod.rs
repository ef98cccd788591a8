//! Commands: programs that are started, make calls and end. Each gets a span of its own, from its exec to its end, that
//! its calls hang below.
//!
//! Two kinds of process are commands:
//! - those that the settings name, from their exec on;
//! - any other that is young when it makes its first call, serves nobody and ends soon. Whether it will is known at its
//!   end only, so its calls wait for a moment ([`crate::trace::assembly`] has the bound), and then are what they were
//!   without it.
//!
//! A process that listens or reads a request is a service and never a command, and one that was there before the agent
//! has no exec to begin at. A child that has executed nothing (`multiprocessing`'s fork) works for its parent's command.

pub mod name;
pub mod span;

use hashlink::LruCache;

use crate::event::{MS, Ns};
use crate::trace::causality::SpanRef;

/// Programs under way that are remembered, about 100 bytes each: more than a host of KTRDR's size runs at a time.
const MAX_PROGRAMS: usize = 4_096;
/// Processes that run one of them.
const MAX_PROCESSES: usize = 2 * MAX_PROGRAMS;
/// A process whose first call comes later is no command, unless the settings name it: interpreters take a second to
/// load on a busy machine.
pub const YOUNG_NS: Ns = 10_000 * MS;
/// Start times of processes come in clock ticks.
const TICK_NS: Ns = 10 * MS;

/// Number of a program's execution.
type Number = u64;

/// A program that was executed.
#[derive(Clone, Debug)]
pub struct Program {
    /// Process.
    pub tgid: u32,
    /// Parent process.
    pub ppid: u32,
    /// When it was executed.
    pub exec: Ns,
    /// Its span, from its first call on, or from its exec if the settings name it.
    pub span: Option<SpanRef>,
    /// The settings name it.
    pub known: bool,
    /// The process that made its first call: itself, or a child that describes it as well.
    pub by: u32,
    /// Its end, once it has ended; the last that was seen of it, if its end was not.
    pub end: Option<Ns>,
    /// When its last call began.
    last: Ns,
    /// It listens, or has read a request.
    serves: bool,
    /// The program that started it.
    parent: Option<Number>,
}

/// What becomes of a program's span.
#[derive(Clone, Debug)]
pub struct Over {
    /// Of which program.
    pub program: Program,
    /// Its span.
    pub span: SpanRef,
}

/// All programs under way.
pub struct Commands {
    programs: LruCache<Number, Program, foldhash::fast::FixedState>,
    running: LruCache<u32, Number, foldhash::fast::FixedState>,
    next: Number,
}

impl Default for Commands {
    fn default() -> Self {
        Self {
            programs: LruCache::with_hasher(MAX_PROGRAMS, foldhash::fast::FixedState::default()),
            running: LruCache::with_hasher(MAX_PROCESSES, foldhash::fast::FixedState::default()),
            next: 0,
        }
    }
}

impl Commands {
    /// A process was created: it runs what its parent runs.
    pub fn forked(&mut self, parent: u32, child: u32) -> Option<Over> {
        let over = self.displaced(child);
        match self.running.get(&parent).copied() {
            Some(number) if self.programs.peek(&number).is_some_and(|p| p.end.is_none()) => {
                self.running.insert(child, number);
            }
            _ => {
                self.running.remove(&child);
            }
        }
        over
    }

    /// A process executed a program. Returns what ran there before, or was forgotten for it.
    pub fn executed(&mut self, tgid: u32, ppid: u32, ts: Ns, known: bool) -> [Option<Over>; 2] {
        let before = self.running.peek(&tgid).copied();
        // What it ran itself until now, or what its creator runs.
        let parent = before.or_else(|| self.running.peek(&ppid).copied());
        let replaced = before.and_then(|n| {
            let program = self.programs.peek_mut(&n).filter(|p| p.tgid == tgid && p.end.is_none())?;
            program.end = Some(ts);
            over(program)
        });
        let mut forgotten = None;
        if self.programs.len() >= MAX_PROGRAMS {
            forgotten = self.programs.remove_lru().and_then(|(_, p)| over(&p).filter(|_| p.end.is_none()));
        }
        self.next += 1;
        let program = Program {
            tgid,
            ppid,
            exec: ts,
            span: None,
            known,
            by: tgid,
            end: None,
            last: ts,
            serves: false,
            parent,
        };
        self.programs.insert(self.next, program);
        self.running.insert(tgid, self.next);
        [replaced, forgotten]
    }

    /// The program that a process ran at `ts`. `started`: when the process is known to have started, 0 = not known.
    pub fn at(&mut self, tgid: u32, ts: Ns, started: Ns) -> Option<&mut Program> {
        let number = *self.running.get(&tgid)?;
        let program = self.programs.get_mut(&number)?;
        // An exec that was lost leaves the program of an earlier process of that number.
        let its = program.tgid != tgid || started <= program.exec.saturating_add(TICK_NS);
        let then = program.exec <= ts && program.end.is_none_or(|end| ts <= end);
        let command =
            !program.serves && (program.known || program.span.is_some() || ts <= program.exec + YOUNG_NS);
        if !(its && then && command) {
            return None;
        }
        program.last = program.last.max(ts);
        Some(program)
    }

    /// The span of the program that started this one, if it has one by now.
    pub fn above(&self, program: &Program) -> Option<SpanRef> {
        let mut at = program.parent;
        // Shells within shells; each step leads to an older program.
        for _ in 0..MAX_GENERATIONS {
            let parent = self.programs.peek(&at?)?;
            if !parent.serves && parent.span.is_some() {
                return parent.span;
            }
            at = parent.parent;
        }
        None
    }

    /// The process serves: its program is no command. Returns what it had been until now, if it had a span.
    pub fn serves(&mut self, tgid: u32) -> Option<Over> {
        let number = *self.running.peek(&tgid)?;
        let program = self.programs.peek_mut(&number).filter(|p| !p.serves)?;
        program.serves = true;
        let over = over(program);
        program.span = None;
        over
    }

    /// A process ended. Returns its program, if that ended with it and has a span.
    pub fn ended(&mut self, tgid: u32, ts: Ns) -> Option<Over> {
        let number = *self.running.peek(&tgid)?;
        let program = self.programs.peek_mut(&number)?;
        if program.tgid != tgid {
            // One that worked for it.
            self.running.remove(&tgid);
            return None;
        }
        if program.end.is_some() {
            return None;
        }
        program.end = Some(ts);
        over(program)
    }

    /// Records were lost: which of the processes that executed nothing runs what is not sure any more.
    pub fn lost(&mut self) {
        let programs = &self.programs;
        self.running.retain(|tgid, number| programs.peek(number).is_some_and(|p| p.tgid == *tgid));
    }

    /// What is under way and has a span, the oldest first.
    pub fn under_way(&self) -> Vec<Over> {
        let mut all: Vec<(Number, Over)> = Vec::new();
        for (number, program) in self.programs.iter().filter(|(_, p)| p.end.is_none()) {
            all.extend(over(program).map(|o| (*number, o)));
        }
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, over)| over).collect()
    }

    /// The number goes to a new process although the end of the one before was not seen.
    fn displaced(&mut self, tgid: u32) -> Option<Over> {
        let number = *self.running.peek(&tgid)?;
        let program = self.programs.peek_mut(&number).filter(|p| p.tgid == tgid && p.end.is_none())?;
        program.end = Some(program.last);
        over(program)
    }
}

/// Generations of programs looked at.
const MAX_GENERATIONS: usize = 16;

fn over(program: &Program) -> Option<Over> {
    Some(Over { program: program.clone(), span: program.span? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Ns = 1_000 * MS;

    fn started(c: &mut Commands, tgid: u32, ppid: u32, ts: Ns) {
        assert!(c.executed(tgid, ppid, ts, false).iter().all(Option::is_none));
    }

    #[test]
    fn a_call_belongs_to_the_program_that_ran_then() {
        let mut c = Commands::default();
        assert!(c.at(5, S, 0).is_none(), "older than the agent");
        started(&mut c, 5, 1, S);
        assert!(c.at(5, S / 2, 0).is_none(), "before its exec");
        assert_eq!(c.at(5, 2 * S, S).map(|p| p.exec), Some(S));
        assert!(c.at(5, 2 * S, 2 * S).is_none(), "started later: another process of that number");
        assert!(c.at(5, 12 * S, 0).is_none(), "too old to begin as a command");
        c.at(5, 2 * S, 0).unwrap().span = Some(SpanRef(1));
        assert!(c.at(5, 12 * S, 0).is_some(), "a command by now");
        assert_eq!(c.ended(5, 13 * S).map(|o| o.span), Some(SpanRef(1)));
        assert!(c.ended(5, 13 * S).is_none());
        assert!(c.at(5, 12 * S, 0).is_some(), "said late, made before the end");
        assert!(c.at(5, 14 * S, 0).is_none());
    }

    #[test]
    fn services_are_no_commands() {
        let mut c = Commands::default();
        started(&mut c, 5, 1, S);
        c.at(5, S, 0).unwrap().span = Some(SpanRef(1));
        c.forked(5, 6);
        assert_eq!(
            c.serves(6).map(|o| o.span),
            Some(SpanRef(1)),
            "a worker that serves makes its program a service"
        );
        assert!(c.serves(6).is_none());
        assert!(c.at(5, S, 0).is_none() && c.ended(5, 2 * S).is_none());
    }

    #[test]
    fn children_work_for_the_command_until_they_execute_something() {
        let mut c = Commands::default();
        started(&mut c, 5, 1, S);
        c.at(5, S, 0).unwrap().span = Some(SpanRef(1));
        c.forked(5, 6);
        assert_eq!(c.at(6, 2 * S, 2 * S).and_then(|p| p.span), Some(SpanRef(1)));
        assert!(c.ended(6, 3 * S).is_none(), "a child's end is not the command's");
        c.forked(5, 7);
        started(&mut c, 7, 5, 3 * S);
        let child = c.at(7, 3 * S, 0).unwrap().clone();
        assert_eq!((child.span, c.above(&child)), (None, Some(SpanRef(1))));
        c.forked(5, 8);
        c.lost();
        assert!(c.at(8, 4 * S, 0).is_none(), "not sure any more");
        assert!(c.at(5, 4 * S, 0).is_some());
    }

    #[test]
    fn a_program_that_is_replaced_or_displaced_is_over() {
        let mut c = Commands::default();
        started(&mut c, 5, 1, S);
        c.at(5, S, 0).unwrap().span = Some(SpanRef(1));
        let [replaced, _] = c.executed(5, 1, 2 * S, true);
        assert_eq!(replaced.map(|o| (o.span, o.program.end)), Some((SpanRef(1), Some(2 * S))));
        let next = c.at(5, 3 * S, 0).unwrap();
        assert!(next.known && next.span.is_none());
        next.span = Some(SpanRef(2));
        assert_eq!(c.forked(1, 5).map(|o| o.span), Some(SpanRef(2)), "its end was not seen");
        assert!(c.at(5, 3 * S, 0).is_none());
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_said() {
        let mut c = Commands::default();
        for i in 0..10_000 {
            let [_, forgotten] = c.executed(i, 1, u64::from(i), false);
            assert_eq!(forgotten.is_some(), i >= u32::try_from(MAX_PROGRAMS).unwrap());
            c.at(i, u64::from(i), 0).unwrap().span = Some(SpanRef(u64::from(i)));
            c.forked(i, i + 20_000);
        }
        assert_eq!(c.programs.len(), MAX_PROGRAMS);
        assert!(c.running.len() <= MAX_PROCESSES);
        let left = c.under_way();
        assert_eq!((left.len(), left[0].span), (MAX_PROGRAMS, SpanRef(10_000 - MAX_PROGRAMS as u64)));
    }
}
