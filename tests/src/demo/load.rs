//! A short load of the smallest frames between known stations, and how much of it arrives.
//!
//! The kernel itself makes the frames (`BPF_PROG_TEST_RUN` with live frames) and puts them onto the sender's cable;
//! at the receiver a program drops them, and the device counts. So nearly all that is measured is the switch.
//! All of it shares the machine's CPUs, though: the figures compare, and are no promise for another machine.

use std::time::{Duration, Instant};

use trunkline_core::{Mac, Pcp, Tag, Tpid, Vid};

use super::link::{DEVICE, Link};
use super::network::{Network, station_mac};
use crate::Netns;
use crate::pass_program::{HEAD_LEN, TinyProgram};

/// Frames that tell how many are to be sent.
const WARM_UP: u32 = 1 << 18;
const MEASURED: Duration = Duration::from_secs(1);
/// Without the FCS, so 64 octets on a wire.
const FRAME_LEN: usize = 60;
/// IEEE 802 local experimental Ethernet type: no host reacts to it.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

/// A one-way load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stream {
    /// From host h2 (access VLAN 2) to the far end of the uplink: gets a tag.
    Out,
    /// From the far end of the uplink to host h100 (access VLAN 100): loses its tag.
    In,
}

/// In millions of frames per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) offered: f64,
    pub(super) delivered: f64,
}

impl Stream {
    pub(super) const ALL: [Self; 2] = [Self::Out, Self::In];

    /// For the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Out => "h2 (access 2) to uplink (tag pushed)",
            Self::In => "uplink (tag popped) to h100 (access 100)",
        }
    }

    /// Measures once; an error is the kernel's refusal to make live frames.
    ///
    /// Open vSwitch alone is shown both loads, as too many frames at once can be the harder ones for it; what counts is
    /// the one of which it delivers more.
    pub(super) fn measure(self, network: &mut Network, fast: bool) -> Result<Rate, String> {
        network.uplink.swallow();
        let (h2, h100) = (network.host("h2"), network.host("h100"));
        let mut sink = TinyProgram::drop_all();
        sink.attach(&h100.netns, DEVICE);
        let (from, to, frame) = match self {
            Self::Out => (&h2.netns, network.uplink.netns(), frame(station_mac(2, 1), h2.mac, None)),
            Self::In => {
                let tag = Tag::new(Tpid::Dot1Q, Pcp::ZERO, Vid::new(100).expect("a VLAN"));
                (network.uplink.netns(), &h100.netns, frame(h100.mac, station_mac(100, 1), Some(tag)))
            }
        };
        let mut rate = flat_out(from, to, &frame);
        if let (Ok(best), false) = (&mut rate, fast) {
            let other = moderately(from, to, &frame);
            if other.delivered > best.delivered {
                *best = other;
            }
        }
        drop(sink);
        network.uplink.listen();
        rate
    }
}

impl Rate {
    fn new(offered: u64, delivered: u64, seconds: f64) -> Self {
        let rate = |frames: u64| frames as f64 / seconds / 1e6;
        Self { offered: rate(offered), delivered: rate(delivered) }
    }
}

fn frame(dst: Mac, src: Mac, tag: Option<Tag>) -> Vec<u8> {
    let tag = tag.map(Tag::to_bytes);
    let mut frame =
        [&dst.octets()[..], &src.octets(), tag.as_ref().map_or(&[][..], |tag| &tag[..]), &ETHERTYPE].concat();
    frame.resize(FRAME_LEN, 0);
    frame
}

fn flat_out(from: &Netns, to: &Netns, frame: &[u8]) -> Result<Rate, String> {
    let head = *frame.first_chunk::<HEAD_LEN>().expect("60 octets");
    let mut source = TinyProgram::source(Link::of(from, DEVICE).ifindex, head);
    let mut send = |count: u32| -> Result<f64, String> {
        let start = Instant::now();
        source.run_live(frame, count).map_err(|error| format!("the kernel makes no live frames: {error}"))?;
        Ok(start.elapsed().as_secs_f64())
    };
    from.enter(|| {
        // One call for all that is measured, as the kernel takes its time before and after each.
        let count = (f64::from(WARM_UP) / send(WARM_UP)? * MEASURED.as_secs_f64()) as u32;
        let before = received(to);
        let seconds = send(count)?;
        Ok(Rate::new(count.into(), received(to) - before, seconds))
    })
}

/// From a packet socket: a load that does not drown a switch which shares the machine with it.
fn moderately(from: &Netns, to: &Netns, frame: &[u8]) -> Rate {
    let socket = from.packet_socket(DEVICE);
    let (start, before, mut sent) = (Instant::now(), received(to), 0);
    while start.elapsed() < MEASURED {
        for _ in 0..64 {
            socket.send(frame);
        }
        sent += 64;
    }
    Rate::new(sent, received(to) - before, start.elapsed().as_secs_f64())
}

/// Frames that a namespace's device has received (`/proc/net/dev`).
fn received(netns: &Netns) -> u64 {
    let text = netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev")).expect("/proc");
    let counters = text.lines().find_map(|line| line.trim_start().strip_prefix(DEVICE)?.strip_prefix(':'));
    let frames = counters.and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok());
    frames.unwrap_or_else(|| panic!("no {DEVICE} in {text}"))
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn frames_have_the_least_length_with_and_without_a_tag() {
        let tag = Tag::new(Tpid::Dot1Q, Pcp::ZERO, Vid::new(100).unwrap());
        let tagged = frame(Mac::BROADCAST, Mac::new([2; 6]), Some(tag));
        assert_eq!((tagged.len(), &tagged[12..18]), (60, &[0x81, 0, 0, 100, 0x88, 0xb5][..]));
        assert_eq!(frame(Mac::BROADCAST, Mac::new([2; 6]), None)[12..14], ETHERTYPE);
    }
}
