//! Programs on devices.
//!
//! tcx links are in the order in which they were made: ours is the last, so that what somebody else put on the device
//! has seen the frame already.

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
    /// Puts on the device what the port's hooks call for, then takes off what they do not. It is the caller's to see
    /// that no program switches frames meanwhile, if there is one already.
    ///
    /// # Errors
    /// The kernel refuses, or the device has gone. What is there stays.
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

    /// Takes the programs off the device, trying both.
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

/// By name, as there is no other way; the name is that of this moment.
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
