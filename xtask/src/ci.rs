//! The verb `ci`: what every change must pass.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::command::{note, output, run};
use crate::workspace::Workspace;
use crate::{ebpf, test};

pub(crate) fn run_all(ws: &Workspace) -> Result<()> {
    host_components(ws)?;
    note("rustfmt");
    run(ws.cargo("fmt").args(["--all", "--", "--check"]), "checking the formatting")?;
    // Userspace embeds the object, so the host's clippy needs it as well.
    ebpf::build(ws)?;
    note("clippy for the host");
    let mut clippy = ws.cargo("clippy");
    run(clippy.args(["--workspace", "--all-targets", "--", "--deny", "warnings"]), "clippy for the host")?;
    ebpf::clippy(ws)?;
    test::run(ws, &test::Args::default())
}

/// Adds clippy and rustfmt to the host's toolchain where rustup does not do so by itself.
fn host_components(ws: &Workspace) -> Result<()> {
    let has = |tool: &str| output(ws.cargo_program().args([tool, "--version"])).is_some();
    if has("fmt") && has("clippy") {
        return Ok(());
    }
    note("adding clippy and rustfmt to the toolchain");
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "clippy", "rustfmt"]).current_dir(&ws.root).stdin(Stdio::null());
    run(&mut rustup, "adding clippy and rustfmt")
}
