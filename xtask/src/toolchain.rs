//! Chooses a Rust that can build for BPF: one with its library's source, and an LLVM that some bpf-linker shares.
//!
//! Three kinds will do: a rustup toolchain with `rust-src`, a distribution's rustc with its source package, or a
//! nightly of our own under `target/`. What is complete is taken before what must be completed; the user's own
//! toolchains are used as they are and never updated.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::command::{find_program, note, output, run, scrub};
use crate::workspace::Workspace;
use crate::{apt, linker};

/// Debian's and Ubuntu's newest rustc, kept current for building browsers, and the LLVM it came with last.
const PACKAGES: [&str; 4] = ["rustc-web", "rust-web-src", "cargo-web", "llvm-22-dev"];
const CLIPPY_PACKAGE: &str = "rust-web-clippy";

/// The nightly to fetch where nothing else is to be had. Dated, so that its LLVM is known.
const NIGHTLY: &str = "nightly-2026-05-20";
const NIGHTLY_LLVM: u32 = 22;

/// Whether the toolchain must have clippy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lint {
    Yes,
    No,
}

pub(crate) struct Toolchain {
    origin: String,
    /// The directory of `rustc` and `cargo`.
    bin: PathBuf,
    release: String,
    pub(crate) llvm: u32,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (rustc {}, LLVM {})", self.origin, self.release, self.llvm)
    }
}

impl Toolchain {
    /// Looks at the toolchain below `prefix`; `None` if it cannot build `core` or is too old for this workspace.
    fn probe(origin: String, prefix: &Path) -> Option<Self> {
        let bin = prefix.join("bin");
        if !prefix.join("lib/rustlib/src/rust/library/core").is_dir() || !bin.join("cargo").is_file() {
            return None;
        }
        let mut rustc = Command::new(bin.join("rustc"));
        scrub(&mut rustc);
        let (release, llvm) = parse_version(&output(rustc.arg("-vV"))?)?;
        let recent = minor(&release)? >= minor(env!("CARGO_PKG_RUST_VERSION"))?;
        recent.then_some(Self { origin, bin, release, llvm })
    }

    /// `cargo VERB` of this toolchain, untouched by the environment of the cargo that runs us.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        // cargo would look for the program of `clippy` in PATH, where rustup's is; so it is named.
        let program = if verb == "clippy" { "cargo-clippy" } else { "cargo" };
        let mut cargo = Command::new(self.bin.join(program));
        scrub(&mut cargo);
        // A stable compiler builds `core` only when told to allow what a nightly allows.
        cargo
            .env("CARGO", self.bin.join("cargo"))
            .env("RUSTC", self.bin.join("rustc"))
            .env("RUSTC_BOOTSTRAP", "1");
        cargo.arg(verb).stdin(Stdio::null());
        cargo
    }

    fn has_clippy(&self) -> bool {
        self.bin.join("cargo-clippy").is_file() && self.bin.join("clippy-driver").is_file()
    }
}

/// Chooses a toolchain and its bpf-linker, and installs what is missing of them.
pub(crate) fn choose(ws: &Workspace, lint: Lint) -> Result<(Toolchain, PathBuf)> {
    let (toolchain, linker) = match best(ws) {
        Some(found) => found,
        None => {
            complete(ws)?;
            best(ws).context("no toolchain for BPF was found, although one has just been installed")?
        }
    };
    if lint == Lint::Yes && !toolchain.has_clippy() {
        if toolchain.bin != Path::new("/usr/bin") {
            bail!("{toolchain} has no clippy: run `rustup component add clippy --toolchain NAME` for it");
        }
        apt::install(&[CLIPPY_PACKAGE])?;
    }
    let linker = linker.build(ws, toolchain.llvm)?;
    Ok((toolchain, linker))
}

/// The first toolchain whose linker is there, else the first whose linker can be built.
fn best(ws: &Workspace) -> Option<(Toolchain, linker::State)> {
    let mut buildable = None;
    for (origin, prefix) in prefixes(ws) {
        let Some(toolchain) = Toolchain::probe(origin, &prefix) else { continue };
        match linker::state(ws, toolchain.llvm) {
            Some(linker @ linker::State::Ready(_)) => return Some((toolchain, linker)),
            Some(linker) => buildable = buildable.or(Some((toolchain, linker))),
            None => (),
        }
    }
    buildable
}

/// Where toolchains may be, in order of preference.
fn prefixes(ws: &Workspace) -> Vec<(String, PathBuf)> {
    let own = below(&own_rustup(ws).join("toolchains"));
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".rustup"))).unwrap_or_default();
    let mut rustup = below(&home.join("toolchains"));
    rustup.sort_by_key(|(name, _)| !name.starts_with("nightly"));
    // Ubuntu's versioned packages live below /usr/lib/rust-VERSION.
    let versioned = below(Path::new("/usr/lib")).into_iter().filter(|(name, _)| name.starts_with("rust-"));

    let mut all = Vec::new();
    all.extend(own.into_iter().map(|(name, prefix)| (format!("{name} under target/"), prefix)));
    all.extend(rustup.into_iter().map(|(name, prefix)| (format!("rustup's {name}"), prefix)));
    all.push(("the distribution's packages".into(), PathBuf::from("/usr")));
    all.extend(versioned.map(|(name, prefix)| (format!("the distribution's {name}"), prefix)));
    all
}

/// Installs a toolchain, or what the linker of one lacks; or says in one sentence what to do.
fn complete(ws: &Workspace) -> Result<()> {
    if apt::refusal().is_none() {
        for (origin, prefix) in prefixes(ws) {
            let Some(toolchain) = Toolchain::probe(origin, &prefix) else { continue };
            let llvm = linker::llvm_package(toolchain.llvm);
            if linker::supports(toolchain.llvm) && apt::has(&llvm)? {
                note(&format!("{toolchain} can build for BPF once its LLVM is here"));
                return apt::install(&[&llvm]);
            }
        }
        if apt::has(PACKAGES[0])? && apt::has(PACKAGES[1])? && apt::has(PACKAGES[3])? {
            return apt::install(&PACKAGES);
        }
    }
    if linker::state(ws, NIGHTLY_LLVM).is_some() && find_program("rustup").is_some() {
        return install_nightly(ws);
    }
    bail!(
        "no toolchain that can build for BPF: as root, run `apt-get install {}` (Debian and Ubuntu); or elsewhere \
         install rustup and LLVM {NIGHTLY_LLVM} with its development files (or a bpf-linker built with it) and \
         run this again",
        PACKAGES.join(" "),
    );
}

/// Fetches a nightly into `target/`, beside the user's toolchains instead of among them.
fn install_nightly(ws: &Workspace) -> Result<()> {
    note(&format!("installing {NIGHTLY} with rust-src under target/"));
    let mut rustup = Command::new("rustup");
    scrub(&mut rustup);
    rustup.env("RUSTUP_HOME", own_rustup(ws)).env("RUSTUP_MAX_RETRIES", "1").stdin(Stdio::null());
    rustup.args(["toolchain", "install", NIGHTLY, "--no-self-update", "--profile", "minimal"]);
    rustup.args(["--component", "rust-src", "--component", "clippy"]);
    run(&mut rustup, "installing a nightly toolchain").context(
        "without network, put a rustup toolchain with rust-src (`rustup component add rust-src`) on this machine",
    )
}

fn own_rustup(ws: &Workspace) -> PathBuf {
    ws.own_target("rustup")
}

/// The entries of a directory by name; none if there is no such directory.
fn below(directory: &Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let named = |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path());
    let mut entries: Vec<_> = entries.flatten().map(named).collect();
    entries.sort();
    entries
}

/// The release and the LLVM major version from `rustc -vV`.
fn parse_version(text: &str) -> Option<(String, u32)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((field("release: ")?.to_owned(), llvm))
}

fn minor(release: &str) -> Option<u32> {
    release.split('.').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_release_and_llvm() {
        let text = "rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_version(text), Some(("1.97.0-nightly".into(), 22)));
        assert_eq!(parse_version("release: 1.97.0\n"), None);
    }

    #[test]
    fn compares_minor_versions_as_numbers() {
        assert!(minor("1.101.0-nightly") > minor("1.95"));
    }
}
