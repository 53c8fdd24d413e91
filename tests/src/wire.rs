//! One end of a cable: the guest's side of a tap, or a packet socket.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::time::Timespec;

use crate::patience;

const LONGEST_FRAME: usize = 65_536;

/// Whole frames go in and come out. The device goes with the last clone.
#[derive(Clone, Debug)]
pub struct Wire {
    fd: Arc<OwnedFd>,
}

impl Wire {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self { fd: Arc::new(fd) }
    }

    /// Transmits one frame.
    ///
    /// # Panics
    /// When the device does not take it within 5 s (with [`patience`]).
    pub fn send(&self, frame: &[u8]) {
        let deadline = Instant::now() + patience(Duration::from_secs(5));
        loop {
            match write(&self.fd, frame) {
                Ok(written) if written == frame.len() => return,
                Err(Errno::AGAIN | Errno::NOBUFS) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                other => panic!("sending {} octets: {other:?}", frame.len()),
            }
        }
    }

    /// Waits until there is something to receive, at most so long.
    pub fn wait(&self, limit: Duration) {
        wait_readable(std::iter::once(self), limit);
    }

    /// The next frame received, if there is one.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut buffer = vec![0; LONGEST_FRAME];
        let length = self.receive_into(&mut buffer)?;
        buffer.truncate(length);
        Some(buffer)
    }

    /// The same into a buffer that is used again and again, for many frames; returns the length.
    pub fn receive_into(&self, buffer: &mut [u8]) -> Option<usize> {
        match read(&self.fd, buffer) {
            Ok(length) => Some(length),
            Err(Errno::AGAIN | Errno::INTR) => None,
            // The device is down or gone: nothing arrives.
            Err(Errno::NETDOWN | Errno::BADFD | Errno::NODEV | Errno::IO) => None,
            Err(error) => panic!("receiving: {error}"),
        }
    }
}

/// Waits until one of them has something to read, or for `limit`.
pub fn wait_readable<'a>(wires: impl Iterator<Item = &'a Wire>, limit: Duration) {
    let mut fds: Vec<PollFd<'_>> =
        wires.map(|wire| PollFd::from_borrowed_fd(wire.as_fd(), PollFlags::IN)).collect();
    let limit = Timespec::try_from(limit).expect("a limit of seconds");
    match poll(&mut fds, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => panic!("polling: {error}"),
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
