//! The one binary: the agent and the command line.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use trunkline::cli::{self, Cli, OutputError};

/// What a shell says of a program that SIGPIPE has ended, as most programs end when nobody reads on.
const READER_HAS_LEFT: u8 = 128 + 13;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    // A log that nobody reads any more is no reason to panic, which the complaint about it would be.
    log.with_writer(std::io::stderr).log_internal_errors(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(cli::run(cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.downcast_ref().is_some_and(OutputError::reader_has_left) => {
            ExitCode::from(READER_HAS_LEFT)
        }
        Err(error) => {
            // The causes in one line; a backtrace is of no use to an operator. Perhaps nobody reads it.
            let _ = writeln!(std::io::stderr(), "trunkline: {error:#}");
            ExitCode::FAILURE
        }
    }
}
