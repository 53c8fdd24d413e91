//! `cargo xtask demo`: trunkline beside a private Open vSwitch, from cables to figures.

use std::process::ExitCode;

fn main() -> ExitCode {
    trunkline_tests::demo::main(std::env::args().skip(1))
}
