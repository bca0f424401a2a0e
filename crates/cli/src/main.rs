//! `ds4`.

#![forbid(unsafe_code)]

fn main() {
    ds4_cli::main()
}
