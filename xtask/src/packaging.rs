//! The test layer `packaging`: installs into a temporary directory and looks at the result.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context as _, Result, ensure};

use crate::install::{self, BINARY, UNIT};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// Runs all checks with the given binary in the place of the release one.
pub(crate) fn check(ws: &Workspace, binary: &Path) -> Result<Tally> {
    let destdir = Destdir(env::temp_dir().join(format!("trunkline-packaging-{}", process::id())));
    let checks: [(&str, &dyn Fn() -> Result<()>); 3] = [
        ("installs_below_destdir", &|| install::place(ws, binary, &destdir.0)),
        ("files_have_their_modes", &|| files_have_their_modes(&destdir.0)),
        ("systemd_accepts_the_unit", &|| systemd_accepts_the_unit(&destdir.0)),
    ];
    let mut tally = Tally::default();
    for (name, check) in checks {
        match check() {
            Ok(()) => {
                tally.passed += 1;
                println!("test packaging::{name} ... ok");
            }
            Err(error) => {
                tally.failed += 1;
                println!("test packaging::{name} ... FAILED: {error:#}");
            }
        }
    }
    Ok(tally)
}

fn files_have_their_modes(destdir: &Path) -> Result<()> {
    for (file, expected) in [(BINARY, 0o755), (UNIT, 0o644)] {
        let metadata = fs::metadata(destdir.join(file)).with_context(|| format!("looking at {file}"))?;
        let mode = metadata.permissions().mode() & 0o7777;
        ensure!(mode == expected, "{file} has mode {mode:o} instead of {expected:o}");
    }
    Ok(())
}

/// `systemd-analyze verify`, with `ExecStart` pointed at the binary below `destdir`, which must exist.
fn systemd_accepts_the_unit(destdir: &Path) -> Result<()> {
    let unit = fs::read_to_string(destdir.join(UNIT)).context("reading the unit")?;
    let command = format!("ExecStart=/{BINARY} ");
    ensure!(unit.contains(&command), "the unit does not start /{BINARY}, where the binary is installed");
    let there = unit.replace(&command, &format!("ExecStart={} ", destdir.join(BINARY).display()));
    let copy = destdir.join("trunkline.service");
    fs::write(&copy, there).with_context(|| format!("writing {}", copy.display()))?;

    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no", "--recursive-errors=no"]).arg(&copy);
    let output = analyze.output().context("starting systemd-analyze")?;
    // It passes over misspelt settings with a mere warning.
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success() && complaints.is_empty(), "{}: {complaints}", output.status);
    Ok(())
}

/// A directory that goes when this does.
struct Destdir(PathBuf);

impl Drop for Destdir {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("removing {}: {error}", self.0.display());
        }
    }
}
