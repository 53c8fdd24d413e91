//! What tells a network device from every other one of this boot.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where the kernel shows the devices of a network namespace.
pub(super) const CLASS_NET: &str = "/sys/class/net";

/// The number of a device's directory in sysfs. The kernel gives out each once in a boot, and the directory stays the
/// same when its device is renamed or moved to another namespace (Linux `fs/kernfs/dir.c`, `__kernfs_new_node` and
/// `kernfs_rename_ns`). Names and interface indices come again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Identity(pub(super) u64);

/// A `/sys/class/net`.
#[derive(Clone, Debug)]
pub(super) struct Sysfs(pub(super) PathBuf);

impl Sysfs {
    /// The identity of the device with this index, which was called `name` a moment ago.
    pub(super) fn identity(&self, ifindex: u32, name: &str) -> Option<Identity> {
        let named = look(&self.0.join(name)).filter(|(_, index)| *index == ifindex);
        named
            .or_else(|| self.all().find(|(_, device)| device.1 == ifindex).map(|(_, device)| device))
            .map(|(identity, _)| identity)
    }

    /// The index and the name that the device has now, if it is here.
    pub(super) fn find(&self, identity: Identity) -> Option<(u32, String)> {
        let (name, (_, ifindex)) = self.all().find(|(_, device)| device.0 == identity)?;
        Some((ifindex, name))
    }

    fn all(&self) -> impl Iterator<Item = (String, (Identity, u32))> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, look(&entry.path())?)))
    }
}

/// A device's identity and index; `None` also if another took its place between two looks.
fn look(directory: &Path) -> Option<(Identity, u32)> {
    let identity = || directory.metadata().map(|metadata| Identity(metadata.ino())).ok();
    let before = identity()?;
    let ifindex = fs::read_to_string(directory.join("ifindex")).ok()?.trim().parse().ok()?;
    (identity()? == before).then_some((before, ifindex))
}
