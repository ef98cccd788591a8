//! The `ktrdr-agent` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: ktrdr_agent::allocator::Allocator = ktrdr_agent::allocator::Allocator;

fn main() -> ExitCode {
    ktrdr_agent::cli::main()
}
