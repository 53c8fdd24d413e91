//! What the machine must have: programs by their package, and privileges.

use std::fs;

use anyhow::Result;

use crate::command::{find_program, note};
use crate::toolchain::{self, Lint};
use crate::{apt, workspace::Workspace};

/// A program and the Debian or Ubuntu package it comes in.
pub(crate) struct Program {
    name: &'static str,
    package: &'static str,
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program { name, package }
}

/// What the demo, the benches and the tests with real frames use.
pub(crate) const NETWORK: &[Program] = &[
    program("ovs-vswitchd", "openvswitch-switch"),
    program("ovsdb-server", "openvswitch-switch"),
    program("ovs-vsctl", "openvswitch-switch"),
    program("ip", "iproute2"),
    program("tc", "iproute2"),
    program("ethtool", "ethtool"),
    program("iperf3", "iperf3"),
    program("ping", "iputils-ping"),
];

/// What the tests with a switch of dummy ports use.
pub(crate) const VSWITCH: &[Program] = &[
    program("ovs-vswitchd", "openvswitch-switch"),
    program("ovsdb-server", "openvswitch-switch"),
    program("ovs-vsctl", "openvswitch-switch"),
];

/// What the tests with devices and no switch use.
pub(crate) const DEVICES: &[Program] = &[program("ip", "iproute2"), program("ethtool", "ethtool")];

/// What the VM lab uses, apart from the kernels.
pub(crate) const VM: &[Program] = &[
    program("qemu-system-x86_64", "qemu-system-x86"),
    program("modprobe", "kmod"),
    program("depmod", "kmod"),
    program("setpriv", "util-linux"),
];

/// What the check of the systemd unit uses.
pub(crate) const SYSTEMD: &[Program] = &[program("systemd-analyze", "systemd")];

/// The verb `setup`: everything that any other verb needs.
pub(crate) fn all(ws: &Workspace) -> Result<()> {
    ensure(NETWORK.iter().chain(SYSTEMD).chain(VM))?;
    let (toolchain, linker) = toolchain::choose(ws, Lint::Yes)?;
    note(&format!("all set: {toolchain}, {}", linker.display()));
    Ok(())
}

/// Installs the packages of those programs that are missing; silent when none is.
pub(crate) fn ensure(programs: impl IntoIterator<Item = &'static Program>) -> Result<()> {
    let missing = programs.into_iter().filter(|program| find_program(program.name).is_none());
    let mut packages: Vec<_> = missing.map(|program| program.package).collect();
    packages.dedup();
    if packages.is_empty() { Ok(()) } else { apt::install(&packages) }
}

/// A capability by name and bit, of those that parts of this project need.
#[derive(Clone, Copy, Debug)]
#[expect(non_camel_case_types, reason = "the kernel's names are what people search for")]
pub(crate) enum Capability {
    CAP_NET_ADMIN = 12,
    CAP_SYS_ADMIN = 21,
    CAP_BPF = 39,
}

/// Why a part that needs these capabilities cannot run here, if so.
pub(crate) fn lacks(needed: &[Capability]) -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let effective = effective_capabilities(&status)?;
    let missing: Vec<_> = needed.iter().filter(|needed| effective & (1 << (**needed as u32)) == 0).collect();
    (!missing.is_empty()).then(|| format!("needs {missing:?}: run it as root"))
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_effective_capabilities() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000008000001000\n";
        assert_eq!(effective_capabilities(status), Some(1 << 39 | 1 << 12));
    }
}
