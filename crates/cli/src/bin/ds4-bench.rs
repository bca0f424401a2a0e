//! `ds4 bench` under its own name.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ds4_cli::main_of("bench")
}
