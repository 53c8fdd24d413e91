//! ELF objects of XDP programs put together by hand: no compiler is needed to test and measure with them.

/// An object with one XDP program, `name`, of these instructions.
pub fn xdp_object(name: &str, code: &[u8]) -> Vec<u8> {
    let names = [b"\0xdp\0license\0.symtab\0.strtab\0", name.as_bytes(), &[0]].concat();
    let (xdp, license, symtab, strtab, program) = (1, 5, 13, 21, 29);
    // The null symbol, then the program: a global function, the whole of section 1.
    let mut symbols = vec![0; 24];
    symbols.extend(u32_le(program));
    symbols.extend([0x12, 0, 1, 0]);
    symbols.extend([u64_le(0), u64_le(code.len() as u64)].concat());

    let header_len = 64_u64;
    let parts: [&[u8]; 4] = [code, b"GPL\0", &symbols, &names];
    let mut offset = header_len;
    let offsets = parts.map(|part| {
        let start = offset;
        offset += part.len() as u64;
        start
    });
    // Name, type, flags, link, info, alignment, entry size; elf(5) for the numbers.
    let sections = [
        (xdp, 1_u32, 6_u64, 0, 0, 8_u64, 0_u64),
        (license, 1, 2, 0, 0, 1, 0),
        (symtab, 2, 0, 4, 1, 8, 24),
        (strtab, 3, 0, 0, 0, 1, 0),
    ];
    let mut elf = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    elf.extend([1, 0, 247, 0, 1, 0, 0, 0]);
    elf.extend([u64_le(0), u64_le(0), u64_le(offset)].concat());
    elf.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 5, 0, 4, 0]);
    elf.extend(parts.concat());
    elf.extend([0; 64]);
    for ((name, kind, flags, link, info, align, entry), (part, start)) in
        sections.into_iter().zip(parts.iter().zip(offsets))
    {
        elf.extend([u32_le(name), u32_le(kind)].concat());
        elf.extend([u64_le(flags), u64_le(0), u64_le(start), u64_le(part.len() as u64)].concat());
        elf.extend([u32_le(link), u32_le(info)].concat());
        elf.extend([u64_le(align), u64_le(entry)].concat());
    }
    elf
}

fn u32_le(number: u32) -> [u8; 4] {
    number.to_le_bytes()
}

fn u64_le(number: u64) -> [u8; 8] {
    number.to_le_bytes()
}
