//! System packages by apt: said before it is done, without questions, and without starting daemons.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fs, process};

use anyhow::{Context as _, Result, bail};

use crate::command::{find_program, is_root, note, output, run};
use crate::debian::{self, Installed, Suite};

/// Installs packages and leaves the services among them stopped.
///
/// A package that starts a daemon asks `policy-rc.d` first; where there is none, this script puts one that
/// refuses and removes it again, also when it is interrupted, which is why it is a script.
const INSTALL: &str = r#"
set -eu
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends --no-remove "$@"
"#;

/// Why packages cannot be installed here, if so.
pub(crate) fn refusal() -> Option<&'static str> {
    if find_program("apt-get").is_none() {
        Some("this machine has no apt-get")
    } else if !is_root() {
        Some("this needs root")
    } else {
        None
    }
}

/// Installs packages, or says in one sentence how to.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if let Some(reason) = refusal() {
        bail!(
            "missing packages cannot be installed because {reason}: as root, run `apt-get install {list}` \
             (names as in Debian and Ubuntu)"
        );
    }
    note(&format!("installing packages by apt, with their services left stopped: {list}"));
    if !has_lists() {
        update()?;
    }
    match run_install(packages, &[]) {
        // Old package lists name versions that the archive no longer has.
        Err(_) if !UPDATED.load(Ordering::Relaxed) => update().and_then(|()| run_install(packages, &[])),
        result => result,
    }
    .or_else(|refused| match debian::release() {
        Some(release) => one_by_one(packages, &release),
        None => Err(refused),
    })
}

/// `options` are for apt.
fn run_install(packages: &[&str], options: &[String]) -> Result<()> {
    let mut install = apt("sh");
    install.args(["-c", INSTALL, "apt-install"]).args(options).args(packages);
    run(&mut install, &format!("installing {}", packages.join(" ")))
}

/// Each package by itself and, where that is refused, of the release's backports: where parts of a program were installed
/// from there, as of QEMU, others would have to replace them. All are tried, whatever becomes of the first ones.
fn one_by_one(packages: &[&str], release: &str) -> Result<()> {
    let refused: Vec<_> =
        packages.iter().filter(|package| run_install(&[package], &[]).is_err()).copied().collect();
    if refused.is_empty() {
        return Ok(());
    }
    let backports = format!("{release}-backports");
    note(&format!("looking for {} in {backports}; apt's own sources stay as they are", refused.join(" ")));
    let lists = env::temp_dir().join(format!("trunkline-apt-{}", process::id()));
    let result = Suite::read(&lists, &[release, &backports], Installed::Respected).and_then(|suite| {
        refused.iter().map(|package| run_install(&[package], suite.options())).fold(Ok(()), Result::and)
    });
    fs::remove_dir_all(&lists).with_context(|| format!("removing {}", lists.display())).and(result)
}

/// Whether apt knows a package with a version to install. An image's lists may be older than the package, so the
/// answer is "no" only after they have been updated, once per run.
///
/// # Errors
/// There are no package lists, and they cannot be had. Without network, old ones do.
pub(crate) fn has(package: &str) -> Result<bool> {
    let shows = || output(Command::new("apt-cache").args(["show", "--no-all-versions", package])).is_some();
    let has_lists = has_lists();
    let updated = UPDATED.load(Ordering::Relaxed);
    shows_or_updated(shows, has_lists, || if updated && has_lists { Ok(()) } else { update() })
}

/// Asks again after `update` what `shows` denies. With old lists at hand, an update may fail.
fn shows_or_updated(
    shows: impl Fn() -> bool,
    has_lists: bool,
    update: impl FnOnce() -> Result<()>,
) -> Result<bool> {
    if has_lists && shows() {
        return Ok(true);
    }
    match update() {
        Err(error) if !has_lists => return Err(error),
        Err(error) => note(&format!("going by the old package lists: {error:#}")),
        Ok(()) => (),
    }
    Ok(shows())
}

/// Whether this run has updated the package lists, or tried to.
static UPDATED: AtomicBool = AtomicBool::new(false);

fn update() -> Result<()> {
    UPDATED.store(true, Ordering::Relaxed);
    run(apt("apt-get").args(["-q", "update"]), "updating apt's package lists")
}

fn has_lists() -> bool {
    let Ok(lists) = fs::read_dir(Path::new("/var/lib/apt/lists")) else { return false };
    lists.flatten().any(|list| list.file_name().to_string_lossy().contains("_Packages"))
}

fn apt(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("DEBIAN_FRONTEND", "noninteractive").env("NEEDRESTART_SUSPEND", "1").stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_package_is_not_denied_before_old_lists_are_updated() {
        let updated = Cell::new(false);
        let update = || {
            updated.set(true);
            Ok(())
        };
        assert!(shows_or_updated(|| updated.get(), true, update).unwrap());
        assert!(!shows_or_updated(|| false, true, || Ok(())).unwrap());
    }

    #[test]
    fn a_package_in_the_lists_needs_no_update() {
        assert!(shows_or_updated(|| true, true, || Err(anyhow!("not needed"))).unwrap());
    }

    #[test]
    fn old_lists_do_without_network_and_none_do_not() {
        let offline = || Err(anyhow!("no network"));
        assert!(!shows_or_updated(|| false, true, offline).unwrap());
        assert!(shows_or_updated(|| false, false, offline).is_err());
    }
}
