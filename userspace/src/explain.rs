//! A frame's way through the switch, step by step, in words: for `trunkline trace`.
//!
//! The words come from the same core that runs in the kernel, on a copy of the live tables; the verdict comes from the
//! loaded program itself. Should the two disagree, the last step says so.

use std::collections::BTreeMap;

use trunkline_core::{
    Classified, Clock, FdbEntry, FdbKey, Frame as _, Freshness, HEADER_LEN, Header, Hook, Mac, Outcome,
    PuntReason, Tables, Tag, TagOp, Tpid, Uncached, Verdict, Vid, abi, switch,
};

use crate::dataplane::{BridgeNo, Installed, LEASE_S};

/// A copy of the tables at one moment.
pub(crate) struct Snapshot<'s> {
    /// Of the program that is to be explained.
    pub(crate) hook: Hook,
    pub(crate) installed: &'s Installed,
    pub(crate) stations: BTreeMap<FdbKey, FdbEntry>,
    /// Port names by number.
    pub(crate) names: BTreeMap<u16, String>,
    pub(crate) now_s: u32,
    bridges: BTreeMap<u16, abi::Bridge>,
}

impl<'s> Snapshot<'s> {
    pub(crate) fn new(
        installed: &'s Installed,
        stations: impl IntoIterator<Item = (FdbKey, FdbEntry)>,
        names: BTreeMap<u16, String>,
        now_s: u32,
        hook: Hook,
    ) -> Self {
        let lease = |times: Option<&crate::dataplane::BridgeTimes>| match times {
            Some(times) => abi::Bridge::new(now_s + LEASE_S, times.refresh_s, times.ageing_s),
            None => abi::Bridge::default(),
        };
        let bridges = installed.ports.values().map(|port| {
            let bridge = port.rules.bridge;
            (bridge, lease(installed.active.get(&BridgeNo(bridge))))
        });
        let (stations, bridges) = (stations.into_iter().collect(), bridges.collect());
        Self { hook, installed, stations, names, now_s, bridges }
    }

    fn name(&self, port: u16) -> &str {
        self.names.get(&port).map_or("(unknown)", String::as_str)
    }
}

impl Tables for Snapshot<'_> {
    fn hook(&self) -> Hook {
        self.hook
    }
    fn port_no(&self, ifindex: u32) -> Option<u16> {
        self.installed.ports.iter().find(|(_, port)| port.ifindex == ifindex).map(|(number, _)| number.0)
    }
    fn port(&self, port_no: u16) -> Option<&abi::Port> {
        self.installed.ports.get(&crate::dataplane::PortNo(port_no)).map(|port| &port.rules)
    }
    fn bridge(&self, bridge_no: u16) -> Option<&abi::Bridge> {
        self.bridges.get(&bridge_no)
    }
    fn fdb(&self, key: &FdbKey) -> Option<FdbEntry> {
        self.stations.get(key).copied()
    }
    fn learn(&self, _: &FdbKey, _: FdbEntry, _: u32) -> Result<(), PuntReason> {
        Ok(())
    }
    fn update(&self, _: &FdbKey, _: FdbEntry) {}
    fn ask_to_show(&self, _: &FdbKey, _: u16) {}
}

impl Clock for Snapshot<'_> {
    fn now_s(&self) -> u32 {
        self.now_s
    }
    fn ticks(&self) -> u64 {
        self.now_s().into()
    }
    fn until(&self, ticks: u64) -> u64 {
        ticks + 1
    }
}

impl Uncached for Snapshot<'_> {}

/// The steps of a frame that arrives on the device `ifindex`, and the core's own outcome.
pub(crate) fn explain(tables: &Snapshot<'_>, ifindex: u32, frame: &[u8]) -> (Vec<String>, Outcome) {
    let outcome = switch(frame, tables, ifindex);
    let mut steps = Vec::new();
    // A frame that ends early has told all there is to tell.
    let _ = walk(tables, frame, &outcome, &mut steps);
    (steps, outcome)
}

fn walk(tables: &Snapshot<'_>, frame: &[u8], outcome: &Outcome, steps: &mut Vec<String>) -> Option<()> {
    let ingress = outcome.ingress?;
    let port = tables.port(ingress)?;
    let header = Header::parse(frame.window::<HEADER_LEN>(0)?);
    steps.push(format!(
        "frame: {} to {}, {}, {} octets",
        header.src,
        header.dst,
        tagging(&header),
        frame.len()
    ));
    if header.stacked {
        return None;
    }
    let classified = port.classify(header.tag);
    steps.push(match classified {
        Some(frame) => format!("ingress: port {} puts it into VLAN {}", tables.name(ingress), frame.vid),
        None => format!("ingress: port {} does not admit it", tables.name(ingress)),
    });
    let classified = classified?;
    let bridge = tables.bridge(port.bridge)?;
    let key = |mac| FdbKey { bridge: port.bridge, vid: classified.vid, mac };
    steps.push(source(tables, ingress, bridge, header.src, &key(header.src)));
    if header.dst.is_group() {
        steps.push("look-up: a group destination is flooded, which is for Open vSwitch".to_owned());
        return None;
    }
    let station = tables.fdb(&key(header.dst));
    steps.push(destination(tables, bridge, header.dst, classified.vid, station));
    let out = tables.port(station?.port)?;
    if let Verdict::Forward { .. } = outcome.verdict {
        steps.push(egress(tables.name(station?.port), out, classified, header.tag));
    }
    Some(())
}

fn tagging(header: &Header) -> String {
    match header.tag {
        Some(received) => format!("tagged {}", tag(received)),
        None if header.stacked => "with two tags or more".to_owned(),
        None => "untagged".to_owned(),
    }
}

fn tag(tag: Tag) -> String {
    let kind = match tag.tpid() {
        Tpid::Dot1Q => "0x8100",
        Tpid::Dot1Ad => "0x88a8",
    };
    format!("{kind} VID {} PCP {}", tag.vid(), tag.pcp().get())
}

fn source(tables: &Snapshot<'_>, ingress: u16, bridge: &abi::Bridge, mac: Mac, key: &FdbKey) -> String {
    if mac.is_group() {
        return format!("learn: {mac} is a group address and not learned");
    }
    let Some(known) = tables.fdb(key) else { return format!("learn: {mac} is new here") };
    let age_s = tables.now_s.saturating_sub(known.shown_s);
    let on = tables.name(known.port);
    if known.fixed {
        return format!("learn: {mac} is an operator's entry on port {on}");
    }
    if known.port != ingress {
        return format!("learn: {mac} was on port {on}");
    }
    match known.freshness(tables.now_s, bridge.refresh_s, bridge.ageing_s) {
        Freshness::Fresh => format!("learn: {mac} is known here, shown to Open vSwitch {age_s} s ago"),
        Freshness::Due => {
            format!("learn: {mac} is known here, but due to be shown to Open vSwitch ({age_s} s)")
        }
        Freshness::Expired => format!("learn: {mac} was known here, too long ago ({age_s} s)"),
    }
}

fn destination(
    tables: &Snapshot<'_>,
    bridge: &abi::Bridge,
    mac: Mac,
    vid: Vid,
    station: Option<FdbEntry>,
) -> String {
    match station {
        None => format!("look-up: {mac} is not known in VLAN {vid}"),
        Some(entry)
            if entry.freshness(tables.now_s, bridge.refresh_s, bridge.ageing_s) == Freshness::Expired =>
        {
            format!("look-up: {mac} in VLAN {vid} was on port {}, too long ago", tables.name(entry.port))
        }
        Some(entry) => format!("look-up: {mac} in VLAN {vid} is on port {}", tables.name(entry.port)),
    }
}

fn egress(name: &str, port: &abi::Port, frame: Classified, received: Option<Tag>) -> String {
    match port.egress(frame, received) {
        TagOp::Keep => format!("egress: leaves port {name} as it is"),
        TagOp::Push(sent) => format!("egress: leaves port {name} with the tag {} pushed", tag(sent)),
        TagOp::Pop => format!("egress: leaves port {name} with its tag popped"),
        TagOp::Replace(sent) => format!("egress: leaves port {name} with its tag replaced by {}", tag(sent)),
    }
}
