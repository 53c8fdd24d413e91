//! A frame under tc: a socket buffer, whose tag the kernel mostly keeps beside its octets.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS},
    helpers::{bpf_redirect, bpf_skb_vlan_pop, bpf_skb_vlan_push},
    programs::TcContext,
};
use trunkline_core::{Frame, SHORTEST, Start, Tag, TagOp, Tpid};

use crate::xdp_frame::{TAG, load};

/// The frame of a running program.
pub(crate) struct SkbFrame<'c> {
    ctx: &'c TcContext,
    /// Whether there is a tag beside the octets.
    tagged: bool,
    /// That tag. Not an `Option`, for which the compiler would carry along parts that were never written.
    tag: Tag,
}

impl Frame for SkbFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize + if self.tagged { TAG } else { 0 }
    }

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() {
            return None;
        }
        // SAFETY: just checked to lie in the linear part, which does not move while `self` is borrowed.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn start(&self) -> Start {
        if !self.tagged {
            return self.window::<SHORTEST>(0).map_or(Start::NONE, load);
        }
        let Some(octets) = self.window::<{ SHORTEST - TAG }>(0) else { return Start::NONE };
        let start = octets.as_ptr();
        // SAFETY: all of this is within the octets, and may be misaligned.
        unsafe {
            let (first, second) =
                (start.cast::<u64>().read_unaligned(), start.add(8).cast::<u32>().read_unaligned());
            Start::with_tag(first, second, start.add(12).cast::<u16>().read_unaligned(), self.tag)
        }
    }

    /// Compares as Open vSwitch does (`ovs_vport_send`, kernel net/openvswitch/vport.c): a super-frame fits,
    /// whatever the size of its segments.
    #[inline(always)]
    fn fits(&self, longest: usize) -> bool {
        self.raw().gso_size != 0 || self.len() <= longest
    }
}

impl<'c> SkbFrame<'c> {
    pub(crate) fn new(ctx: &'c TcContext) -> Self {
        let (linear, len) = (ctx.data_end() - ctx.data(), ctx.len());
        if linear < SHORTEST && (linear as u32) < len {
            // If memory is short this fails, the header cannot be read, and the frame goes to Open vSwitch.
            let _ = ctx.pull_data(len.min(SHORTEST as u32));
        }
        let mut frame = Self { ctx, tagged: false, tag: Tag::from_wire(Tpid::Dot1Q, 0) };
        frame.look_beside();
        frame
    }

    /// Returns the interface index of the device that the frame arrived on or, if the host sends it, leaves
    /// through.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.raw().ifindex
    }

    /// Returns the tag that the kernel keeps beside the octets.
    #[inline(always)]
    pub(crate) fn beside(&self) -> Option<Tag> {
        if self.tagged { Some(self.tag) } else { None }
    }

    #[inline(always)]
    fn look_beside(&mut self) {
        let raw = self.raw();
        let (tagged, tci) = (raw.vlan_present != 0, raw.vlan_tci as u16);
        // The kernel keeps no other types beside a frame (`eth_type_vlan`).
        let service = raw.vlan_proto as u16 == Tpid::Dot1Ad.ethertype().to_be();
        self.tagged = tagged;
        self.tag = Tag::from_wire(if service { Tpid::Dot1Ad } else { Tpid::Dot1Q }, tci);
    }

    #[inline(always)]
    fn raw(&self) -> &__sk_buff {
        // SAFETY: the context of the running program; each field is read through the verifier.
        unsafe { &*self.ctx.skb.skb }
    }

    /// Edits the tag. On an error the frame is unchanged, except that [`TagOp::Replace`] may have removed the
    /// tag.
    #[inline(always)]
    pub(crate) fn apply(&mut self, op: TagOp) -> Result<(), ()> {
        match op {
            TagOp::Keep => Ok(()),
            TagOp::Push(tag) => self.push(tag),
            TagOp::Pop => self.pop(),
            TagOp::Replace(tag) => {
                self.pop()?;
                self.push(tag)
            }
        }
    }

    /// Sends the frame through a device or, if `received`, has it arrive there. If the device is gone the
    /// frame is lost, as it would be from Open vSwitch.
    #[inline(always)]
    pub(crate) fn send(&self, ifindex: u32, received: bool) -> i32 {
        let flags = if received { u64::from(BPF_F_INGRESS) } else { 0 };
        // SAFETY: the helper takes numbers, and acts when the program has ended.
        unsafe { bpf_redirect(ifindex, flags) as i32 }
    }

    /// Puts a tag beside a frame that has none.
    #[inline(always)]
    pub(crate) fn push(&mut self, tag: Tag) -> Result<(), ()> {
        let [t0, t1, c0, c1] = tag.to_bytes();
        let (tpid, tci) = (u16::from_ne_bytes([t0, t1]), u16::from_be_bytes([c0, c1]));
        // SAFETY: the context is the running program's own; windows are taken anew afterwards.
        let failed = unsafe { bpf_skb_vlan_push(self.ctx.skb.skb, tpid, tci) };
        self.edited(failed)
    }

    #[inline(always)]
    fn pop(&mut self) -> Result<(), ()> {
        // SAFETY: as above.
        let failed = unsafe { bpf_skb_vlan_pop(self.ctx.skb.skb) };
        self.edited(failed)
    }

    #[inline(always)]
    fn edited(&mut self, failed: i64) -> Result<(), ()> {
        self.look_beside();
        if failed == 0 { Ok(()) } else { Err(()) }
    }
}
