//! The system interfaces that have no safe wrapper: attaching to a tap, the address of a packet socket, and one socket
//! option. All `unsafe` of this crate.

use std::ffi::{c_int, c_void};
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::ioctl::{IntegerSetter, Opcode, Setter, Updater, ioctl, opcode};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// `struct ifreq` with `ifr_flags` (Linux `include/uapi/linux/if.h`).
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

const TUNSETIFF: Opcode = opcode::write::<i32>(b'T', 202);
const TUNSETOFFLOAD: Opcode = opcode::write::<u32>(b'T', 208);
const TUNSETVNETHDRSZ: Opcode = opcode::write::<i32>(b'T', 216);
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
/// Partial checksums and segmentation of TCP over IPv4 and IPv6 (Linux `include/uapi/linux/if_tun.h`).
const TUN_F_CSUM_TSO: usize = 0x01 | 0x02 | 0x04;
/// Segmentation of UDP over IPv4 and IPv6, since Linux 6.2.
const TUN_F_USO: usize = 0x20 | 0x40;
/// The length of `struct virtio_net_hdr_v1`, as QEMU and vhost use it.
pub(crate) const VIRTIO_HEADER_LEN: usize = 12;

/// Creates the tap `name`, without a virtio header, in the calling thread's network namespace. It goes when the
/// descriptor is closed.
pub(crate) fn create_tap(name: &str) -> io::Result<OwnedFd> {
    attach_tap(Path::new("/dev/net/tun"), name, IFF_TAP | IFF_NO_PI)
}

/// Creates the tap `name` as QEMU does for virtio-net, or with the character device of a macvtap attaches to that
/// (then `name` does not matter): each frame has a virtio header in front, and may be a super-frame or have a partial
/// checksum.
pub(crate) fn open_virtio_tap(device: &Path, name: &str) -> io::Result<OwnedFd> {
    let fd = attach_tap(device, name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)?;
    // SAFETY: TUNSETVNETHDRSZ reads one `int`.
    unsafe { ioctl(&fd, Setter::<TUNSETVNETHDRSZ, c_int>::new(VIRTIO_HEADER_LEN as c_int)) }?;
    // SAFETY: TUNSETOFFLOAD takes its argument as a number and touches no memory.
    let offload = |flags| unsafe { ioctl(&fd, IntegerSetter::<TUNSETOFFLOAD>::new_usize(flags)) };
    match offload(TUN_F_CSUM_TSO | TUN_F_USO) {
        Err(Errno::INVAL) => offload(TUN_F_CSUM_TSO)?,
        other => other?,
    }
    Ok(fd)
}

fn attach_tap(device: &Path, name: &str, flags: u16) -> io::Result<OwnedFd> {
    let fd = open(device, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let mut request = InterfaceRequest { name: [0; 16], flags, rest: [0; 22] };
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

/// Makes every datagram that is sent on this socket leave as datagrams of `size` octets, cut by the device where it can
/// (`UDP_SEGMENT`, udp(7)).
pub(crate) fn segment_datagrams(socket: &UdpSocket, size: u16) -> io::Result<()> {
    const SOL_UDP: c_int = 17;
    const UDP_SEGMENT: c_int = 103;
    unsafe extern "C" {
        fn setsockopt(fd: c_int, level: c_int, option: c_int, value: *const c_void, length: u32) -> c_int;
    }
    let value = c_int::from(size);
    let (value, length) = (std::ptr::from_ref(&value).cast(), size_of::<c_int>() as u32);
    // SAFETY: `value` points to `length` octets that live until the call returns.
    match unsafe { setsockopt(socket.as_raw_fd(), SOL_UDP, UDP_SEGMENT, value, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
