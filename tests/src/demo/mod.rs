//! The demo: a private Open vSwitch with a trunk, hosts on all kinds of VLAN ports, and the agent beside it.
//!
//! It tells what it does, a line for each step, and ends with a report. It fails (and exits with 1) if anything does
//! not work that should. However it ends, by itself, by SIGINT or by SIGTERM, all that it made goes with it; what a
//! run that was killed left behind goes when the next one starts.

mod answer;
mod far_end;
mod interrupt;
mod link;
mod load;
mod network;
mod report;
mod story;
mod table;

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use interrupt::Interrupt;

const USAGE: &str = "\
Shows trunkline beside a private Open vSwitch, in network namespaces of its own.

Usage: cargo xtask demo [--keep]

  --keep  leave all of it running after the report, until Enter or Ctrl-C

Without xtask, set TRUNKLINE_BIN to the trunkline binary. Needs root.";

/// Why the demo ended early.
#[derive(Debug)]
enum Stop {
    /// By SIGINT or SIGTERM.
    Interrupted,
    /// Something does not work that should.
    Failed(String),
}

/// The whole program.
pub fn main(args: impl Iterator<Item = String>) -> ExitCode {
    let mut keep = false;
    for arg in args {
        match arg.as_str() {
            "--keep" => keep = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("trunkline-demo: unknown argument {other}\n\n{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let interrupt = Interrupt::listen();
    match guarded(|| story::tell(&interrupt, keep)) {
        Ok(()) => ExitCode::SUCCESS,
        // Whatever failed after a signal failed because of it: Ctrl-C goes to the programs we run as well.
        Err(_) if interrupt.after_a_moment().is_some() => {
            let signal = interrupt.after_a_moment().unwrap_or_default();
            println!("interrupted; everything has been cleaned up");
            ExitCode::from(128 + signal)
        }
        Err(Stop::Interrupted) => ExitCode::FAILURE,
        Err(Stop::Failed(cause)) => {
            eprintln!("\ntrunkline-demo: FAILED: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// Turns a panic, which is how the rig reports what went wrong, into a failure with its message.
fn guarded(work: impl FnOnce() -> Result<(), Stop>) -> Result<(), Stop> {
    let message = Arc::new(Mutex::new(String::new()));
    let heard = message.clone();
    set_hook(Box::new(move |info| {
        // The first panic is the cause; a poisoned lock would be one within another.
        if let Ok(mut text) = heard.lock()
            && text.is_empty()
        {
            *text = info.payload_as_str().unwrap_or("a panic without a message").to_owned();
        }
    }));
    let result = catch_unwind(AssertUnwindSafe(work));
    result.unwrap_or_else(|_panic| {
        let text = message.lock().map(|text| text.clone()).unwrap_or_default();
        Err(Stop::Failed(text))
    })
}

/// Between a signal to the whole foreground and the moment at which this process has taken note of it.
const MOMENT: Duration = Duration::from_millis(100);
