//! Somebody else's XDP program: one that passes every frame.

use aya::Ebpf;
use aya::programs::{Xdp, XdpMode};

use crate::Netns;
use crate::object::object;

/// `mov r0, XDP_PASS; exit`
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];

/// Attached to a device until dropped.
#[derive(Debug)]
pub struct PassProgram {
    _program: Ebpf,
}

impl PassProgram {
    /// Attaches it to a device of the namespace.
    pub fn attach(netns: &Netns, device: &str) -> Self {
        netns.enter(|| {
            let mut program =
                Ebpf::load(&object("xdp", "pass", &CODE)).expect("loading a program that passes every frame");
            let xdp: &mut Xdp =
                program.program_mut("pass").expect("by its name").try_into().expect("an XDP program");
            xdp.load().expect("verifying a program that passes every frame");
            xdp.attach(device, XdpMode::default()).unwrap_or_else(|e| panic!("attaching to {device}: {e}"));
            Self { _program: program }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_program_attaches_and_goes() {
        let netns = Netns::new();
        let _tap = netns.tap("p1");
        let program = PassProgram::attach(&netns, "p1");
        assert_eq!(netns.devices_with_xdp(), ["p1"]);
        drop(program);
        assert_eq!(netns.devices_with_xdp(), [""; 0]);
    }
}
