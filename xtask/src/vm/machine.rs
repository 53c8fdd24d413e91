//! The virtual machine: qemu's command line, and what it is given.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, process};

use anyhow::{Context as _, Result, bail, ensure};

use super::initramfs::Archive;
use super::kernel::Kernel;
use crate::command::{find_program, note, tee};
use crate::debian::files;
use crate::workspace::Workspace;

const INIT: &str = include_str!("init.sh");
const LAST: &str = include_str!("last.sh");

/// What must be loaded before the host's file system can be reached, and the ports that the output takes.
const MODULES: &[&str] = &["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];

/// A processor without what costs qemu's emulation time and brings nothing: five levels of page tables, large register
/// files to be saved, string instructions that it does octet by octet.
const EMULATED_CPU: &str = "max,la57=off,xsave=off,avx=off,avx2=off,erms=off";
/// Linux 6.1.0-50 of Debian writes over its own entry code when it starts without the latter.
const EMULATED_CPU_6_1: &str = "max,la57=off,xsave=off,avx=off,avx2=off";

/// The processor for a kernel of this release.
pub(super) fn emulated_cpu(release: &str) -> &'static str {
    if release.starts_with("6.1.") { EMULATED_CPU_6_1 } else { EMULATED_CPU }
}

/// An emulated processor does not speculate; its time stamp counter is the host's, or counts instructions; the last is the
/// flag `rep_good`, string instructions again, by its number, as 6.1 does not know its name there.
pub(super) const EMULATED_KERNEL: &str = "mitigations=off tsc=reliable clearcpuid=112";

/// Variables of this process that the command in the VM gets, and the prefixes of others.
const KEPT: [&str; 7] = ["HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TERM", "USER"];
const KEPT_PREFIXES: [&str; 4] = ["CARGO_TERM_", "RUST_", "RUSTUP_", "TRUNKLINE_"];

/// What runs the VM's instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Processor {
    /// The host's own.
    Kvm { cpus: u32 },
    /// An emulated one.
    Emulated { cpus: u32 },
    /// An emulated one by whose instructions all clocks of the VM go. QEMU can do that with one processor only.
    Counting,
}

impl Processor {
    /// The host's where it virtualizes.
    pub(crate) fn fastest(cpus: u32) -> Self {
        if has_kvm() { Self::Kvm { cpus } } else { Self::Emulated { cpus } }
    }

    /// These options of qemu's, for a kernel of this release.
    fn options(self, release: &str) -> Vec<(&'static str, String)> {
        let (accelerator, model, cpus) = match self {
            Self::Kvm { cpus } => ("kvm", "host", cpus),
            Self::Emulated { cpus } => ("tcg,thread=multi", emulated_cpu(release), cpus),
            Self::Counting => ("tcg,thread=single", emulated_cpu(release), 1),
        };
        let mut options =
            vec![("-accel", accelerator.into()), ("-cpu", model.into()), ("-smp", cpus.to_string())];
        if self == Self::Counting {
            // 2^0 ns each. A VM that waits for a timer goes on at once, with the clock set forward.
            options.push(("-icount", "shift=0,sleep=off,align=off".into()));
        }
        options
    }
}

/// A command to be run in a VM.
pub(crate) struct Job {
    pub(crate) command: Vec<OsString>,
    /// Variables beside those of this process.
    pub(crate) env: Vec<(String, OsString)>,
    /// Where to run it, in the host's file system.
    pub(crate) directory: PathBuf,
    pub(crate) processor: Processor,
    pub(crate) memory_mib: u32,
    pub(crate) limit: Option<Duration>,
}

/// How often a machine is started that ends before the command begins.
const ATTEMPTS: usize = 3;

/// How far the command got.
#[derive(PartialEq, Eq, Debug)]
enum Progress {
    Nothing,
    Begun,
    /// With this status.
    Ended(u8),
}

/// What the VM said on its third port.
fn parse(report: &str) -> Result<Progress> {
    let mut lines = report.lines();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(Progress::Nothing),
        (Some(_), None) => Ok(Progress::Begun),
        (Some(_), Some(status)) => {
            status.parse().map(Progress::Ended).with_context(|| format!("the command's status is {status:?}"))
        }
    }
}

/// A VM that can be started: its files are below `target/vm` while this exists.
pub(crate) struct Machine {
    directory: PathBuf,
    limit: Option<Duration>,
    qemu: Vec<OsString>,
}

impl Machine {
    pub(crate) fn new(ws: &Workspace, kernel: &Kernel, job: &Job) -> Result<Self> {
        let runs = ws.own_target("vm/run");
        sweep(&runs);
        let directory = runs.join(process::id().to_string());
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let mut machine = Self { directory, limit: job.limit, qemu: Vec::new() };
        fs::write(machine.initramfs(), initramfs(ws, kernel, job)?).context("writing the initramfs")?;
        machine.qemu = machine.line(ws, kernel, &kernel.image()?, job);
        Ok(machine)
    }

    /// Runs it to its end, passes on what the command writes, hands each line of its stdout to `each`, and returns its
    /// status. A machine that ends before the command begins is started again: emulated ones now and then do, in the first
    /// seconds of a kernel that starts well otherwise.
    pub(crate) fn run(&self, mut each: impl FnMut(&str)) -> Result<u8> {
        let mut attempt = 1;
        loop {
            let mut qemu = self.command();
            qemu.stdin(Stdio::null()).stderr(Stdio::piped());
            let ended = tee(&mut qemu, &mut each)?;
            match parse(&fs::read_to_string(self.status_file()).unwrap_or_default())? {
                Progress::Ended(status) => return Ok(status),
                Progress::Nothing if attempt < ATTEMPTS => {
                    note(&format!("the VM ended before the command began ({ended}): starting it again"));
                    attempt += 1;
                }
                Progress::Nothing | Progress::Begun => bail!(self.failure(ended)),
            }
        }
    }

    /// qemu, in the terminal's process group, so that Ctrl-C ends it; it does not outlive this process, nor its limit.
    fn command(&self) -> Command {
        let die_with_parent = ["--pdeathsig", "KILL"];
        let mut command = Command::new("setpriv");
        if let Some(limit) = self.limit {
            command.args(["--pdeathsig", "TERM", "timeout", "--foreground", "--kill-after=2"]);
            command.arg(limit.as_secs_f64().to_string()).arg("setpriv");
        }
        command.args(die_with_parent).args(&self.qemu);
        command
    }

    /// Why there is no status of the command, though qemu has ended.
    fn failure(&self, qemu: process::ExitStatus) -> String {
        let console = fs::read_to_string(self.console()).unwrap_or_default();
        let lines: Vec<_> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let end = lines[lines.len().saturating_sub(40)..].join("\n");
        let how = match (qemu.code(), self.limit) {
            (Some(124 | 137), Some(limit)) => format!("the VM did not end within {} s", limit.as_secs()),
            _ => format!("the VM ended without a result (qemu: {qemu})"),
        };
        format!("{how}; the end of its console:\n{end}")
    }

    /// What the kernel complained of: warnings and worse.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let console = fs::read_to_string(self.console()).unwrap_or_default();
        complaints(&console)
    }

    fn line(&self, ws: &Workspace, kernel: &Kernel, image: &Path, job: &Job) -> Vec<OsString> {
        match job.processor {
            Processor::Kvm { .. } => {}
            Processor::Emulated { .. } => {
                note("no KVM here: the VM is emulated, at a tenth of the speed or less");
            }
            Processor::Counting => note("a second of the VM's is a billion of its instructions"),
        }
        let file = |id: &str, path: &Path, more: &str| {
            let mut option = OsString::from(format!("file,id={id},path="));
            option.push(comma(path));
            option.push(more);
            option
        };
        let share = |id: &str, path: &Path, more: &str| {
            let mut option =
                OsString::from(format!("local,id={id},security_model=none,multidevs=remap,path="));
            option.push(comma(path));
            option.push(more);
            option
        };
        let mut line: Vec<OsString> = vec!["qemu-system-x86_64".into()];
        let mut option = |name: &str, value: OsString| line.extend([name.into(), value]);
        for (name, value) in job.processor.options(&kernel.release) {
            option(name, value.into());
        }
        option("-m", job.memory_mib.to_string().into());
        option("-kernel", image.into());
        option("-initrd", self.initramfs().into());
        option("-append", kernel_arguments(job.processor).into());
        option("-fsdev", share("root", Path::new("/"), ",readonly=on"));
        option("-device", "virtio-9p-pci,fsdev=root,mount_tag=root".into());
        option("-fsdev", share("project", &ws.root, ""));
        option("-device", "virtio-9p-pci,fsdev=project,mount_tag=project".into());
        option("-chardev", file("console", &self.console(), ""));
        option("-serial", "chardev:console".into());
        option("-device", "virtio-serial-pci".into());
        option("-chardev", file("stdout", Path::new("/dev/stdout"), ",append=on"));
        option("-device", "virtserialport,nr=1,chardev=stdout".into());
        option("-chardev", file("stderr", Path::new("/dev/stderr"), ",append=on"));
        option("-device", "virtserialport,nr=2,chardev=stderr".into());
        option("-chardev", file("status", &self.status_file(), ""));
        option("-device", "virtserialport,nr=3,chardev=status".into());
        line.extend(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"].map(Into::into));
        line
    }

    fn initramfs(&self) -> PathBuf {
        self.directory.join("initramfs")
    }

    fn console(&self) -> PathBuf {
        self.directory.join("console")
    }

    fn status_file(&self) -> PathBuf {
        self.directory.join("status")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Removes what killed runs left behind.
fn sweep(runs: &Path) {
    for run in files(runs).unwrap_or_default() {
        let process = Path::new("/proc").join(run.file_name().unwrap_or_default());
        if !process.exists() {
            let _ = fs::remove_dir_all(run);
        }
    }
}

fn kernel_arguments(processor: Processor) -> String {
    let common = "console=ttyS0 panic=-1 oops=panic net.ifnames=0";
    match processor {
        // The kernel shall do what it does at the user's.
        Processor::Kvm { .. } => common.into(),
        Processor::Emulated { .. } | Processor::Counting => format!("{common} {EMULATED_KERNEL}"),
    }
}

/// Whether the processor virtualizes, and we may use that. The device alone can be there without the ability.
pub(crate) fn has_kvm() -> bool {
    let may = File::options().read(true).write(true).open("/dev/kvm").is_ok();
    may && fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| virtualizes(&text))
}

fn virtualizes(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags"));
    flags.is_some_and(|flags| flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

/// A path as a value of one of qemu's options.
fn comma(path: &Path) -> OsString {
    path.to_string_lossy().replace(',', ",,").into()
}

fn initramfs(ws: &Workspace, kernel: &Kernel, job: &Job) -> Result<Vec<u8>> {
    let mut archive = Archive::new(ws, kernel, INIT, MODULES)?;
    archive.directory("job");
    archive.program("job/settings", settings(ws, kernel).as_bytes());
    archive.program("job/command", script(job).as_bytes());
    archive.program("job/last", LAST.as_bytes());
    Ok(archive.finish())
}

fn settings(ws: &Workspace, kernel: &Kernel) -> String {
    let path = |path: &Path| quote(&path.to_string_lossy());
    format!(
        "project={}\ntarget={}\nkernel_modules={}\nname=vm\n",
        path(&ws.root),
        path(ws.host_target()),
        path(&kernel.modules())
    )
}

/// The command with its directory and variables, for a shell.
fn script(job: &Job) -> String {
    let kept = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    let kept = kept.filter(|(name, _)| {
        KEPT.contains(&name.as_str()) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    });
    let exports = kept.chain(job.env.iter().cloned());
    let exports = exports.map(|(name, value)| format!("export {name}={}\n", quote(&value.to_string_lossy())));
    let words: Vec<_> = job.command.iter().map(|word| quote(&word.to_string_lossy())).collect();
    let directory = quote(&job.directory.to_string_lossy());
    format!("{}cd {directory} && exec {}\n", exports.collect::<String>(), words.join(" "))
}

/// One word of a shell's.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Whether a VM can be had at all on this kind of machine.
pub(crate) fn check() -> Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the VM lab is for amd64 machines");
    ensure!(find_program("setpriv").is_some(), "no setpriv: install util-linux");
    Ok(())
}

fn complaints(console: &str) -> Vec<String> {
    const MARKS: [&str; 6] =
        ["WARNING: ", "BUG: ", "Oops: ", "Kernel panic", "refcount_t: ", "possible recursive"];
    let lines = console.lines().map(str::trim_end);
    lines.filter(|line| MARKS.iter().any(|mark| line.contains(mark))).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
