//! Debian's kernels: which package, and where its parts are once it is unpacked below `target/vm`.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::command::{find_program, note, output, run};
use crate::debian::{self, Suite, files};
use crate::workspace::Workspace;

/// Versions, oldest first, and the Debian suites that have them. `sid` moves on; its version is checked after unpacking.
pub(crate) const VERSIONS: &[(&str, &str)] =
    &[("6.1", "bookworm"), ("6.12", "bookworm-backports"), ("7.2", "sid")];

/// The same with `PREEMPT_RT`, which no test runs under by itself.
const REAL_TIME: &[(&str, &str)] = &[("6.1-rt", "bookworm"), ("6.12-rt", "trixie")];

/// The one that most installations of today run.
pub(crate) const DEFAULT: &str = "6.12";

pub(crate) fn version_names() -> PossibleValuesParser {
    let name = |(version, suite): &(&'static str, &str)| {
        PossibleValue::new(*version).help(format!("from Debian {suite}"))
    };
    PossibleValuesParser::new(VERSIONS.iter().chain(REAL_TIME).map(name))
}

/// An unpacked kernel.
pub(crate) struct Kernel {
    root: PathBuf,
    /// As `uname -r` says it.
    pub(crate) release: String,
}

impl Kernel {
    /// The kernel of this version, fetched if it is not here yet.
    pub(crate) fn get(ws: &Workspace, version: &str) -> Result<Self> {
        let place = ws.own_target("vm").join(version);
        if !place.is_dir() {
            let mut all = VERSIONS.iter().chain(REAL_TIME);
            let (_, suite) = all.find(|(known, _)| *known == version).context("no such version")?;
            let real_time = REAL_TIME.iter().any(|(known, _)| *known == version);
            let image = if real_time { "linux-image-rt-amd64" } else { "linux-image-amd64" };
            note(&format!("fetching Linux {version} from Debian {suite} into {}", place.display()));
            debian::fetch(
                &place,
                suite,
                |suite| packages(suite, image),
                |work| finish(&work.join("root"), version, suite),
            )
            .with_context(|| format!("no Linux {version}"))?;
        }
        let root = place.join("root");
        let release = release(&root)?;
        Ok(Self { root, release })
    }

    pub(crate) fn image(&self) -> Result<PathBuf> {
        let places =
            [self.root.join(format!("boot/vmlinuz-{}", self.release)), self.modules().join("vmlinuz")];
        let found = places.into_iter().find(|place| place.is_file());
        found.with_context(|| format!("{} holds no kernel", self.root.display()))
    }

    pub(crate) fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    /// The files of these modules and of all that they need, in the order of loading.
    pub(crate) fn closure(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let mut modprobe = kmod("modprobe")?;
        modprobe.args(["--config", "/dev/null", "--dirname"]).arg(&self.root);
        modprobe.args(["--set-version", &self.release, "--show-depends", "--all"]).args(names);
        let plan = output(&mut modprobe)
            .with_context(|| format!("Linux {} lacks one of the modules {names:?}", self.release))?;
        Ok(module_files(&plan))
    }
}

/// What `apt-cache depends --recurse` lists of the newest kernel for PCs: one package, or since Linux 7 four.
fn packages(suite: &Suite, image: &str) -> Result<Vec<String>> {
    let mut depends = suite.command("apt-cache");
    depends.args(["depends", "--recurse", "--important", image]);
    let graph = output(&mut depends).with_context(|| format!("apt knows no {image}"))?;
    let packages = kernel_packages(&graph);
    ensure!(!packages.is_empty(), "{image} depends on no kernel");
    Ok(packages)
}

fn kernel_packages(graph: &str) -> Vec<String> {
    let is_kernel = |name: &&str| {
        let parts = ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"];
        let rest = parts.iter().find_map(|prefix| name.strip_prefix(prefix));
        rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
    };
    let needed = graph.lines().filter_map(|line| line.trim_start().strip_prefix("Depends: "));
    let mut packages: Vec<_> = needed.filter(is_kernel).map(str::to_owned).collect();
    packages.sort();
    packages.dedup();
    packages
}

/// What the packages' scripts would do.
fn finish(root: &Path, version: &str, suite: &str) -> Result<()> {
    if !root.join("lib").exists() {
        symlink("usr/lib", root.join("lib")).context("linking lib to usr/lib")?;
    }
    let release = release(root)?;
    ensure!(
        release
            .strip_prefix(version.trim_end_matches("-rt"))
            .is_some_and(|rest| rest.starts_with(['.', '+', '-'])),
        "Debian {suite} now has Linux {release}"
    );
    run(kmod("depmod")?.arg("--basedir").arg(root).arg(&release), "indexing the modules")
}

/// The one release whose modules are there.
fn release(root: &Path) -> Result<String> {
    let releases = files(&root.join("lib/modules"))?;
    ensure!(releases.len() == 1, "{} holds {} kernels", root.display(), releases.len());
    Ok(releases[0].file_name().context("a release has a name")?.to_string_lossy().into_owned())
}

fn kmod(program: &str) -> Result<Command> {
    find_program(program).map(Command::new).with_context(|| format!("no {program}: install kmod"))
}

/// The files of `modprobe --show-depends`, each once.
fn module_files(plan: &str) -> Vec<PathBuf> {
    let mut modules = Vec::new();
    for line in plan.lines() {
        // Others are `builtin NAME`; options do not come without a configuration.
        if let Some(file) = line.strip_prefix("insmod ").map(|file| PathBuf::from(file.trim()))
            && !modules.contains(&file)
        {
            modules.push(file);
        }
    }
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_that_a_kernel_needs_the_kernel_is_chosen() {
        let old = "linux-image-amd64\n  Depends: linux-image-6.1.0-50-amd64\nlinux-image-6.1.0-50-amd64\n  \
                   Depends: kmod\n |Depends: initramfs-tools\n";
        assert_eq!(kernel_packages(old), ["linux-image-6.1.0-50-amd64"]);
        let new = "linux-image-amd64\n  Depends: linux-base-amd64\n  Depends: linux-image-7.2.13+deb14-amd64\n  \
                   Depends: linux-base-7.2.13+deb14-amd64\n  Depends: linux-binary-7.2.13+deb14-amd64\n  \
                   Depends: linux-modules-7.2.13+deb14-amd64\n  Depends: linux-modules-7.2.13+deb14-amd64\n";
        let four = ["linux-base-", "linux-binary-", "linux-image-", "linux-modules-"];
        assert_eq!(kernel_packages(new), four.map(|part| format!("{part}7.2.13+deb14-amd64")));
    }

    #[test]
    fn a_module_that_two_need_is_loaded_once() {
        let plan = "insmod /r/netfs.ko\ninsmod /r/9p.ko.xz \nbuiltin virtio\ninsmod /r/netfs.ko\n";
        assert_eq!(module_files(plan), [PathBuf::from("/r/netfs.ko"), PathBuf::from("/r/9p.ko.xz")]);
    }
}
