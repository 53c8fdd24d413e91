//! The programs behind `trunkline trace`, which tell what would happen to a single frame.

use aya::Ebpf;
use aya::maps::{Array, MapData};
use aya::programs::{TestRun as _, TestRunOptions, TestRunResult};
use thiserror::Error;
use trunkline_core::{Hook, Tag, Tpid, TraceAnswer, TraceQuestion, abi};

use super::DataplaneError;
use super::error::Cause;
use super::pod::Raw;
use super::programs::{TRACE_TC, TRACE_XDP, tc, xdp};

/// Octets before a frame's tag.
const ADDRESSES: usize = 12;
/// Room for what a frame may grow by, and more: a tag has 4 octets.
const GROWTH: usize = 8;

/// The answer to a trace is missing.
#[derive(Debug, Error)]
#[error("the program gave no answer: its map TRACE could not be written")]
struct NoAnswer;

/// The map `TRACE`, which holds the question and then the answer.
pub(super) struct Tracer(Array<MapData, Raw<abi::Trace>>);

impl Tracer {
    pub(super) fn new(map: Array<MapData, Raw<abi::Trace>>) -> Self {
        Self(map)
    }

    /// Returns what the program of one hook would do with this frame on this device, and the frame as it
    /// would leave.
    ///
    /// # Errors
    /// The program could not be run.
    pub(super) fn run(
        &mut self,
        ebpf: &mut Ebpf,
        hook: Hook,
        ifindex: u32,
        frame: &[u8],
    ) -> Result<(TraceAnswer, Vec<u8>), DataplaneError> {
        self.ask(ebpf, hook, ifindex, frame)
            .map_err(|cause| DataplaneError::new("run the program on", format!("interface {ifindex}"), cause))
    }

    fn ask(
        &mut self,
        ebpf: &mut Ebpf,
        hook: Hook,
        ifindex: u32,
        frame: &[u8],
    ) -> Result<(TraceAnswer, Vec<u8>), Cause> {
        // At tc a tag arrives beside the frame (`skb_vlan_untag`, kernel net/core/skbuff.c).
        let (octets, beside) = if hook == Hook::Tc { untag(frame) } else { (frame.to_vec(), None) };
        self.0.set(0, Raw(abi::Trace::ask(&TraceQuestion { ifindex, beside })), 0)?;
        let mut sent = vec![0; octets.len() + GROWTH];
        let options =
            TestRunOptions { data_in: Some(&octets), data_out: Some(&mut sent), ..TestRunOptions::new() };
        let result: TestRunResult = match hook {
            Hook::Xdp => xdp(ebpf, TRACE_XDP)?.test_run(options)?,
            Hook::Tc => tc(ebpf, TRACE_TC)?.test_run(options)?,
        };
        sent.truncate(result.data_size_out as usize);
        let answer = self.0.get(&0, 0)?.0.answer().ok_or(NoAnswer)?;
        if let Some(tag) = answer.beside
            && sent.len() >= ADDRESSES
        {
            drop(sent.splice(ADDRESSES..ADDRESSES, tag.to_bytes()));
        }
        Ok((answer, sent))
    }
}

/// Returns a frame without its outermost tag, and that tag.
fn untag(frame: &[u8]) -> (Vec<u8>, Option<Tag>) {
    let octets = frame.get(ADDRESSES..).and_then(<[u8]>::first_chunk::<4>);
    let tag = octets.and_then(|[t0, t1, c0, c1]| {
        let tpid = Tpid::from_ethertype(u16::from_be_bytes([*t0, *t1]))?;
        Some(Tag::from_wire(tpid, u16::from_be_bytes([*c0, *c1])))
    });
    match tag {
        Some(tag) => {
            let rest = &frame[ADDRESSES + tag.to_bytes().len()..];
            ([&frame[..ADDRESSES], rest].concat(), Some(tag))
        }
        None => (frame.to_vec(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_tag_leaves_a_frame_and_goes_back_where_it_was() {
        let addresses = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (tag, rest) in [
            (&[0x81, 0x00, 0xa0, 0x0a][..], &[0x08, 0x00, 1, 2][..]),
            (&[0x81, 0x00, 0xa0, 0x0a], &[0x81, 0x00, 0x00, 0x14, 0x08, 0x00]),
            (&[0x88, 0xa8, 0x00, 0x0a], &[]),
        ] {
            let (octets, beside) = untag(&[&addresses, tag, rest].concat());
            assert_eq!(octets, [&addresses, rest].concat());
            assert_eq!(beside.map(|tag| tag.to_bytes().to_vec()), Some(tag.to_vec()));
        }
    }

    #[test]
    fn a_frame_without_a_tag_or_too_short_for_one_is_left_as_it_is() {
        let addresses = [2; ADDRESSES];
        for rest in [&[0x08, 0x00, 1, 2][..], &[0x81, 0x00, 0xa0], &[]] {
            let frame = [&addresses, rest].concat();
            assert_eq!(untag(&frame), (frame.clone(), None));
        }
        assert_eq!(untag(&[1, 2, 3]), (vec![1, 2, 3], None));
    }
}
