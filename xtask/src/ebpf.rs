//! Builds and lints the BPF crate for `bpfel-unknown-none`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{note, run};
use crate::toolchain::{self, Lint, Toolchain};
use crate::workspace::{Workspace, is_ci};

const TARGET: &str = "bpfel-unknown-none";
const NAME: &str = "trunkline-ebpf";

/// The BPF object, where userspace's build script looks for it: the same for every `CARGO_TARGET_DIR`.
pub(crate) const OBJECT: &str = "ebpf/trunkline-ebpf.o";

/// Builds the object. Its file changes only when its content does, so that nothing is rebuilt in vain.
pub(crate) fn build(ws: &Workspace) -> Result<()> {
    let (toolchain, linker) = toolchain::choose(ws, Lint::No)?;
    note(&format!("BPF object: {toolchain}, {}", linker.display()));
    let mut cargo = cargo(ws, &toolchain, &linker, "build");
    run(&mut cargo, "building the BPF object")?;
    let built = ws.own_target("ebpf").join(TARGET).join("release").join(NAME);
    copy_if_changed(&built, &ws.own_target(OBJECT))
}

/// Lints the crate, with warnings denied.
pub(crate) fn clippy(ws: &Workspace) -> Result<()> {
    let (toolchain, linker) = toolchain::choose(ws, Lint::Yes)?;
    note(&format!("clippy for BPF: {toolchain}"));
    let mut cargo = cargo(ws, &toolchain, &linker, "clippy");
    run(cargo.args(["--no-deps", "--", "--deny", "warnings"]), "clippy for BPF")
}

fn cargo(ws: &Workspace, toolchain: &Toolchain, linker: &Path, verb: &str) -> Command {
    // v3 (kernel 5.1) has 32-bit jumps and the atomics that fetch; BTF is made from full debug information.
    let linker = format!("-Clinker={}", linker.display());
    let flags = [
        &linker,
        "-Clink-arg=--btf",
        "-Cdebuginfo=2",
        "-Ctarget-cpu=v3",
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    ];
    let mut cargo = toolchain.cargo(verb);
    cargo.current_dir(&ws.root).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.args(["--release", "-Zbuild-std=core", "--target", TARGET, "--package", NAME, "--bin", NAME]);
    cargo.arg("--target-dir").arg(ws.own_target("ebpf"));
    if is_ci() {
        cargo.arg("--locked");
    }
    cargo
}

/// Copies a file, unless the copy has that content already; a reader never sees half of it.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    match fs::read(to) {
        Ok(old) if old == new => return Ok(()),
        Ok(_) => (),
        Err(error) if error.kind() == ErrorKind::NotFound => (),
        Err(error) => return Err(error).with_context(|| format!("reading {}", to.display())),
    }
    let half = to.with_extension("o.new");
    fs::write(&half, new).with_context(|| format!("writing {}", half.display()))?;
    fs::rename(&half, to).with_context(|| format!("renaming {} to {}", half.display(), to.display()))
}
