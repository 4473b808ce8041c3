//! The taciturn daemon: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    taciturn::daemon::run(std::env::args_os())
}
