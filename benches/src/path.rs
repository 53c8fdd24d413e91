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

use std::fmt::Write as _;
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode, xdp::XdpLinkId};
use clap::ValueEnum;
use rustix::net::{AddressFamily, SocketType, netdevice::name_to_index, socket};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;
use trunkline_tests::Netns;

use crate::baseline::{Baseline, Start};
use crate::frame::Header;
use crate::tables::{Devices, Headers, Next};

/// Frames that the kernel passes on at a time, as a NIC's driver does.
const BATCH: u32 = 64;
/// The device on which a test run arrives unless told otherwise, in every network namespace.
const LOOPBACK: u32 = 1;
/// Frames by which to find out how many to send.
const PILOT: u32 = 1 << 16;
/// Frames that are looked at one by one before and after a measurement: so many at a time, so often.
const SAMPLE: u32 = 16;
const SAMPLES: u32 = 4;

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
    sources: Vec<Source>,
    drain: Baseline,
    drain_links: Vec<XdpLinkId>,
    frame: Vec<u8>,
}

/// What is sent along a way, and from where.
pub struct Traffic<'t> {
    /// How frames get to the contestant.
    pub entry: Entry,
    /// The frame that is sent.
    pub frame: Vec<u8>,
    /// If not empty, each frame in turn starts with one of these instead.
    pub headers: &'t [Header],
    /// The CPUs that send.
    pub cpus: &'t [usize],
}

struct Source {
    program: Baseline,
    /// The device that frames arrive on.
    ifindex: u32,
    cpu: usize,
    headers: Option<Headers>,
    _to: To,
}

/// What a source needs as long as it runs.
enum To {
    Device { _sender: Devices },
    Program { _next: Next },
}

/// What a source sent in one slot of time, and what came out at the far end.
#[derive(Clone, Copy, Serialize, Debug)]
pub struct Flow {
    /// Frames that the source sent.
    pub sent: u64,
    /// Frames that arrived.
    pub arrived: u64,
    /// The same, with those of the pilot before.
    #[serde(skip)]
    pub arrived_in_all: u64,
    /// How long the source ran.
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
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(netns: Netns, program: &Xdp, traffic: &Traffic<'_>) -> Result<Self> {
        let source = |cpu: &usize| netns.enter(|| Source::new(traffic, program, *cpu));
        let sources = traffic.cpus.iter().map(source).collect::<Result<_>>()?;
        let drain = Baseline::drop_all()?;
        let mut path = Self { netns, sources, drain, drain_links: vec![], frame: traffic.frame.clone() };
        path.attach_drain()?;
        Ok(path)
    }

    /// The network namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The headers in their order; none if all frames are alike.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn headers(&self) -> Result<Vec<Header>> {
        self.sources.first().and_then(|source| source.headers.as_ref()).map_or(Ok(vec![]), Headers::all)
    }

    /// Starts again with the first of the headers.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn rewind(&mut self) -> Result<()> {
        self.sources.iter_mut().filter_map(|source| source.headers.as_mut()).try_for_each(Headers::rewind)
    }

    /// Sends for about as long as that, from each CPU.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn run(&mut self, slot: Duration) -> Result<Flow> {
        let Self { netns, sources, frame, .. } = self;
        let before = netns.enter(received)?;
        let pilot = send(netns, sources, frame, |_| PILOT)?;
        let started = netns.enter(received)?;
        let frames = |place: usize| {
            let each: Duration = pilot[place];
            let frames = slot.as_nanos() / each.as_nanos().max(1);
            frames.clamp(u128::from(PILOT), u128::from(u32::MAX)) as u32
        };
        let took = send(netns, sources, frame, frames)?;
        let ended = netns.enter(received)?;
        let seconds = |(place, each): (usize, &Duration)| each.as_secs_f64() * f64::from(frames(place));
        Ok(Flow {
            sent: (0..took.len()).map(|place| u64::from(frames(place))).sum(),
            arrived: ended - started,
            arrived_in_all: ended - before,
            seconds: took.iter().enumerate().map(seconds).fold(0.0, f64::max),
        })
    }

    /// Sends exactly so many frames, from one CPU.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn send(&mut self, frames: u32) -> Result<Flow> {
        let Self { netns, sources, frame, .. } = self;
        let started = netns.enter(received)?;
        let took = send(netns, &mut sources[..1], frame, |_| frames)?;
        let arrived = netns.enter(received)? - started;
        let seconds = took[0].as_secs_f64() * f64::from(frames);
        Ok(Flow { sent: u64::from(frames), arrived, arrived_in_all: arrived, seconds })
    }

    /// Sends a few frames and looks at each that arrives: `expected` has to, as often as was sent.
    ///
    /// # Errors
    /// It was otherwise.
    pub fn verify(&mut self, expected: &[u8]) -> Result<()> {
        for link in std::mem::take(&mut self.drain_links) {
            self.drain.xdp()?.detach(link)?;
        }
        let Self { netns, sources, frame, .. } = self;
        let mut looking = Baseline::expect(expected)?;
        netns.enter(|| looking.xdp()?.attach("receiver", XdpMode::Driver).context("attaching a look"))?;
        let before = dropped(netns)?;
        for _ in 0..SAMPLES {
            netns.enter(|| sources[0].send(frame, SAMPLE))?;
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

    /// The drain is on `receiver` and on all devices whose names begin so.
    fn attach_drain(&mut self) -> Result<()> {
        let Self { netns, drain, drain_links, .. } = self;
        netns.enter(|| {
            for device in receivers()? {
                let link = drain.xdp()?.attach(&device, XdpMode::Driver);
                drain_links.push(link.with_context(|| format!("attaching the drain to {device}"))?);
            }
            Ok(())
        })
    }
}

/// Sends from all sources at a time, and returns how long each frame took.
fn send(
    netns: &Netns,
    sources: &mut [Source],
    frame: &[u8],
    frames: impl Fn(usize) -> u32 + Sync,
) -> Result<Vec<Duration>> {
    let frames = &frames;
    thread::scope(|scope| {
        let threads: Vec<_> = sources
            .iter_mut()
            .enumerate()
            .map(|(place, source)| scope.spawn(move || netns.enter(|| source.send(frame, frames(place)))))
            .collect();
        let ended = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(ended).collect()
    })
}

impl Source {
    fn new(traffic: &Traffic<'_>, program: &Xdp, cpu: usize) -> Result<Self> {
        let Traffic { entry, frame, headers, .. } = traffic;
        let headers = if headers.is_empty() { None } else { Some(Headers::new(headers)?) };
        let start = headers.as_ref().map_or(Start::Of(frame), Start::Next);
        let (program, ifindex, to) = match entry {
            Entry::Veth => {
                let sender = Devices::new(&[ifindex("sender")?])?;
                (Baseline::source(start, &sender)?, LOOPBACK, To::Device { _sender: sender })
            }
            Entry::Driver => {
                let next = Next::new(program)?;
                (Baseline::source_before(start, &next)?, ifindex("in")?, To::Program { _next: next })
            }
        };
        Ok(Self { program, ifindex, cpu, headers, _to: to })
    }

    /// Sends so many frames, and returns the time that each took. That is the kernel's own figure: around the frames, it
    /// waits for other CPUs to take notice of the program, for tens of milliseconds.
    fn send(&mut self, frame: &[u8], frames: u32) -> Result<Duration> {
        let mut only = CpuSet::new();
        only.set(self.cpu);
        sched_setaffinity(None, &only).context("staying on one CPU")?;
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
        Ok(self.program.xdp()?.test_run(options).context("sending live frames")?.duration)
    }
}

/// A new network namespace with `sender`, `in`, `out` and `receiver`.
pub fn devices() -> Netns {
    let netns = Netns::new();
    for (left, right) in [("sender", "in"), ("out", "receiver")] {
        connect(&netns, left, right);
    }
    netns
}

/// Two ends of a veth, ready.
pub fn connect(netns: &Netns, left: &str, right: &str) {
    netns.run(&format!("ip link add {left} type veth peer name {right}"));
    // A veth can be sent to by a redirect only while its peer polls, which GRO or an XDP program makes it do; it
    // finds out when it comes up.
    for setting in ["ethtool -K DEVICE gro on", "ip link set DEVICE up"] {
        for device in [left, right] {
            netns.run(&setting.replace("DEVICE", device));
        }
    }
}

/// Adds `out1`, `out2` and so on to `out`, so that there are `count`, each with a receiver.
pub fn add_outlets(netns: &Netns, count: usize) {
    let mut script = String::new();
    for n in 1..count {
        let _ = writeln!(script, "link add out{n} type veth peer name receiver{n}");
        let _ = writeln!(script, "link set out{n} up\nlink set receiver{n} up");
    }
    let file = std::env::temp_dir().join(format!("{}-outlets", netns.name()));
    std::fs::write(&file, script).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    netns.run(&format!("ip -batch {}", file.display()));
    let _ = std::fs::remove_file(file);
}

/// The kernel's number of a device of the calling thread's network namespace.
///
/// # Errors
/// There is none of that name.
pub fn ifindex(device: &str) -> Result<u32> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    name_to_index(&socket, device).with_context(|| format!("looking for device {device}"))
}

/// `receiver`, and all devices whose names begin so.
fn receivers() -> Result<Vec<String>> {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let names = devices.lines().filter_map(|line| line.trim().split_once(':'));
    Ok(names.filter(|(name, _)| name.starts_with("receiver")).map(|(name, _)| name.to_owned()).collect())
}

/// Frames that the receivers have received; those that their program dropped are among them.
fn received() -> Result<u64> {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let counts = devices.lines().filter_map(|line| {
        let (name, counts) = line.trim().split_once(':')?;
        name.starts_with("receiver").then(|| counts.split_whitespace().nth(1))?
    });
    counts.map(|count| Ok(count.parse::<u64>()?)).sum()
}

/// Frames that the program on `receiver` has dropped.
fn dropped(netns: &Netns) -> Result<u64> {
    let statistics = netns.run("ethtool -S receiver");
    let queues = statistics.lines().filter_map(|line| line.trim().split_once("_xdp_drops: "));
    queues.map(|(_, count)| Ok(count.trim().parse::<u64>()?)).sum()
}
