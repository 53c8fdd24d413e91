//! Where things are: sockets, directories, files.

use std::path::{Path, PathBuf};

/// Open vSwitch's run directory where neither `--ovs-rundir` nor `OVS_RUNDIR` says another.
pub const OVS_RUNDIR: &str = "/var/run/openvswitch";
/// trunkline's own run directory where `--run-dir` does not say another.
pub const RUN_DIR: &str = "/run/trunkline";

/// The files in the run directory.
#[derive(Clone, Debug)]
pub struct RunDir(pub PathBuf);

impl RunDir {
    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("control.sock")
    }

    /// The file whose lock a running agent holds.
    pub fn lock(&self) -> PathBuf {
        self.0.join("agent.lock")
    }

    /// The record of the devices whose rx-vlan-offload was switched off.
    pub fn offloads(&self) -> PathBuf {
        self.0.join("rx-vlan-offload-off")
    }
}

/// The process that ovs-vswitchd's pid file names.
pub fn vswitchd_pid(ovs_rundir: &Path) -> Option<u32> {
    std::fs::read_to_string(ovs_rundir.join("ovs-vswitchd.pid")).ok()?.trim().parse().ok()
}

/// Whether 802.1Q devices can exist on this host, in whatever namespace: whether the kernel has the code for them
/// now. (`/proc/net/vlan` is made for every namespace when module 8021q is loaded or built in.)
pub fn vlan_devices_possible() -> bool {
    Path::new("/proc/net/vlan").exists()
}
