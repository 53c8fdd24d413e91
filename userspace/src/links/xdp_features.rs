//! What a driver offers to XDP, over the `netdev` family (Linux 6.3, `include/uapi/linux/netdev.h`).

use std::collections::BTreeMap;

use genetlink::GenetlinkHandle;

use super::LinkError;
use super::genl::{self, Family, find, number};

const DEV_GET: u8 = 1;
const DEV_IFINDEX: u16 = 1;
const DEV_XDP_FEATURES: u16 = 3;

/// The family, and the group that announces devices whose features change.
#[derive(Clone, Debug)]
pub(super) enum Netdev {}

impl Family for Netdev {
    const NAME: &'static str = "netdev";
}

pub(super) const GROUP: &str = "mgmt";

/// A set of `NETDEV_XDP_ACT_*`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures(pub u64);

impl XdpFeatures {
    /// Aborted, drop, pass and tx (`NETDEV_XDP_ACT_BASIC`).
    pub const BASIC: Self = Self(1);
    /// Frames can be redirected from it (`NETDEV_XDP_ACT_REDIRECT`).
    pub const REDIRECT: Self = Self(2);
    /// Frames can be redirected to it (`NETDEV_XDP_ACT_NDO_XMIT`).
    pub const NDO_XMIT: Self = Self(4);

    /// Whether all of `other` are there.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The features of all devices by ifindex; `None` on a kernel without the family.
pub(super) async fn all(
    handle: &mut GenetlinkHandle,
) -> Result<Option<BTreeMap<u32, XdpFeatures>>, LinkError> {
    let answers = genl::dump::<Netdev>(handle, DEV_GET, Vec::new(), "dump of XDP features").await?;
    Ok(answers.map(|answers| answers.iter().filter_map(|attributes| parse(attributes)).collect()))
}

fn parse(attributes: &[u8]) -> Option<(u32, XdpFeatures)> {
    let ifindex = number(find(attributes, DEV_IFINDEX)?)?;
    let features = find(attributes, DEV_XDP_FEATURES)?.try_into().ok().map(u64::from_ne_bytes)?;
    Some((ifindex, XdpFeatures(features)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Linux 6.18 says of a veth whose peer has GRO on.
    #[rustfmt::skip]
    const VETH: [u8; 36] = [
        8, 0, 1, 0, 3, 0, 0, 0,
        12, 0, 3, 0, 0x67, 0, 0, 0, 0, 0, 0, 0,
        12, 0, 5, 0, 7, 0, 0, 0, 0, 0, 0, 0,
        4, 0, 9, 0,
    ];

    #[test]
    #[cfg(target_endian = "little")]
    fn features_are_read_from_the_kernels_bytes() {
        let (ifindex, features) = parse(&VETH).unwrap();
        assert_eq!(ifindex, 3);
        assert!(features.contains(XdpFeatures::BASIC) && features.contains(XdpFeatures::NDO_XMIT));
        assert_eq!(parse(&VETH[..19]), None, "cut inside the features");
        assert_eq!(parse(&[]), None);
    }
}
