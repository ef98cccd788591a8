//! Running other programs, with errors that say which one failed and how.

use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How much of a failed program's output is shown, in lines from its end.
const SHOWN_LINES: usize = 25;

/// Runs `command` with our own output streams. An error if it cannot start or does not end with 0.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs `command` silently; what it printed last is part of the error if it fails.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    let output = finished(command)?;
    if !output.status.success() {
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        bail!("`{}` failed ({}):\n{}", shown(command), output.status, tail(&String::from_utf8_lossy(&said)));
    }
    Ok(())
}

/// What `command` prints on stdout, if it can be run and ends with 0.
pub fn output(command: &mut Command) -> Result<String> {
    let output = finished(command)?;
    if !output.status.success() {
        bail!("`{}` failed ({})", shown(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command line as a person would type it.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn finished(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))
}

fn cannot_start(command: &Command) -> String {
    format!("cannot run `{}`", command.get_program().to_string_lossy())
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_command_and_shows_its_last_words() {
        let error = run_quietly(Command::new("sh").args(["-c", "echo no such luck; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("no such luck"), "{text}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run(&mut Command::new("ktrdr-no-such-program")).unwrap_err();
        assert!(error.to_string().contains("ktrdr-no-such-program"));
    }
}
