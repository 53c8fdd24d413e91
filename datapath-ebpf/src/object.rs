//! What the BPF object needs besides programs and maps.

use trunkline_core::abi;

/// A panic that could be reached would be an endless loop, which the verifier refuses to load.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The licence under which the kernel lends its helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// The agent looks for this name (`abi::ABI_SYMBOL`) before anything is attached.
#[unsafe(no_mangle)]
static TRUNKLINE_ABI_9: aya_ebpf::Global<u32> = aya_ebpf::Global::new(abi::ABI_VERSION);
