//! A frame under XDP: bounds-checked windows, and the edits of its tag.

use aya_ebpf::{EbpfContext as _, helpers::bpf_xdp_adjust_head, programs::XdpContext};
use trunkline_core::{Frame, HEADER_LEN, PLAIN_LEN, SHORTEST, Start, TagOp};

const ADDRESSES: usize = 12;
/// Octets of a tag.
pub(crate) const TAG: usize = HEADER_LEN - PLAIN_LEN;

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
    fn words(&self, offset: usize) -> Option<[u64; 4]> {
        let start = self.window::<28>(offset)?.as_ptr();
        // SAFETY: all of this is within the window, and may be misaligned.
        Some(unsafe { [0, 4, 12, 20].map(|octet| start.add(octet).cast::<u64>().read_unaligned()) })
    }

    #[inline(always)]
    fn start(&self) -> Start {
        self.window::<SHORTEST>(0).map_or(Start::NONE, load)
    }
}

/// Reads the start word by word. From octets, the compiler would assemble words that it takes apart again.
#[inline(always)]
pub(crate) fn load(octets: &[u8; SHORTEST]) -> Start {
    let start = octets.as_ptr();
    // SAFETY: all of this is within the octets, and may be misaligned.
    unsafe {
        let words = [start.cast::<u64>().read_unaligned(), start.add(8).cast::<u64>().read_unaligned()];
        Start::new(words, start.add(16).cast::<u16>().read_unaligned())
    }
}

/// Both addresses in two words, for the same reason.
#[derive(Clone, Copy)]
struct Addresses {
    first: u64,
    last: u32,
}

impl Addresses {
    #[inline(always)]
    fn read(octets: &[u8; ADDRESSES]) -> Self {
        let start = octets.as_ptr();
        // SAFETY: all of this is within the octets, and may be misaligned.
        unsafe {
            Self {
                first: start.cast::<u64>().read_unaligned(),
                last: start.add(8).cast::<u32>().read_unaligned(),
            }
        }
    }

    #[inline(always)]
    fn write(self, octets: &mut [u8; ADDRESSES]) {
        let start = octets.as_mut_ptr();
        // SAFETY: as above.
        unsafe { start.cast::<u64>().write_unaligned(self.first) };
        // SAFETY: as above.
        unsafe { start.add(8).cast::<u32>().write_unaligned(self.last) };
    }
}

impl<'c> XdpFrame<'c> {
    pub(crate) fn new(ctx: &'c XdpContext) -> Self {
        Self { ctx }
    }

    /// Returns the interface index of the device that the frame arrived on.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    /// Edits the tag. On an error the frame is unchanged.
    #[inline(always)]
    pub(crate) fn apply(&mut self, op: TagOp) -> Result<(), ()> {
        match op {
            TagOp::Keep => Ok(()),
            TagOp::Push(tag) => {
                let addresses = Addresses::read(self.window(0).ok_or(())?);
                self.adjust_head(-(TAG as i32))?;
                let header = self.window_mut::<{ ADDRESSES + TAG }>(0)?;
                let (start, rest) = header.split_first_chunk_mut().ok_or(())?;
                addresses.write(start);
                rest.copy_from_slice(&tag.to_bytes());
                Ok(())
            }
            TagOp::Pop => {
                let addresses = Addresses::read(self.window(0).ok_or(())?);
                self.adjust_head(TAG as i32)?;
                addresses.write(self.window_mut(0)?);
                Ok(())
            }
            TagOp::Replace(tag) => {
                *self.window_mut(ADDRESSES)? = tag.to_bytes();
                Ok(())
            }
        }
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

    /// Moves the start of the frame. Afterwards nothing is known of its bounds, and every window has to be
    /// taken again.
    #[inline(always)]
    fn adjust_head(&mut self, delta: i32) -> Result<(), ()> {
        // SAFETY: the context is the running program's own.
        let failed = unsafe { bpf_xdp_adjust_head(self.ctx.as_ptr().cast(), delta) };
        if failed == 0 { Ok(()) } else { Err(()) }
    }
}
