//! `ds4 server` under its own name.

#![forbid(unsafe_code)]

fn main() {
    ds4_cli::main_of("server")
}
