//! Runs of programs that the kernel refused.

use std::collections::BTreeMap;

use super::{ProgramStats, call_ends, probes};

/// Runs that the kernel refused because the program was under way on that processor: where it lets threads interrupt programs
/// (7.x), or an interrupt's program meets its like. By program, without those that a second program made good for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Misses(BTreeMap<String, u64>);

impl Misses {
    /// As the kernel counts them.
    pub(super) fn of(programs: &[ProgramStats]) -> Misses {
        let runs = |name: &str| programs.iter().any(|program| program.name == name);
        let lost = programs.iter().filter(|program| {
            program.recursion_misses > 0 && !probes::second_of(&program.name).is_some_and(runs)
        });
        Misses(lost.map(|program| (program.name.clone(), program.recursion_misses)).collect())
    }

    /// Takes over what has become more. Nothing becomes less: a program that was unloaded tells no more.
    pub fn raise(&mut self, now: Misses) {
        for (program, missed) in now.0 {
            let before = self.0.entry(program).or_default();
            *before = missed.max(*before);
        }
    }

    /// Of the programs at the end of system calls beside the socket hook: at most a line of a log, a request on standard input
    /// or a connect that failed at once, and mostly a call of no interest. No call's parent depends on it.
    pub fn calls(&self) -> u64 {
        self.0.iter().filter(|(program, _)| call_ends::is_one(program)).map(|(_, missed)| missed).sum()
    }

    /// Of all other programs.
    pub fn others(&self) -> u64 {
        self.0.values().sum::<u64>() - self.calls()
    }

    /// By program.
    pub fn by_program(&self) -> &BTreeMap<String, u64> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(programs: &[(&str, u64)]) -> Misses {
        let stats = |&(name, recursion_misses): &(&str, u64)| ProgramStats {
            name: name.to_owned(),
            runs: 9,
            run_ns: 9,
            recursion_misses,
            verified: None,
        };
        Misses::of(&programs.iter().map(stats).collect::<Vec<_>>())
    }

    #[test]
    fn what_a_second_program_told_is_not_missed() {
        let alone = missed(&[("sock_send_length", 5), ("sys_exit_calls", 2), ("sched_process_exec", 0)]);
        assert_eq!((alone.others(), alone.calls()), (5, 2));
        let both = missed(&[("sock_send_length", 5), ("sock_send_length_second", 1), ("exit_read", 2)]);
        assert_eq!((both.others(), both.calls()), (1, 2));
    }

    #[test]
    fn an_unloaded_program_is_remembered() {
        let mut misses = missed(&[("sock_send_length", 5)]);
        misses.raise(missed(&[("sock_send_length", 6), ("exit_write", 1)]));
        misses.raise(missed(&[]));
        assert_eq!((misses.others(), misses.calls()), (6, 1));
    }
}
