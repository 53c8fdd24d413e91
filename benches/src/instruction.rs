//! BPF instructions (RFC 9669) as octets, as many as the programs of [`crate::baseline`] need.

/// One instruction: code, registers, offset and immediate (RFC 9669 section 3).
pub(crate) type Instruction = [u8; 8];

pub(crate) const R0: u8 = 0;
pub(crate) const R1: u8 = 1;
pub(crate) const R2: u8 = 2;
pub(crate) const R3: u8 = 3;
pub(crate) const R4: u8 = 4;
pub(crate) const R5: u8 = 5;
pub(crate) const R6: u8 = 6;
pub(crate) const R7: u8 = 7;
pub(crate) const R8: u8 = 8;
pub(crate) const R10: u8 = 10;
/// Fields of the context, `struct xdp_md` (Linux `include/uapi/linux/bpf.h`).
pub(crate) const DATA: i16 = 0;
pub(crate) const DATA_END: i16 = 4;
/// Helpers, from the same file.
pub(crate) const MAP_LOOKUP: i32 = 1;
pub(crate) const TAIL_CALL: i32 = 12;
pub(crate) const XDP_ADJUST_HEAD: i32 = 44;
pub(crate) const REDIRECT_MAP: i32 = 51;
pub(crate) const PSEUDO_MAP_FD: u8 = 1;
pub(crate) const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);

const fn instruction(code: u8, to: u8, from: u8, offset: i16, number: i32) -> Instruction {
    let ([a, b], [c, d, e, f]) = (offset.to_le_bytes(), number.to_le_bytes());
    [code, from << 4 | to, a, b, c, d, e, f]
}

pub(crate) const fn set(to: u8, number: i32) -> Instruction {
    instruction(0xb7, to, 0, 0, number)
}

pub(crate) const fn copy(to: u8, from: u8) -> Instruction {
    instruction(0xbf, to, from, 0, 0)
}

pub(crate) const fn add(to: u8, number: i32) -> Instruction {
    instruction(0x07, to, 0, 0, number)
}

pub(crate) const fn subtract(to: u8, from: u8) -> Instruction {
    instruction(0x1f, to, from, 0, 0)
}

pub(crate) const fn load_u32(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x61, to, from, offset, 0)
}

pub(crate) const fn load_u64(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x79, to, from, offset, 0)
}

pub(crate) const fn store_u64(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x7b, to, from, offset, 0)
}

pub(crate) const fn wide(to: u8, kind: u8, number: u64) -> [Instruction; 2] {
    [instruction(0x18, to, kind, 0, number as i32), instruction(0, 0, 0, 0, (number >> 32) as i32)]
}

pub(crate) const fn jump_if_greater(left: u8, right: u8, skipped: i16) -> Instruction {
    instruction(0x2d, left, right, skipped, 0)
}

pub(crate) const fn jump_unless_greater(left: u8, right: u8, skipped: i16) -> Instruction {
    instruction(0xbd, left, right, skipped, 0)
}

pub(crate) const fn jump_unless_equal(left: u8, right: u8, skipped: i16) -> Instruction {
    instruction(0x5d, left, right, skipped, 0)
}

pub(crate) const fn jump_unless_number(left: u8, number: i32, skipped: i16) -> Instruction {
    instruction(0x55, left, 0, skipped, number)
}

pub(crate) const fn call(helper: i32) -> Instruction {
    instruction(0x85, 0, 0, 0, helper)
}

pub(crate) const fn and(to: u8, number: i32) -> Instruction {
    instruction(0x57, to, 0, 0, number)
}

pub(crate) const fn load_u16(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x69, to, from, offset, 0)
}

/// Makes a number of 16 bits out of network order.
pub(crate) const fn from_be_16(to: u8) -> Instruction {
    instruction(0xdc, to, 0, 0, 16)
}

pub(crate) const fn store_u32(to: u8, from: u8, offset: i16) -> Instruction {
    instruction(0x63, to, from, offset, 0)
}
