//! Builds the release binary and installs it with its systemd unit.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::command::{is_root, note, run};
use crate::ebpf;
use crate::workspace::{Profile, Workspace};

/// Where the binary goes: with the other system daemons, as the unit's `ExecStart` has it.
pub(crate) const BINARY: &str = "usr/sbin/trunkline";

/// Where the unit goes: the directory every systemd searches, whether or not `/lib` is a link to `/usr/lib`.
pub(crate) const UNIT: &str = "usr/lib/systemd/system/trunkline.service";

/// Builds the release binary and returns its path.
pub(crate) fn build(ws: &Workspace) -> Result<PathBuf> {
    ebpf::build(ws)?;
    run(ws.cargo("build").args(["--release", "--package", "trunkline"]), "building trunkline")?;
    Ok(ws.binary(Profile::Release, "trunkline"))
}

/// The verb `install`.
pub(crate) fn install(ws: &Workspace, destdir: &Path) -> Result<()> {
    if destdir == Path::new("/") && !is_root() {
        bail!("installing into /usr needs root: run this as root, or give it --destdir DIR");
    }
    let binary = build(ws)?;
    place(ws, &binary, destdir)?;
    note("start it now and at every boot: systemctl daemon-reload && systemctl enable --now trunkline");
    Ok(())
}

/// Puts a binary and the unit below `destdir`.
pub(crate) fn place(ws: &Workspace, binary: &Path, destdir: &Path) -> Result<()> {
    place_file(binary, &destdir.join(BINARY), 0o755)?;
    place_file(&ws.root.join("packaging/trunkline.service"), &destdir.join(UNIT), 0o644)
}

/// Installs one file in one step, so that a running binary can be replaced and nobody sees half a file.
fn place_file(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let directory = to.parent().context("the target has no directory")?;
    fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    let half = to.with_extension("new");
    fs::copy(from, &half).with_context(|| format!("copying {} to {}", from.display(), half.display()))?;
    fs::set_permissions(&half, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", half.display()))?;
    fs::rename(&half, to).with_context(|| format!("renaming {} to {}", half.display(), to.display()))?;
    note(&format!("installed {} (mode {mode:o})", to.display()));
    Ok(())
}
