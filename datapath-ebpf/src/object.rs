//! What the BPF object needs besides programs and maps.

use trunkline_core::abi;

/// Loops for ever, so that the verifier refuses a program in which a panic can be reached.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence, without which the kernel does not allow all helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The agent looks for this name (`abi::ABI_SYMBOL`) before anything is attached.
#[unsafe(no_mangle)]
static TRUNKLINE_ABI_9: aya_ebpf::Global<u32> = aya_ebpf::Global::new(abi::ABI_VERSION);
