//! The `ktrdr-agent` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ktrdr_agent::cli::main()
}
