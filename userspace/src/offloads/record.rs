//! The file that says whose rx-vlan-offload was switched off.
//!
//! It is replaced as a whole, so that whoever reads it finds the old or the new one. One that is damaged all the
//! same counts for nothing, with a word in the log.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::identity::Identity;

/// Another one after every start of the machine, which has all devices made anew.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The record's place. A copy of it is the same record.
#[derive(Clone, Debug)]
pub(super) struct Record(pub(super) PathBuf);

/// A device that was switched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    pub(super) identity: Identity,
    /// As it was called then, for people.
    pub(super) name: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    boot: String,
    devices: Vec<Entry>,
}

impl Record {
    /// The devices on record.
    pub(super) async fn read(&self) -> Vec<Entry> {
        self.in_a_thread(read).await.unwrap_or_default()
    }

    /// Changes which devices are on record.
    pub(super) async fn edit(&self, change: impl FnOnce(&mut Vec<Entry>) + Send + 'static) {
        let before = self.read().await;
        let mut devices = before.clone();
        change(&mut devices);
        if devices != before {
            self.in_a_thread(|path, boot| write(path, &Document { boot: boot.to_owned(), devices })).await;
        }
    }

    /// Works on the file where a slow disk does not stop the agent. What does not work is said; `None` then.
    async fn in_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path, &str) -> io::Result<T> + Send + 'static,
    ) -> Option<T> {
        let path = self.0.clone();
        let done = spawn_blocking(move || work(&path, &boot())).await;
        match done.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(done) => Some(done),
            Err(error) => {
                warn!(
                    path = %self.0.display(), %error,
                    "the record of switched offloads is of no use; where rx-vlan-offload should be on and is off, run \
                     `ethtool -K DEVICE rxvlan on`"
                );
                None
            }
        }
    }
}

/// Where it cannot be read, the run directory is taken to be of this boot, as below /run.
fn boot() -> String {
    fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned()
}

fn read(path: &Path, boot: &str) -> io::Result<Vec<Entry>> {
    let octets = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        octets => octets?,
    };
    let Document { boot: then, devices } = serde_json::from_slice(&octets)?;
    Ok(if then == boot { devices } else { Vec::new() })
}

/// On return the new record is on its medium, and at no time there is half of one.
fn write(path: &Path, document: &Document) -> io::Result<()> {
    if document.devices.is_empty() {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    } else {
        let beside = path.with_added_extension("new");
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&beside)?;
        file.write_all(&serde_json::to_vec(document)?)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
    }
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u64) -> Entry {
        Entry { identity: Identity(number), name: format!("eth{number}") }
    }

    fn document(boot: &str) -> Document {
        Document { boot: boot.to_owned(), devices: vec![entry(1), entry(u64::MAX)] }
    }

    #[test]
    fn what_was_written_is_read_in_the_same_boot() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        assert_eq!(read(&path, "b").unwrap(), []);
        write(&path, &document("b")).unwrap();
        assert_eq!(read(&path, "b").unwrap(), [entry(1), entry(u64::MAX)]);
        assert_eq!(read(&path, "c").unwrap(), [], "all devices are others");
        write(&path, &Document { boot: "b".to_owned(), devices: Vec::new() }).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left");
    }

    #[tokio::test]
    async fn a_damaged_record_counts_for_nothing_and_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        let record = Record(path.clone());
        let whole = serde_json::to_vec(&document("b")).unwrap();
        let of_an_earlier_version = b"eth0\neth1".to_vec();
        let cuts = (0..whole.len()).map(|length| whole[..length].to_vec());
        for damaged in cuts.chain([vec![0xff; 20], of_an_earlier_version]) {
            fs::write(&path, &damaged).unwrap();
            assert!(read(&path, "b").is_err(), "{damaged:?}");
            assert_eq!(record.read().await, []);
        }
        record.edit(|entries| entries.push(entry(3))).await;
        assert_eq!(record.read().await, [entry(3)]);
    }

    #[test]
    fn what_an_interrupted_write_left_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record");
        write(&path, &document("b")).unwrap();
        fs::write(path.with_added_extension("new"), "{\"boot\":\"b\",\"dev").unwrap();
        assert_eq!(read(&path, "b").unwrap().len(), 2);
        write(&path, &document("c")).unwrap();
        assert_eq!(read(&path, "c").unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_record_is_edited_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record(dir.path().join("record"));
        record.edit(|entries| entries.push(entry(1))).await;
        record.edit(|entries| entries.push(entry(2))).await;
        record.edit(|entries| entries.retain(|entry| entry.identity != Identity(1))).await;
        assert_eq!(record.read().await, [entry(2)]);
    }
}
