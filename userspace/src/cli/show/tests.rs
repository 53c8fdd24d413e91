use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::*;
use crate::report::{BridgeStatus, OvsStatus, PortStats, RxStats, Volume};

fn port(name: &str, ifindex: u32) -> PortStatus {
    PortStatus {
        name: name.to_owned(),
        ifindex: Some(ifindex),
        hook: "xdp-native".to_owned(),
        hook_reason: Some("its tap has no virtio header".to_owned()),
        accelerated: true,
        reason: None,
        reason_code: None,
        note: None,
        vlan_mode: "access".to_owned(),
        tag: Some(10),
        trunks: Vec::new(),
    }
}

fn document() -> Status {
    let trunk = PortStatus {
        vlan_mode: "native-untagged".to_owned(),
        tag: Some(2),
        trunks: vec![3, 100],
        note: Some("frames to it go through Open vSwitch: no GRO".to_owned()),
        ..port("eth0", 3)
    };
    let internal = PortStatus {
        ifindex: None,
        hook: "none".to_owned(),
        hook_reason: None,
        accelerated: false,
        reason: Some("it is the bridge's own port".to_owned()),
        reason_code: Some("internal_port".to_owned()),
        vlan_mode: "trunk".to_owned(),
        tag: None,
        ..port("br0", 0)
    };
    Status {
        version: "0.1.0".to_owned(),
        ready: true,
        ovs: OvsStatus {
            connected: true,
            reason: None,
            version: Some("3.1.0".to_owned()),
            cur_cfg: 12,
            next_cfg: 12,
        },
        bridges: vec![
            BridgeStatus {
                name: "br0".to_owned(),
                datapath: "netdev".to_owned(),
                accelerated: true,
                reason: None,
                reason_code: None,
                ports: vec![internal, trunk, port("p1", 12)],
            },
            BridgeStatus {
                name: "br1".to_owned(),
                datapath: "system".to_owned(),
                accelerated: false,
                reason: Some("mirror m0 copies its traffic".to_owned()),
                reason_code: Some("mirrored".to_owned()),
                ports: Vec::new(),
            },
        ],
    }
}

#[test]
fn status_is_a_table_for_each_bridge() {
    let expected = "\
trunkline 0.1.0: ready
Open vSwitch 3.1.0: connected, configuration 12 of 12 applied

bridge br0 (datapath netdev): accelerated
PORT  VLANS                           HOOK        ACCELERATED  WHY
br0   trunk all                       none        no           it is the bridge's own port
eth0  native-untagged 2 trunks 3,100  xdp-native  yes          frames to it go through Open vSwitch: no GRO
p1    access 10                       xdp-native  yes          its tap has no virtio header

bridge br1 (datapath system): not accelerated: mirror m0 copies its traffic
";
    let shown = status(&document());
    assert!(shown.starts_with(expected), "{shown}");
}

#[test]
fn status_without_open_vswitch_says_why() {
    let reason = Some("unix:db.sock: cannot connect".to_owned());
    let ovs = OvsStatus { connected: false, reason, version: None, cur_cfg: 0, next_cfg: 0 };
    let shown = status(&Status { ready: false, ovs, bridges: Vec::new(), ..document() });
    assert_eq!(
        shown,
        "trunkline 0.1.0: not ready\nOpen vSwitch: out of reach: unix:db.sock: cannot connect\nno bridges\n"
    );
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// Fields may be added; none of these may go or change its name.
#[track_caller]
fn assert_has(value: &Value, fields: &[&str]) {
    let missing: Vec<_> = fields.iter().filter(|field| !names(value).contains(**field)).collect();
    assert!(missing.is_empty(), "{missing:?} are not in {value}");
}

#[test]
fn status_in_json_has_the_promised_fields() {
    let status = serde_json::to_value(document()).unwrap();
    assert_has(&status, &["version", "ready", "ovs", "bridges"]);
    assert_has(&status["ovs"], &["connected", "version", "cur_cfg", "next_cfg"]);
    let bridge = &status["bridges"][0];
    assert_has(bridge, &["name", "datapath", "accelerated", "reason", "reason_code", "ports"]);
    let fields = ["name", "ifindex", "hook", "hook_reason", "accelerated", "reason", "reason_code"];
    assert_has(&bridge["ports"][0], &fields);
    assert_has(&bridge["ports"][0], &["vlan_mode", "tag", "trunks"]);
    assert_eq!((&bridge["reason"], &bridge["reason_code"]), (&Value::Null, &Value::Null));
    assert_eq!(status["bridges"][1]["reason_code"], "mirrored");
    let port = &bridge["ports"][2];
    assert_eq!((&port["tag"], &port["trunks"], &port["ifindex"]), (&json!(10), &json!([]), &json!(12)));
    assert_eq!(serde_json::from_value::<Status>(status.clone()).unwrap(), document());
}

fn counters() -> Stats {
    let counted = |reason: &str, frames| BTreeMap::from([(reason.to_owned(), frames)]);
    let rx = RxStats {
        forwarded: Volume { frames: 9, bytes: 576 },
        punted: counted("new_source", 1),
        dropped: counted("vlan_not_admitted", 2),
    };
    let tx = Volume { frames: 4, bytes: 256 };
    Stats { ports: vec![PortStats { bridge: "br0".to_owned(), port: "p1".to_owned(), rx, tx }] }
}

#[test]
fn counters_have_the_promised_form() {
    let promised = json!({ "ports": [ { "bridge": "br0", "port": "p1",
        "rx": { "forwarded": { "frames": 9, "bytes": 576 }, "punted": { "new_source": 1 },
                "dropped": { "vlan_not_admitted": 2 } },
        "tx": { "frames": 4, "bytes": 256 } } ] });
    assert_eq!(serde_json::to_value(counters()).unwrap(), promised);
    let shown = stats(&counters());
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["BRIDGE", "PORT", "COUNTER", "FRAMES", "BYTES"]);
    assert_eq!(lines[1], ["br0", "p1", "rx", "forwarded", "9", "576"]);
    assert_eq!(lines[2], ["br0", "p1", "tx", "4", "256"]);
    assert_eq!(lines[3], ["br0", "p1", "rx", "punted:", "new_source", "1", "-"]);
    assert_eq!(lines[4], ["br0", "p1", "rx", "dropped:", "vlan_not_admitted", "2", "-"]);
    assert_eq!(stats(&Stats { ports: Vec::new() }), "no accelerated ports\n");
}

#[test]
fn stations_have_the_promised_form() {
    let station = FdbStation {
        bridge: "br0".to_owned(),
        vlan: 10,
        mac: "50:54:00:00:00:01".to_owned(),
        port: "p1".to_owned(),
        age_s: 3,
        r#static: false,
    };
    let value = serde_json::to_value(&station).unwrap();
    assert_has(&value, &["bridge", "vlan", "mac", "port", "age_s"]);
    let fixed = FdbStation { r#static: true, age_s: 0, ..station.clone() };
    let shown = stations(&[station, fixed]);
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["BRIDGE", "VLAN", "MAC", "PORT", "AGE"]);
    assert_eq!(lines[1], ["br0", "10", "50:54:00:00:00:01", "p1", "3", "s"]);
    assert_eq!(lines[2], ["br0", "10", "50:54:00:00:00:01", "p1", "static"]);
    assert_eq!(stations(&[]), "no stations\n");
}
