//! A frame under XDP: bounds-checked windows, and the edits of its tag.

use aya_ebpf::{EbpfContext as _, helpers::bpf_xdp_adjust_head, programs::XdpContext};
use trunkline_core::{Frame, HEADER_LEN, Start, Tag, TagOp};

const ADDRESSES: usize = 12;
const TAG: i32 = 4;

/// The frame of a running program.
pub(crate) struct XdpFrame<'c> {
    ctx: &'c XdpContext,
}

impl Frame for XdpFrame<'_> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.data_end() - self.ctx.data()
    }

    #[inline(always)]
    fn window<const N: usize>(&self, offset: usize) -> Option<&[u8; N]> {
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() {
            return None;
        }
        // SAFETY: just checked to lie in the frame, which does not move while `self` is borrowed.
        Some(unsafe { &*(start as *const [u8; N]) })
    }

    #[inline(always)]
    fn start(&self) -> Start {
        self.window::<HEADER_LEN>(0).map_or(Start::NONE, load)
    }
}

/// Reads word by word: put together from octets, the compiler would take them apart again.
#[inline(always)]
pub(crate) fn load(octets: &[u8; HEADER_LEN]) -> Start {
    let start = octets.as_ptr();
    // SAFETY: all of this is within the octets, and may be misaligned.
    unsafe {
        let words = [start.cast::<u64>().read_unaligned(), start.add(8).cast::<u64>().read_unaligned()];
        Start::new(words, start.add(16).cast::<u16>().read_unaligned())
    }
}

impl<'c> XdpFrame<'c> {
    pub(crate) fn new(ctx: &'c XdpContext) -> Self {
        Self { ctx }
    }

    /// The device that the frame arrived on.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    /// Edits the tag. An error leaves the frame as it was.
    #[inline(always)]
    pub(crate) fn apply(&mut self, op: TagOp) -> Result<(), ()> {
        match op {
            TagOp::Keep => Ok(()),
            TagOp::Push(tag) => {
                let addresses = self.addresses()?;
                self.adjust_head(-TAG)?;
                self.write_addresses(addresses)?;
                self.write_tag(tag)
            }
            TagOp::Pop => {
                let addresses = self.addresses()?;
                self.adjust_head(TAG)?;
                self.write_addresses(addresses)
            }
            TagOp::Replace(tag) => self.write_tag(tag),
        }
    }

    #[inline(always)]
    fn addresses(&self) -> Result<[u8; ADDRESSES], ()> {
        self.window(0).copied().ok_or(())
    }

    #[inline(always)]
    fn write_addresses(&mut self, addresses: [u8; ADDRESSES]) -> Result<(), ()> {
        *self.window_mut(0)? = addresses;
        Ok(())
    }

    #[inline(always)]
    fn write_tag(&mut self, tag: Tag) -> Result<(), ()> {
        *self.window_mut(ADDRESSES)? = tag.to_bytes();
        Ok(())
    }

    #[inline(always)]
    fn window_mut<const N: usize>(&mut self, offset: usize) -> Result<&mut [u8; N], ()> {
        let start = self.ctx.data() + offset;
        if start + N > self.ctx.data_end() {
            return Err(());
        }
        // SAFETY: just checked to lie in the frame, and `&mut self` makes it the only window.
        Ok(unsafe { &mut *(start as *mut [u8; N]) })
    }

    /// Moves the start of the frame; what was known of its bounds is void afterwards.
    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> Result<(), ()> {
        // SAFETY: the context is the running program's own.
        let failed = unsafe { bpf_xdp_adjust_head(self.ctx.as_ptr().cast(), delta) };
        if failed == 0 { Ok(()) } else { Err(()) }
    }
}
