//! XDP programs of a few instructions, put together by hand: no compiler is needed to test with them.

use aya::programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

use crate::Netns;
use crate::object::object;

/// Somebody else's XDP program: one that passes every frame. Attached to a device until dropped.
#[derive(Debug)]
pub struct PassProgram {
    _program: TinyProgram,
}

impl PassProgram {
    /// Attaches it to a device of the namespace.
    pub fn attach(netns: &Netns, device: &str) -> Self {
        let mut program = TinyProgram::pass();
        program.attach(netns, device);
        Self { _program: program }
    }
}

/// A loaded program; what it is attached to loses it when this is dropped.
#[derive(Debug)]
pub(crate) struct TinyProgram(Ebpf);

const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
/// Octets that [`TinyProgram::source`] writes.
pub(crate) const HEAD_LEN: usize = 20;

impl TinyProgram {
    /// Passes every frame.
    pub(crate) fn pass() -> Self {
        Self::load(&[[0xb7, 0, 0, 0, 2, 0, 0, 0], EXIT])
    }

    /// Drops every frame.
    pub(crate) fn drop_all() -> Self {
        Self::load(&[[0xb7, 0, 0, 0, 1, 0, 0, 0], EXIT])
    }

    /// Sends every frame out of a device, by its interface index: `bpf_redirect(ifindex, 0)`.
    pub(crate) fn redirect(ifindex: u32) -> Self {
        Self::load(&redirect_to(ifindex))
    }

    /// The same for live frames, with `head` as the start of each: the kernel uses their memory again and again, with
    /// all that was changed on the way (a tag, say).
    pub(crate) fn source(ifindex: u32, head: [u8; HEAD_LEN]) -> Self {
        let redirect = redirect_to(ifindex);
        let stores = HEAD_LEN as u8 / 4;
        // r2 = data; r3 = data_end; r4 = r2 + HEAD_LEN; if r4 > r3, skip the stores.
        let mut code = vec![[0x61, 0x12, 0, 0, 0, 0, 0, 0], [0x61, 0x13, 4, 0, 0, 0, 0, 0]];
        code.extend([[0xbf, 0x24, 0, 0, 0, 0, 0, 0], [0x07, 4, 0, 0, HEAD_LEN as u8, 0, 0, 0]]);
        code.push([0x2d, 0x34, stores, 0, 0, 0, 0, 0]);
        let words = head.chunks(4).zip((0..).step_by(4));
        code.extend(words.map(|(word, offset)| [0x62, 2, offset, 0, word[0], word[1], word[2], word[3]]));
        code.extend(redirect);
        Self::load(&code)
    }

    /// Puts it on a device of the namespace.
    pub(crate) fn attach(&mut self, netns: &Netns, device: &str) {
        netns
            .enter(|| self.xdp().attach(device, XdpMode::default()).map(|_link| ()))
            .unwrap_or_else(|e| panic!("attaching an XDP program to {device}: {e}"));
    }

    /// Has the kernel make `count` copies of a frame and run the program on each as if it had been received in the
    /// calling thread's network namespace (`BPF_PROG_TEST_RUN` with live frames, Linux 5.18).
    pub(crate) fn run_live(&mut self, frame: &[u8], count: u32) -> Result<(), ProgramError> {
        let attrs = TestRunAttrs::new().xdp_live_frames(0);
        let options = TestRunOptions { data_in: Some(frame), repeat: count, attrs, ..TestRunOptions::new() };
        self.xdp().test_run(options).map(|_result| ())
    }

    fn load(code: &[[u8; 8]]) -> Self {
        let mut program = Self(
            EbpfLoader::new()
                .btf(None)
                .load(&object("xdp", "main", &code.concat()))
                .expect("loading a program of a few instructions"),
        );
        program.xdp().load().expect("verifying a program of a few instructions");
        program
    }

    fn xdp(&mut self) -> &mut Xdp {
        self.0.program_mut("main").expect("by its name").try_into().expect("an XDP program")
    }
}

fn redirect_to(ifindex: u32) -> [[u8; 8]; 4] {
    let [a, b, c, d] = ifindex.to_le_bytes();
    [[0xb7, 1, 0, 0, a, b, c, d], [0xb7, 2, 0, 0, 0, 0, 0, 0], [0x85, 0, 0, 0, 23, 0, 0, 0], EXIT]
}
