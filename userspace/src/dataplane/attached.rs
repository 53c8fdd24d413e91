//! Programs on devices.
//!
//! tcx runs its programs one after the other. Ours is put last, so that a frame has passed the programs of
//! others before.

use aya::{
    Ebpf,
    programs::{
        LinkOrder, TcAttachType, XdpMode,
        tc::{SchedClassifierLinkId, TcAttachOptions},
        xdp::XdpLinkId,
    },
};

use rustix::net::{
    AddressFamily, SocketType,
    netdevice::{index_to_name, name_to_index},
    socket,
};

use super::error::Cause;
use super::programs::{TC, XDP, tc, xdp};
use super::{DataplaneError, Hooks, InstalledPort};

/// The programs on one device.
#[derive(Debug, Default)]
pub(super) struct Attached {
    xdp: Option<XdpLinkId>,
    tc: Option<SchedClassifierLinkId>,
}

impl Attached {
    /// Attaches the programs that the port's hooks need, then detaches those that they do not. If a program
    /// is on the device already, the caller makes sure that it switches no frames meanwhile.
    ///
    /// # Errors
    /// The kernel refuses, or the device is gone. What is attached stays attached.
    pub(super) fn adjust(&mut self, ebpf: &mut Ebpf, port: &InstalledPort) -> Result<(), DataplaneError> {
        let fail = |operation, cause: Cause| DataplaneError::new(operation, &port.device, cause);
        if port.hooks.tc() && self.tc.is_none() {
            let link = attach_tc(ebpf, port).map_err(|e| fail("attach the tc program to", e))?;
            self.tc = Some(link);
        }
        if port.hooks.xdp() && self.xdp.is_none() {
            let program = xdp(ebpf, XDP).map_err(|e| fail("attach the XDP program to", e.into()))?;
            let link = program.attach_to_if_index(port.ifindex, XdpMode::Driver);
            self.xdp = Some(link.map_err(|e| fail("attach the XDP program to", e.into()))?);
        }
        let unwanted =
            Self { xdp: self.xdp.take_if(|_| !port.hooks.xdp()), tc: self.tc.take_if(|_| !port.hooks.tc()) };
        unwanted.detach(ebpf, &port.device)
    }

    /// Detaches the programs from the device. A failure with one does not keep the other.
    ///
    /// # Errors
    /// The first failure.
    pub(super) fn detach(self, ebpf: &mut Ebpf, device: &str) -> Result<(), DataplaneError> {
        let fail = |cause: Cause| DataplaneError::new("detach a program from", device, cause);
        let xdp = self.xdp.map_or(Ok(()), |link| {
            xdp(ebpf, XDP).map_err(|e| fail(e.into()))?.detach(link).map_err(|e| fail(e.into()))
        });
        let tc = self.tc.map_or(Ok(()), |link| {
            tc(ebpf, TC).map_err(|e| fail(e.into()))?.detach(link).map_err(|e| fail(e.into()))
        });
        xdp.and(tc)
    }
}

/// Attaches the tc program. aya takes the device by its name only, which may change at any time; so the name
/// is looked up right before and compared right after.
fn attach_tc(ebpf: &mut Ebpf, port: &InstalledPort) -> Result<SchedClassifierLinkId, Cause> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let name = index_to_name(&socket, port.ifindex)?;
    let side = if port.hooks == Hooks::Host { TcAttachType::Egress } else { TcAttachType::Ingress };
    let program = tc(ebpf, TC)?;
    let link = program.attach_with_options(&name, side, TcAttachOptions::TcxOrder(LinkOrder::last()))?;
    if name_to_index(&socket, &name).is_ok_and(|ifindex| ifindex == port.ifindex) {
        return Ok(link);
    }
    program.detach(link)?;
    Err("it is being renamed".into())
}
