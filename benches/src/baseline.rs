//! Small XDP programs to compare with and to measure by, written as instructions: the least that such a program can do.

use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{DevMap, Map as AnyMap, MapData, ProgramArray},
    programs::Xdp,
};
use aya_obj::Map;
use trunkline_tests::object;

use crate::frame::REWRITTEN;

const NAME: &str = "baseline";
const XDP_ABORTED: i32 = 0;
const XDP_DROP: i32 = 1;
const XDP_PASS: i32 = 2;

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
    pub fn redirect(to: &Device) -> Result<Self> {
        Self::load(&redirect_to(to))
    }

    /// A source of live frames: writes the start of each, which the kernel does not restore when it uses a frame's page
    /// again, and sends it to one device.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn source(frame: &[u8], to: &Device) -> Result<Self> {
        let send = redirect_to(to);
        Self::load(&[&write_start(frame, send.len())[..], &send, &[set(R0, XDP_ABORTED), EXIT]].concat())
    }

    /// The same, but continues with another program, to which the frames are as fresh from a driver.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn source_before(frame: &[u8], then: &Next) -> Result<Self> {
        let go_on = continue_with(R1, then);
        Self::load(&[&write_start(frame, go_on.len())[..], &go_on, &[set(R0, XDP_ABORTED), EXIT]].concat())
    }

    /// Drops the frames that start like this one and are as long, and passes others.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn expect(frame: &[u8]) -> Result<Self> {
        let length = i32::try_from(frame.len())?;
        let [[a, b], [c, d]] = start(frame).map(|word| wide(R5, 0, word));
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

    /// Makes of whatever an earlier run has left the frame's start and length again, then continues with the program
    /// in the table. In a repeated test run the program under test otherwise sees its own output.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn restore(frame: &[u8], then: &Next) -> Result<Self> {
        let length = i32::try_from(frame.len())?;
        let fit = [
            copy(R6, R1),
            load_u32(R2, R1, DATA_END),
            load_u32(R3, R1, DATA),
            subtract(R2, R3),
            add(R2, -length),
            call(XDP_ADJUST_HEAD),
            copy(R1, R6),
        ];
        let go_on = continue_with(R6, then);
        let write = write_start(frame, go_on.len());
        Self::load(&[&fit[..], &write, &go_on, &[set(R0, XDP_ABORTED), EXIT]].concat())
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

/// A device map with one device.
pub struct Device {
    _map: DevMap<MapData>,
    fd: RawFd,
}

impl Device {
    /// A device of the calling thread's network namespace.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(ifindex: u32) -> Result<Self> {
        const BPF_MAP_TYPE_DEVMAP: u32 = 14;
        let data = MapData::create(Map::new_from_params(BPF_MAP_TYPE_DEVMAP, 4, 8, 1, 0), "device", None)?;
        let fd = data.fd().as_fd().as_raw_fd();
        let mut map = DevMap::try_from(AnyMap::DevMap(data))?;
        map.set(0, ifindex, None, 0).context("entering a device to send to")?;
        Ok(Self { _map: map, fd })
    }
}

/// A table with the program that another one continues with. The kernel empties it when this is dropped.
pub struct Next {
    _map: ProgramArray<MapData>,
    fd: RawFd,
}

impl Next {
    /// Continues with `program`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(program: &Xdp) -> Result<Self> {
        const BPF_MAP_TYPE_PROG_ARRAY: u32 = 3;
        let data = MapData::create(Map::new_from_params(BPF_MAP_TYPE_PROG_ARRAY, 4, 4, 1, 0), "next", None)?;
        let fd = data.fd().as_fd().as_raw_fd();
        let mut map = ProgramArray::try_from(AnyMap::ProgramArray(data))?;
        map.set(0, program.fd()?, 0).context("entering the program to continue with")?;
        Ok(Self { _map: map, fd })
    }
}

/// `return bpf_redirect_map(map, 0, XDP_PASS)`
fn redirect_to(to: &Device) -> Vec<Instruction> {
    let [low, high] = wide(R1, PSEUDO_MAP_FD, to.fd as u64);
    vec![low, high, set(R2, 0), set(R3, XDP_PASS), call(REDIRECT_MAP), EXIT]
}

/// `bpf_tail_call(context, table, 0)`
fn continue_with(context: u8, then: &Next) -> Vec<Instruction> {
    let [low, high] = wide(R2, PSEUDO_MAP_FD, then.fd as u64);
    vec![copy(R1, context), low, high, set(R3, 0), call(TAIL_CALL)]
}

/// Writes the start of a frame, or skips so many instructions if it is shorter. Keeps the context in R1.
fn write_start(frame: &[u8], skipped: usize) -> Vec<Instruction> {
    let [[a, b], [c, d]] = start(frame).map(|word| wide(R4, 0, word));
    vec![
        load_u32(R2, R1, DATA),
        load_u32(R3, R1, DATA_END),
        copy(R4, R2),
        add(R4, REWRITTEN as i32),
        jump_if_greater(R4, R3, 6 + skipped as i16),
        a,
        b,
        store_u64(R2, R4, 0),
        c,
        d,
        store_u64(R2, R4, 8),
    ]
}

fn start(frame: &[u8]) -> [u64; 2] {
    let (words, _) = frame.as_chunks();
    [u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])]
}

/// One instruction: code, registers, offset and immediate (RFC 9669 section 3).
type Instruction = [u8; 8];

const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const R6: u8 = 6;
/// Fields of the context, `struct xdp_md` (Linux `include/uapi/linux/bpf.h`).
const DATA: i16 = 0;
const DATA_END: i16 = 4;
/// Helpers, from the same file.
const TAIL_CALL: i32 = 12;
const XDP_ADJUST_HEAD: i32 = 44;
const REDIRECT_MAP: i32 = 51;
const PSEUDO_MAP_FD: u8 = 1;
const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

const fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Instruction {
    let ([a, b], [c, d, e, f]) = (offset.to_le_bytes(), number.to_le_bytes());
    [code, from << 4 | to, a, b, c, d, e, f]
}

const fn set(to: u8, number: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, number)
}

const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

const fn add(to: u8, number: i32) -> Instruction {
    instruction(0x07, to, 0, 0, number)
}

const fn subtract(to: u8, from: u8) -> Instruction {
    instruction(0x1f, to, from, 0, 0)
}

const fn load_u32(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

const fn load_u64(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x79, to, from, offset, 0)
}

const fn store_u64(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x7b, to, from, offset, 0)
}

const fn wide(to: u8, kind: u8, number: u64) -> [Instruction; 2] {
    [instruction(0x18, to, kind, 0, number as i32), instruction(0, 0, 0, 0, (number >> 32) as i32)]
}

const fn jump_if_greater(left: u8, right: u8, skipped: i16) -> Instruction {
    instruction(0x2d, left, right, skipped, 0)
}

const fn jump_unless_equal(left: u8, right: u8, skipped: i16) -> Instruction {
    instruction(0x5d, left, right, skipped, 0)
}

const fn jump_unless_number(left: u8, number: i32, skipped: i16) -> Instruction {
    instruction(0x55, left, 0, skipped, number)
}

const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}
