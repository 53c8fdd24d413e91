//! System packages by apt: said before it is done, without questions, and without starting daemons.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::command::{find_program, note, output, run};
use crate::setup::is_root;

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
    let updated = !has_lists();
    if updated {
        update()?;
    }
    let mut install = apt("sh");
    install.args(["-c", INSTALL, "apt-install"]).args(packages);
    let step = format!("installing {list}");
    match run(&mut install, &step) {
        // Old package lists name versions that the archive no longer has.
        Err(_) if !updated => update().and_then(|()| run(&mut install, &step)),
        result => result,
    }
}

/// Whether apt knows a package with a version to install; asks for package lists when there are none.
pub(crate) fn has(package: &str) -> Result<bool> {
    if !has_lists() {
        update()?;
    }
    Ok(output(Command::new("apt-cache").args(["show", "--no-all-versions", package])).is_some())
}

fn update() -> Result<()> {
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
