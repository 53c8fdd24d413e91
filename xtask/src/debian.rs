//! Packages of any Debian suite, unpacked below `target` and not installed.
//!
//! Needs apt and dpkg, no privileges. The packages come from the Debian archive that this machine's apt uses; its
//! package lists and cache are not touched.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{output, run};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fetches the packages that `choose` names, unpacks them into `PLACE/root`, and lets `finish` complete and check that.
/// All of it is made beside its place and moved there when complete; `finish` gets the directory of the making.
pub(crate) fn fetch(
    place: &Path,
    suite: &str,
    choose: impl FnOnce(&Suite) -> Result<Vec<String>>,
    finish: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let work = place.with_added_extension("partial");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("removing {}", work.display()))?;
    }
    let suite = Suite::read(&work.join("apt"), &[suite], Installed::Ignored)?;
    let packages = choose(&suite)?;
    let debs = work.join("debs");
    fs::create_dir_all(&debs)?;
    run(suite.command("apt-get").args(["-q", "download"]).args(&packages).current_dir(&debs), "downloading")?;
    for deb in files(&debs)? {
        run(Command::new("dpkg").arg("-x").arg(&deb).arg(work.join("root")), "unpacking a package")?;
    }
    fs::remove_dir_all(&debs)?;
    fs::remove_dir_all(work.join("apt"))?;
    finish(&work)?;
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::rename(&work, place).with_context(|| format!("moving {} to its place", work.display()))
}

/// What apt is to make of the packages that are installed on this machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Installed {
    /// As if there were none.
    Ignored,
    /// What is to be installed has to go with them.
    Respected,
}

/// apt with lists, cache and sources of its own.
pub(crate) struct Suite(Vec<String>);

impl Suite {
    /// Reads the package lists of some suites into a directory. Where versions differ, the last suite is preferred.
    pub(crate) fn read(directory: &Path, suites: &[&str], installed: Installed) -> Result<Self> {
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let archive = archive()?;
        let sources = directory.join("sources.list");
        let source = |suite| format!("deb [signed-by={KEYRING}] {archive} {suite} main\n");
        fs::write(&sources, suites.iter().map(source).collect::<String>())?;
        let state = directory.join("status");
        fs::write(&state, "")?;
        let options = [
            ("Dir::State::lists", directory.join("lists")),
            ("Dir::Cache", directory.join("cache")),
            ("APT::Default-Release", suites.last().context("no suite")?.into()),
            ("Dir::Etc::sourcelist", sources),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::Etc::preferences", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("Acquire::Languages", "none".into()),
            // Its own user could not write to a directory of ours.
            ("APT::Sandbox::User", "".into()),
        ];
        let ignored = [("Dir::State", directory.to_path_buf()), ("Dir::State::status", state)];
        let ignored = ignored.iter().filter(|_| installed == Installed::Ignored);
        let options = ignored
            .chain(&options)
            .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={}", value.display())]);
        let apt = Self(options.collect());
        let step = format!("reading the package list of {}", suites.join(" and "));
        run(apt.command("apt-get").args(["-q", "update"]), &step)?;
        Ok(apt)
    }

    /// What makes apt see these suites.
    pub(crate) fn options(&self) -> &[String] {
        &self.0
    }

    /// A program of apt that sees these suites.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.0).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        command
    }
}

/// The suite that this machine was installed from, if it is a Debian release.
pub(crate) fn release() -> Option<String> {
    debian_release(&fs::read_to_string("/etc/os-release").ok()?)
}

fn debian_release(os_release: &str) -> Option<String> {
    let value = |name: &str| os_release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    (value("ID")?.trim_matches('"') == "debian").then_some(())?;
    Some(value("VERSION_CODENAME")?.trim_matches('"').to_owned())
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

/// The entries of a directory, sorted.
pub(crate) fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_debians_own_and_not_its_security_updates() {
        let targets = "http://a/debian-security/ Debian Debian-Security\nhttp://a/debian/ Debian Debian\n";
        assert_eq!(debian_archive(targets).as_deref(), Some("http://a/debian/"));
        assert_eq!(debian_archive("http://b/ubuntu/ Ubuntu Ubuntu\n"), None);
    }

    #[test]
    fn the_release_is_known_on_debian_only() {
        let debian = "PRETTY_NAME=\"Debian GNU/Linux 12\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        assert_eq!(debian_release(debian).as_deref(), Some("bookworm"));
        assert_eq!(debian_release("ID=ubuntu\nVERSION_CODENAME=noble\n"), None);
    }
}
