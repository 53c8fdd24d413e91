//! Telling the frames that Open vSwitch sends from those that the fast path forwards.

use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType};

use crate::Netns;
use crate::object::object;

/// Where the stamp goes: octets in the middle of a test frame's payload, with a tag and without.
const PLACE: usize = 30;
const STAMP: u8 = 0x4f;

/// Overwrites one octet of the payload and goes on:
///
/// ```text
/// *(u8 *)(r10 - 1) = STAMP
/// bpf_skb_store_bytes(r1, PLACE, r10 - 1, 1, 0)
/// return TCX_NEXT
/// ```
const CODE: [u8; 72] = [
    0x72,
    0x0a,
    0xff,
    0xff,
    STAMP,
    0,
    0,
    0, //
    0xb7,
    0x02,
    0,
    0,
    PLACE as u8,
    0,
    0,
    0, //
    0xbf,
    0xa3,
    0,
    0,
    0,
    0,
    0,
    0, //
    0x07,
    0x03,
    0,
    0,
    0xff,
    0xff,
    0xff,
    0xff, //
    0xb7,
    0x04,
    0,
    0,
    1,
    0,
    0,
    0, //
    0xb7,
    0x05,
    0,
    0,
    0,
    0,
    0,
    0, //
    0x85,
    0,
    0,
    0,
    9,
    0,
    0,
    0, //
    0xb7,
    0,
    0,
    0,
    0xff,
    0xff,
    0xff,
    0xff, //
    0x95,
    0,
    0,
    0,
    0,
    0,
    0,
    0, //
];

/// Stamps every frame that is sent out of a device in the ordinary way, until dropped. Frames that an XDP program
/// redirects to the device do not pass there, so what arrives without a stamp came by the fast path.
#[derive(Debug)]
pub struct Stamp {
    _program: Ebpf,
}

impl Stamp {
    /// On a device of the namespace.
    pub fn attach(netns: &Netns, device: &str) -> Self {
        netns.enter(|| {
            let mut program = Ebpf::load(&object("classifier", "stamp", &CODE)).expect("loading a stamp");
            let classifier: &mut SchedClassifier =
                program.program_mut("stamp").expect("by its name").try_into().expect("a classifier");
            classifier.load().expect("verifying a stamp");
            let attached = classifier.attach(device, TcAttachType::Egress);
            attached.unwrap_or_else(|error| panic!("stamping on {device}: {error}"));
            Self { _program: program }
        })
    }

    /// The frame with a stamp; `None` if it would look the same, as it is too short or has that octet there anyway.
    pub fn on(frame: &[u8]) -> Option<Vec<u8>> {
        let mut stamped = frame.to_vec();
        let octet = stamped.get_mut(PLACE)?;
        (std::mem::replace(octet, STAMP) != STAMP).then_some(stamped)
    }

    /// Takes the stamp off a received frame; whether it had one.
    pub fn take_off(frame: &mut [u8]) -> bool {
        let stamped = frame.get(PLACE) == Some(&STAMP);
        if stamped {
            frame[PLACE] = 0;
        }
        stamped
    }
}
