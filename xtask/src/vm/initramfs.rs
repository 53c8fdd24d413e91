//! The first file system of a VM: a cpio archive of a shell, some modules, and the script that is its first process.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::kernel::Kernel;
use crate::command::note;
use crate::debian;
use crate::workspace::Workspace;

const DIRECTORY: u32 = 0o04_0755;
const PROGRAM: u32 = 0o10_0755;

/// An archive in the format "newc" (Linux `Documentation/driver-api/early-userspace/buffer-format.rst`).
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    count: u32,
}

impl Archive {
    /// A shell in `bin`, these modules and what they need in `modules` (in the order of loading), and `init`.
    pub(crate) fn new(ws: &Workspace, kernel: &Kernel, init: &str, modules: &[&str]) -> Result<Self> {
        let mut archive = Self::default();
        ["bin", "dev", "modules"].iter().for_each(|directory| archive.directory(directory));
        archive.program("init", init.as_bytes());
        archive.copy("bin/busybox", &busybox(ws)?)?;
        for (place, module) in kernel.closure(modules)?.iter().enumerate() {
            let name = module.file_name().context("a module has a name")?.to_string_lossy();
            archive.copy(&format!("modules/{place:02}-{name}"), module)?;
        }
        Ok(archive)
    }

    pub(crate) fn directory(&mut self, path: &str) {
        self.entry(path, DIRECTORY, &[]);
    }

    pub(crate) fn program(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, content);
    }

    /// A file of the host.
    pub(crate) fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.program(path, &content);
        Ok(())
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.count += 1;
        let (inode, links, size, name_size) = (self.count, 1, content.len() as u32, path.len() as u32 + 1);
        // Inode, mode, owner, group, links, time, size, device and special device, name's length, no checksum.
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A shell and its tools in one program that needs no library: Debian's, unpacked, because its package and that of the
/// program with libraries exclude each other.
fn busybox(ws: &Workspace) -> Result<PathBuf> {
    let place = ws.own_target("vm/busybox");
    if !place.is_dir() {
        note(&format!("fetching busybox from Debian bookworm into {}", place.display()));
        debian::fetch(&place, "bookworm", |_suite| Ok(vec!["busybox-static".into()]), |_work| Ok(()))
            .context("no busybox-static")?;
    }
    let found = ["bin/busybox", "usr/bin/busybox"].map(|path| place.join("root").join(path));
    found.into_iter().find(|path| path.is_file()).context("the package has no busybox")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_to_four_octets() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.program("bin/x", b"abc");
        let bytes = archive.finish();
        // Headers of 110 octets, names with their zero.
        let starts = [0, 116, 116 + 116 + 4];
        assert!(starts.iter().all(|start| bytes[*start..].starts_with(b"070701")));
        assert_eq!(&bytes[116 + 110..116 + 120], b"bin/x\0abc\0");
        assert_eq!(bytes.len(), 116 + 120 + 124);
    }
}
