//! `ds4 eval` under its own name.

#![forbid(unsafe_code)]

fn main() {
    ds4_cli::main_of("eval")
}
