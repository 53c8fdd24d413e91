//! Other versions of Open vSwitch than the one installed: Debian's packages, unpacked below `target/ovs` with the
//! libraries they need, and nothing installed.
//!
//! Needs apt and dpkg, no privileges. The packages come from the Debian archive that this machine's apt uses; its
//! package lists and cache are not touched.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::command::{note, output, run};
use crate::workspace::Workspace;

/// Versions, and the Debian suites that have them. `sid` moves on; its version is checked after unpacking.
const VERSIONS: &[(&str, &str)] = &[("3.1", "bookworm"), ("3.5", "trixie"), ("4.0", "sid")];
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
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

fn version_names() -> PossibleValuesParser {
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
    // Made beside its place and moved there when complete.
    let work = place.with_extension("partial");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    let apt = Apt::new(&work.join("apt"), suite)?;
    let packages = apt.packages()?;
    let debs = work.join("debs");
    fs::create_dir_all(&debs)?;
    run(apt.command("apt-get").args(["-q", "download"]).args(&packages).current_dir(&debs), "downloading")?;
    let root = work.join("root");
    for deb in files(&debs)? {
        run(Command::new("dpkg").arg("-x").arg(&deb).arg(&root), "unpacking a package")?;
    }
    wrap_programs(&work)?;
    fs::remove_dir_all(&debs)?;
    fs::remove_dir_all(work.join("apt"))?;
    let said =
        said_version(&work.join("bin/ovs-vswitchd")).context("the unpacked ovs-vswitchd does not run")?;
    ensure!(is_a(&said, version), "Debian {suite} now has Open vSwitch {said}");
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::rename(&work, place).with_context(|| format!("moving {} to its place", work.display()))?;
    note(&format!("Open vSwitch {said} is in {}", place.display()));
    Ok(())
}

/// apt with lists, cache and sources of its own, as if nothing were installed.
struct Apt(Vec<String>);

impl Apt {
    fn new(directory: &Path, suite: &str) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let archive = archive()?;
        let sources = directory.join("sources.list");
        fs::write(&sources, format!("deb [signed-by={KEYRING}] {archive} {suite} main\n"))?;
        fs::write(directory.join("status"), "")?;
        let options = [
            ("Dir::State", directory.to_path_buf()),
            ("Dir::State::status", directory.join("status")),
            ("Dir::State::lists", directory.join("lists")),
            ("Dir::Cache", directory.join("cache")),
            ("Dir::Etc::sourcelist", sources),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::Etc::preferences", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("Acquire::Languages", "none".into()),
            // Its own user could not write to a directory of ours.
            ("APT::Sandbox::User", "".into()),
        ];
        let options =
            options.iter().flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={}", value.display())]);
        let apt = Self(options.collect());
        run(apt.command("apt-get").args(["-q", "update"]), &format!("reading the package list of {suite}"))?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.0).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    }

    /// The switch, and those of the packages it needs that hold shared libraries, the C library among them.
    fn packages(&self) -> Result<Vec<String>> {
        let mut install = self.command("apt-get");
        install.args(["--simulate", "--no-install-recommends", "install", "openvswitch-switch"]);
        let plan = output(&mut install).context("apt finds no way to install openvswitch-switch")?;
        Ok(library_packages(&plan))
    }
}

fn library_packages(plan: &str) -> Vec<String> {
    let installed = plan.lines().filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
    let wanted = |name: &&str| ["openvswitch-", "lib", "zlib"].iter().any(|prefix| name.starts_with(prefix));
    installed.filter(wanted).map(str::to_owned).collect()
}

/// The Debian archive that apt is set up with here.
fn archive() -> Result<String> {
    let format = "$(REPO_URI) $(ORIGIN) $(LABEL)";
    let mut targets = Command::new("apt-get");
    targets.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let from_lists = output(&mut targets).and_then(|text| debian_archive(&text));
    match from_lists.or_else(configured_archive) {
        Some(archive) => Ok(archive),
        None => bail!("apt is not set up with a Debian archive here"),
    }
}

fn debian_archive(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| line.strip_suffix(" Debian Debian")).map(str::to_owned)
}

/// Before the first `apt-get update`, apt does not know yet whose archive it is: by the usual name, then.
fn configured_archive() -> Option<String> {
    let mut texts: Vec<_> = fs::read_to_string("/etc/apt/sources.list").into_iter().collect();
    let parts = files(Path::new("/etc/apt/sources.list.d")).unwrap_or_default();
    texts.extend(parts.into_iter().filter_map(|part| fs::read_to_string(part).ok()));
    let words = texts.iter().flat_map(|text| text.lines().filter(|line| !line.starts_with('#')));
    words
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
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

fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
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

    #[test]
    fn the_archive_is_debians_own_and_not_its_security_updates() {
        let targets = "http://a/debian-security/ Debian Debian-Security\nhttp://a/debian/ Debian Debian\n";
        assert_eq!(debian_archive(targets).as_deref(), Some("http://a/debian/"));
        assert_eq!(debian_archive("http://b/ubuntu/ Ubuntu Ubuntu\n"), None);
    }
}
