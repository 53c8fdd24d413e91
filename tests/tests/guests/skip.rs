//! What a test needs of the kernel.

use std::fs;
use std::process::Command;

use trunkline_tests::say;

/// Whether Open vSwitch's kernel datapath and 802.1Q devices are there; if not, the test counts as skipped.
pub(crate) fn kernel_datapath(test: &str) -> bool {
    load_drivers();
    let is_loaded = |module: &&str| fs::exists(format!("/sys/module/{module}")).unwrap_or(false);
    let lacking = ["openvswitch", "8021q"].into_iter().find(|module| !is_loaded(module));
    if let Some(module) = lacking {
        say(&format!("skipped: {test}: the kernel has no module {module}"));
    }
    lacking.is_none()
}

/// Loads what no udev loads in a bare machine; what is part of the kernel need not be.
pub(crate) fn load_drivers() {
    let modules = ["openvswitch", "8021q", "tun", "macvtap"];
    let _ = Command::new("modprobe").args(["--quiet", "--all"]).args(modules).output();
}
