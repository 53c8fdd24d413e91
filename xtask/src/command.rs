//! Running other programs: every failure names the step, the status and the command line.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _, stderr, stdout};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::{env, fs, thread};

use anyhow::{Context as _, Result, ensure};

/// Returns whether this runs as root.
pub(crate) fn is_root() -> bool {
    // The kernel gives a process's directory to its effective user.
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Tells the user what is being done, apart from the output of the programs that do it.
pub(crate) fn note(text: &str) {
    eprintln!("xtask: {text}");
}

/// Runs a command to its end, showing its output.
pub(crate) fn run(command: &mut Command, step: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{step}: starting {}", line(command)))?;
    ensure!(status.success(), "{step} failed ({status}): {}", line(command));
    Ok(())
}

/// Runs a command to its end and returns what it printed, or nothing if it cannot be run or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command, showing its output while handing each line of its stdout to `each`. Where its stderr is a pipe, that
/// is passed on, too.
pub(crate) fn tee(command: &mut Command, mut each: impl FnMut(&str)) -> Result<ExitStatus> {
    if stdout().is_terminal() && env::var_os("CARGO_TERM_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {}", line(command)))?;
    let errors = child.stderr.take();
    // Nobody may be listening.
    let errors = errors.map(|mut pipe| thread::spawn(move || io::copy(&mut pipe, &mut stderr())));
    let mut pipe = BufReader::new(child.stdout.take().context("the child's stdout is not a pipe")?);
    let mut bytes = Vec::new();
    loop {
        let arrived = pipe.fill_buf().context("reading the child's output")?;
        if arrived.is_empty() {
            break;
        }
        stdout().write_all(arrived).and_then(|()| stdout().flush()).context("writing to stdout")?;
        bytes.extend_from_slice(arrived);
        let count = arrived.len();
        pipe.consume(count);
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let rest = bytes.split_off(end + 1);
            each(String::from_utf8_lossy(&bytes).trim_end());
            bytes = rest;
        }
    }
    if !bytes.is_empty() {
        each(String::from_utf8_lossy(&bytes).trim_end());
    }
    let status = child.wait().context("waiting for the child")?;
    errors.map(thread::JoinHandle::join);
    Ok(status)
}

/// Finds a program in `PATH` or where system administration programs are.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Removes what the cargo that runs us, or the user, has set for *host* builds.
pub(crate) fn scrub(command: &mut Command) {
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    for (name, _) in env::vars_os() {
        let Some(name) = name.to_str() else { continue };
        let of_rust = name.starts_with("CARGO") || name.starts_with("RUST") || name == "LD_LIBRARY_PATH";
        if of_rust && !KEPT.iter().any(|kept| name.starts_with(kept)) {
            command.env_remove(name);
        }
    }
}

/// The command line, to be read by people.
fn line(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(|word| Path::new(word).display().to_string()).collect::<Vec<_>>().join(" ")
}
