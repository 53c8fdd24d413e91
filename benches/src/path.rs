//! A way for live frames: source, device under test, veth out of it, and a program that drops them.
//!
//! ```text
//!              ┌─ a network namespace ─────────────────────────────────────────────┐
//!   source ──► │ sender ⇄ in  [ the contestant between in and out ]  out ⇄ receiver │ ──► dropped and counted
//!              └───────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The source is a program run by `BPF_PROG_TEST_RUN` in live-frames mode. Every contestant gets its frames from the
//! same source in the same way ([`Entry`]), and gets rid of them in the same way.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode, xdp::XdpLinkId};
use clap::ValueEnum;
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use trunkline_tests::Netns;

use crate::baseline::{Baseline, Device, Next};

/// Frames that the kernel passes on at a time, as a NIC's driver does.
const BATCH: u32 = 64;
/// The device on which a test run arrives unless told otherwise, in every network namespace.
const LOOPBACK: u32 = 1;
/// Frames of one call to the source; the clock is looked at in between.
const CALL: u32 = 1 << 16;
/// Frames that are looked at one by one before and after a measurement: so many at a time, so often.
const SAMPLE: u32 = 16;
const SAMPLES: u32 = 16;

/// How frames get to the device under test.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Entry {
    /// As from the driver of a NIC: straight into the XDP program on `in`, or from there into the kernel's stack.
    Driver,
    /// Over a veth: sent by `sender`, and received by `in`. That costs as much as forwarding itself.
    Veth,
}

/// See the module.
pub struct Path {
    netns: Netns,
    source: Source,
    drain: Baseline,
    drain_link: Option<XdpLinkId>,
    cpu: usize,
    frame: Vec<u8>,
}

struct Source {
    program: Baseline,
    /// The device that frames arrive on.
    ifindex: u32,
    _to: To,
}

/// What a source needs as long as it runs.
enum To {
    Device { _sender: Device },
    Program { _next: Next },
}

/// What a source sent in one slot of time, and what came out at the far end.
#[derive(Clone, Copy, Serialize, Debug)]
pub struct Flow {
    /// Frames that the source sent.
    pub sent: u64,
    /// Frames that arrived.
    pub arrived: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Flow {
    /// Millions of frames that arrived in a second.
    pub fn mpps(&self) -> f64 {
        self.arrived as f64 / self.seconds / 1e6
    }
}

impl Path {
    /// A way through `netns`, where a contestant is ready between the devices of [`devices`] and `program` is on `in`.
    /// Frames are sent by `cpu`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(netns: Netns, entry: Entry, program: &Xdp, frame: Vec<u8>, cpu: usize) -> Result<Self> {
        let source = netns.enter(|| Source::new(entry, program, &frame))?;
        let drain = Baseline::drop_all()?;
        let mut path = Self { netns, source, drain, drain_link: None, cpu, frame };
        path.attach_drain()?;
        Ok(path)
    }

    /// Sends for as long as that.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&mut self, slot: Duration) -> Result<Flow> {
        let Self { netns, source, cpu, frame, .. } = self;
        netns.enter(|| {
            let mut only = CpuSet::new();
            only.set(*cpu);
            sched_setaffinity(None, &only).context("staying on one CPU")?;
            let before = received()?;
            let start = Instant::now();
            let mut sent = 0;
            while start.elapsed() < slot {
                source.send(frame, CALL)?;
                sent += u64::from(CALL);
            }
            let seconds = start.elapsed().as_secs_f64();
            Ok(Flow { sent, arrived: received()? - before, seconds })
        })
    }

    /// Sends a few frames and looks at each that arrives: `expected` has to, as often as was sent.
    ///
    /// # Errors
    /// It was otherwise.
    pub fn verify(&mut self, expected: &[u8]) -> Result<()> {
        if let Some(link) = self.drain_link.take() {
            self.drain.xdp()?.detach(link)?;
        }
        let Self { netns, source, frame, .. } = self;
        let mut looking = Baseline::expect(expected)?;
        netns.enter(|| looking.xdp()?.attach("receiver", XdpMode::Driver).context("attaching a look"))?;
        let before = dropped(netns)?;
        for _ in 0..SAMPLES {
            netns.enter(|| source.send(frame, SAMPLE))?;
            // So few at a time fit into any queue.
            sleep(Duration::from_millis(2));
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        let sent = u64::from(SAMPLE * SAMPLES);
        let mut arrived = 0;
        while arrived < sent && Instant::now() < deadline {
            arrived = dropped(netns)? - before;
        }
        drop(looking);
        self.attach_drain()?;
        ensure!(arrived == sent, "of {sent} frames {arrived} arrived as they should be");
        Ok(())
    }

    fn attach_drain(&mut self) -> Result<()> {
        let Self { netns, drain, .. } = self;
        let link = netns
            .enter(|| drain.xdp()?.attach("receiver", XdpMode::Driver).context("attaching the drain"))?;
        self.drain_link = Some(link);
        Ok(())
    }
}

impl Source {
    fn new(entry: Entry, program: &Xdp, frame: &[u8]) -> Result<Self> {
        match entry {
            Entry::Veth => {
                let sender = Device::new(ifindex("sender")?)?;
                let program = Baseline::source(frame, &sender)?;
                Ok(Self { program, ifindex: LOOPBACK, _to: To::Device { _sender: sender } })
            }
            Entry::Driver => {
                let next = Next::new(program)?;
                let program = Baseline::source_before(frame, &next)?;
                Ok(Self { program, ifindex: ifindex("in")?, _to: To::Program { _next: next } })
            }
        }
    }

    fn send(&mut self, frame: &[u8], frames: u32) -> Result<()> {
        // `struct xdp_md` (Linux `include/uapi/linux/bpf.h`): where the frame starts and ends, metadata, interface, queues.
        let context = [0, u32::try_from(frame.len())?, 0, self.ifindex, 0, 0];
        let context = context.map(u32::to_ne_bytes).concat();
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: frames,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH.min(frames)),
            ..TestRunOptions::new()
        };
        self.program.xdp()?.test_run(options).context("sending live frames")?;
        Ok(())
    }
}

/// A new network namespace with `sender`, `in`, `out` and `receiver`.
pub fn devices() -> Netns {
    let netns = Netns::new();
    for (left, right) in [("sender", "in"), ("out", "receiver")] {
        netns.run(&format!("ip link add {left} type veth peer name {right}"));
        // A veth can be sent to by a redirect only while its peer polls, which GRO or an XDP program makes it do; it
        // finds out when it comes up.
        for setting in ["ethtool -K DEVICE gro on", "ip link set DEVICE up"] {
            for device in [left, right] {
                netns.run(&setting.replace("DEVICE", device));
            }
        }
    }
    netns
}

/// The kernel's number of a device of the calling thread's network namespace.
///
/// # Errors
/// There is none of that name.
pub fn ifindex(device: &str) -> Result<u32> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    name_to_index(&socket, device).with_context(|| format!("looking for device {device}"))
}

/// Frames that `receiver` has received; those that its program dropped are among them.
fn received() -> Result<u64> {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("receiver:"));
    let packets = line.and_then(|line| line.split_whitespace().nth(1)).context("no device receiver")?;
    Ok(packets.parse()?)
}

/// Frames that the program on `receiver` has dropped.
fn dropped(netns: &Netns) -> Result<u64> {
    let statistics = netns.run("ethtool -S receiver");
    let queues = statistics.lines().filter_map(|line| line.trim().split_once("_xdp_drops: "));
    queues.map(|(_, count)| Ok(count.trim().parse::<u64>()?)).sum()
}
