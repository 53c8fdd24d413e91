//! Other versions of Open vSwitch than the one installed: Debian's packages, unpacked below `target/ovs` with the
//! libraries they need, and nothing installed.
//!
//! Needs what [`debian`] needs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::command::{note, output};
use crate::debian::{self, Suite, files};
use crate::workspace::Workspace;

/// Versions, and the Debian suites that have them. `sid` moves on; its version is checked after unpacking.
const VERSIONS: &[(&str, &str)] = &[("3.1", "bookworm"), ("3.5", "trixie"), ("4.0", "sid")];
/// The tests and the demo use these.
const PROGRAMS: &[&str] = &[
    "usr/bin/ovs-appctl",
    "usr/bin/ovs-ofctl",
    "usr/bin/ovs-vsctl",
    "usr/bin/ovsdb-client",
    "usr/bin/ovsdb-tool",
    "usr/lib/openvswitch-switch/ovs-vswitchd",
    "usr/sbin/ovsdb-server",
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Versions to fetch; without any, all that are not there yet
    #[arg(value_name = "VERSION", value_parser = version_names())]
    versions: Vec<String>,
}

pub(crate) fn version_names() -> PossibleValuesParser {
    let name = |(version, suite): &(&'static str, &str)| {
        PossibleValue::new(*version).help(format!("from Debian {suite}"))
    };
    PossibleValuesParser::new(VERSIONS.iter().map(name))
}

/// The verb `ovs`.
pub(crate) fn fetch(ws: &Workspace, args: &Args) -> Result<()> {
    for (version, suite) in VERSIONS {
        if args.versions.is_empty() || args.versions.iter().any(|wanted| wanted == version) {
            let place = place(ws, version);
            if place.join("bin").is_dir() && args.versions.is_empty() {
                note(&format!("Open vSwitch {version} is in {}", place.display()));
                continue;
            }
            fetch_one(&place, version, suite)?;
        }
    }
    Ok(())
}

/// Fetches what is missing of the versions other than the installed one. What cannot be had is said, and the tests
/// skip it.
pub(crate) fn fetch_missing(ws: &Workspace) {
    for (version, suite) in VERSIONS {
        let place = place(ws, version);
        if place.join("bin").is_dir() || is_installed(version) {
            continue;
        }
        if let Err(error) = fetch_one(&place, version, suite) {
            note(&format!("no Open vSwitch {version}: {error:#}"));
        }
    }
}

/// The directories of the programs of all versions that are here, besides the installed one.
pub(crate) fn fetched(ws: &Workspace) -> Vec<(&'static str, PathBuf)> {
    let bin = |(version, _): &(&'static str, &str)| (*version, place(ws, version).join("bin"));
    VERSIONS.iter().map(bin).filter(|(_, bin)| bin.is_dir()).collect()
}

/// The directory of the programs of this version, fetched if it is not here yet.
pub(crate) fn get(ws: &Workspace, wanted: &str) -> Result<PathBuf> {
    let (version, suite) =
        VERSIONS.iter().find(|(version, _)| *version == wanted).context("no such version")?;
    let place = place(ws, version);
    if !place.join("bin").is_dir() {
        fetch_one(&place, version, suite)?;
    }
    Ok(place.join("bin"))
}

fn place(ws: &Workspace, version: &str) -> PathBuf {
    ws.own_target("ovs").join(version)
}

fn is_installed(version: &str) -> bool {
    let installed = ["ovs-vswitchd", "/usr/sbin/ovs-vswitchd"];
    installed.iter().any(|program| said_version(Path::new(program)).is_some_and(|said| is_a(&said, version)))
}

fn said_version(program: &Path) -> Option<String> {
    let text = output(Command::new(program).arg("--version"))?;
    text.lines().next()?.split_once("(Open vSwitch) ").map(|(_, version)| version.trim().to_owned())
}

fn is_a(version: &str, wanted: &str) -> bool {
    version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn fetch_one(place: &Path, version: &str, suite: &str) -> Result<()> {
    note(&format!("fetching Open vSwitch {version} from Debian {suite} into {}", place.display()));
    let mut said = String::new();
    debian::fetch(place, suite, packages, |work| {
        wrap_programs(work)?;
        said =
            said_version(&work.join("bin/ovs-vswitchd")).context("the unpacked ovs-vswitchd does not run")?;
        ensure!(is_a(&said, version), "Debian {suite} now has Open vSwitch {said}");
        Ok(())
    })?;
    note(&format!("Open vSwitch {said} is in {}", place.display()));
    Ok(())
}

/// The switch, and those of the packages it needs that hold shared libraries, the C library among them.
fn packages(suite: &Suite) -> Result<Vec<String>> {
    let mut install = suite.command("apt-get");
    install.args(["--simulate", "--no-install-recommends", "install", "openvswitch-switch"]);
    let plan = output(&mut install).context("apt finds no way to install openvswitch-switch")?;
    Ok(library_packages(&plan))
}

fn library_packages(plan: &str) -> Vec<String> {
    let installed = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
    let wanted = |name: &&str| ["openvswitch-", "lib", "zlib"].iter().any(|prefix| name.starts_with(prefix));
    installed.filter(wanted).map(str::to_owned).collect()
}

/// A script for each program that starts it with the C library it was built for.
fn wrap_programs(work: &Path) -> Result<()> {
    let root = work.join("root");
    let libraries = library_directories(&root)?;
    let loader = libraries
        .iter()
        .flat_map(|directory| files(directory).unwrap_or_default())
        .find(|file| file.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-linux")));
    let loader = loader.context("the packages have no dynamic loader")?;
    let inside = |path: &Path| {
        path.strip_prefix(&root)
            .map(|path| format!("$root/{}", path.display()))
            .context("outside of the root")
    };
    let path = libraries.iter().map(|directory| inside(directory)).collect::<Result<Vec<_>>>()?.join(":");
    let bin = work.join("bin");
    fs::create_dir_all(&bin)?;
    for program in PROGRAMS {
        let file = root.join(program);
        ensure!(file.is_file(), "the packages have no {program}");
        let script = format!(
            "#!/bin/sh\nroot=${{0%/*}}/../root\nexec \"{}\" --library-path \"{path}\" \"{}\" \"$@\"\n",
            inside(&loader)?,
            inside(&file)?,
        );
        let wrapper = bin.join(file.file_name().context("a program has a name")?);
        fs::write(&wrapper, script)?;
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// `lib/TRIPLET` and `usr/lib/TRIPLET`.
fn library_directories(root: &Path) -> Result<Vec<PathBuf>> {
    let mut directories = Vec::new();
    for parent in ["lib", "usr/lib"].map(|parent| root.join(parent)).iter().filter(|parent| parent.is_dir()) {
        directories.extend(files(parent)?.into_iter().filter(|entry| {
            entry.is_dir()
                && entry.file_name().is_some_and(|name| name.to_string_lossy().contains("-linux-gnu"))
        }));
    }
    Ok(directories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_not_a_prefix_of_another() {
        assert!(is_a("3.1.0", "3.1") && is_a("3.1", "3.1"));
        assert!(!is_a("3.10.0", "3.1") && !is_a("4.0.0", "3.1"));
    }

    #[test]
    fn the_plan_is_cut_down_to_libraries() {
        let plan = "Inst gcc-14-base (1 Debian)\nInst libc6 (2 Debian)\nInst zlib1g (3 Debian)\nInst kmod (4 Debian)\n\
                    Inst openvswitch-switch (5 Debian)\nConf libc6 (2 Debian)\n";
        assert_eq!(library_packages(plan), ["libc6", "zlib1g", "openvswitch-switch"]);
    }
}
