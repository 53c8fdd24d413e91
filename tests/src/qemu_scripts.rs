//! QEMU's scripts for a tap (`script=`, `downscript=`), as operators have them: the guest's port comes and goes with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::{Netns, Ovs, Vlan, run};

/// Two files, in Open vSwitch's directory. Each takes the tap's name.
#[derive(Debug)]
pub struct QemuScripts {
    pub(crate) up: PathBuf,
    pub(crate) down: PathBuf,
}

impl QemuScripts {
    /// For taps that take part in VLANs like this.
    pub fn new(ovs: &Ovs, bridge: &str, vlan: &Vlan) -> Self {
        let columns = vlan.columns().join(" ");
        let vsctl = ovs.vsctl_line();
        let write = |name: &str, body: &str| {
            // QEMU ends an option at a comma.
            let path = ovs.rundir().join(format!("{name}-{}", columns.replace([' ', ','], "-")));
            let rundir = ovs.rundir().display();
            let text = format!("#!/bin/sh\nset -e\nexport OVS_RUNDIR={rundir}\n{body}");
            fs::write(&path, text).expect("a script");
            fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a script's permissions");
            path
        };
        let up = format!("ip link set $1 up\n{vsctl} add-port {bridge} $1 {columns}\n");
        // Without the bridge, as it may be a fake one's that has this VLAN.
        let down = format!("{vsctl} del-port $1\nip link set $1 down\n");
        Self { up: write("qemu-ifup", &up), down: write("qemu-ifdown", &down) }
    }

    /// As QEMU does once it has made the tap.
    pub fn up(&self, netns: &Netns, tap: &str) {
        script(&self.up, netns, tap);
    }

    /// As QEMU does before it lets go of the tap.
    pub fn down(&self, netns: &Netns, tap: &str) {
        script(&self.down, netns, tap);
    }
}

fn script(script: &Path, netns: &Netns, tap: &str) {
    run(netns.command(&script.to_string_lossy()).arg(tap));
}
