//! Where things are: the workspace root, the build directories, and cargo itself.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

pub(crate) struct Workspace {
    /// The directory of the top `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target directory for the host, wherever the user has put it.
    host_target: PathBuf,
    /// The cargo this program was started with.
    cargo: OsString,
}

/// A profile of host builds, by its directory.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Workspace {
    /// Finds the workspace that this program was started from.
    pub(crate) fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().context("xtask lies outside a workspace")?.to_path_buf();
        // This program is TARGET/debug/xtask, which saves asking cargo for TARGET.
        let exe = env::current_exe().context("finding the path of this program")?;
        let host_target = exe.ancestors().nth(2).context("xtask lies outside a target directory")?;
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        Ok(Self { host_target: host_target.to_path_buf(), root, cargo })
    }

    /// `cargo VERB` for the host, in the workspace root; without touching the lock file when `CI` is set.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        let mut cargo = self.cargo_program();
        cargo.arg(verb);
        if is_ci() && verb != "fmt" {
            cargo.arg("--locked");
        }
        cargo
    }

    /// `cargo` for the host, in the workspace root, without a verb yet.
    pub(crate) fn cargo_program(&self) -> Command {
        let mut cargo = Command::new(&self.cargo);
        cargo.current_dir(&self.root).stdin(Stdio::null());
        cargo
    }

    /// The path of a binary that cargo has built for the host.
    pub(crate) fn binary(&self, profile: Profile, name: &str) -> PathBuf {
        let directory = match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        };
        self.host_target.join(directory).join(name)
    }

    /// Cargo's target directory for the host.
    pub(crate) fn host_target(&self) -> &Path {
        &self.host_target
    }

    /// A path below the workspace's own `target`, for what must not depend on `CARGO_TARGET_DIR`.
    pub(crate) fn own_target(&self, path: &str) -> PathBuf {
        self.root.join("target").join(path)
    }
}

/// Whether this is a run of continuous integration.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false")
}
