//! What is compared: ways to bring a frame from device `in` to device `out` of a [`crate::path::Path`].

use anyhow::{Context as _, Result, ensure};
use aya::programs::{Xdp, XdpMode};
use trunkline::dataplane::{
    BridgeNo, BridgeTimes, Dataplane as _, Hooks, InstalledPort, Kernel, Op, Options, PortNo,
};
use trunkline::{desired::VlanRules, ovsdb::PortRow};
use trunkline_core::{FdbEntry, FdbKey, Mac, Vid, abi};
use trunkline_tests::{Netns, Ovs, Vlan};

use crate::baseline::{Baseline, Device};
use crate::frame::{RECEIVER, SENDER};
use crate::path::{Entry, ifindex};

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

/// One way. All are ready when made, and stay.
pub enum Contestant {
    /// An XDP program that sends every frame to one device: the limit.
    Redirect {
        /// On `in`.
        program: Box<Baseline>,
        /// Where it sends to.
        _device: Device,
    },
    /// The product's programs and tables, as the agent installs them.
    Trunkline(Box<Kernel>),
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
const BRIDGE: BridgeNo = BridgeNo(0);
/// The size of the agent's FDB unless the operator chooses another.
pub(crate) const STATIONS: u32 = 65_536;
const TIMES: BridgeTimes = BridgeTimes { refresh_s: 75, ageing_s: 300 };

impl Contestant {
    /// An XDP program that sends every frame to one device.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn redirect(netns: &Netns) -> Result<Self> {
        netns.enter(|| {
            let device = Device::new(ifindex("out")?)?;
            let mut program = Box::new(Baseline::redirect(&device)?);
            program.xdp()?.attach("in", XdpMode::Driver).context("attaching the bare redirect")?;
            Ok(Self::Redirect { program, _device: device })
        })
    }

    /// The product's programs and tables.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn trunkline(netns: &Netns, ports: &Ports) -> Result<Self> {
        netns.enter(|| {
            let mut kernel = Box::new(Kernel::load(Options { stations: STATIONS, log: false })?);
            for (port, device, vlan) in [(INGRESS, "in", &ports.ingress), (EGRESS, "out", &ports.egress)] {
                let (ifindex, device) = (ifindex(device)?, device.to_owned());
                let installed = InstalledPort { ifindex, device, hooks: Hooks::Xdp, rules: rules(vlan)? };
                kernel.apply(&Op::Install(port, installed), now_s())?;
            }
            introduce(&mut kernel, ports.vid)?;
            Ok(Self::Trunkline(kernel))
        })
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
        let ovs = Ovs::start(netns);
        ovs.vsctl(&format!("add-br br0 -- set Bridge br0 datapath_type={}", Ovs::datapath_type()));
        for (device, vlan, station) in [("in", &ports.ingress, SENDER), ("out", &ports.egress, RECEIVER)] {
            ovs.vsctl(&format!("add-port br0 {device} {}", vlan.columns().join(" ")));
            ovs.appctl(&format!("fdb/add br0 {device} {} {}", ports.vid, Mac::new(station)));
        }
        Ok(Self::Ovs { _ovs: Box::new(ovs), pass: pass(netns, entry)? })
    }

    /// The program on `in`, or that would be.
    ///
    /// # Errors
    /// Never.
    pub fn program(&mut self) -> Result<&mut Xdp> {
        match self {
            Self::Redirect { program, .. } => program.xdp(),
            Self::Trunkline(kernel) => Ok(kernel.program()?),
            Self::Bridge { pass } | Self::Ovs { pass, .. } => pass.xdp(),
        }
    }

    /// What has to be done now and then: the agent's part, without the agent.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn maintain(&mut self, ports: &Ports) -> Result<()> {
        match self {
            Self::Trunkline(kernel) => introduce(kernel, ports.vid),
            _ => Ok(()),
        }
    }

    /// Checks that the program has forwarded so many frames since it was loaded, and left or dropped none.
    ///
    /// # Errors
    /// It has not.
    pub fn account(&self, arrived: u64) -> Result<()> {
        let Self::Trunkline(kernel) = self else { return Ok(()) };
        let counters = kernel.counters(INGRESS)?;
        let refused: u64 = counters.punted.iter().chain(&counters.dropped).sum();
        ensure!(refused == 0, "the program did not forward {refused} frames: {counters:?}");
        ensure!(
            counters.rx_frames >= arrived,
            "{arrived} frames arrived, but the program forwarded {}",
            counters.rx_frames
        );
        Ok(())
    }
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

/// Lets the bridge switch from now on, between the two stations.
pub(crate) fn introduce(kernel: &mut Kernel, vid: u16) -> Result<()> {
    kernel.apply(&Op::Activate(BRIDGE, TIMES), now_s())?;
    for (mac, port) in [(SENDER, INGRESS), (RECEIVER, EGRESS)] {
        let key = FdbKey { bridge: BRIDGE.0, vid: Vid::from_tci(vid), mac: Mac::new(mac) };
        kernel.set_station(&key, Some(FdbEntry { port: port.0, fixed: false, shown_s: now_s() }))?;
    }
    Ok(())
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
    let flags = rules.flags | abi::PORT_VALID | abi::PORT_TARGET | abi::PORT_PARTIAL_CHECKSUMS;
    Ok(abi::Port { flags, mtu: 1500, learning_limit: 1024, ..rules })
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

fn now_s() -> u32 {
    rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse).tv_sec as u32
}
