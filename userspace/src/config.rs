//! Where things are: sockets, directories, files.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
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

/// One run of ovs-vswitchd, known by its pid file. Each start writes a new one, also where the process gets the number
/// of the one before, as in a container (OVS `lib/daemon-unix.c`, `make_pidfile`). It needs no `/proc`, in which a
/// container's processes may not be; a change of the file's owner or mode is no start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VswitchdRun {
    /// The process, in its own namespace.
    pub pid: u32,
    /// Device and inode of the file.
    pub file: (u64, u64),
    /// When it was written, in seconds and nanoseconds.
    pub written: (i64, i64),
}

impl VswitchdRun {
    /// The one that the pid file in this directory tells of.
    pub fn look(ovs_rundir: &Path) -> Option<Self> {
        let mut file = File::open(ovs_rundir.join("ovs-vswitchd.pid")).ok()?;
        let metadata = file.metadata().ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let pid = text.trim().parse().ok()?;
        let written = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { pid, file: (metadata.dev(), metadata.ino()), written })
    }
}

/// Whether 802.1Q devices can exist on this host, in whatever namespace: whether the kernel has the code for them
/// now. (`/proc/net/vlan` is made for every namespace when module 8021q is loaded or built in.)
pub fn vlan_devices_possible() -> bool {
    Path::new("/proc/net/vlan").exists()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// As Open vSwitch does.
    fn write_pid_file(rundir: &Path, text: &str) {
        let beside = rundir.join("ovs-vswitchd.pid.tmp");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, rundir.join("ovs-vswitchd.pid")).unwrap();
    }

    #[test]
    fn a_start_with_the_same_number_is_another_run() {
        let rundir = tempfile::tempdir().unwrap();
        let path = rundir.path().join("ovs-vswitchd.pid");
        assert_eq!(VswitchdRun::look(rundir.path()), None);
        write_pid_file(rundir.path(), "1\n");
        let first = VswitchdRun::look(rundir.path()).unwrap();
        assert_eq!(first.pid, 1);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(VswitchdRun::look(rundir.path()), Some(first), "it goes on");
        write_pid_file(rundir.path(), "1\n");
        let second = VswitchdRun::look(rundir.path()).unwrap();
        assert!(second.pid == 1 && second != first, "{second:?}");
        fs::write(&path, "").unwrap();
        assert_eq!(VswitchdRun::look(rundir.path()), None, "it is being written");
    }
}
