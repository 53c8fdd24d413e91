//! Switching a NIC's rx-vlan-offload off while the program needs to see tags, and on again, come what may.
//!
//! What was switched off is on record in the run directory, so that the next agent, or `trunkline detach`, restores it
//! after one that was killed.

use std::fs;
use std::io;
use std::path::Path;

use tracing::{info, warn};

use crate::config::RunDir;
use crate::links;

/// Switches a device's rx-vlan-offload and keeps account of it in a file, so that it is restored even after a crash.
/// Returns why it did not work.
pub(crate) async fn switch(run_dir: &RunDir, ifindex: u32, device: &str, on: bool) -> Option<String> {
    let path = run_dir.offloads();
    let mut names = read_names(&path);
    names.retain(|name| name != device);
    if !on {
        names.push(device.to_owned());
        write_names(&path, &names);
    }
    match links::set_rx_vlan_offload(ifindex, on).await {
        Ok(_) => {
            info!(device, on, "rx-vlan-offload switched");
            if on {
                write_names(&path, &names);
            }
            None
        }
        Err(error) if error.is_absent() => {
            names.retain(|name| name != device);
            write_names(&path, &names);
            None
        }
        Err(error) => {
            warn!(device, on, %error, "rx-vlan-offload not switched");
            Some(error.to_string())
        }
    }
}

/// Switches on again what an agent that was killed had switched off.
pub(crate) async fn restore(run_dir: &RunDir) {
    for device in read_names(&run_dir.offloads()) {
        if let Ok(text) = fs::read_to_string(format!("/sys/class/net/{device}/ifindex"))
            && let Ok(ifindex) = text.trim().parse()
        {
            switch(run_dir, ifindex, &device, true).await;
        }
    }
}

fn read_names(path: &Path) -> Vec<String> {
    fs::read_to_string(path).map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
}

fn write_names(path: &Path, names: &[String]) {
    let result = if names.is_empty() { fs::remove_file(path) } else { fs::write(path, names.join("\n")) };
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(path = %path.display(), %error, "switched offloads are not on record");
        }
        _ => {}
    }
}
