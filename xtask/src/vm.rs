//! The verb `vm`: a command as root under another kernel, in a virtual machine on this machine's own files.
//!
//! The VM sees all files of the host. What it writes stays in its memory, except in the project's directory. It has no
//! network. Nothing is installed but qemu.

pub(crate) mod guest;
mod initramfs;
pub(crate) mod kernel;
mod machine;
pub(crate) mod test;

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::command::note;
use crate::workspace::Workspace;
use crate::{ovs, setup};
use kernel::Kernel;
pub(crate) use machine::has_kvm;
use machine::{Job, Machine, Processor};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernel
    #[arg(long, value_name = "VERSION", default_value = kernel::DEFAULT, value_parser = kernel::version_names())]
    kernel: String,
    /// Open vSwitch of another version than the installed one
    #[arg(long, value_name = "VERSION", value_parser = ovs::version_names())]
    ovs: Option<String>,
    /// End the VM after so many seconds
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Virtual processors
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Let the VM's clock advance by a nanosecond with each instruction, to compare figures within the VM
    ///
    /// They do not depend on what else the host does then. Caches, memory and speculation cost nothing. Emulated also
    /// where KVM is there, on one virtual processor; waiting takes no real time.
    #[arg(long, conflicts_with = "cpus")]
    count_instructions: bool,
    /// Memory, which also holds what is written
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory: u32,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The verb; returns the status of the command.
pub(crate) fn run(ws: &Workspace, args: Args) -> Result<u8> {
    let Args { kernel, ovs, timeout, cpus, count_instructions, memory, command } = args;
    let processor = if count_instructions { Processor::Counting } else { Processor::fastest(cpus) };
    let mut job = Job {
        command,
        env: vec![],
        // Elsewhere may be covered by what is the machine's own.
        directory: env::current_dir()
            .ok()
            .filter(|here| here.starts_with(&ws.root))
            .unwrap_or_else(|| ws.root.clone()),
        processor,
        memory_mib: memory,
        limit: timeout.map(Duration::from_secs),
    };
    if let Some(version) = ovs {
        job.env = ovs_environment(&ovs::get(ws, &version)?)?;
    }
    machine::check()?;
    setup::ensure(setup::VM)?;
    run_job(ws, &Kernel::get(ws, &kernel)?, &job, |_line| ())
}

/// Runs a job under a kernel; each line of its stdout goes to `each`, too. Returns its status.
fn run_job(ws: &Workspace, kernel: &Kernel, job: &Job, each: impl FnMut(&str)) -> Result<u8> {
    let machine = Machine::new(ws, kernel, job)?;
    let status = machine.run(each);
    for complaint in machine.complaints() {
        note(&format!("Linux {}: {complaint}", kernel.release));
    }
    status
}

/// The programs of a fetched version first, for whoever looks in `PATH`; the tests look at the other.
fn ovs_environment(bin: &Path) -> Result<Vec<(String, OsString)>> {
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([bin.to_path_buf()].into_iter().chain(env::split_paths(&path)))?;
    Ok(vec![("PATH".into(), path), ("TRUNKLINE_OVS_BIN".into(), bin.into())])
}
