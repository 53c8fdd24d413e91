//! What the tests boot as a guest of their own: a kernel with virtio-net and 802.1Q, a shell, and nothing else.
//!
//! The tests know nothing of kernels and archives: they get a file with the first of qemu's arguments, one on each line, and
//! add memory, network devices and serial ports: the first is the console, on the second the guest takes orders.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::initramfs::Archive;
use super::kernel::{self, Kernel};
use super::machine::{self, EMULATED_KERNEL, emulated_cpu, has_kvm};
use crate::workspace::Workspace;

const INIT: &str = include_str!("guest.sh");
const MODULES: &[&str] = &["virtio_pci", "virtio_net", "8021q"];

/// The name of the variable that tells the tests where that file is.
pub(crate) const VARIABLE: &str = "TRUNKLINE_QEMU_GUEST";

/// Makes the guest, and the file with its arguments.
pub(crate) fn prepare(ws: &Workspace) -> Result<PathBuf> {
    machine::check()?;
    let kernel = Kernel::get(ws, kernel::DEFAULT)?;
    let place = ws.own_target("vm/guest");
    fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
    let initramfs = place.join("initramfs");
    let archive = Archive::new(ws, &kernel, INIT, MODULES)?.finish();
    fs::write(&initramfs, archive).context("writing the guest's initramfs")?;
    let (image, initramfs) = (kernel.image()?, initramfs.to_string_lossy());
    // The second is for a machine without KVM inside of one that has it.
    let accelerators: &[&str] =
        if has_kvm() { &["-accel", "kvm", "-accel", "tcg"] } else { &["-accel", "tcg"] };
    let append = format!("console=ttyS0 panic=-1 oops=panic net.ifnames=0 quiet {EMULATED_KERNEL}");
    // What a processor does without here is no loss: nobody measures a guest.
    let machine = [
        "-cpu",
        emulated_cpu(&kernel.release),
        "-kernel",
        &image.to_string_lossy(),
        "-initrd",
        &initramfs,
        "-append",
        &append,
    ]
    .map(str::to_owned);
    let lines = accelerators.iter().map(|word| (*word).to_owned()).chain(machine).map(|word| word + "\n");
    let arguments = place.join("arguments");
    fs::write(&arguments, lines.collect::<String>()).context("writing the guest's arguments")?;
    Ok(arguments)
}
