//! BPF objects put together by hand: no compiler is needed to test with them.

/// An ELF object with one program of `code` in a section of this name.
pub fn object(section: &str, program: &str, code: &[u8]) -> Vec<u8> {
    let names = format!("\0license\0.symtab\0.strtab\0{section}\0{program}\0");
    let (license, symtab, strtab, own) = (1, 9, 17, 25);
    let symbol = own + section.len() as u32 + 1;
    // The null symbol, then the program: a global function, the whole of section 1.
    let mut symbols = vec![0; 24];
    symbols.extend(u32_le(symbol));
    symbols.extend([0x12, 0, 1, 0]);
    symbols.extend([u64_le(0), u64_le(code.len() as u64)].concat());

    let header_len = 64_u64;
    let parts: [&[u8]; 4] = [code, b"GPL\0", &symbols, names.as_bytes()];
    let mut offset = header_len;
    let offsets = parts.map(|part| {
        let start = offset;
        offset += part.len() as u64;
        start
    });
    // Name, type, flags, link, info, alignment, entry size; elf(5) for the numbers.
    let sections = [
        (own, 1_u32, 6_u64, 0, 0, 8_u64, 0_u64),
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
