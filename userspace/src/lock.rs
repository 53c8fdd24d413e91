//! The lock in the run directory that lets one agent at a time run there.
//!
//! Whoever can open the file can hold the lock and keep the agent from starting, so only the agent's own user may:
//! the file is private, and nobody else can put another in its place.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::config::RunDir;

/// What the unit has as well (`RuntimeDirectoryMode=`).
const DIRECTORY_MODE: u32 = 0o750;
const LOCK_MODE: u32 = 0o600;
/// Group and others may write.
const SHARED: u32 = 0o022;
const MODE_BITS: u32 = 0o7777;

/// Makes the run directory if it is not there and takes its lock, which is held as long as the file is open.
///
/// # Errors
/// Another agent runs there, or the directory or the lock is not the agent's own.
pub(crate) fn take(run_dir: &RunDir) -> Result<File> {
    prepare_directory(&run_dir.0)?;
    let path = run_dir.lock();
    let file = open(&path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => bail!(
            "another agent runs with the run directory {}: stop it first (`systemctl stop trunkline`, or `trunkline \
             detach`)",
            run_dir.0.display()
        ),
        Err(error) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}

fn prepare_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path);
    let metadata = made.and_then(|()| path.metadata());
    let metadata = metadata.with_context(|| format!("cannot make the run directory {}", path.display()))?;
    ensure!(
        is_ours(&metadata) || metadata.uid() == 0,
        "the run directory {} belongs to user {}, who could replace what is in it: choose another with --run-dir",
        path.display(),
        metadata.uid()
    );
    ensure!(
        metadata.mode() & SHARED == 0,
        "others than its owner may write to the run directory {}: choose another with --run-dir, or run `chmod go-w` on \
         it",
        path.display()
    );
    Ok(())
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(LOCK_MODE);
    // No waiting for the other end of what is not a file.
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    let file = options.open(path).map_err(|error| refusal(path, error))?;
    let metadata = file.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    ensure!(
        metadata.is_file() && is_ours(&metadata),
        "{} is not a file of this user's: remove it and start again",
        path.display()
    );
    // Earlier versions made it readable for all.
    if metadata.mode() & MODE_BITS != LOCK_MODE {
        file.set_permissions(Permissions::from_mode(LOCK_MODE))
            .with_context(|| format!("cannot make {} private", path.display()))?;
    }
    Ok(file)
}

fn refusal(path: &Path, error: io::Error) -> anyhow::Error {
    let next = if Errno::from_io_error(&error) == Some(Errno::LOOP) {
        ", as it is a symbolic link: remove it and start again"
    } else {
        ""
    };
    anyhow::Error::new(error).context(format!("cannot open {}{next}", path.display()))
}

fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;
    use std::process::{Command, Output};

    use tempfile::TempDir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().mode() & MODE_BITS
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A run directory that anybody may look into, as one made by hand.
    fn by_hand() -> (TempDir, RunDir) {
        let parent = tempfile::tempdir().unwrap();
        set_mode(parent.path(), 0o755);
        let run_dir = RunDir(parent.path().join("run"));
        fs::create_dir(&run_dir.0).unwrap();
        set_mode(&run_dir.0, 0o755);
        (parent, run_dir)
    }

    fn error(run_dir: &RunDir) -> String {
        format!("{:#}", take(run_dir).unwrap_err())
    }

    #[test]
    fn directory_and_lock_are_made_private() {
        let parent = tempfile::tempdir().unwrap();
        let run_dir = RunDir(parent.path().join("run"));
        let _lock = take(&run_dir).unwrap();
        assert_eq!((mode(&run_dir.0) & 0o027, mode(&run_dir.lock())), (0, 0o600));
    }

    #[test]
    fn one_agent_at_a_time_has_the_lock() {
        let (_parent, run_dir) = by_hand();
        let lock = take(&run_dir).unwrap();
        assert!(error(&run_dir).contains("another agent runs"));
        drop(lock);
        take(&run_dir).unwrap();
    }

    #[test]
    fn a_lock_that_all_could_open_is_made_private() {
        let (_parent, run_dir) = by_hand();
        fs::write(run_dir.lock(), "").unwrap();
        set_mode(&run_dir.lock(), 0o666);
        let _lock = take(&run_dir).unwrap();
        assert_eq!(mode(&run_dir.lock()), 0o600);
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_refused() {
        let (parent, run_dir) = by_hand();
        let target = parent.path().join("target");
        fs::write(&target, "precious").unwrap();
        symlink(&target, run_dir.lock()).unwrap();
        assert!(error(&run_dir).contains("symbolic link"), "{}", error(&run_dir));
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let (_parent, run_dir) = by_hand();
        for mode in [0o775, 0o757, 0o1777] {
            set_mode(&run_dir.0, mode);
            assert!(error(&run_dir).contains("chmod go-w"), "{mode:o}");
        }
        assert!(!run_dir.lock().exists());
    }

    /// Tries to lock a file as the user nobody.
    fn lock_as_nobody(path: &Path) -> Output {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "flock", "--nonblock"]);
        command.arg(path).arg("true").output().expect("setpriv and flock of util-linux")
    }

    #[test]
    fn another_user_can_neither_hold_the_lock_nor_own_it() {
        if !geteuid().is_root() {
            const TEST: &str = "another_user_can_neither_hold_the_lock_nor_own_it";
            writeln!(io::stdout(), "skipped: {TEST}: it needs root to become another user").unwrap();
            return;
        }
        let (parent, run_dir) = by_hand();
        let open_to_all = parent.path().join("open");
        fs::write(&open_to_all, "").unwrap();
        let locked = lock_as_nobody(&open_to_all);
        assert!(locked.status.success(), "that user can lock what is readable: {locked:?}");
        let lock = take(&run_dir).unwrap();
        drop(lock);
        let refused = lock_as_nobody(&run_dir.lock());
        assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"), "{refused:?}");

        std::os::unix::fs::chown(run_dir.lock(), Some(65534), None).unwrap();
        assert!(error(&run_dir).contains("not a file of this user's"));
        fs::remove_file(run_dir.lock()).unwrap();
        std::os::unix::fs::chown(&run_dir.0, Some(65534), None).unwrap();
        assert!(error(&run_dir).contains("belongs to user 65534"));
    }
}
