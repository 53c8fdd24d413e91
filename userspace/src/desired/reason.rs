//! Why a bridge or a port is Open vSwitch's, for good or at this moment: a sentence that names the setting and,
//! where there is one, the way out, and a code for scripts. docs/operations.md lists the codes.
//!
//! A cause comes from outside, the kernel's or Open vSwitch's own words, or is another reason.

use crate::coded::coded;
use crate::links::NoXdp;
use crate::ovsdb::Uuid;

coded! {
    /// Why a bridge or a port is Open vSwitch's.
    Reason {
        // Settings of a bridge.
        NotSelected = "not_selected": "it is not among the bridges named with --bridge",
        FlowRestoreWait = "flow_restore_wait":
            "Open_vSwitch other_config:flow-restore-wait is set, so ovs-vswitchd does not switch; \
             `ovs-vsctl remove open_vswitch . other_config flow-restore-wait` ends that",
        HwOffload = "hw_offload":
            "Open_vSwitch other_config:hw-offload is set, so flows may be in hardware; \
             `ovs-vsctl remove open_vswitch . other_config hw-offload`, with a restart of ovs-vswitchd, \
             ends that",
        DatapathType { datapath_type: String } = "datapath_type":
            "its datapath_type {datapath_type} is unknown",
        Controller { bridge: String } = "controller":
            "an OpenFlow controller decides about its flows (Bridge.controller); \
             `ovs-vsctl del-controller {bridge}` ends that",
        FlowTables { bridge: String } = "flow_tables":
            "it has flow table settings (Bridge.flow_tables); `ovs-vsctl clear bridge {bridge} \
             flow_tables` ends that",
        Stp { bridge: String } = "stp":
            "spanning tree decides about its ports (Bridge.stp_enable); \
             `ovs-vsctl set bridge {bridge} stp_enable=false` ends that",
        Rstp { bridge: String } = "rstp":
            "rapid spanning tree decides about its ports (Bridge.rstp_enable); \
             `ovs-vsctl set bridge {bridge} rstp_enable=false` ends that",
        Netflow { bridge: String } = "netflow":
            "NetFlow accounts for its traffic (Bridge.netflow); `ovs-vsctl clear bridge {bridge} netflow` \
             ends that",
        Sflow { bridge: String } = "sflow":
            "sFlow samples its traffic (Bridge.sflow); `ovs-vsctl clear bridge {bridge} sflow` ends that",
        Ipfix { bridge: String } = "ipfix":
            "IPFIX samples its traffic (Bridge.ipfix); `ovs-vsctl clear bridge {bridge} ipfix` ends that",
        FlowSampleCollectorSet { set: Uuid } = "flow_sample_collector_set":
            "IPFIX may sample its traffic (Flow_Sample_Collector_Set); \
             `ovs-vsctl destroy flow_sample_collector_set {set}` ends that",
        AutoAttach { bridge: String } = "auto_attach":
            "auto-attach may change its VLANs (Bridge.auto_attach); \
             `ovs-vsctl clear bridge {bridge} auto_attach` ends that",
        InBandManager { target: String, bridge: String } = "in_band_manager":
            "manager {target} is in-band; `ovs-vsctl set bridge {bridge} \
             other_config:disable-in-band=true` ends that",

        // Flows of a bridge.
        NoFlow = "no_flow": "it has no OpenFlow flow at all and drops everything",
        OtherFlows { count: usize, first: String } = "other_flows":
            "it has {count} OpenFlow flow(s) other than the plain NORMAL one, the first: {first}",

        // Mirrors, of a bridge or a port.
        Mirrored { mirror: String, bridge: String } = "mirrored":
            "mirror {mirror} copies its traffic; `ovs-vsctl clear bridge {bridge} mirrors` removes it",
        MirrorOutput { mirror: String, bridge: String } = "mirror_output":
            "mirror {mirror} sends its copies to it; `ovs-vsctl clear bridge {bridge} mirrors` removes it",

        // Settings of a port.
        Bond { interfaces: usize } = "bond": "it is a bond of {interfaces} interfaces",
        PatchPort = "patch_port": "it is a patch port",
        InterfaceType { kind: String } = "interface_type": "its type is {kind}",
        FakeBond { port: String } = "bond_fake_iface":
            "it has a fake bond interface (Port.bond_fake_iface); `ovs-vsctl clear port {port} \
             bond_fake_iface` ends that",
        Lacp { port: String } = "lacp":
            "it speaks LACP (Port.lacp); `ovs-vsctl clear port {port} lacp` ends that",
        Qos { port: String } = "qos":
            "QoS shapes its traffic (Port.qos); `ovs-vsctl clear port {port} qos` ends that",
        Policing { device: String } = "ingress_policing_rate":
            "ingress policing limits its traffic (Interface.ingress_policing_rate); \
             `ovs-vsctl set interface {device} ingress_policing_rate=0` ends that",
        PolicingPackets { device: String } = "ingress_policing_kpkts_rate":
            "ingress policing limits its traffic (Interface.ingress_policing_kpkts_rate); \
             `ovs-vsctl set interface {device} ingress_policing_kpkts_rate=0` ends that",
        Bfd { device: String } = "bfd":
            "it runs BFD (Interface.bfd); `ovs-vsctl clear interface {device} bfd` ends that",
        Cfm { device: String } = "cfm":
            "it runs CFM (Interface.cfm_mpid); `ovs-vsctl clear interface {device} cfm_mpid` ends that",
        Lldp { device: String } = "lldp":
            "it speaks LLDP (Interface.lldp); `ovs-vsctl clear interface {device} lldp` ends that",
        Dot1qTunnel = "dot1q_tunnel": "vlan_mode=dot1q-tunnel is left to Open vSwitch",
        NoReceive { port: String } = "no_receive":
            "its OpenFlow port has the flag no-receive; `ovs-ofctl mod-port BRIDGE {port} receive` clears it",
        NoForward { port: String } = "no_forward":
            "its OpenFlow port has the flag no-forward; `ovs-ofctl mod-port BRIDGE {port} forward` clears it",
        NoFlood { port: String } = "no_flood":
            "its OpenFlow port has the flag no-flood; `ovs-ofctl mod-port BRIDGE {port} flood` clears it",

        // The device of a port.
        InterfaceError { cause: String } = "interface_error": "Open vSwitch reports: {cause}",
        NotOpened = "not_opened": "Open vSwitch has not opened its device yet",
        NoDevice { device: String } = "no_device": "there is no device {device}",
        DeviceReplaced { device: String } = "device_replaced":
            "its device {device} is new, and Open vSwitch still has the old one",
        SharedDevice = "shared_device": "another port has the same device",

        // The hook of a port.
        HookNone = "hook_none": "external_ids:trunkline-hook=none is set on its interface",
        HookUnknown { word: String } = "hook_unknown":
            "external_ids:trunkline-hook={word} is not supported; known: xdp, tc, xdp+tc, none",
        HookUnavailable { word: String, cause: Box<Reason> } = "hook_unavailable":
            "external_ids:trunkline-hook={word} cannot be had: {cause}",
        InternalPort { what: &'static str, cause: Box<Reason> } = "internal_port":
            "it is {what}, and {cause}",
        NotInternal { what: &'static str, device: String } = "not_internal":
            "it is {what}, but its device {device} is none",
        VnetHdr { cause: Box<Reason> } = "vnet_hdr":
            "its tap carries a virtio header (vnet_hdr), whose offloads XDP would lose, and {cause}",
        ForeignXdp { program: u32 } = "foreign_xdp": "another XDP program (id {program}) is on its device",
        XdpRefused { cause: String } = "xdp_refused": "{cause}",
        SwitchingRxVlanOffload = "switching_rx_vlan_offload":
            "rx-vlan-offload, which hides tags from XDP, is being switched off",
        RxVlanOffload { cause: String } = "rx_vlan_offload":
            "rx-vlan-offload hides tags from XDP and cannot be switched off: {cause}",
        PeerHidesTags = "peer_hides_tags":
            "its veth peer has tx-vlan-offload, which hides tags from XDP: switch that off there \
             (`ethtool -K DEV txvlan off`)",
        PeerMayHideTags { device: String } = "peer_may_hide_tags":
            "its veth peer is in another namespace and may hide tags from XDP (tx-vlan-offload): switch \
             that off there (`ethtool -K DEV txvlan off`) and say so with `ovs-vsctl set interface {device} \
             external_ids:trunkline-hook=xdp`",
        // Only as causes of the above.
        UserspaceDatapath = "userspace_datapath":
            "the userspace datapath (datapath_type=netdev) reads frames before tc does",
        NoTcx = "no_tcx": "this kernel has no tcx (Linux 6.6)",
        NoXdpOnInternal = "no_xdp_on_internal": "an internal port has no XDP",

        // Numbers that are exhausted.
        TooManyBridges { most: u32 } = "too_many_bridges":
            "{most} bridges are accelerated already, the most there can be",
        TooManyPorts { most: u32 } = "too_many_ports":
            "{most} ports are accelerated already, the most there can be",
        SlotTaken { slot: u32 } = "slot_taken":
            "another port's interface index shares its place {slot} in the table",

        // What is not certain at this moment.
        DatabaseUnreachable { cause: String } = "database_unreachable":
            "the database is out of reach: {cause}",
        DatabaseUnread = "database_unread": "the database has not been read yet",
        DevicesUnreadable { cause: String } = "devices_unreadable":
            "the kernel's devices cannot be read: {cause}",
        Applying = "applying": "ovs-vswitchd is applying a change of configuration",
        Reconnecting = "reconnecting":
            "the configuration has changed, and ovs-vswitchd may have yet to connect to the database again",
        SilentChange = "silent_change":
            "a change of trunks, vlan_mode, stp_enable or rstp_enable was written without waiting, and \
             ovs-vswitchd \
             applies it only with the next change (any `ovs-vsctl set` without --no-wait)",
        NewBridge = "new_bridge": "it is new",
        ReadingPortFlags = "reading_port_flags": "its OpenFlow port flags are being read",
        PortFlagsUnreadable { cause: String } = "port_flags_unreadable":
            "its OpenFlow port flags cannot be read: {cause}",
        Asking = "asking": "ovs-vswitchd is being asked for its flows and stations",
        AskedAgain = "asked_again": "it is to be asked again",
        NoAnswer { cause: String } = "no_answer": "{cause}",
        StepFailed { cause: String } = "step_failed": "{cause}",
        InstallFailed { cause: String } = "install_failed": "{cause}",
        AboutToSwitch = "about_to_switch": "it is about to be accelerated",
        NotAttached = "not_attached": "its program is not attached yet",
        OfBridge { bridge: String, cause: Box<Reason> } = "bridge_not_accelerated":
            "bridge {bridge}: {cause}",
        ;
        Device(NoXdp),
    }
}

/// A reason, but for the name of what it is about.
pub(super) type About = fn(String) -> Reason;

#[cfg(test)]
mod tests;
