//! What a command is called: the program as a person would say it, and its first subcommand.

/// Longest subcommand; what is longer is an argument.
const MAX_SUBCOMMAND: usize = 24;

/// What a command line runs: the program, or what an interpreter was told to run, and the arguments after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// Last part of the path of the program or script, or the module (`python -m module`).
    pub name: &'a str,
    /// Its own arguments.
    pub arguments: &'a [String],
}

/// Interpreters: how their names begin, the letters of options with a value, and of those that give a program's text.
const INTERPRETERS: [(&str, &str, &str); 11] = [
    // python(1); `m` is its own case.
    ("python", "WX", "c"),
    ("pypy", "WX", "c"),
    ("node", "rC", "ep"),
    ("ruby", "IrECFx", "e"),
    ("perl", "I", "eE"),
    ("sh", "oO", "c"),
    ("bash", "oO", "c"),
    ("dash", "o", "c"),
    ("zsh", "o", "c"),
    ("ksh", "o", "c"),
    ("fish", "CdfD", "c"),
];

impl<'a> Program<'a> {
    /// Of a command line; `None` if it is empty.
    pub fn of(args: &'a [String]) -> Option<Self> {
        let (first, rest) = args.split_first()?;
        let name = last(first);
        // A login shell's name begins with a hyphen.
        let own = Self { name: name.trim_start_matches('-'), arguments: rest };
        let interpreter = INTERPRETERS.iter().find(|(stem, ..)| is_version_of(own.name, stem));
        Some(interpreter.and_then(|(_, values, text)| run_by(rest, values, text)).unwrap_or(own))
    }

    /// The first subcommand, if the first argument looks like one: a lower-case word, no path, no address, no number.
    pub fn subcommand(&self) -> Option<&'a str> {
        let word = self.arguments.first()?.as_str();
        let fits = word.len() <= MAX_SUBCOMMAND
            && word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-' || b == b'_');
        fits.then_some(word)
    }

    /// `ktrdr data`.
    pub fn title(&self) -> String {
        match self.subcommand() {
            Some(word) => format!("{} {word}", self.name),
            None => self.name.to_owned(),
        }
    }
}

/// What an interpreter runs; `None` if that is a text on the command line, or typed.
fn run_by<'a>(args: &'a [String], values: &str, text: &str) -> Option<Program<'a>> {
    let mut i = 0;
    loop {
        let arg = args.get(i)?;
        i += 1;
        let Some(letters) = arg.strip_prefix('-').filter(|l| !l.is_empty()) else {
            let name = last(arg);
            return (arg != "-").then_some(Program { name, arguments: args.get(i..).unwrap_or_default() });
        };
        // Long options have their value behind `=`, as far as they are used before a script.
        if letters.starts_with('-') {
            continue;
        }
        for (at, letter) in letters.char_indices() {
            let inline = letters.get(at + 1..).filter(|l| !l.is_empty());
            if text.contains(letter) {
                return None;
            }
            // python(1) alone has modules; `m` means other things to shells, which have no such option with a value.
            if letter == 'm' && values == "WX" {
                let (name, after) = match inline {
                    Some(name) => (name, i),
                    None => (args.get(i)?.as_str(), i + 1),
                };
                return Some(Program { name, arguments: args.get(after..).unwrap_or_default() });
            }
            if values.contains(letter) {
                i += usize::from(inline.is_none());
                break;
            }
        }
    }
}

/// `python3.13` is a version of `python`, `shred` is none of `sh`.
fn is_version_of(name: &str, stem: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
}

fn last(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn title(line: &str) -> String {
        let args: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Program::of(&args).map(|p| p.title()).unwrap_or_default()
    }

    #[test]
    fn commands_are_called_as_people_call_them() {
        for (line, want) in [
            ("/usr/bin/curl -s http://localhost:8000/", "curl"),
            ("curl localhost:8000", "curl"),
            ("/venv/bin/python3.13 /venv/bin/ktrdr data load AAPL", "ktrdr data"),
            ("python -u -B bin/ktrdr train AAPL", "ktrdr train"),
            ("python -X dev -Werror -m ktrdr.cli operations list", "ktrdr.cli operations"),
            ("python -mktrdr.cli data", "ktrdr.cli data"),
            ("python3 -c import_httpx", "python3"),
            ("python3", "python3"),
            ("python3 -", "python3"),
            ("git clone https://x/y", "git clone"),
            ("-bash", "bash"),
            ("bash -euo pipefail /opt/nightly.sh 3", "nightly.sh"),
            ("sh -c curl", "sh"),
            ("node -r ./trace.js cli.js build", "cli.js build"),
            ("shred x", "shred x"),
            ("ktrdr AAPL", "ktrdr"),
            ("ktrdr op_training_20251113", "ktrdr"),
            ("", ""),
        ] {
            assert_eq!(title(line), want, "{line}");
        }
        assert_eq!(Program::of(&[]), None);
        let long = format!("x {}", "y".repeat(25));
        assert_eq!(title(&long), "x");
    }
}
