//! Small XDP programs to compare with and to measure by, written as instructions: the least that such a program can do.

use anyhow::{Context as _, Result};
use aya::{Ebpf, EbpfLoader, programs::Xdp};
use trunkline_tests::object;

use crate::frame::REWRITTEN;
use crate::instruction::*;
use crate::tables::{Devices, Headers, Next};

const NAME: &str = "baseline";
const XDP_ABORTED: i32 = 0;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;

/// What the start of each frame is made to be.
#[derive(Clone, Copy)]
pub enum Start<'s> {
    /// That of this frame.
    Of(&'s [u8]),
    /// One header after the other.
    Next(&'s Headers),
}

/// A loaded program.
#[derive(Debug)]
pub struct Baseline(Ebpf);

impl Baseline {
    /// The empty program.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn pass() -> Result<Self> {
        Self::load(&[set(R0, XDP_PASS), EXIT])
    }

    /// Ends every frame's way.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn drop_all() -> Result<Self> {
        Self::load(&[set(R0, XDP_DROP), EXIT])
    }

    /// Sends every frame to one device: the least that any program which forwards has to do.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn redirect(to: &Devices) -> Result<Self> {
        Self::load(&redirect_to(R1, to))
    }

    /// Sends every frame to the device whose place is the last two octets of its destination address: the least, where
    /// frames go to many devices.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn spread(to: &Devices) -> Result<Self> {
        let [low, high] = wide(R1, PSEUDO_MAP_FD, to.fd as u64);
        Self::load(&[
            load_u32(R2, R1, DATA),
            load_u32(R3, R1, DATA_END),
            copy(R4, R2),
            add(R4, 14),
            jump_if_greater(R4, R3, 7),
            load_u16(R2, R2, 4),
            from_be_16(R2),
            low,
            high,
            set(R3, XDP_PASS),
            call(REDIRECT_MAP),
            EXIT,
            set(R0, XDP_ABORTED),
            EXIT,
        ])
    }

    /// A source of live frames: writes the start of each, which the kernel does not restore when it uses a frame's page
    /// again, and sends it to one device.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn source(start: Start<'_>, to: &Devices) -> Result<Self> {
        Self::load(&[&[copy(R6, R1)], &write(start)[..], &redirect_to(R6, to)].concat())
    }

    /// The same, but continues with another program, to which the frames are as fresh from a driver.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn source_before(start: Start<'_>, then: &Next) -> Result<Self> {
        Self::load(&[&[copy(R6, R1)], &write(start)[..], &continue_with(then)].concat())
    }

    /// Drops the frames that start like this one and are as long, and passes others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn expect(frame: &[u8]) -> Result<Self> {
        let length = i32::try_from(frame.len())?;
        let [[a, b], [c, d]] = words(frame).map(|word| wide(R5, 0, word));
        // The offsets of the jumps lead to the last two instructions.
        Self::load(&[
            load_u32(R2, R1, DATA),
            load_u32(R3, R1, DATA_END),
            copy(R4, R3),
            subtract(R4, R2),
            jump_unless_number(R4, length, 13),
            copy(R4, R2),
            add(R4, REWRITTEN as i32),
            jump_if_greater(R4, R3, 10),
            a,
            b,
            load_u64(R4, R2, 0),
            jump_unless_equal(R4, R5, 6),
            c,
            d,
            load_u64(R4, R2, 8),
            jump_unless_equal(R4, R5, 2),
            set(R0, XDP_DROP),
            EXIT,
            set(R0, XDP_PASS),
            EXIT,
        ])
    }

    /// Makes of whatever an earlier run has left a frame of this length with this start, then continues with the program
    /// in the table. In a repeated test run the program under test otherwise sees its own output.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn restore(length: usize, start: Start<'_>, then: &Next) -> Result<Self> {
        let length = i32::try_from(length)?;
        let fit = [
            copy(R6, R1),
            load_u32(R2, R1, DATA_END),
            load_u32(R3, R1, DATA),
            subtract(R2, R3),
            add(R2, -length),
            call(XDP_ADJUST_HEAD),
        ];
        Self::load(&[&fit[..], &write(start), &continue_with(then)].concat())
    }

    fn load(code: &[Instruction]) -> Result<Self> {
        let object = object("xdp", NAME, &code.concat());
        let mut ebpf = EbpfLoader::new().btf(None).load(&object).context("loading a baseline program")?;
        xdp(&mut ebpf)?.load().context("verifying a baseline program")?;
        Ok(Self(ebpf))
    }

    /// To attach or run it.
    ///
    /// # Errors
    /// Never.
    pub fn xdp(&mut self) -> Result<&mut Xdp> {
        xdp(&mut self.0)
    }
}

fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    Ok(ebpf.program_mut(NAME).context("no program in the object")?.try_into()?)
}

/// `return bpf_redirect_map(map, 0, XDP_PASS)`
fn redirect_to(context: u8, to: &Devices) -> Vec<Instruction> {
    let [low, high] = wide(R1, PSEUDO_MAP_FD, to.fd as u64);
    vec![copy(R1, context), low, high, set(R2, 0), set(R3, XDP_PASS), call(REDIRECT_MAP), EXIT]
}

/// `bpf_tail_call(R6, table, 0)`, and an end if that fails.
fn continue_with(then: &Next) -> Vec<Instruction> {
    let [low, high] = wide(R2, PSEUDO_MAP_FD, then.fd as u64);
    vec![copy(R1, R6), low, high, set(R3, 0), call(TAIL_CALL), set(R0, XDP_ABORTED), EXIT]
}

/// Writes the start of the frame whose context is in R6. Too short a frame ends here.
fn write(start: Start<'_>) -> Vec<Instruction> {
    let mut code = match start {
        Start::Of(frame) => {
            words(frame).into_iter().zip([R7, R8]).flat_map(|(word, to)| wide(to, 0, word)).collect()
        }
        Start::Next(headers) => next_header(headers),
    };
    code.extend([
        load_u32(R2, R6, DATA),
        load_u32(R3, R6, DATA_END),
        copy(R4, R2),
        add(R4, REWRITTEN as i32),
        jump_unless_greater(R4, R3, 2),
        set(R0, XDP_ABORTED),
        EXIT,
        store_u64(R2, R7, 0),
        store_u64(R2, R8, 8),
    ]);
    code
}

/// The next header into R7 and R8.
fn next_header(headers: &Headers) -> Vec<Instruction> {
    // The number of the entry is on the stack.
    let look_up = |map: i32| {
        let [low, high] = wide(R1, PSEUDO_MAP_FD, map as u64);
        [
            store_u32(R10, R7, -4),
            low,
            high,
            copy(R2, R10),
            add(R2, -4),
            call(MAP_LOOKUP),
            jump_unless_number(R0, 0, 2),
            set(R0, XDP_ABORTED),
            EXIT,
        ]
    };
    let mut code = vec![set(R7, 0)];
    code.extend(look_up(headers.cursor_fd));
    code.extend([
        load_u64(R7, R0, 0),
        copy(R8, R7),
        add(R8, 1),
        store_u64(R0, R8, 0),
        and(R7, headers.count - 1),
    ]);
    code.extend(look_up(headers.headers_fd));
    code.extend([load_u64(R7, R0, 0), load_u64(R8, R0, 8)]);
    code
}

fn words(frame: &[u8]) -> [u64; 2] {
    let (words, _) = frame.as_chunks();
    [u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])]
}
