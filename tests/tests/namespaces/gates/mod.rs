//! Every setting that the fast path does not mirror: set under traffic, obeyed, explained, undone.
//!
//! The same scene is played on two switches, with the agent and without. Open vSwitch stamps the frames that it sends
//! ([`Stamp`](trunkline_tests::Stamp)), so that each frame tells by which way it came.

mod scene;

use scene::same_through;

/// How much of the bridge a setting takes off the fast path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Scope {
    Bridge,
    /// `p2` alone: `p1` and `p3` go on.
    Port,
    /// Nothing: it is mirrored, or without effect on known unicast.
    Nothing,
}

/// By what Open vSwitch is told, and so how soon the fast path knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    /// Through the database.
    Database,
    /// Through OpenFlow.
    OpenFlow,
}

struct Gate {
    name: &'static str,
    told: Told,
    /// Words for `ovs-vsctl` or `ovs-ofctl`; `BR` stands for the bridge.
    set: &'static str,
    clear: &'static str,
    scope: Scope,
    /// In the sentence of `status`.
    reason: &'static str,
}

const fn gate(
    name: &'static str,
    scope: Scope,
    reason: &'static str,
    set: &'static str,
    clear: &'static str,
) -> Gate {
    Gate { name, told: Told::Database, set, clear, scope, reason }
}

const fn flow_gate(
    name: &'static str,
    scope: Scope,
    reason: &'static str,
    set: &'static str,
    clear: &'static str,
) -> Gate {
    Gate { told: Told::OpenFlow, ..gate(name, scope, reason, set, clear) }
}

#[test]
fn openflow_gates_act_at_once() {
    use Scope::{Bridge, Port};
    same_through(&[
        flow_gate(
            "a flow that drops",
            Bridge,
            "OpenFlow flow(s) other than the plain NORMAL one",
            "add-flow BR priority=10,in_port=p1,actions=drop",
            "--strict del-flows BR priority=10,in_port=p1",
        ),
        flow_gate(
            "a flow in another table",
            Bridge,
            "OpenFlow flow(s)",
            "add-flow BR table=3,priority=10,actions=drop",
            "del-flows BR table=3",
        ),
        flow_gate(
            "no flow",
            Bridge,
            "no OpenFlow flow",
            "del-flows BR",
            "add-flow BR priority=0,actions=NORMAL",
        ),
        flow_gate("no-forward", Port, "no-forward", "mod-port BR p2 no-forward", "mod-port BR p2 forward"),
        flow_gate("no-receive", Port, "no-receive", "mod-port BR p2 no-receive", "mod-port BR p2 receive"),
        flow_gate("no-flood", Port, "no-flood", "mod-port BR p2 no-flood", "mod-port BR p2 flood"),
    ]);
}

#[test]
fn bridge_settings_gate_the_bridge() {
    use Scope::Bridge;
    same_through(&[
        gate(
            "controller, standalone",
            Bridge,
            "Bridge.controller",
            "set-controller BR tcp:127.0.0.1:1 -- set-fail-mode BR standalone",
            "del-controller BR -- del-fail-mode BR",
        ),
        gate(
            "controller, secure",
            Bridge,
            "Bridge.controller",
            "set-controller BR tcp:127.0.0.1:1 -- set-fail-mode BR secure",
            "del-controller BR -- del-fail-mode BR",
        ),
        gate("fail_mode", Bridge, "no OpenFlow flow", "set-fail-mode BR secure", "del-fail-mode BR"),
        gate(
            "flow_tables",
            Bridge,
            "Bridge.flow_tables",
            "-- --id=@t create Flow_Table flow_limit=100 -- set Bridge BR flow_tables:0=@t",
            "clear Bridge BR flow_tables",
        ),
        gate(
            "manager",
            Bridge,
            "tcp:192.0.2.1:6640 is in-band",
            "set-manager tcp:192.0.2.1:6640",
            "del-manager",
        ),
        gate(
            "flow-restore-wait",
            Bridge,
            "flow-restore-wait",
            "set Open_vSwitch . other_config:flow-restore-wait=true",
            "remove Open_vSwitch . other_config flow-restore-wait",
        ),
        gate(
            "stp",
            Bridge,
            "Bridge.stp_enable",
            "set Bridge BR stp_enable=true",
            "set Bridge BR stp_enable=false",
        ),
        gate(
            "rstp",
            Bridge,
            "Bridge.rstp_enable",
            "set Bridge BR rstp_enable=true",
            "set Bridge BR rstp_enable=false",
        ),
    ]);
}

#[test]
fn whoever_counts_or_copies_frames_gets_them_all() {
    use Scope::Bridge;
    same_through(&[
        gate(
            "mirror",
            Bridge,
            "mirror m0",
            "-- --id=@out get Port p3 -- --id=@m create Mirror name=m0 select_all=true output_port=@out \
             -- set Bridge BR mirrors=@m",
            "clear Bridge BR mirrors",
        ),
        gate(
            "netflow",
            Bridge,
            "Bridge.netflow",
            r#"-- --id=@n create NetFlow targets="127.0.0.1:2055" -- set Bridge BR netflow=@n"#,
            "clear Bridge BR netflow",
        ),
        gate(
            "sflow",
            Bridge,
            "Bridge.sflow",
            r#"-- --id=@s create sFlow agent=lo targets="127.0.0.1:6343" sampling=1 -- set Bridge BR sflow=@s"#,
            "clear Bridge BR sflow",
        ),
        gate(
            "ipfix",
            Bridge,
            "Bridge.ipfix",
            r#"-- --id=@i create IPFIX targets="127.0.0.1:4739" sampling=1 -- set Bridge BR ipfix=@i"#,
            "clear Bridge BR ipfix",
        ),
        gate(
            "collector set",
            Bridge,
            "IPFIX",
            r#"-- --id=@b get Bridge BR -- --id=@i create IPFIX targets="127.0.0.1:4739" -- create Flow_Sample_Collector_Set id=1 bridge=@b ipfix=@i"#,
            "-- --all destroy Flow_Sample_Collector_Set",
        ),
        gate(
            "auto-attach",
            Bridge,
            "Bridge.auto_attach",
            "-- --id=@a create AutoAttach system_name=x system_description=y -- set Bridge BR auto_attach=@a",
            "clear Bridge BR auto_attach",
        ),
    ]);
}

/// A mirror of a port, and one that sends its copies there; p4 listens.
#[test]
fn a_mirror_gates_the_ports_that_it_has_to_do_with() {
    use Scope::Port;
    const CLEAR: &str = "clear Bridge BR mirrors";
    same_through(&[
        gate(
            "mirror of a source",
            Port,
            "mirror m0 copies its traffic",
            "-- --id=@out get Port p4 -- --id=@in get Port p2 -- --id=@m create Mirror name=m0 select_src_port=@in \
             output_port=@out -- set Bridge BR mirrors=@m",
            CLEAR,
        ),
        gate(
            "mirror of a destination",
            Port,
            "mirror m0 copies its traffic",
            "-- --id=@out get Port p4 -- --id=@in get Port p2 -- --id=@m create Mirror name=m0 select_dst_port=@in \
             output_port=@out -- set Bridge BR mirrors=@m",
            CLEAR,
        ),
        gate(
            "mirror of a VLAN of a port",
            Port,
            "mirror m0 copies its traffic",
            "-- --id=@out get Port p4 -- --id=@in get Port p2 -- --id=@m create Mirror name=m0 select_dst_port=@in \
             select_src_port=@in select_vlan=10 output_port=@out -- set Bridge BR mirrors=@m",
            CLEAR,
        ),
        gate(
            "output port of a mirror",
            Port,
            "mirror m0 sends its copies to it",
            "-- --id=@out get Port p2 -- --id=@in get Port p4 -- --id=@m create Mirror name=m0 select_src_port=@in \
             output_port=@out -- set Bridge BR mirrors=@m",
            CLEAR,
        ),
    ]);
}

#[test]
fn port_settings_gate_the_port() {
    use Scope::Port;
    same_through(&[
        gate(
            "qos",
            Port,
            "Port.qos",
            "set Port p2 qos=@q -- --id=@q create QoS type=linux-htb other_config:max-rate=1000000000",
            "clear Port p2 qos -- --all destroy QoS",
        ),
        gate(
            "policing",
            Port,
            "Interface.ingress_policing_rate",
            "set Interface p2 ingress_policing_rate=1000000 ingress_policing_burst=100000",
            "set Interface p2 ingress_policing_rate=0 ingress_policing_burst=0",
        ),
        gate(
            "packet policing",
            Port,
            "ingress_policing",
            "set Interface p2 ingress_policing_kpkts_rate=1000",
            "set Interface p2 ingress_policing_kpkts_rate=0",
        ),
        gate("bfd", Port, "Interface.bfd", "set Interface p2 bfd:enable=true", "clear Interface p2 bfd"),
        gate("cfm", Port, "Interface.cfm_mpid", "set Interface p2 cfm_mpid=1", "clear Interface p2 cfm_mpid"),
        gate("lldp", Port, "Interface.lldp", "set Interface p2 lldp:enable=true", "clear Interface p2 lldp"),
        gate("lacp", Port, "Port.lacp", "set Port p2 lacp=active", "clear Port p2 lacp"),
        gate(
            "dot1q-tunnel",
            Port,
            "vlan_mode=dot1q-tunnel",
            "set Port p2 vlan_mode=dot1q-tunnel",
            "clear Port p2 vlan_mode",
        ),
        gate(
            "hook",
            Port,
            "trunkline-hook=none",
            "set Interface p2 external_ids:trunkline-hook=none",
            "remove Interface p2 external_ids trunkline-hook",
        ),
    ]);
}

/// Settings that are mirrored, or that known unicast does not feel: with them, the fast path goes on.
#[test]
fn other_settings_leave_the_fast_path_on() {
    use Scope::Nothing;
    same_through(&[
        gate(
            "mtu_request",
            Nothing,
            "",
            "set Interface p2 mtu_request=1400",
            "set Interface p2 mtu_request=1500",
        ),
        gate(
            "snooping",
            Nothing,
            "",
            "set Bridge BR mcast_snooping_enable=true",
            "set Bridge BR mcast_snooping_enable=false",
        ),
        gate(
            "forward-bpdu",
            Nothing,
            "",
            "set Bridge BR other_config:forward-bpdu=true",
            "remove Bridge BR other_config forward-bpdu",
        ),
        gate(
            "vlan-limit 2",
            Nothing,
            "",
            "set Open_vSwitch . other_config:vlan-limit=2",
            "remove Open_vSwitch . other_config vlan-limit",
        ),
        gate(
            "vlan-limit 0",
            Nothing,
            "",
            "set Open_vSwitch . other_config:vlan-limit=0",
            "remove Open_vSwitch . other_config vlan-limit",
        ),
        gate(
            "ageing",
            Nothing,
            "",
            "set Bridge BR other_config:mac-aging-time=60",
            "remove Bridge BR other_config mac-aging-time",
        ),
        gate(
            "table size",
            Nothing,
            "",
            "set Bridge BR other_config:mac-table-size=10",
            "remove Bridge BR other_config mac-table-size",
        ),
        gate("local manager", Nothing, "", "set-manager ptcp:6640:127.0.0.1", "del-manager"),
        gate("protected", Nothing, "", "set Port p2 protected=true", "set Port p2 protected=false"),
        gate(
            "flood_vlans elsewhere",
            Nothing,
            "",
            "set Bridge BR flood_vlans=20",
            "clear Bridge BR flood_vlans",
        ),
        gate(
            "priority-tags",
            Nothing,
            "",
            "set Port p2 other_config:priority-tags=always",
            "remove Port p2 other_config priority-tags",
        ),
    ]);
}

/// ovs-vswitchd does not undo this before it is restarted, so it comes alone.
#[test]
fn hardware_offload_gates_every_bridge() {
    same_through(&[gate(
        "hw-offload",
        Scope::Bridge,
        "hw-offload",
        "set Open_vSwitch . other_config:hw-offload=true",
        "remove Open_vSwitch . other_config hw-offload",
    )]);
}
