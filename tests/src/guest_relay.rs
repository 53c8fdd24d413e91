//! What QEMU is for a guest's network card: frames go to and fro between the port's tap and the guest, each with its
//! virtio header.
//!
//! The guest's end is a tap in the guest's namespace, so a real TCP stack sends its super-frames and partial checksums
//! through the header into the port, and gets them the same way.

use std::fmt;
use std::ops::Sub;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::{Errno, read, write};
use rustix::time::Timespec;

use crate::sys::VIRTIO_HEADER_LEN;

const LONGEST_FRAME: usize = 1 << 17;
/// Frames relayed one way before the other way has its turn.
const BURST: usize = 64;
/// `VIRTIO_NET_HDR_F_NEEDS_CSUM`, in the header's first octet.
const NEEDS_CSUM: u8 = 1;

/// Frames that went one way.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Relayed {
    /// All of them.
    pub frames: u64,
    /// Super-frames among them, to be segmented by whom they reach.
    pub gso: u64,
    /// Frames whose checksum is yet to be filled in.
    pub partial: u64,
    /// Frames that the other end did not take.
    pub refused: u64,
}

impl Sub for Relayed {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            frames: self.frames - earlier.frames,
            gso: self.gso - earlier.gso,
            partial: self.partial - earlier.partial,
            refused: self.refused - earlier.refused,
        }
    }
}

impl fmt::Display for Relayed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frames, gso, partial, refused } = self;
        write!(out, "{frames} frames, {gso} super-frames, {partial} partial checksums, {refused} refused")
    }
}

#[derive(Default, Debug)]
struct Counters {
    frames: AtomicU64,
    gso: AtomicU64,
    partial: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    /// Counts a frame by its header (`struct virtio_net_hdr_v1`: flags, GSO type, ...).
    fn count(&self, frame: &[u8], taken: bool) {
        self.frames.fetch_add(1, Relaxed);
        self.partial.fetch_add(u64::from(frame[0] & NEEDS_CSUM != 0), Relaxed);
        self.gso.fetch_add(u64::from(frame[1] != 0), Relaxed);
        self.refused.fetch_add(u64::from(!taken), Relaxed);
    }

    fn get(&self) -> Relayed {
        let Self { frames, gso, partial, refused } = self;
        let [frames, gso, partial, refused] =
            [frames, gso, partial, refused].map(|counter| counter.load(Relaxed));
        Relayed { frames, gso, partial, refused }
    }
}

/// Relays until dropped. Both devices go with it.
#[derive(Debug)]
pub struct Relay {
    ways: Arc<[Counters; 2]>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Between the descriptors of two taps with virtio headers.
    pub(crate) fn start(port: OwnedFd, guest: OwnedFd) -> Self {
        let ways = Arc::new(<[Counters; 2]>::default());
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd"));
        let thread = std::thread::spawn({
            let (ways, stop) = (ways.clone(), stop.clone());
            move || relay(&[guest, port], &stop, &ways)
        });
        Self { ways, stop, thread: Some(thread) }
    }

    /// What the guest sent into the port.
    pub fn from_guest(&self) -> Relayed {
        self.ways[0].get()
    }

    /// What the port sent to the guest.
    pub fn to_guest(&self) -> Relayed {
        self.ways[1].get()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let told = write(&self.stop, &1_u64.to_ne_bytes());
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(
            std::thread::panicking() || (told.is_ok() && matches!(ended, Some(Ok(())))),
            "the relay failed"
        );
    }
}

fn relay([guest, port]: &[OwnedFd; 2], stop: &OwnedFd, [to_port, to_guest]: &[Counters; 2]) {
    let mut buffer = vec![0; LONGEST_FRAME];
    loop {
        let mut fds = [stop, guest, port].map(|fd| PollFd::new(fd, PollFlags::IN));
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("polling: {error}"),
        }
        let [stopped, from_guest, from_port] = fds.map(|fd| fd.revents());
        if !stopped.is_empty() {
            return;
        }
        let moved = pass(guest, port, &mut buffer, to_port) + pass(port, guest, &mut buffer, to_guest);
        if moved == 0 && (from_guest | from_port).intersects(PollFlags::ERR | PollFlags::HUP) {
            // A device is being deleted under us: nothing will come, and `poll` will not wait.
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Passes on what is there, up to a burst; how many frames that were.
fn pass(from: &OwnedFd, to: &OwnedFd, buffer: &mut [u8], counters: &Counters) -> usize {
    for passed in 0..BURST {
        match read(from, &mut *buffer) {
            Ok(length) if length > VIRTIO_HEADER_LEN => {
                let frame = &buffer[..length];
                counters.count(frame, put(to, frame));
            }
            Ok(length) => panic!("a frame of {length} octets, header included"),
            Err(Errno::AGAIN | Errno::INTR) => return passed,
            // The device is down or gone.
            Err(Errno::NETDOWN | Errno::BADFD | Errno::NODEV | Errno::IO) => return passed,
            Err(error) => panic!("reading: {error}"),
        }
    }
    BURST
}

/// Whether the device took the frame. A macvtap takes no more than a socket's buffer, and says when there is room.
fn put(to: &OwnedFd, frame: &[u8]) -> bool {
    loop {
        match write(to, frame) {
            Ok(written) => return written == frame.len(),
            Err(Errno::AGAIN) => {
                let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
                if poll(&mut [PollFd::new(to, PollFlags::OUT)], Some(&patience)) == Ok(0) {
                    return false;
                }
            }
            Err(_) => return false,
        }
    }
}
