//! The one binary: the agent and the command line.

use anyhow::Result;
use clap::Parser as _;
use tracing_subscriber::EnvFilter;
use trunkline::cli::{self, Cli};

fn main() -> Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(cli::run(cli))
}
