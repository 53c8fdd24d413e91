//! Open vSwitch's VLAN modes, compiled into the fields of a port (OVS `port_configure`, `vswitchd/bridge.c`, and
//! `bundle_set`, `ofproto/ofproto-dpif.c`).

use std::fmt;

use trunkline_core::{PriorityTags, Vid, VidSet, abi};

use crate::ovsdb::PortRow;

use super::Reason;

/// The effective `vlan_mode` of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VlanMode {
    /// In one VLAN, without tags.
    Access,
    /// In many VLANs, with tags.
    Trunk,
    /// A trunk that takes frames without a tag into a VLAN of its own, and sends that VLAN tagged.
    NativeTagged,
    /// The same, sending that VLAN untagged.
    NativeUntagged,
    /// Carries its customer's tags inside a service VLAN.
    Dot1qTunnel,
}

impl fmt::Display for VlanMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Access => "access",
            Self::Trunk => "trunk",
            Self::NativeTagged => "native-tagged",
            Self::NativeUntagged => "native-untagged",
            Self::Dot1qTunnel => "dot1q-tunnel",
        })
    }
}

/// A port's VLAN settings, as the operator wrote them, with the mode made explicit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VlanRules {
    /// The effective mode.
    pub mode: VlanMode,
    /// `Port.tag`
    pub tag: Option<u16>,
    /// `Port.trunks`; empty for all.
    pub trunks: Vec<u16>,
    priority_tags: PriorityTags,
}

impl VlanRules {
    /// The settings of a row.
    pub fn new(row: &PortRow) -> Self {
        let mode = match row.vlan_mode.as_deref() {
            Some("access") => VlanMode::Access,
            Some("native-tagged") => VlanMode::NativeTagged,
            Some("native-untagged") => VlanMode::NativeUntagged,
            Some("dot1q-tunnel") => VlanMode::Dot1qTunnel,
            None if row.tag.is_some() => VlanMode::Access,
            // OVS takes an unknown mode for a trunk, with a warning.
            Some(_) | None => VlanMode::Trunk,
        };
        let priority_tags = match row.other_config.get("priority-tags").map(String::as_str) {
            Some("if-nonzero" | "true") => PriorityTags::IfNonzero,
            Some("always") => PriorityTags::Always,
            _ => PriorityTags::Never,
        };
        Self { mode, tag: row.tag, trunks: row.trunks.iter().copied().collect(), priority_tags }
    }

    /// The fields of the program's port; an error says why the mode is left to Open vSwitch.
    pub fn compile(&self) -> Result<abi::Port, Reason> {
        // A mode that wants a tag and has none uses VLAN 0.
        let tag = Vid::from_tci(self.tag.unwrap_or(0));
        let trunks: VidSet = if self.trunks.is_empty() {
            VidSet::ALL
        } else {
            self.trunks.iter().filter_map(|vid| Vid::new(*vid)).collect()
        };
        let rules = match self.mode {
            VlanMode::Access => abi::Port {
                pvid: tag.get(),
                untagged: tag.get(),
                flags: abi::PORT_PVID_HAS_TPID,
                members: [tag].into_iter().collect(),
                ..abi::Port::UNUSED
            },
            VlanMode::Trunk => abi::Port {
                pvid: if trunks.contains(Vid::ZERO) { 0 } else { abi::NO_VID },
                flags: abi::PORT_ACCEPT_TAGGED,
                members: trunks,
                ..abi::Port::UNUSED
            },
            VlanMode::NativeTagged | VlanMode::NativeUntagged => abi::Port {
                pvid: tag.get(),
                untagged: if self.mode == VlanMode::NativeUntagged { tag.get() } else { abi::NO_VID },
                flags: abi::PORT_ACCEPT_TAGGED | abi::PORT_PVID_HAS_TPID,
                members: native_members(trunks, tag),
                ..abi::Port::UNUSED
            },
            VlanMode::Dot1qTunnel => return Err(Reason::Dot1qTunnel),
        };
        let priority = match self.priority_tags {
            PriorityTags::Never => 0,
            PriorityTags::IfNonzero => abi::PORT_PRIORITY_TAGS,
            PriorityTags::Always => abi::PORT_PRIORITY_TAGS | abi::PORT_PRIORITY_TAGS_ALWAYS,
        };
        Ok(abi::Port { flags: rules.flags | priority, ..rules })
    }
}

/// The trunks and the native VLAN, without VLAN 0 unless that is the native one.
fn native_members(mut trunks: VidSet, native: Vid) -> VidSet {
    if native != Vid::ZERO {
        trunks.remove(Vid::ZERO);
    }
    trunks.insert(native);
    trunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(mode: Option<&str>, tag: Option<u16>, trunks: &[u16]) -> abi::Port {
        let row = PortRow {
            vlan_mode: mode.map(str::to_owned),
            tag,
            trunks: trunks.iter().copied().collect(),
            ..PortRow::default()
        };
        VlanRules::new(&row).compile().unwrap()
    }

    fn members(port: &abi::Port) -> Vec<u16> {
        port.members.iter().map(|vid| vid.get()).collect()
    }

    #[test]
    fn the_mode_follows_the_tag_where_it_is_unset() {
        let access = compile(None, Some(10), &[1, 2]);
        assert_eq!((access.pvid, access.untagged, members(&access)), (10, 10, vec![10]));
        assert!(!access.has(abi::PORT_ACCEPT_TAGGED));
        assert_eq!(compile(None, Some(0), &[]).pvid, 0, "tag 0 counts as set");
        let trunk = compile(None, None, &[]);
        assert_eq!((trunk.pvid, trunk.untagged, trunk.members), (0, abi::NO_VID, VidSet::ALL));
    }

    #[test]
    fn a_trunk_admits_frames_without_a_tag_only_if_it_carries_vlan_0() {
        assert_eq!(compile(Some("trunk"), Some(5), &[10, 20]).pvid, abi::NO_VID, "and ignores its tag");
        assert_eq!(compile(Some("trunk"), None, &[0, 10]).pvid, 0);
    }

    #[test]
    fn native_ports_carry_their_native_vlan_and_not_vlan_0() {
        let tagged = compile(Some("native-tagged"), Some(10), &[0, 20]);
        assert_eq!((tagged.pvid, tagged.untagged, members(&tagged)), (10, abi::NO_VID, vec![10, 20]));
        let untagged = compile(Some("native-untagged"), Some(10), &[]);
        assert_eq!((untagged.pvid, untagged.untagged), (10, 10));
        assert_eq!(members(&untagged), (1..4096).collect::<Vec<_>>());
    }

    #[test]
    fn a_mode_without_its_tag_uses_vlan_0() {
        assert_eq!(compile(Some("access"), None, &[]).pvid, 0);
        assert_eq!(compile(Some("native-untagged"), None, &[5]).untagged, 0);
    }

    #[test]
    fn tunnels_are_left_alone() {
        let row = PortRow { vlan_mode: Some("dot1q-tunnel".into()), tag: Some(5), ..PortRow::default() };
        assert!(VlanRules::new(&row).compile().is_err());
    }
}
