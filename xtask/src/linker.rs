//! bpf-linker, built with the LLVM of the compiler whose bitcode it links.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::command::{find_program, note, output, run};
use crate::workspace::Workspace;

const VERSION: &str = "^0.13";

/// How a linker for some LLVM is to be had.
pub(crate) enum State {
    Ready(PathBuf),
    /// To be built with the LLVM below this prefix.
    Buildable(PathBuf),
}

/// How a linker for this LLVM is to be had without installing packages, if at all.
///
/// Ours comes first. One that the user has is trusted next, since it saves a minute; that it was built with this
/// LLVM or a newer one cannot be seen from outside, and it says so itself when it was not.
pub(crate) fn state(ws: &Workspace, llvm: u32) -> Option<State> {
    let own = own(ws, llvm).join("bin/bpf-linker");
    let prefix = || llvm_prefix(llvm).filter(|_| supports(llvm));
    let of_user = || find_program("bpf-linker");
    own.is_file()
        .then_some(State::Ready(own))
        .or_else(|| of_user().map(State::Ready))
        .or_else(|| prefix().map(State::Buildable))
}

/// Whether this version of bpf-linker can be built with that LLVM.
pub(crate) fn supports(llvm: u32) -> bool {
    (21..=23).contains(&llvm)
}

/// The Debian or Ubuntu package to build it with.
pub(crate) fn llvm_package(llvm: u32) -> String {
    format!("llvm-{llvm}-dev")
}

impl State {
    /// The path of the linker, which is built now if need be.
    pub(crate) fn build(self, ws: &Workspace, llvm: u32) -> Result<PathBuf> {
        let prefix = match self {
            Self::Ready(linker) => return Ok(linker),
            Self::Buildable(prefix) => prefix,
        };
        note(&format!("building bpf-linker with LLVM {llvm} under target/ (once, about a minute)"));
        let root = own(ws, llvm);
        let mut install = ws.cargo_program();
        install.env("LLVM_PREFIX", &prefix).env_remove("RUSTFLAGS");
        // This lock file is bpf-linker's own, CI or not.
        install.args(["install", "bpf-linker", "--locked", "--version", VERSION, "--no-default-features"]);
        install.arg(format!("--features=llvm-{llvm}")).arg("--root").arg(&root);
        let scratch = root.join("build");
        install.arg("--target-dir").arg(&scratch);
        run(&mut install, "building bpf-linker")?;
        fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))?;
        let linker = root.join("bin/bpf-linker");
        ensure!(linker.is_file(), "cargo install left no {}", linker.display());
        Ok(linker)
    }
}

fn own(ws: &Workspace, llvm: u32) -> PathBuf {
    ws.own_target(&format!("bpf-linker/llvm-{llvm}"))
}

/// Where the development files of this LLVM are: Debian's place, or where a `llvm-config` says.
fn llvm_prefix(llvm: u32) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    if debian.join("include/llvm-c/Core.h").is_file() {
        return Some(debian);
    }
    [format!("llvm-config-{llvm}"), "llvm-config".into()].iter().find_map(|config| {
        let version = output(Command::new(config).arg("--version"))?;
        let prefix = output(Command::new(config).arg("--prefix"))?;
        let prefix = Path::new(prefix.trim()).to_path_buf();
        let right = version.split('.').next() == Some(llvm.to_string().as_str());
        (right && prefix.join("include/llvm-c/Core.h").is_file()).then_some(prefix)
    })
}
