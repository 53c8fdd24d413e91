//! The verbs that build a program and become it: `demo` and `bench`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{is_root, run};
use crate::ebpf;
use crate::setup::{self, NETWORK};
use crate::workspace::{Profile, Workspace};

pub(crate) fn demo(ws: &Workspace, args: &[OsString]) -> Result<()> {
    become_program(ws, "trunkline-tests", "trunkline-demo", args)
}

/// Runs one suite, or criterion's and then all of `trunkline-bench`: quickly, unless `--full` is among the arguments.
pub(crate) fn bench(ws: &Workspace, args: &[OsString]) -> Result<()> {
    let is_criterion =
        |suite: &OsString| ws.root.join("benches/benches").join(suite).with_extension("rs").is_file();
    match args.split_first() {
        Some((suite, rest)) if is_criterion(suite) => {
            let which = ["--bench".into(), suite.clone()];
            criterion(ws, &which, rest)
        }
        Some((suite, _)) if !suite.to_string_lossy().starts_with('-') => {
            become_program(ws, "trunkline-benches", "trunkline-bench", args)
        }
        _ => {
            let quick: &[OsString] =
                if args.iter().any(|arg| arg == "--full") { &[] } else { &["--quick".into()] };
            criterion(ws, &["--benches".into()], quick)?;
            become_program(ws, "trunkline-benches", "trunkline-bench", args)
        }
    }
}

fn criterion(ws: &Workspace, which: &[OsString], args: &[OsString]) -> Result<()> {
    // The package depends on userspace, which embeds the object.
    ebpf::build(ws)?;
    let mut cargo = ws.cargo("bench");
    cargo.args(["--package", "trunkline-benches"]).args(which).arg("--").args(args);
    run(&mut cargo, "cargo bench")
}

/// Builds a program and `trunkline` in release, then replaces this process by the program: Ctrl-C is then the
/// program's alone, and the shell waits for its cleaning up.
fn become_program(ws: &Workspace, package: &str, name: &str, args: &[OsString]) -> Result<()> {
    if !is_root() {
        bail!("{name} needs root for network namespaces and BPF: run the same command as root");
    }
    setup::ensure(NETWORK)?;
    ebpf::build(ws)?;
    let mut cargo = ws.cargo("build");
    cargo.args(["--release", "--package", "trunkline", "--package", package]);
    run(cargo.args(["--bin", "trunkline", "--bin", name]), &format!("building {name}"))?;
    let program = ws.binary(Profile::Release, name);
    let mut command = Command::new(&program);
    command.args(args).env("TRUNKLINE_BIN", ws.binary(Profile::Release, "trunkline"));
    Err(command.exec()).with_context(|| format!("starting {}", program.display()))
}
