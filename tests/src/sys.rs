//! The two system interfaces that have no safe wrapper: attaching to a tap, and the address of a packet socket.
//! All `unsafe` of this crate.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// `struct ifreq` with `ifr_flags` (Linux `include/uapi/linux/if.h`).
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;

/// Creates the tap `name`, without a virtio header, in the calling thread's network namespace. It goes when the
/// descriptor is closed.
pub(crate) fn create_tap(name: &str) -> io::Result<OwnedFd> {
    let fd = open("/dev/net/tun", OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    assert!(name.len() < request.name.len(), "{name:?} is too long for an interface name");
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, for whose 40 octets `request` is laid out.
    unsafe { ioctl(&fd, Updater::<TUNSETIFF, _>::new(&mut request)) }?;
    Ok(fd)
}

/// `struct sockaddr_ll` (Linux `include/uapi/linux/if_packet.h`): all frames of one interface.
#[repr(C)]
pub(crate) struct LinkAddress {
    family: u16,
    protocol: u16,
    ifindex: i32,
    rest: [u8; 12],
}

impl LinkAddress {
    pub(crate) fn all_frames(ifindex: u32) -> Self {
        let ifindex = i32::try_from(ifindex).expect("an interface index is positive");
        Self { family: 17, protocol: 0x0003_u16.to_be(), ifindex, rest: [0; 12] }
    }
}

// SAFETY: `f` gets a pointer to all of `self`, which is laid out as a `struct sockaddr_ll`.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(std::ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}
