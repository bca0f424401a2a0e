//! The program as its users run it: a process with arguments, pipes, files and a terminal.

mod bench;
mod checks;
mod diagnostics;
mod eval;
mod kv;
mod lock;
mod one_shot;
mod program;
mod quantize;
mod sampling;
#[cfg(unix)]
mod server;
#[cfg(unix)]
mod signals;
mod stub;
mod synth;
#[cfg(unix)]
mod terminal;
mod usage;
