//! What is compared: ways to bring a frame from device `in` to device `out` of a [`crate::path::Path`].

use anyhow::{Context as _, Result, ensure};
use aya::programs::{Xdp, XdpMode};
use trunkline::dataplane::{
    BridgeNo, BridgeTimes, Dataplane as _, Hooks, InstalledPort, Kernel, Op, Options, PortNo,
};
use trunkline::{desired::VlanRules, ovsdb::PortRow};
use trunkline_core::{FdbEntry, FdbKey, Mac, PuntReason, Vid, abi};
use trunkline_tests::{Netns, Ovs, Vlan};

use crate::baseline::Baseline;
use crate::frame::{RECEIVER, SENDER};
use crate::path::{Entry, ifindex};
use crate::tables::Devices;

/// How the product is installed.
#[derive(Debug)]
pub struct Installation {
    /// The hooks where frames come in and where they leave, of those on a device for outside.
    pub hooks: [Hooks; 2],
    /// How frames get there.
    pub entry: Entry,
    /// When stations are due to be seen again.
    pub times: BridgeTimes,
    /// Entered before each measurement, as the agent would not have to.
    pub stations: Vec<Station>,
    /// For so many stations.
    pub room: u32,
}

impl Default for Installation {
    /// In the driver, with two stations, and as the agent does it unless told otherwise.
    fn default() -> Self {
        Self { hooks: [Hooks::Xdp; 2], entry: Entry::Veth, times: TIMES, stations: pair(), room: STATIONS }
    }
}

/// The two ports of a switch, and the VLAN in question.
#[derive(Clone, Debug)]
pub struct Ports {
    /// Where frames come in.
    pub ingress: Vlan,
    /// Where they leave.
    pub egress: Vlan,
    /// The VLAN of both stations.
    pub vid: u16,
}

/// A station, and where it is.
pub type Station = ([u8; 6], PortNo);

/// What the program has to do with the frames, which it counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Forwards them all.
    Forwarded,
    /// Leaves them all to Open vSwitch, for this reason.
    Punted(PuntReason),
    /// Forwards them, but for new stations and such as are due to be seen by Open vSwitch.
    Learned,
}

/// One way. All are ready when made, and stay.
#[expect(clippy::large_enum_variant, reason = "there are a handful of them")]
pub enum Contestant {
    /// An XDP program that sends every frame to one device: the limit.
    Redirect {
        /// On `in`, and one for the way back on `out`.
        programs: [Box<Baseline>; 2],
        /// Where they send to.
        _devices: [Devices; 2],
    },
    /// The product's programs and tables, as the agent installs them.
    Trunkline {
        /// Programs and tables.
        kernel: Box<Kernel>,
        /// Passes what comes in by a driver, where the product is at tc.
        pass: Option<Box<Baseline>>,
        /// Has the frames that the program leaves to it, if there are such.
        _ovs: Option<Box<Ovs>>,
        /// The VLAN of all stations.
        vid: u16,
        /// When stations are due to be seen again.
        times: BridgeTimes,
        /// Entered before each measurement, as the agent would not have to.
        stations: Vec<Station>,
        /// Forgotten before each measurement.
        forgotten: Vec<[u8; 6]>,
    },
    /// The kernel's bridge, which knows both stations and no VLANs.
    Bridge {
        /// Passes what comes in by a driver, if frames come so.
        pass: Box<Baseline>,
    },
    /// Open vSwitch alone.
    Ovs {
        /// Its daemons run while this lives.
        _ovs: Box<Ovs>,
        /// Passes what comes in by a driver, if frames come so.
        pass: Box<Baseline>,
    },
}

/// The port where frames come in.
pub(crate) const INGRESS: PortNo = PortNo(0);
/// The port where they leave.
pub(crate) const EGRESS: PortNo = PortNo(1);
/// How much longer than the agent's the lease of a bridge is here: a slow machine takes its time between two.
const LEASE_S: u32 = 600;
const BRIDGE: BridgeNo = BridgeNo(0);
/// The size of the agent's FDB unless the operator chooses another.
pub(crate) const STATIONS: u32 = 65_536;
/// The agent's, unless the operator has set `mac-aging-time`.
pub(crate) const TIMES: BridgeTimes = BridgeTimes { refresh_s: 75, ageing_s: 300 };
/// Room for all stations of any benchmark in Open vSwitch.
const OVS_STATIONS: u32 = 65_536;

impl Contestant {
    /// An XDP program that sends every frame to one device.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn redirect(netns: &Netns) -> Result<Self> {
        netns.enter(|| {
            let devices = [Devices::new(&[ifindex("out")?])?, Devices::new(&[ifindex("in")?])?];
            let mut programs = [&devices[0], &devices[1]].map(Baseline::redirect).map(|p| p.map(Box::new));
            for (program, device) in programs.iter_mut().zip(["in", "out"]) {
                let program = program.as_mut().map_err(|e| anyhow::anyhow!("{e:#}"))?;
                program.xdp()?.attach(device, XdpMode::Driver).context("attaching the bare redirect")?;
            }
            let [there, back] = programs;
            Ok(Self::Redirect { programs: [there?, back?], _devices: devices })
        })
    }

    /// The product's programs and tables.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn trunkline(netns: &Netns, ports: &Ports, installation: Installation) -> Result<Self> {
        let Installation { hooks, entry, times, stations, room } = installation;
        let pass = if hooks[0].xdp() { None } else { Some(pass(netns, entry)?) };
        netns.enter(|| {
            let mut kernel = Box::new(Kernel::load(Options { stations: room, log: false })?);
            install(&mut kernel, INGRESS, "in", &ports.ingress, hooks[0])?;
            install(&mut kernel, EGRESS, "out", &ports.egress, hooks[1])?;
            let vid = ports.vid;
            let mut new =
                Self::Trunkline { kernel, pass, _ovs: None, vid, times, stations, forgotten: vec![] };
            new.maintain()?;
            Ok(new)
        })
    }

    /// The product's programs and tables above Open vSwitch, which has what they leave to it. Before each measurement,
    /// `forgotten` are forgotten.
    ///
    /// # Errors
    /// The kernel refuses. Panics where the tools of Open vSwitch fail.
    pub fn both(
        netns: &Netns,
        ports: &Ports,
        installation: Installation,
        forgotten: Vec<[u8; 6]>,
    ) -> Result<Self> {
        let ovs = start_ovs(netns, ports);
        let mut both = Self::trunkline(netns, ports, installation)?;
        if let Self::Trunkline { _ovs, forgotten: all, .. } = &mut both {
            *_ovs = Some(ovs);
            *all = forgotten;
        }
        Ok(both)
    }

    /// The kernel's bridge.
    ///
    /// # Errors
    /// The kernel refuses. Panics where `ip` fails.
    pub fn bridge(netns: &Netns, entry: Entry) -> Result<Self> {
        netns.run("ip link add br0 type bridge");
        for (device, station) in [("in", SENDER), ("out", RECEIVER)] {
            netns.run(&format!("ip link set {device} master br0"));
            netns.run(&format!("bridge fdb replace {} dev {device} master static", Mac::new(station)));
        }
        netns.run("ip link set br0 up");
        without_packet_filter(netns);
        Ok(Self::Bridge { pass: pass(netns, entry)? })
    }

    /// Open vSwitch alone.
    ///
    /// # Errors
    /// The kernel refuses. Panics where its tools fail.
    pub fn ovs(netns: &Netns, ports: &Ports, entry: Entry) -> Result<Self> {
        Ok(Self::Ovs { _ovs: start_ovs(netns, ports), pass: pass(netns, entry)? })
    }

    /// The program on `in`, or that would be.
    ///
    /// # Errors
    /// Never.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        match self {
            Self::Redirect { programs: [there, _], .. } => there.xdp(),
            Self::Trunkline { kernel, pass: None, .. } => Ok(kernel.program()?),
            Self::Trunkline { pass: Some(pass), .. } => pass.xdp(),
            Self::Bridge { pass } | Self::Ovs { pass, .. } => pass.xdp(),
        }
    }

    /// What has to be done before each measurement: the agent's part, without the agent.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn maintain(&mut self) -> Result<()> {
        let Self::Trunkline { kernel, vid, times, stations, forgotten, .. } = self else { return Ok(()) };
        introduce(kernel, *vid, *times, stations)?;
        let forgotten: Vec<_> = forgotten.iter().map(|mac| (key(*vid, *mac), None)).collect();
        kernel.set_stations(&forgotten)?;
        self.renew()
    }

    /// Lets the bridge go on switching, and soon the places of forgotten stations be others'.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn renew(&mut self) -> Result<()> {
        let Self::Trunkline { kernel, .. } = self else { return Ok(()) };
        Ok(kernel.renew(now_s() + LEASE_S)?)
    }

    /// The number of frames that came in since the program was loaded, by what became of them: forwarded, and otherwise.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn counted(&self) -> Result<[u64; 2]> {
        let Self::Trunkline { kernel, .. } = self else { return Ok([0; 2]) };
        let counters = kernel.counters(INGRESS)?;
        Ok([counters.rx_frames, counters.punted.iter().chain(&counters.dropped).sum()])
    }

    /// Checks that frames met their fate since the program was loaded. `arrived` is how many arrived.
    ///
    /// # Errors
    /// They did not.
    pub fn account(&self, fate: Fate, arrived: u64) -> Result<()> {
        let Self::Trunkline { kernel, .. } = self else { return Ok(()) };
        let counters = kernel.counters(INGRESS)?;
        let refused: u64 = counters.punted.iter().chain(&counters.dropped).sum();
        let expected: u64 = match fate {
            Fate::Forwarded => 0,
            Fate::Punted(reason) => {
                counters.punted[reason.index()] + counters.punted[PuntReason::NewSource.index()]
            }
            Fate::Learned => [PuntReason::NewSource, PuntReason::RefreshSource]
                .map(|reason| counters.punted[reason.index()])
                .iter()
                .sum(),
        };
        ensure!(refused == expected, "frames met another fate than {fate:?}: {counters:?}");
        ensure!(
            matches!(fate, Fate::Punted(_)) && counters.rx_frames == 0
                || counters.rx_frames + refused >= arrived && counters.rx_frames > 0,
            "{arrived} frames arrived, but the program forwarded {}",
            counters.rx_frames
        );
        Ok(())
    }
}

/// Open vSwitch with the ports `in` and `out`, and a station behind each.
fn start_ovs(netns: &Netns, ports: &Ports) -> Box<Ovs> {
    let ovs = Ovs::start(netns);
    ovs.vsctl(&format!(
        "add-br br0 -- set Bridge br0 datapath_type={} other_config:mac-table-size={OVS_STATIONS}",
        Ovs::datapath_type()
    ));
    for (device, vlan, station) in [("in", &ports.ingress, SENDER), ("out", &ports.egress, RECEIVER)] {
        ovs.vsctl(&format!("add-port br0 {device} {}", vlan.columns().join(" ")));
        ovs.appctl(&format!("fdb/add br0 {device} {} {}", ports.vid, Mac::new(station)));
    }
    Box::new(ovs)
}

/// Puts the program on a device of the calling thread's network namespace.
pub(crate) fn install(
    kernel: &mut Kernel,
    port: PortNo,
    device: &str,
    vlan: &Vlan,
    hooks: Hooks,
) -> Result<()> {
    let ifindex = ifindex(device)?;
    let rules = rules(vlan)?;
    let more = match hooks {
        Hooks::XdpAndTc => abi::PORT_TC_FOLLOWS,
        Hooks::Tc => abi::PORT_ACCEPTS_GSO,
        Hooks::Xdp | Hooks::Host => 0,
    };
    let rules = abi::Port { ifindex, flags: rules.flags | more, ..rules };
    let installed = InstalledPort { ifindex, device: device.to_owned(), hooks, rules };
    Ok(kernel.apply(&Op::Install(port, installed))?)
}

fn key(vid: u16, mac: [u8; 6]) -> FdbKey {
    FdbKey { bridge: BRIDGE.0, vid: Vid::from_tci(vid), mac: Mac::new(mac) }
}

/// A program that leaves all frames to the stack. A veth knows drivers' receive queues only with a program on it.
fn pass(netns: &Netns, entry: Entry) -> Result<Box<Baseline>> {
    let mut pass = Box::new(Baseline::pass()?);
    if entry == Entry::Driver {
        netns
            .enter(|| pass.xdp()?.attach("in", XdpMode::Driver).context("attaching a program to pass by"))?;
    }
    Ok(pass)
}

/// Lets the bridge switch from now on, between these stations.
pub(crate) fn introduce(
    kernel: &mut Kernel,
    vid: u16,
    times: BridgeTimes,
    stations: &[Station],
) -> Result<()> {
    kernel.activate(BRIDGE, "br0", times, now_s() + LEASE_S)?;
    let entry = |port: PortNo| FdbEntry { port: port.0, fixed: false, shown_s: now_s() };
    let stations: Vec<_> = stations.iter().map(|(mac, port)| (key(vid, *mac), Some(entry(*port)))).collect();
    Ok(kernel.set_stations(&stations)?)
}

/// As the agent compiles it for a port on a veth.
pub(crate) fn rules(vlan: &Vlan) -> Result<abi::Port> {
    let (mode, tag, trunks) = match vlan {
        Vlan::Access(tag) => ("access", Some(*tag), &[][..]),
        Vlan::Trunk(trunks) => ("trunk", None, &trunks[..]),
        Vlan::NativeTagged(tag, trunks) => ("native-tagged", Some(*tag), &trunks[..]),
        Vlan::NativeUntagged(tag, trunks) => ("native-untagged", Some(*tag), &trunks[..]),
    };
    let trunks = trunks.iter().copied().collect();
    let row = PortRow { vlan_mode: Some(mode.to_owned()), tag, trunks, ..PortRow::default() };
    let rules = VlanRules::new(&row).compile().map_err(anyhow::Error::msg)?;
    let targets = abi::PORT_TARGET | abi::PORT_TC_TARGET;
    let flags = rules.flags | abi::PORT_VALID | targets | abi::PORT_PARTIAL_CHECKSUMS;
    Ok(abi::Port { flags, mtu: 1500, learning_limit: u32::MAX, ..rules })
}

/// Where bridged frames can be made to go through the packet filter, they are not.
fn without_packet_filter(netns: &Netns) {
    netns.enter(|| {
        for table in ["iptables", "ip6tables", "arptables"] {
            // Absent without the module, and then off.
            let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{table}"), "0");
        }
    });
}

pub(crate) fn now_s() -> u32 {
    rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse).tv_sec as u32
}

/// The two stations, each behind its port.
pub(crate) fn pair() -> Vec<Station> {
    vec![(SENDER, INGRESS), (RECEIVER, EGRESS)]
}
